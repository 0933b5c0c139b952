"""How many events are on their way into the log at once; further ones are queued, so that ingest starves no worker."""

from asyncio import CancelledError, Future, get_running_loop
from collections import deque

from replayforge.domain.errors import Overloaded

# Measured on two cores (bench/README.md): the more come in at once, the longer is each turn of the loop, and a worker
# needs a few turns for an event. Without a limit workers do a tenth beside 256 clients, who all wait for their answers,
# of what they do beside 64; a limit of 32 events costs a fifth beside 64, so it only applies beyond 96 callers.
CALLERS_AT_ONCE = 96
EVENTS_AT_ONCE = 32
EVENTS_QUEUED_MAX = 10_000


class IngestLimiter:
    """Admits everybody while fewer than `callers_max` callers are in flight; beyond that, they are queued.

    From the queue they are admitted in the order they came, while fewer than `events_max` events are on their way into
    the log. Events that come together are admitted together. The queue holds at most `queued_max` events, exceeded by
    no more than one request.
    """

    def __init__(
        self,
        events_max: int = EVENTS_AT_ONCE,
        queued_max: int = EVENTS_QUEUED_MAX,
        *,
        callers_max: int = CALLERS_AT_ONCE,
    ) -> None:
        self.events_max = events_max
        self.queued_max = queued_max
        self.callers_max = callers_max
        self.in_flight = 0
        self.callers: deque[int] = deque()  # event counts of admitted callers, oldest first
        self.released = 0  # how many events of the oldest caller are in the log
        self.queued_events = 0
        self.queue: deque[tuple[int, Future[None]]] = deque()

    def check_queue(self) -> None:
        """Raise Overloaded where the queue is full."""
        if self.queued_events >= self.queued_max:
            raise Overloaded(f"{self.queued_events:,} events wait to be accepted; send it again in a moment.")

    def admit(self, count: int) -> bool:
        """Admit so many events now; False where they have to be queued."""
        if self.queue or (len(self.callers) >= self.callers_max and self.in_flight >= self.events_max):
            return False
        self.admit_first(count)
        return True

    def admit_first(self, count: int) -> None:
        """Admit so many events before everybody else."""
        self.in_flight += count
        self.callers.append(count)

    async def wait_turn(self, count: int) -> None:
        """Return when so many events have been admitted from the queue; raises Overloaded where it is full."""
        self.check_queue()
        turn: Future[None] = get_running_loop().create_future()
        self.queue.append((count, turn))
        self.queued_events += count
        try:
            await turn
        except CancelledError:
            if not turn.cancelled():  # admitted just as whoever sent them went away
                self.release(count)
            raise

    def release(self, count: int) -> None:
        """Say that so many events are in the log, or will not be; those whose turn it is are admitted."""
        self.in_flight -= count
        self.released += count
        while self.callers and self.released >= self.callers[0]:
            self.released -= self.callers.popleft()
        while self.queue and self.in_flight < self.events_max:
            waiting, turn = self.queue.popleft()
            self.queued_events -= waiting
            if not turn.done():
                self.admit_first(waiting)
                turn.set_result(None)
