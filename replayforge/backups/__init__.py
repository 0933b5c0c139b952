"""Backups: log and store copied together while the daemon runs, verified, and brought back."""
