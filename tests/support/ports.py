"""Free ports, as the demo and chaos take them."""

from replayforge.demo.ports import free_port as free_port
