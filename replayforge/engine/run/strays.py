"""What user code has left running after its attempt was settled: counted, named, and let go when it ends."""

import asyncio
import contextlib
from asyncio import get_running_loop
from collections import Counter
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from replayforge.domain.clock import Clock
from replayforge.engine.dispatch.claim_buffer import ClaimBuffer
from replayforge.engine.dispatch.handler_limits import HandlerLimits
from replayforge.engine.run.attempt import RunningAttempt
from replayforge.telemetry import Telemetry
from replayforge.threads import DaemonThreads


@dataclass(eq=False, slots=True)
class Stray:
    """An attempt that was settled while something of it ran on; `running` is what does, as "task" or "thread"."""

    handler: str
    event_id: str
    since: float
    running: "dict[Any, str]" = field(default_factory=dict)


class Strays:
    """All attempts that time-outs and lost leases have cut short and whose code goes on all the same.

    Nothing waits for them: their outcomes stand, their workers go on. Each keeps a place of its handler, and a handler
    with too many of them is given no more events until one has ended.
    """

    def __init__(
        self,
        buffer: ClaimBuffer,
        handler_limits: HandlerLimits,
        threads: DaemonThreads,
        clock: Clock,
        telemetry: Telemetry,
    ) -> None:
        self.buffer = buffer
        self.handler_limits = handler_limits
        self.threads = threads
        self.clock = clock
        self.telemetry = telemetry
        self.left: set[Stray] = set()

    def take(self, attempt: RunningAttempt) -> None:
        """Note what an attempt that was cut short has left running."""
        running: dict[Any, str] = dict.fromkeys(self.threads.unfinished(attempt.identity), "thread")
        if attempt.task is not None and not attempt.task.done():
            running[attempt.task] = "task"
        if attempt.thread is not None and not attempt.thread.done():
            running[attempt.thread] = "thread"
        if running:
            self.begin(Stray(attempt.handler.identity, attempt.event.id, self.clock.monotonic(), running))

    def begin(self, stray: Stray) -> None:
        """Count an attempt that runs on, and see to it that its end is heard of."""
        self.left.add(stray)
        self.buffer.note_stuck(1)
        self.handler_limits.linger(stray.handler, 1)
        kinds = in_words(Counter(stray.running.values()))
        self.telemetry.emit("attempt.abandoned", event_id=stray.event_id, handler=stray.handler, running=kinds)
        loop = get_running_loop()
        for one in list(stray.running):
            if isinstance(one, Future):
                one.add_done_callback(partial(call_on, loop, self.end, stray))
            else:
                one.add_done_callback(partial(self.end, stray))

    def end(self, stray: Stray, one: Any) -> None:
        """Note that a task or thread has ended; with the last one the attempt is over."""
        stray.running.pop(one, None)
        if stray.running or stray not in self.left:
            return
        self.left.remove(stray)
        seconds = round(self.clock.monotonic() - stray.since, 3)
        self.telemetry.emit("attempt.ended_late", event_id=stray.event_id, handler=stray.handler, seconds=seconds)
        self.buffer.note_stuck(-1)
        self.handler_limits.linger(stray.handler, -1)

    def counts(self) -> Counter[tuple[str, str]]:
        """Return how many tasks and threads run on, by handler and kind."""
        return Counter((stray.handler, kind) for stray in self.left for kind in stray.running.values())

    def issues(self) -> list[str]:
        """Say which handlers do not end, what of them runs on and for how long."""
        return [self.issue(handler) for handler in sorted({stray.handler for stray in self.left})]

    def issue(self, handler: str) -> str:
        """Say how one handler stands that does not end."""
        strays = [stray for stray in self.left if stray.handler == handler]
        oldest = min(strays, key=lambda stray: stray.since)
        kinds = in_words(Counter(kind for stray in strays for kind in stray.running.values()))
        seconds = self.clock.monotonic() - oldest.since
        shut = " It is given no more events until one of them ends." if self.handler_limits.is_stuck(handler) else ""
        return (
            f"The handler {handler} does not end: {len(strays):,} of its attempts were settled and still run ({kinds}),"
            f" the oldest for {seconds:,.0f} s (event {oldest.event_id}).{shut}"
        )


def in_words(kinds: Counter[str]) -> str:
    """Say how many of each kind there are."""
    return ", ".join(f"{count:,} {kind}{'s' if count > 1 else ''}" for kind, count in sorted(kinds.items()))


def call_on(loop: asyncio.AbstractEventLoop, end: Any, stray: Stray, one: Any) -> None:
    """Have the end of a thread's work noted on the loop, unless that has come to its own end."""
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(end, stray, one)
