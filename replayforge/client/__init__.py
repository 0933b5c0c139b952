"""Whoever talks to a daemon, or shows what it said: the commands and the demo stand on this."""
