"""The log and the store held against each other: gaps, lost stores, and a check that can fail."""

import asyncio
import json
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import msgspec
import pytest

from replayforge.assembly import opened
from replayforge.domain.errors import Refused
from replayforge.domain.event import EVENT_RECORD_TYPE, Envelope, Event
from replayforge.domain.lifecycle import State
from replayforge.domain.reports import Ledger
from replayforge.engine.accept.intake import Receipt
from replayforge.engine.care import recount
from replayforge.engine.handlers.context import Context
from replayforge.engine.handlers.registry import Handlers
from replayforge.engine.report.audit import Findings, audit
from replayforge.forgelog.record import NewRecord
from replayforge.opening import opened_for_check
from replayforge.telemetry import Telemetry
from tests.integration.conftest import echo_handlers
from tests.support.house import House, configuration, open_house
from tests.support.polling import persist
from tests.support.probe import Probe

SMALL_SEGMENTS = {"log.segment_bytes": 16 << 20, "log.retention_bytes_max": 1}
LARGE = {"text": "x" * 900_000}


def handlers() -> Handlers:
    """Return handlers that accept everything."""
    made = Handlers()

    @made.on("*")
    async def accept(event: Event, context: Context) -> None:
        return

    return made


async def check(directory: Path, settings: dict[str, Any] | None = None) -> Findings:
    """Compare the log with the store, as `replayforge check` does."""
    async with opened_for_check(configuration(directory, settings)) as (log, store):
        return await audit(log, store, lambda offset: None)


def change(directory: Path, *statements: str) -> None:
    """Change the store by hand."""
    with sqlite3.connect(directory / "store.db") as connection:
        for statement in statements:
            connection.execute(statement)
    connection.close()


def forget_store(directory: Path) -> None:
    """Remove the store."""
    for file in directory.glob("store.db*"):
        file.unlink()


async def test_a_new_store_is_adopted_by_a_log_whose_beginning_is_gone(tmp_path: Path) -> None:
    """After retention, --adopt-store dispatches what the log still holds and names what it does not."""
    async with open_house(tmp_path, handlers(), SMALL_SEGMENTS) as house:
        for _ in range(20):
            await house.send(payload=LARGE)
        await house.converges()
        retained = await asyncio.to_thread(house.daemon.log.retain, house.daemon.dispatcher.projected)
        assert retained.first_offset > 1
    forget_store(tmp_path)
    with pytest.raises(Refused, match="--adopt-store"):
        async with opened(configuration(tmp_path, SMALL_SEGMENTS)):
            pass
    telemetry = Telemetry()
    probe = Probe(telemetry)
    left = 20 - (retained.first_offset - 1)
    config = configuration(tmp_path, SMALL_SEGMENTS)
    async with opened(config, adopt_store=True, handlers=handlers(), telemetry=telemetry) as daemon:
        daemon.start()
        await probe.saw("attempt.settled", left)
        assert probe.fields("log.skipped") == [{"first": 1, "last": retained.first_offset - 1}]
        ledger = (await daemon.convergence.read()).ledger
        assert (ledger.accepted, ledger.states[State.SUCCEEDED], ledger.lost) == (left, left, 0)
        assert (ledger.gaps, ledger.unreadable, ledger.foreign) == (retained.first_offset - 1, 0, 0)
        assert "were gone before they had rows" in " ".join((await daemon.convergence.read()).issues)
        await daemon.stop()


async def test_the_check_fails_for_a_lost_event_even_where_retention_has_removed_many(tmp_path: Path) -> None:
    """Rows that retention removed do not hide one that is missing for no reason."""
    async with open_house(tmp_path, handlers()) as house:
        for _ in range(30):
            await house.send()
        await house.converges()
        await house.daemon.store.retire(State.SUCCEEDED, house.daemon.clock.now_us() + 1_000_000, 20)
    assert (await check(tmp_path)).clean
    change(tmp_path, "DELETE FROM events WHERE seq = (SELECT max(seq) FROM events)")
    findings = await check(tmp_path)
    assert not findings.clean
    assert [offset for _, offset in findings.lost] == [30]


