"""Free ports, as chaos takes them."""

from replayforge.chaos.ports import free_port as free_port
