"""Tells long handlers that the daemon drains, so that they can come to an end by themselves."""

import asyncio
import threading
from weakref import WeakSet


class Stopping:
    """Whether the daemon drains. Each attempt that asks gets an event of its own, which no other can set."""

    def __init__(self) -> None:
        self.begun = False
        self.lock = threading.Lock()
        self.events: WeakSet[asyncio.Event | threading.Event] = WeakSet()

    def event(self, *, is_async: bool) -> asyncio.Event | threading.Event:
        """Return what is set once the daemon drains; plain functions, in their threads, get one of threads."""
        made = asyncio.Event() if is_async else threading.Event()
        with self.lock:
            self.events.add(made)
            if self.begun:
                made.set()
        return made

    def begin(self) -> None:
        """Tell everybody who has asked, and who asks from now on; called on the daemon's loop."""
        with self.lock:
            self.begun = True
            for event in self.events:
                event.set()
