"""How many events go into the log at once; the others stand in line, so that workers keep their part of the loop."""

from asyncio import CancelledError, Future, get_running_loop
from collections import deque

from replayforge.domain.errors import Overloaded

# The more come in at once, the longer is each turn of the loop, and a worker needs a few turns for an event: without a
# limit, workers did a tenth beside 256 clients, who all wait for their answers, of what they do beside 64. So few
# at once cost a fifth where there are no more than 64, who need no limit (see bench/).
CALLERS_AT_ONCE = 96
EVENTS_AT_ONCE = 32
EVENTS_IN_LINE_MAX = 10_000


class Entrance:
    """Lets everybody in while fewer than `callers_max` are within; once more come, they stand in line.

    From the line they are let in, in the order they came, while fewer than `events_max` events are on their way into
    the log. Events that come together go in together. In line are at most `line_max`, and those of one caller.
    """

    def __init__(
        self,
        events_max: int = EVENTS_AT_ONCE,
        line_max: int = EVENTS_IN_LINE_MAX,
        *,
        callers_max: int = CALLERS_AT_ONCE,
    ) -> None:
        self.events_max = events_max
        self.line_max = line_max
        self.callers_max = callers_max
        self.within = 0
        self.callers: deque[int] = deque()  # how many events each brought who is within, as they came in
        self.left = 0  # of the first of them, how many are in the log
        self.in_line = 0
        self.line: deque[tuple[int, Future[None]]] = deque()

    def check_line(self) -> None:
        """Raise Overloaded where the line is too long."""
        if self.in_line >= self.line_max:
            raise Overloaded(f"{self.in_line:,} events wait to be accepted; send it again in a moment.")

    def enter(self, count: int) -> bool:
        """Let so many events in now; False where they have to stand in line."""
        if self.line or (len(self.callers) >= self.callers_max and self.within >= self.events_max):
            return False
        self.enter_first(count)
        return True

    def enter_first(self, count: int) -> None:
        """Let so many events in before everybody else."""
        self.within += count
        self.callers.append(count)

    async def stand_in_line(self, count: int) -> None:
        """Return when so many events have been let in; raises Overloaded where the line is too long."""
        self.check_line()
        place: Future[None] = get_running_loop().create_future()
        self.line.append((count, place))
        self.in_line += count
        try:
            await place
        except CancelledError:
            if not place.cancelled():  # let in just as whoever sent them went away
                self.leave(count)
            raise

    def leave(self, count: int) -> None:
        """Say that so many events are in the log, or will not be; those who can come in now do."""
        self.within -= count
        self.left += count
        while self.callers and self.left >= self.callers[0]:
            self.left -= self.callers.popleft()
        while self.line and self.within < self.events_max:
            waiting, place = self.line.popleft()
            self.in_line -= waiting
            if not place.done():
                self.enter_first(waiting)
                place.set_result(None)
