"""Whether starts keep a rate, seen by a sink outside: over every window of some seconds, from above and from below."""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from tests.support.sink import Line

WINDOW_SECONDS = 10.0
TOLERANCE = 0.05


def starts_by_key(lines: Iterable[Line], key_of: Mapping[str, str]) -> dict[str, list[float]]:
    """Return when the events of each key were started, in order; events without a key are left out."""
    starts: defaultdict[str, list[float]] = defaultdict(list)
    for line in lines:
        if line.word == "started" and line.event_id in key_of:
            starts[key_of[line.event_id]].append(line.at_seconds)
    return {key: sorted(times) for key, times in starts.items()}


def least_and_most(times: Sequence[float], since: float) -> tuple[int, int]:
    """Return how many starts the emptiest and the fullest window hold, since a time when all of them were waiting."""
    most = max(bisect_left(times, at + WINDOW_SECONDS) - place for place, at in enumerate(times))
    # The emptiest begins at once, or right after a start, and ends with another one.
    begun = [(since, 0), *((at, place + 1) for place, at in enumerate(times))]
    whole = ((at, place) for at, place in begun if at + WINDOW_SECONDS <= times[-1])
    return min(bisect_left(times, at + WINDOW_SECONDS) - place for at, place in whole), most


def keeps_rate(times: Sequence[float], since: float, per_second: float) -> bool:
    """Tell whether every window holds as many starts as the rate says, but for five in a hundred."""
    least, most = least_and_most(times, since)
    wanted = per_second * WINDOW_SECONDS
    return wanted * (1 - TOLERANCE) <= least and most <= wanted * (1 + TOLERANCE)
