"""What the daemon tells of itself; it only looks."""
