"""Named places on the road of an event where a simulated crash can really kill the process."""

import os
from collections.abc import Iterable

from replayforge.domain.errors import Refused

EXIT_CODE = 137

POINTS = {
    "ingest.received": "a request was read and nothing was written",
    "log.appended": "an event is durable in ForgeLog and the client has not been told",
    "dispatch.read": "records were read from the log and no row was written",
    "dispatch.committed": "rows and cursor are committed and nothing was published",
    "publish.done": "entries are on the stream",
    "claim.committed": "events are claimed and their entries not yet acked",
    "claim.acked": "entries are acked and no handler was called",
    "attempt.started": "a handler is about to be called",
    "attempt.finished": "a handler has returned and nothing was recorded",
    "settle.committed": "the outcome is committed",
    "step.committed": "a step of a workflow is recorded and its handler has not been told",
    "park.committed": "a workflow is parked",
    "wake.committed": "a parked workflow is queued again and nothing was published",
    "replay.committed": "a replay is committed and nothing was published",
    "recall.committed": "events that had waited for their handler are claimed and no worker has them",
    "promote.committed": "a due event is queued and nothing was published",
}

armed: dict[str, int] = {}


def arm(specifications: Iterable[str]) -> None:
    """Arm points given as POINT or POINT:N (die the Nth time it is reached); raises Refused for an unknown one."""
    for specification in specifications:
        point, _, times = specification.partition(":")
        if point not in POINTS or (times and not times.isdigit()):
            raise Refused(f"There is no crash point {specification!r}; the points are {', '.join(POINTS)}.")
        armed[point] = max(1, int(times or 1))


def reach(point: str, times: int = 1) -> None:
    """Pass a point; when its count is up the process dies here and now, nothing flushed, nothing closed."""
    if armed and point in armed:
        armed[point] -= times
        if armed[point] <= 0:
            os._exit(EXIT_CODE)
