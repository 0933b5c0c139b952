"""Whether anything is due that a daemon would run without being told."""

from collections.abc import Mapping

from replayforge.assembly import Daemon
from replayforge.domain.breaker import BreakerState
from replayforge.domain.lifecycle import UNDER_WAY
from replayforge.engine.dispatch.handler_limits import HandlerLimits
from replayforge.stores.tallies import deferred_of


async def nothing_is_due(daemon: Daemon) -> bool:
    """Have what has fallen due queued, and tell whether all that was accepted has ended or waits for something else.

    What waits for a handler that is paused, or whose breaker is open, is not due, nor is what was set aside after a
    death.
    """
    store, now_us = daemon.store, daemon.clock.now_us()
    cursors, tallies, due = await store.ledger_and_due(now_us, 0)
    if due:
        await daemon.janitor.promote()
        return False
    projected = next((cursor.log_offset for cursor in cursors if cursor.log_id == daemon.log.log_id), 0)
    if projected < daemon.log.durable_offset:
        return False
    under_way = sum(tallies.get(state, 0) for state in UNDER_WAY)
    if under_way:
        under_way -= held_back(daemon.deferred_claimer.limits, deferred_of(tallies), daemon.clock.monotonic())
    if under_way > 0:
        under_way -= len(await store.set_aside())
    if under_way > 0:
        return False
    await daemon.settler.finish()  # what is committed has to be taken note of
    return True


def held_back(limits: HandlerLimits, deferred: Mapping[str, int], now: float) -> int:
    """Return how many of the events that wait for handlers wait for a person, or for a time."""
    broken = {pattern for pattern, limit in limits.guarded.items() if limit.breaker.state(now) is BreakerState.OPEN}
    return sum(count for pattern, count in deferred.items() if pattern in broken or limits.is_paused(pattern))
