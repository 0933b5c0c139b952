"""Chaos: a daemon that is injured in every way while it works, with the servers it relies on, and the proof of it."""
