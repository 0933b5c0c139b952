"""How long the event loop computes between two of its turns, in processor time, which no other load on the machine adds
to; and where it stood when that took longest."""

import asyncio
import gc
import sys
import threading
import time
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

LOOK_SECONDS = 0.005


@dataclass
class Turns:
    """`longest_seconds` is the most processor time that one turn of the loop took, `stack` where it stood.

    What sleeps or waits for a disk is not seen here.
    """

    longest_seconds: float = 0.0
    stack: str = ""
    count: int = 0
    turned_at: float = 0.0
    seen: str = ""
    handle: asyncio.Handle | None = None

    def turn(self) -> None:
        """Measure one turn, and ask for the next one."""
        now = time.thread_time()
        if now - self.turned_at > self.longest_seconds and self.count:
            self.longest_seconds, self.stack = now - self.turned_at, self.seen
        self.count, self.turned_at, self.seen = self.count + 1, now, ""
        self.handle = asyncio.get_running_loop().call_soon(self.turn)

    def watch(self, thread_id: int, ended: threading.Event) -> None:
        """On a thread: see where the loop stands once a turn takes long."""
        clock = time.pthread_getcpuclockid(thread_id)
        while not ended.wait(LOOK_SECONDS):
            if time.clock_gettime(clock) - self.turned_at > max(self.longest_seconds, LOOK_SECONDS):
                self.seen = "".join(traceback.format_stack(sys._current_frames()[thread_id]))

    def assert_shorter_than(self, seconds: float) -> None:
        """Fail with the stack when a turn took longer."""
        assert self.count > 1, "the loop never turned"
        assert self.longest_seconds < seconds, f"one turn took {self.longest_seconds:.3f} s\n{self.stack[-4000:]}"


@asynccontextmanager
async def turns_measured() -> AsyncIterator[Turns]:
    """Measure every turn of the running loop, which never sleeps meanwhile; old garbage is not collected."""
    turns, ended = Turns(), threading.Event()
    watching = threading.Thread(target=turns.watch, args=(threading.get_ident(), ended))
    gc.collect()
    gc.freeze()
    turns.turn()
    watching.start()
    try:
        yield turns
        await asyncio.sleep(0)  # the turn that is under way counts, too
        await asyncio.sleep(0)
    finally:
        if turns.handle is not None:
            turns.handle.cancel()
        ended.set()
        watching.join()
        gc.unfreeze()
