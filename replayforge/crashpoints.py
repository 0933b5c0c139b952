"""Named places on the road of an event where a simulated crash can really kill the process."""

import os
from asyncio import CancelledError, get_running_loop
from collections.abc import Iterable
from contextvars import ContextVar
from typing import Protocol

from replayforge.domain.errors import Refused

EXIT_CODE = 137
STEP_BEGAN = "replayforge.step"  # audited with the step's name where any point is armed, as its function is called

POINTS = {
    "ingest.received": "a request was read and nothing was written",
    "segment.sealed": "the log has ended a segment, and the next one stands",
    "log.appended": "an event is durable in ForgeLog and the client has not been told",
    "dispatch.read": "records were read from the log and no row was written",
    "dispatch.committed": "rows and cursor are committed and nothing was published",
    "publish.done": "entries are on the stream",
    "claim.committed": "events are claimed and their entries not yet acked",
    "claim.acked": "entries are acked and no handler was called",
    "attempt.started": "a handler is about to be called",
    "attempt.finished": "a handler has returned and nothing was recorded",
    "step.started": "the function of a step is about to be called",
    "step.returned": "the function of a step has returned and nothing was recorded",
    "child.appended": "a child event is durable in ForgeLog and may have no row",
    "fanout.begun": "it is known to which subscribers an event goes, and none has its child",
    "fanout.sent": "every subscriber of an event has its child, and the event has not ended",
    "schedule.appended": "events of a schedule are durable in ForgeLog and its place has not moved",
    "schedule.moved": "the place of a schedule has moved",
    "alert.recorded": "it is written down that an alert has begun and nobody has been told",
    "alert.delivered": "a receiver has been told of an alert and nothing was recorded",
    "settle.committed": "the outcome is committed",
    "step.committed": "a step of a workflow is recorded and its handler has not been told",
    "park.committed": "a workflow is parked",
    "signal.matched": "a signal has woken a parked workflow and nothing was published",
    "wake.committed": "a parked workflow is queued again and nothing was published",
    "replay.created": "a bulk replay is made, and none of its members is replayed",
    "replay.committed": "a replay is committed and nothing was published",
    "recall.committed": "events that had waited for their handler are claimed and no worker has them",
    "lane.released": "events may run whose turn came in their lanes, and nothing was published",
    "promote.committed": "a due event is queued and nothing was published",
    "takeover.committed": "what a daemon that is gone held is taken back by another, and nothing was published",
    "retention.unlinked": "segments of the log that nobody needs are gone",
    "retention.committed": "rows of events that have served their time are gone, and their keys are remembered",
    "shutdown.begun": "the daemon was told to end, and that is on its disk",
    "shutdown.drained": "no handler runs any more, and what was cut short was not handed back",
    "shutdown.settled": "every outcome is committed, and the log is not closed",
    "recovery.opened": "log and store are open at a start, and nothing was taken back",
    "recovery.reclaimed": "what a former incarnation held was taken back, and this one has left no word of itself",
    "recovery.rebuilt": "the window holds what has no row yet, and nobody can connect",
}


class Victim(Protocol):
    """What dies at a point, where that is not the process: a daemon inside somebody else's."""

    def die(self, point: str) -> None:
        """Do nothing more from here on; raises CancelledError where a task came to the point."""


# Who comes to points here; None is the process. A daemon that has the process for itself sets none.
victim: ContextVar[Victim | None] = ContextVar("victim", default=None)
armed: dict[tuple[Victim | None, str], int] = {}


def arm(specifications: Iterable[str]) -> None:
    """Arm points for whoever dies here, given as POINT or POINT:N (die the Nth time it is reached).

    Raises Refused for an unknown one.
    """
    for specification in specifications:
        point, _, times = specification.partition(":")
        if point not in POINTS or (times and not times.isdigit()):
            raise Refused(f"There is no crash point {specification!r}; the points are {', '.join(POINTS)}.")
        armed[victim.get(), point] = max(1, int(times or 1))


def disarm(whose: Victim) -> None:
    """Forget the points that were armed for a victim."""
    for owner, point in [known for known in armed if known[0] is whose]:
        del armed[owner, point]


def reach(point: str, times: int = 1) -> None:
    """Pass a point; when its count is up the process dies here and now, nothing flushed, nothing closed."""
    if armed and (victim.get(), point) in armed:
        pass_armed(victim.get(), point, times)


def pass_armed(whose: Victim | None, point: str, times: int) -> None:
    """Count a point down, and die there when its count is up."""
    armed[whose, point] -= times
    if armed[whose, point] > 0:
        return
    if whose is None:
        os._exit(EXIT_CODE)
    whose.die(point)


async def reach_within(point: str, times: int = 1) -> None:
    """Pass a point that user code has come to by a call: nothing of what called runs again, no `finally` either."""
    try:
        reach(point, times)
    except CancelledError:
        await get_running_loop().create_future()
