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
from dataclasses import dataclass, field

LOOK_SECONDS = 0.005
Places = tuple[tuple[str, int, str], ...]


@dataclass
class Turns:
    """`longest_seconds` is the most processor time that one turn of the loop took, `stack` where it stood.

    What sleeps or waits for a disk is not seen here.
    """

    longest_seconds: float = 0.0
    places: list[Places] = field(default_factory=list)
    count: int = 0
    turned_at: float = 0.0
    seen: list[Places] = field(default_factory=list)
    handle: asyncio.Handle | None = None

    def turn(self) -> None:
        """Measure one turn, and ask for the next one."""
        now = time.thread_time()
        if now - self.turned_at > self.longest_seconds and self.count:
            # The last thing that was seen may be what came after the computation.
            self.longest_seconds, self.places = now - self.turned_at, self.seen[len(self.seen) // 2 :][:1]
        self.count, self.turned_at, self.seen = self.count + 1, now, []
        self.handle = asyncio.get_running_loop().call_soon(self.turn)

    def watch(self, thread_id: int, ended: threading.Event) -> None:
        """On a thread: see where the loop stands once a turn takes long."""
        clock = time.pthread_getcpuclockid(thread_id)
        while not ended.wait(LOOK_SECONDS):
            if time.clock_gettime(clock) - self.turned_at > max(self.longest_seconds, LOOK_SECONDS):
                # Nothing that reads a file, such as the source: meanwhile the turn would end.
                frames = traceback.walk_stack(sys._current_frames()[thread_id])
                self.seen.append(tuple((one.f_code.co_filename, line, one.f_code.co_name) for one, line in frames))

    @property
    def stack(self) -> str:
        """Where the loop stood in its longest turn, the innermost function last."""
        frames = [traceback.FrameSummary(*one) for places in self.places for one in reversed(places)]
        return "".join(traceback.StackSummary.from_list(frames).format())

    def assert_shorter_than(self, seconds: float) -> None:
        """Fail with the stack when a turn took longer."""
        assert self.count > 1, "the loop never turned"
        assert self.longest_seconds < seconds, f"one turn took {self.longest_seconds:.3f} s\n{self.stack[-4000:]}"


@asynccontextmanager
async def turns_measured() -> AsyncIterator[Turns]:
    """Measure every turn of the running loop, which never sleeps meanwhile; old garbage is not collected."""
    turns, ended = Turns(), threading.Event()
    watching = threading.Thread(target=turns.watch, args=(threading.get_ident(), ended))
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
