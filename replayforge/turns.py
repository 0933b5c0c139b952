"""Keeps the event loop turning while requests are computed: large pieces in threads, small ones in short stretches."""

from asyncio import get_running_loop, sleep
from collections.abc import Callable
from time import perf_counter
from typing import TypeVar

from replayforge.threads import DaemonThreads

T = TypeVar("T")

# What takes longest takes a few milliseconds for so many bytes.
INLINE_BYTES_MAX = 16 << 10
TURN_SECONDS = 0.005
# Only one thread computes at a time, whatever their number. They are no others than these, so that large requests hold
# up neither the log and the store nor a handler.
computing = DaemonThreads(2, "computing")


async def computed(function: Callable[..., T], *args: object, size: int) -> T:
    """Return what a function makes of so many bytes; it must touch nothing that others change."""
    if size <= INLINE_BYTES_MAX:
        return function(*args)
    return await get_running_loop().run_in_executor(computing, function, *args)


class Turns:
    """Lets others have the loop after every few milliseconds of work in many small steps."""

    def __init__(self) -> None:
        self.began = perf_counter()

    def is_over(self) -> bool:
        """Tell whether it is the turn of others; apart from `pass_on`, since many small steps ask and few wait."""
        return perf_counter() - self.began > TURN_SECONDS

    async def pass_on(self) -> None:
        """Give the loop a turn."""
        await sleep(0)
        self.began = perf_counter()
