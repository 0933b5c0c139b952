"""The store does not answer: events are accepted all the same, and everything is put right when it is back.

The store is really taken away: another connection renames its table, or holds its write lock.
"""

import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from replayforge.engine.accept.known_events import PAUSE_SECONDS
from tests.integration.conftest import echo_handlers
from tests.support.house import House, open_house

KEYED = {"workflow_id": "w", "event_type": "t", "payload": {"a": 1}, "idempotency_key": "k"}


@contextmanager
def no_answers(directory: Path) -> Iterator[None]:
    """Let every statement about events fail, reading and writing, for as long as the block runs."""
    other = sqlite3.connect(directory / "store.db", isolation_level=None, timeout=10)
    try:
        other.execute("ALTER TABLE events RENAME TO events_hidden")
        yield
        other.execute("ALTER TABLE events_hidden RENAME TO events")
    finally:
        other.close()


@contextmanager
def no_writes(directory: Path) -> Iterator[None]:
    """Hold the write lock for as long as the block runs; reading goes on."""
    other = sqlite3.connect(directory / "store.db", isolation_level=None, timeout=10)
    try:
        other.execute("BEGIN EXCLUSIVE")
        yield
        other.execute("ROLLBACK")
    finally:
        other.close()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "data"


async def all_events(house: House) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await house.get("/api/events", params={"limit": "200"}))["items"]
    return found


async def test_reused_key_that_nobody_could_see(house: House, directory: Path) -> None:
    """Other content under a used key, accepted while the store was away, becomes a dead letter `key_reused`."""
    _, first = await house.post("/api/events", KEYED)
    await house.reaches(first["id"], "succeeded")
    with no_answers(directory):
        status, _ = await house.post("/api/events", KEYED | {"payload": {"a": 2}})
        assert status == 201
        await house.probe.saw("store.failed")
    ledger = await house.converges()
    assert (ledger["succeeded"], ledger["dead_lettered"], ledger["lost"]) == (1, 1, 0)
    (letter,) = (await house.get("/api/deadletters"))["items"]
    assert letter["reason"] == "key_reused"
    assert first["id"] in letter["last_error"]
    assert letter["id"] != first["id"]
    assert (await house.event(letter["id"]))["payload"] == {"a": 2}
    assert (await house.event(first["id"]))["payload"] == {"a": 1}


async def test_copy_that_nobody_could_see(house: House, directory: Path) -> None:
    """The same content under a used key, accepted while the store was away, is counted as a copy and runs no more."""
    _, first = await house.post("/api/events", KEYED)
    await house.reaches(first["id"], "succeeded")
    with no_answers(directory):
        status, again = await house.post("/api/events", KEYED)
        assert (status, again["id"]) == (201, first["id"])
    await house.probe.saw("event.copied")
    ledger = await house.converges()
    assert (ledger["accepted"], ledger["copies"], ledger["succeeded"]) == (1, 1, 1)
    assert (await house.event(first["id"]))["starts"] == 1


async def test_duplicates_among_themselves_while_the_store_is_away(house: House, directory: Path) -> None:
    """Events accepted during an outage are compared with each other at ingest, as ever."""
    with no_answers(directory):
        statuses = [(await house.post("/api/events", KEYED | {"payload": {"a": n}}))[0] for n in (1, 1, 2)]
        assert statuses == [201, 200, 422]
    ledger = await house.converges()
    assert (ledger["accepted"], ledger["succeeded"]) == (1, 1)


async def test_a_store_that_refuses_is_not_asked_for_every_key(
    house: House, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One refusal stands for a moment: ingest does not hear the same answer for each event that comes meanwhile."""
    look, looks = house.daemon.store.events_by_ids, 0

    async def count(ids: Sequence[str]) -> Any:
        nonlocal looks
        looks += 1
        return await look(ids)

    monkeypatch.setattr(house.daemon.store, "events_by_ids", count)
    began = time.monotonic()
    with no_answers(directory):
        for number in range(100):
            assert (await house.post("/api/events", KEYED | {"idempotency_key": str(number)}))[0] == 201
        assert 1 <= looks <= 1 + (time.monotonic() - began) / PAUSE_SECONDS
    assert (await house.converges())["succeeded"] == 100


async def test_an_outage_in_the_middle_of_everything(tmp_path: Path) -> None:
    """Accepted before, during and after an outage: all of it succeeds, once, and finished results are kept."""
    directory = tmp_path / "data"
    async with open_house(directory, echo_handlers(), {"workers.count": 4}) as house:
        await house.send_many(300)
        await house.probe.saw("attempt.settled", 20)
        with no_answers(directory):
            await house.probe.saw("store.failed")
            await house.send_many(100)
            async with house.http.get("/health/ready") as response:
                assert response.status == 200, "events can be accepted, so the daemon is ready"
        await house.send_many(100)
        ledger = await house.converges()
        assert (ledger["succeeded"], ledger["lost"], ledger["dead_lettered"]) == (500, 0, 0)
        assert house.probe.counts["attempt.started"] == 500, "an outage must not make a handler run twice"
        assert house.probe.counts["store.recovered"] >= 1


@pytest.mark.slow
async def test_write_lock_held_by_somebody_else(house: House, directory: Path) -> None:
    """While another connection holds the write lock beyond the busy time-out, events are accepted and end later."""
    with no_writes(directory):
        ids = await house.send_many(50)
        await house.probe.saw("store.failed", timeout_seconds=15)
        assert (await house.event(ids[0]))["status"] == "received"
    assert (await house.converges())["succeeded"] == 50


async def test_an_event_without_a_row_is_found_by_its_key(house: House, directory: Path) -> None:
    """Who has just sent it finds it by its key alone, once; a further filter asks for what its row says."""
    with no_writes(directory):
        event_id = await house.send("t", idempotency_key="k")
        (found,) = (await house.get("/api/events?idempotency_key=k"))["items"]
        assert (found["id"], found["status"]) == (event_id, "received")
        assert (await house.get("/api/events?idempotency_key=k&status=succeeded"))["items"] == []
    await house.reaches(event_id, "succeeded")
    (found,) = (await house.get("/api/events?idempotency_key=k"))["items"]
    assert (found["id"], found["status"]) == (event_id, "succeeded")


async def test_stop_during_an_outage(tmp_path: Path) -> None:
    """A daemon that is stopped while the store is away ends in time; the next one brings everything to its end."""
    directory = tmp_path / "data"
    async with open_house(directory, echo_handlers()) as house:
        await house.send("t")
        await house.converges()
        other = sqlite3.connect(directory / "store.db", isolation_level=None, timeout=10)
        other.execute("ALTER TABLE events RENAME TO events_hidden")
        await house.send_many(20)
        await house.probe.saw("store.failed")
    other.execute("ALTER TABLE events_hidden RENAME TO events")
    other.close()
    async with open_house(directory, echo_handlers()) as house:
        ledger = await house.converges()
        assert (ledger["succeeded"], ledger["lost"]) == (21, 0)
