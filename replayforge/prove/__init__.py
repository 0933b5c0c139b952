"""Every crash point for every handler of a file: real daemons die, and what happened twice is counted outside."""
