"""The command line: a client of the daemon's HTTP, and the command that runs one."""
