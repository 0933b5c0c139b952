"""Tells the service manager how the daemon stands (sd_notify), where one asks for it; else does nothing."""

import os
import socket
from asyncio import get_running_loop
from collections.abc import MutableMapping

BEATS_PER_TIMEOUT = 2
VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")


class ServiceManager:
    """The other end of NOTIFY_SOCKET. It takes that and WATCHDOG_USEC out of the environment, so no child has them.

    While the event loop turns it is told so at half of the time in which it wants to hear it. What it does not take is
    let go: a manager that is away is no reason to stop.
    """

    def __init__(self, environment: MutableMapping[str, str]) -> None:
        address, patience, pid = (environment.pop(name, "") for name in VARIABLES)
        self.address = f"\0{address[1:]}" if address.startswith("@") else address
        self.beat_seconds = 0.0
        if patience.isdecimal() and pid in ("", str(os.getpid())):
            self.beat_seconds = int(patience) / 1_000_000 / BEATS_PER_TIMEOUT
        self.socket = None
        if self.address:
            self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)

    def ready(self, status: str) -> None:
        """Say that the daemon serves, and begin to say that its loop turns."""
        self.tell(f"READY=1\nSTATUS={status}")
        if self.socket is not None and self.beat_seconds:
            self.beat()

    def beat(self) -> None:
        """Say that the loop turns, and do so again in time."""
        self.tell("WATCHDOG=1")
        get_running_loop().call_later(self.beat_seconds, self.beat)

    def stopping(self) -> None:
        """Say that the daemon ends; its loop is watched to the last."""
        self.tell("STOPPING=1\nSTATUS=Stopping: handlers that run may finish.")

    def tell(self, message: str) -> None:
        """Send one message, at once or not at all."""
        if self.socket is not None:
            try:
                self.socket.sendto(message.encode(), self.address)
            except OSError:
                return