@pytest.mark.parametrize("few", [True, False], ids=["counted at once", "counted by the janitor"])
async def test_rows_that_somebody_removed_are_lost(tmp_path: Path, few: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is deleted past the daemon is lost in its ledger too, named by the check, and convergence is over."""
    if not few:
        monkeypatch.setattr(recount, "ROWS_FEW", 0)
    async with open_house(tmp_path, handlers(), {"janitor.disk_seconds": 0.05}) as house:
        await house.send_many(5)
        assert (await house.converges())["lost"] == 0
        change(tmp_path, "DELETE FROM events WHERE seq IN (2, 3)")

        async def report() -> dict[str, Any] | None:
            found: dict[str, Any] = await house.get("/api/convergence")
            return found if found["ledger"]["lost"] else None

        found = await persist(report)
        assert found is not None
        assert (found["converged"], found["ledger"]["succeeded"], found["ledger"]["lost"]) == (False, 3, 2)
        assert any("3 rows are succeeded and 5 are on the ledger" in issue for issue in found["issues"])
    assert [offset for _, offset in (await check(tmp_path)).lost] == [2, 3]


KEYED: dict[str, Any] = {"workflow_id": "w", "event_type": "test", "payload": {"a": 1}, "idempotency_key": "k"}


async def retire_all(house: House) -> None:
    """Let everything end, and retention remove it."""
    await house.converges()
    now_us = house.daemon.clock.now_us()
    for state in (State.SUCCEEDED, State.DEAD_LETTERED):
        await house.daemon.store.retire(state, now_us + 1_000_000, now_us=now_us)


async def test_the_key_of_an_event_that_retention_has_removed(tmp_path: Path) -> None:
    """It comes again as the event that it was, other content is refused, and the check knows where its row is."""
    async with open_house(tmp_path, handlers()) as house:
        _, event = await house.post("/api/events", KEYED | {"metadata": {"signature": 1}})
        await house.send("no key")
        await retire_all(house)
        status, again = await house.post("/api/events", KEYED | {"metadata": {"signature": 2}, "payload": {"a": 1.0}})
        assert (status, again["duplicate"], again["id"], again["status"]) == (200, True, event["id"], "succeeded")
        named = ("log_offset", "created_at", "metadata", "payload", "run", "attempt_count")
        assert [again[name] for name in named] == [1, event["created_at"], {}, {"a": 1.0}, 1, 0]
        assert again["retired_at"] >= event["created_at"]
        status, problem = await house.post("/api/events", KEYED | {"payload": {"a": 2}})
        assert (status, problem["event_id"]) == (422, event["id"])
        assert "90 days beyond" in problem["detail"]
        async with house.http.post("/api/events", json=KEYED) as response:
            words = response.headers["Idempotency-Key-Remembered"]
            assert words == "as long as its event is kept, and 90 days beyond"
        _, answer = await house.post("/api/events/bulk", [KEYED, KEYED | {"event_type": "other"}])
        assert [item.get("status") for item in answer["items"]] == ["succeeded", None]
        ledger = await house.converges()
        assert [ledger[name] for name in ("accepted", "retired", "copies", "lost")] == [2, 2, 0, 0]
    findings = await check(tmp_path)
    assert (findings.clean, findings.keys_remembered) == (True, 1)
    assert [event_id for event_id, _ in findings.missing] != [event["id"]]


async def test_a_removed_key_that_comes_again_while_the_store_is_away(tmp_path: Path) -> None:
    """Ingest cannot see it, so it is accepted; the dispatcher counts a copy, and buries other content."""
    async with open_house(tmp_path, handlers()) as house:
        await house.post("/api/events", KEYED)
        await retire_all(house)
        known = house.daemon.intake.known
        known.pause_ends = float("inf")  # as after a store that refused
        for body in (KEYED, KEYED | {"payload": {"a": 2}}):
            assert (await house.post("/api/events", body))[0] == 201
            await house.converges()
        known.pause_ends = 0.0
        ledger = await house.converges()
        assert [ledger[name] for name in ("copies", "dead_lettered", "retired", "lost")] == [1, 1, 1, 0]
        assert house.probe.counts["attempt.started"] == 1
        await retire_all(house)
    assert (await check(tmp_path)).clean


async def test_logs_of_two_copies_that_are_exchanged(tmp_path: Path) -> None:
    """Log and store of the same ids and lengths, but of two copies of one installation, do not pass for one."""
    data, copy = tmp_path / "data", tmp_path / "copy"
    async with open_house(data, echo_handlers()) as house:
        await house.send_many(2)
        await house.converges()
    shutil.copytree(data, copy)
    for directory in (data, copy):
        async with open_house(directory, echo_handlers()) as house:
            await house.send_many(3)
            await house.converges()
    shutil.rmtree(data / "log")
    (copy / "log").rename(data / "log")
    with pytest.raises(Refused, match="not the copy of it that was projected: at offset 5"):
        async with opened(configuration(data), handlers=echo_handlers()):
            pass


async def test_a_key_that_is_forgotten_names_a_new_event(tmp_path: Path) -> None:
    """Once its time is over the key runs again, visibly: accepted with 201, from its first run on."""
    async with open_house(tmp_path, handlers(), {"retention.keys_seconds": 0.001}) as house:
        _, event = await house.post("/api/events", KEYED)
        await retire_all(house)
        chore = next(chore for chore in house.daemon.janitor.chores if chore.name == "forget_keys")
        assert await chore.work() == 1
        status, again = await house.post("/api/events", KEYED | {"payload": {"a": 2}})
        assert (status, again["duplicate"], again["id"]) == (201, False, event["id"])
        assert (await house.reaches(again["id"], "succeeded"))["run"] == 1
        ledger = await house.converges()
        assert [ledger[name] for name in ("accepted", "succeeded", "retired", "lost")] == [2, 1, 1, 0]
    assert (await check(tmp_path)).clean


async def test_records_that_are_no_events_are_told_apart(tmp_path: Path) -> None:
    """What others appended is foreign; what was to be an event and cannot be read is named, by the check too."""
    async with open_house(tmp_path, handlers()) as house:
        await house.send()
        await house.post("/forgelog/append", {"of": "another purpose"})
        await house.daemon.log.append([NewRecord(b"{", bytes(16), EVENT_RECORD_TYPE)])
        await house.send()
        ledger = await house.converges()
        named = ("accepted", "foreign_records", "unreadable_records", "gap_records", "lost")
        assert [ledger[name] for name in named] == [2, 1, 1, 0, 0]
        report = await house.get("/api/convergence")
        assert "1 records of the log are unreadable" in " ".join(report["issues"])
        assert report["ledger_in_words"].endswith("lost 0 · foreign 1 · unreadable 1")
    findings = await check(tmp_path)
    assert (findings.unreadable, findings.gaps, findings.lost, findings.clean) == ([3], [], [], False)


def test_a_missing_event_is_named_although_more_rows_were_retired_than_are_missing() -> None:
    """What retention removed, with its records, is never set off against an event that is missing now."""
    states = {State.SUCCEEDED: 100}
    ledger = Ledger(records=201, unprojected=0, not_events=0, copies=0, inserted=201, states=states, retired=100)
    findings = Findings(ledger, missing=[("event", 201)])
    assert (findings.lost, findings.clean) == ([("event", 201)], False)


async def test_one_large_request_is_accepted_in_batches_that_are_durable_as_a_whole(tmp_path: Path) -> None:
    """Events of more bytes than one batch of the log holds, accepted at once, take several batches and all end."""
    async with open_house(tmp_path, handlers()) as house:
        payload = msgspec.Raw(json.dumps(LARGE).encode())
        envelopes = [Envelope(workflow_id="large", event_type="test", payload=payload) for _ in range(12)]
        receipts = await house.daemon.intake.accept_all(envelopes)
        assert len({receipt.log_offset for receipt in receipts if isinstance(receipt, Receipt)}) == 12
        ledger = await house.converges()
        assert (ledger["accepted"], ledger["succeeded"]) == (12, 12)
        assert house.daemon.log.stats().committed_batches >= 3
