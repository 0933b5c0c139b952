"""The loop of every service: tick after tick, as far apart as each tick says, backing off while something is away."""

import asyncio
import math
from asyncio import create_task, ensure_future, wait
from collections.abc import Awaitable, Callable, Coroutine
from time import monotonic
from typing import Any, TypeVar

from replayforge.domain.errors import Unavailable
from replayforge.supervisor import wait_for_event
from replayforge.telemetry import Telemetry

FIRST_SECONDS = 0.1
MAX_SECONDS = 2.0
UNTIL_WOKEN = math.inf  # the delay of a tick that has nothing more to do until somebody wakes the loop

Answer = TypeVar("Answer")
Tick = Callable[[], Awaitable[float]]


class Outage:
    """The outages that one actor meets; those of the store are reported here, a stream reports its own."""

    def __init__(self, telemetry: Telemetry | None = None) -> None:
        self.telemetry = telemetry
        self.since: float | None = None
        self.delay_seconds = 0.0

    def report(self, error: Unavailable) -> None:
        """Report that the store does not answer, once for each outage."""
        if self.since is None:
            self.since = monotonic()
            if self.telemetry is not None:
                self.telemetry.emit("store.failed", error=str(error))

    @property
    def lasted_seconds(self) -> float:
        """For how long it has lasted; 0 when there is none."""
        return 0.0 if self.since is None else monotonic() - self.since

    async def wait(self, error: Unavailable, stopping: asyncio.Event) -> None:
        """Wait before the next try, longer each time; returns early when stopping."""
        self.report(error)
        self.delay_seconds = min(MAX_SECONDS, max(FIRST_SECONDS, self.delay_seconds * 2))
        await wait_for_event(stopping, self.delay_seconds)

    async def outlast(self, call: Callable[[], Awaitable[Answer]], giving_up: asyncio.Event) -> Answer:
        """Call until there is an answer, however long that takes; raises Unavailable once somebody gives up."""
        while True:
            try:
                answer = await call()
            except Unavailable as error:
                if giving_up.is_set():
                    raise
                await self.wait(error, giving_up)
            else:
                self.over()
                return answer

    def over(self) -> None:
        """Note that the dependency answered."""
        if self.since is not None and self.telemetry is not None:
            self.telemetry.emit("store.recovered")
        self.since = None
        self.delay_seconds = 0.0


async def run_until(
    stopping: asyncio.Event, tick: Tick, *, wake: asyncio.Event | None = None, outage: Outage | None = None
) -> None:
    """Tick until told to stop; a tick that has begun is finished.

    Each tick returns for how many seconds there is nothing to do: 0 has the next one follow at once, and setting `wake`
    ends the wait. After a tick that raised Unavailable the next one waits for as long as the outage says. However many
    ticks there are, one task is made, so a tick that returns 0 costs no turn of the event loop but its own.
    """
    wake, outage = wake or asyncio.Event(), outage or Outage()
    stop = create_task(stopping.wait())
    stop.add_done_callback(lambda _: wake.set())
    try:
        while not stopping.is_set():
            wake.clear()
            try:
                delay_seconds = await tick()
            except Unavailable as error:
                await outage.wait(error, stopping)
            else:
                outage.over()
                if delay_seconds == UNTIL_WOKEN:
                    await wake.wait()
                elif delay_seconds > 0:
                    await wait_for_event(wake, delay_seconds)
    finally:
        stop.cancel()


async def cancelled_by(stopping: asyncio.Event, work: Coroutine[Any, Any, None]) -> None:
    """Do work that waits for long by itself, and cancel it once told to stop; what it must finish it shields."""
    working, stop = ensure_future(work), ensure_future(stopping.wait())
    try:
        await wait((working, stop), return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            working.result()
    finally:
        stop.cancel()
        working.cancel()
