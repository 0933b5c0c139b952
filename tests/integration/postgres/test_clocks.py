"""Daemons whose clocks differ share one database: waiting times and ages go by its clock, whoever asks or decides."""

from collections.abc import AsyncIterator

import pytest

from replayforge.domain.event import EventRecord
from replayforge.domain.lifecycle import Outcome, State
from replayforge.domain.reports import EventFilter
from replayforge.domain.verdict import Verdict
from replayforge.stores.projection import Projection
from replayforge.stores.store import Store
from replayforge.stores.transactions import Settlement
from tests.contract.store_backends import LOG, MINUTE_US, claimed, put
from tests.support.builders import now_us, record
from tests.support.postgres_server import require_postgres, shared_server

HOUR_US = 60 * MINUTE_US
DAY_US = 24 * HOUR_US
DECADE_US = 3_652 * DAY_US


@pytest.fixture
async def store() -> AsyncIterator[Store]:
    require_postgres()
    store = await Store.open(shared_server().new_schema(), node="node", owner="node/first")
    yield store
    await store.close()


async def retry(store: Store, by_clock_us: int, delay_us: int) -> None:
    """Let one event fail, and wait so long for its next attempt, by the clock of a daemon that is so far off."""
    (one,) = await claimed(store)
    ended_us = now_us() + by_clock_us
    verdict = Verdict(State.RETRYING, 1, 0, due_at_us=ended_us + delay_us)
    await store.settle([Settlement(one.event, Outcome.FAILED, verdict, "worker-1", ended_us, ended_us, "Boom")])


@pytest.mark.parametrize("by_clock_us", [-DECADE_US, -HOUR_US, 0, HOUR_US, DECADE_US])
async def test_a_delay_is_as_long_as_it_was_meant(store: Store, by_clock_us: int) -> None:
    """A retry falls due its delay after now, whatever the clock of the daemon says that decided it."""
    await retry(store, by_clock_us, 30 * MINUTE_US)
    event, _ = (await store.events_by_ids(["event-0"]))["event-0"]
    assert event.due_at_us == pytest.approx(now_us() + 30 * MINUTE_US, abs=MINUTE_US)


async def test_a_daemon_ahead_cuts_nobodys_wait_short(store: Store) -> None:
    """A daemon whose clock is ahead queues neither the retries of others nor what was scheduled before their time."""
    await retry(store, 0, 30 * MINUTE_US)
    await put(store, [record("scheduled", run_at_us=now_us() + 30 * MINUTE_US)], after=1)
    for ahead_us in (HOUR_US, DECADE_US):
        entries, next_due_us = await store.promote(now_us() + ahead_us)
        assert entries == await store.promote_stranded(now_us() + ahead_us, 5 * MINUTE_US) == []
        assert next_due_us == pytest.approx(now_us() + ahead_us + 30 * MINUTE_US, abs=MINUTE_US)


async def test_a_daemon_behind_lets_nobody_wait(store: Store) -> None:
    """A daemon whose clock is ten years behind queues what is due."""
    await retry(store, 0, 0)
    assert (await store.promote(now_us() - DECADE_US))[0] == [("event-0", 1)]


async def projected_by(store: Store, records: list[EventRecord], by_clock_us: int) -> list[State]:
    """Project records as a daemon does whose clock is so far off; return where their events begin."""
    await store.open_cursor(LOG, "incarnation", 0, now_us())
    numbered = list(enumerate(records, start=1))
    await store.project(Projection(LOG, "incarnation", 0, len(records), numbered, 0, now_us() + by_clock_us))
    rows = await store.list_rows(EventFilter(), before_seq=None, limit=10)
    return [row.state for row in reversed(rows)]


@pytest.mark.parametrize("by_clock_us", [-DECADE_US, -HOUR_US, HOUR_US, DECADE_US])
async def test_what_is_scheduled_begins_when_it_was_meant_to(store: Store, by_clock_us: int) -> None:
    """Whether a start time has come is not for the clock of the daemon to say that accepted the event."""
    times = (now_us() - MINUTE_US, now_us() + 30 * MINUTE_US)
    records = [record(f"event-{number}", run_at_us=at) for number, at in enumerate(times)]
    assert await projected_by(store, records, by_clock_us) == [State.QUEUED, State.SCHEDULED]


async def test_what_a_daemon_behind_has_refused_or_moved_is_not_old(store: Store) -> None:
    """A dead letter by a used key, and one that a person discarded, on a daemon ten years behind, are kept as long as
    any other."""
    records = [record("event", b'{"a": 1}'), record("event", b'{"a": 2}')]
    assert await projected_by(store, records, -DECADE_US) == [State.QUEUED, State.DEAD_LETTERED]
    assert await store.retire(State.DEAD_LETTERED, now_us() - DAY_US) == 0
    (dead,) = await store.list_rows(EventFilter(state=State.DEAD_LETTERED), before_seq=None, limit=10)
    assert await store.move(dead, State.DISCARDED, "discarded", "why", now_us() - DECADE_US) == []
    assert await store.retire(State.DISCARDED, now_us() - DAY_US) == 0


@pytest.mark.parametrize("state", [State.SUCCEEDED, State.DEAD_LETTERED])
async def test_what_a_daemon_behind_has_ended_is_not_old(store: Store, state: State) -> None:
    """An event that ended on a daemon ten years behind is kept by its neighbours as long as any other."""
    (one,) = await claimed(store)
    long_ago = now_us() - DECADE_US
    settlement = Settlement(one.event, Outcome.SUCCEEDED, Verdict(state, 0, 0), "worker-1", long_ago, long_ago)
    await store.settle([settlement])
    assert await store.retire(state, now_us() - DAY_US) == 0
    assert await store.retire(state, now_us() + DAY_US) == 1
