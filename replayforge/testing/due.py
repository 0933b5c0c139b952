"""What a daemon has to do at a time that is given to it, and when it has to do something next."""

from collections.abc import Iterator, Mapping

from replayforge.assembly import Daemon
from replayforge.domain.breaker import BreakerState
from replayforge.domain.clock import to_us
from replayforge.domain.lifecycle import UNDER_WAY
from replayforge.engine.dispatch.handler_limits import HandlerLimits
from replayforge.stores.tallies import deferred_of

DOUBLINGS_MAX = 40


class Due:
    """Does what a daemon's clock would have it do, in its place: queues what is due, and carries bulk replays on."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self.limits = daemon.deferred_claimer.limits
        self.replay_seconds = 0.0
        self.writes = 0
        self.writes_seen = 0
        self.doublings = 0
        daemon.store.call_when_written(self.note_write)

    def note_write(self) -> None:
        """Count a commit."""
        self.writes += 1

    async def nothing(self) -> bool:
        """Do what is due, and tell whether nothing is any more: all that was accepted has ended, or waits.

        What waits for a handler that is paused, or whose breaker is open, is not due, nor is what was set aside after a
        death.
        """
        daemon, store = self.daemon, self.daemon.store
        if daemon.scheduler.by_name:
            await daemon.scheduler.tick()
        cursors, tallies, due = await store.ledger_and_due(daemon.clock.now_us(), 0)
        if due:
            await daemon.janitor.promote()
            return False
        projected = next((cursor.log_offset for cursor in cursors if cursor.log_id == daemon.log.log_id), 0)
        if projected < daemon.log.durable_offset:
            return False
        under_way = sum(tallies.get(state, 0) for state in UNDER_WAY)
        if under_way:
            under_way -= held_back(self.limits, deferred_of(tallies), daemon.clock.monotonic())
        if under_way > 0:
            under_way -= len(await store.set_aside())
        if under_way > 0:
            return False
        await daemon.settler.finish()  # what is committed has to be taken note of
        self.replay_seconds = await daemon.replay_runner.tick()
        return self.replay_seconds > 0

    async def next_us(self) -> int | None:
        """Return the next time at which something falls due; None when nothing does by itself."""
        now_us = self.daemon.clock.now_us()
        event_us = await self.daemon.store.next_due(now_us)
        dues = [due_us for due_us in (event_us, self.daemon.scheduler.next_us()) if due_us is not None]
        later = [*dues, *(now_us + to_us(seconds) + 1 for seconds in self.waits())]
        return min(later, default=None)

    def waits(self) -> Iterator[float]:
        """Yield the seconds until an endpoint that is left alone is tried again, and until a bulk replay has its turn.

        The latter asks again and again how others come on; as long as nothing moves it is asked less and less often.
        """
        if (probe_seconds := self.limits.seconds_until_probe()) is not None:
            yield max(0.0, probe_seconds)
        if self.daemon.replay_runner.places:
            self.doublings = min(DOUBLINGS_MAX, self.doublings + 1) if self.writes == self.writes_seen else 0
            self.writes_seen = self.writes
            yield self.replay_seconds * 2**self.doublings

    def wake(self) -> None:
        """Have those look at the time that wait for it on their own."""
        self.limits.news.set()


def held_back(limits: HandlerLimits, deferred: Mapping[str, int], now: float) -> int:
    """Return how many of the events that wait for handlers wait for a person, or for a time."""
    broken = {pattern for pattern, limit in limits.guarded.items() if limit.breaker.state(now) is BreakerState.OPEN}
    return sum(count for pattern, count in deferred.items() if pattern in broken or limits.is_paused(pattern))
