"""What one daemon may expect of its store where a record can never be stored or given: its neighbours go on."""

from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from replayforge.domain.bulk_replay import JobState
from replayforge.domain.event import EventRecord, StoredEvent
from replayforge.domain.lifecycle import Outcome, Reason, State
from replayforge.domain.reports import EventFilter
from replayforge.domain.verdict import Verdict
from replayforge.engine.dispatch.claim_buffer import ClaimBuffer
from replayforge.engine.dispatch.publisher import Publisher
from replayforge.engine.run.settler import Settler
from replayforge.stores import deferred, transactions
from replayforge.stores.batches import AdvancedCursor, RemovedEvent, StoredContent
from replayforge.stores.driver import Batch, Fetch, Steps
from replayforge.stores.projection import Projected, Projection
from replayforge.stores.store import Store
from replayforge.streams.embedded_stream import EmbeddedStream
from replayforge.telemetry import Telemetry
from tests.contract.store_backends import LOG, claimed, put
from tests.contract.test_deferred_contract import project as project_with_admission
from tests.contract.test_deferred_contract import recall, room
from tests.contract.test_replay_contract import create, dead, moved
from tests.contract.test_store_contract import ledger_of
from tests.support.builders import now_us, record, success
from tests.support.clock import FakeClock
from tests.support.probe import Probe

DEAD = EventFilter(state=State.DEAD_LETTERED)

# Each of them is more than one of the stores can take as it is; neither may stand in anybody's way.
BAD: dict[str, dict[str, Any]] = {
    "created beyond 64 bits": {"created_at_us": 2**70},
    "due beyond 64 bits": {"run_at_us": 2**80},
    "attempts beyond 64 bits": {"max_attempts": -(2**70)},
    "half a surrogate pair": {"workflow_id": "w\ud800"},
    "half a pair in the key": {"idempotency_key": "\udfff"},
    "an id beyond an index": {"id": "".join(chr(0x4E00 + 7 * number % 20_000) for number in range(9_000))},
}


def bad_record(name: str) -> EventRecord:
    return msgspec.structs.replace(record("bad", b'{"a": 1}'), **BAD[name])


async def project(store: Store, records: list[EventRecord], after: int = 0, passed_over: int = 0) -> list[Projected]:
    """Project records as the dispatcher does, stretch after stretch from where the last one ended."""
    await store.open_cursor(LOG, "incarnation", after, now_us())
    numbered = list(enumerate(records, start=after + 1))
    end, done = after + len(records) + passed_over, []
    while after < end:
        rest = [(offset, one) for offset, one in numbered if offset > after]
        gaps = end - after - len(rest)
        done.append(await store.project(Projection(LOG, "incarnation", after, end, rest, gaps, now_us())))
        after = done[-1].through
    return done


async def letters(store: Store) -> list[StoredEvent]:
    return await store.list_rows(DEAD, before_seq=None, limit=1000)


@pytest.mark.parametrize("name", list(BAD))
async def test_one_bad_record_is_buried_and_its_neighbours_are_not_touched(store: Store, name: str) -> None:
    """A record that the store refuses, or keeps, among 20 others: the others are queued, and the ledger is even."""
    records = [record(f"event-{number}") for number in range(20)]
    records.insert(7, bad_record(name))
    done = await project(store, records, passed_over=3)
    assert sorted(entry for part in done for entry in part.queued if entry[0].startswith("event")) == sorted(
        (f"event-{number}", 1) for number in range(20)
    )
    ledger = await ledger_of(store)
    assert (ledger.lost, ledger.inserted, ledger.not_events) == (0, 21, 3)
    for letter in await letters(store):  # on a store that has room for it, it is an event as any other
        assert letter.reason == Reason.BAD_PAYLOAD
        assert "offset 8" in (letter.last_error or "")
        assert [part.buried for part in done if part.buried] == [[(letter.id, "test")]]
        kept = await store.events_by_ids([letter.id])
        assert kept[letter.id][1].payload == b'{"a": 1}'


async def test_the_first_and_the_last_and_all_of_them(store: Store) -> None:
    """Bad records at both ends of a stretch, and a stretch of nothing else, each become one dead letter."""
    bad = [msgspec.structs.replace(record(f"bad-{number}"), created_at_us=2**70) for number in range(5)]
    await project(store, [bad[0], record("event-1"), bad[1], *bad[2:]])
    assert sorted(event.id for event in await letters(store)) == [f"bad-{number}" for number in range(5)]
    assert (await ledger_of(store)).lost == 0


async def test_a_buried_record_comes_again(store: Store) -> None:
    """A log that is projected once more finds the dead letter, which is its copy; so does a reused key's row."""
    reused = [record("event-1", b"1", idempotency_key="k"), record("event-1", b"2", idempotency_key="k")]
    records = [bad_record("created beyond 64 bits"), *reused]
    await project(store, records)
    await store.driver.write(lambda: turn_back(0))
    again = await project(store, records)
    assert sum(part.copies for part in again) == 3
    assert sum(part.inserted for part in again) == 0


def turn_back(offset: int) -> Steps[None]:
    """Set the cursor back, as adopting a store does."""
    turned = AdvancedCursor(
        log_id=LOG,
        incarnation="incarnation",
        after=3,
        through=offset,
        inserted=0,
        copies=0,
        not_events=0,
        durable_offset=0,
        at_us=now_us(),
    )
    yield Batch("advance_cursor", [turned])


async def test_contents_of_any_size_come_with_the_claim_in_their_own_bytes(store: Store) -> None:
    """Small and large payloads are claimed at once, and each comes as the bytes it was sent as."""
    payloads = {f"event-{size}": b'"' + b'\\"' * (size // 2) + b'"' for size in (2, 16_000, 20_000, 300_000)}
    projected = await put(store, [record(name, payload) for name, payload in payloads.items()])
    taken = (await store.claim(projected.queued, now_us())).taken
    assert {one.event.id: one.content.payload for one in taken} == payloads
    again = await project(store, [record(name, payload) for name, payload in payloads.items()], after=4)
    assert sum(part.copies for part in again) == 4


async def test_a_claim_counts_bytes(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many events are claimed as fit, at least one; the others are left, and are claimed when asked for again."""
    monkeypatch.setattr(transactions, "CLAIM_BYTES_MAX", 70_000)
    large = b'"' + b"x" * 30_000 + b'"'
    projected = await put(store, [record(f"event-{number}", large) for number in range(5)])
    entries, rounds = projected.queued, 0
    while entries:
        claim = await store.claim(entries, now_us())
        assert 1 <= len(claim.taken) <= 2
        entries, rounds = claim.left, rounds + 1
    assert rounds == 3
    assert (await ledger_of(store)).states[State.PROCESSING] == 5


async def test_a_recall_counts_bytes(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of events that waited for a handler as many are claimed as fit, and it is said that more wait on."""
    monkeypatch.setattr(deferred, "CLAIM_BYTES_MAX", 70_000)
    large = b'"' + b"x" * 30_000 + b'"'
    await project_with_admission(store, [record(f"event-{number}", large) for number in range(3)], room(test=0))
    first = await recall(store, "test")
    second = await recall(store, "test")
    assert (len(first.taken), first.left, len(second.taken), second.left) == (2, 1, 1, 0)
    assert (await store.pauses_and_deferred())[1] == {}


def spoil(seq: int, payload: bytes | None) -> Steps[None]:
    """Replace what came with an event, or take it away."""
    yield Batch("delete_contents", [RemovedEvent(seq=seq)])
    if payload is not None:
        yield Batch("insert_contents", [StoredContent(seq=seq, payload=payload, metadata=b"{}")])


SPOILED = {"no text": b'"\xff"', "no text and large": b'"' + b"\xff" * 20_000 + b'"', "gone": None}


@pytest.mark.parametrize("payload", SPOILED.values(), ids=SPOILED.keys())
async def test_an_event_whose_content_cannot_be_read_is_buried(store: Store, payload: bytes | None) -> None:
    """Claims go on around an event that can never be given to a handler, which becomes a dead letter."""
    projected = await put(store, [record(f"event-{number}") for number in range(9)])
    (event, _) = (await store.events_by_ids(["event-4"]))["event-4"]
    await store.driver.write(lambda: spoil(event.seq, payload))
    entries, taken, buried = list(projected.queued), [], []
    while entries:
        claim = await store.claim(entries, now_us())
        taken += [one.event.id for one in claim.taken]
        buried += claim.buried
        entries = claim.left
    assert sorted(taken) == [f"event-{number}" for number in range(9) if number != 4]
    assert buried == [("event-4", "test")]
    (letter,) = await letters(store)
    assert (letter.id, letter.reason) == ("event-4", Reason.BAD_PAYLOAD)
    assert letter.last_error
    ledger = await ledger_of(store)
    assert (ledger.states[State.PROCESSING], ledger.states[State.QUEUED], ledger.lost) == (8, 0, 0)


@pytest.mark.parametrize("payload", SPOILED.values(), ids=SPOILED.keys())
async def test_an_unreadable_event_that_waited_for_its_handler_is_buried(store: Store, payload: bytes | None) -> None:
    """A recall goes on around it, and the counters say the same as the rows."""
    await project_with_admission(store, [record(f"event-{number}") for number in range(5)], room(test=0))
    (event, _) = (await store.events_by_ids(["event-2"]))["event-2"]
    await store.driver.write(lambda: spoil(event.seq, payload))
    taken, buried = 0, []
    for _ in range(10):
        recalled = await recall(store, "test")
        taken += len(recalled.taken)
        buried += recalled.buried
        if not recalled.left:
            break
    assert (taken, buried) == (4, [("event-2", "test")])
    assert (await store.pauses_and_deferred())[1] == {}
    assert (await store.discrepancies()).deferred == {}


async def test_outcomes_that_cannot_be_stored_do_not_run_again(store: Store) -> None:
    """An error that is not text is kept as one; an outcome that no store takes buries its event; neighbours succeed."""
    taken = await claimed(store, 4)
    telemetry = Telemetry()
    probe, buffer = Probe(telemetry), ClaimBuffer(FakeClock(), workers=4)
    settler = Settler(store, buffer, Publisher(store, EmbeddedStream(telemetry, entries_max=10), telemetry), telemetry)
    failed = Verdict(State.RETRYING, 1, 0, due_at_us=now_us())
    settlements = [
        success(taken[0]),
        replace(
            success(taken[1]), outcome=Outcome.FAILED, verdict=failed, error="half \ud800, \0", error_signature="x"
        ),
        replace(success(taken[2]), outcome=Outcome.FAILED, verdict=replace(failed, due_at_us=2**70), error="far"),
        success(taken[3]),
    ]
    await settler.commit(settlements)
    rows = await store.events_by_ids([one.event.id for one in taken])
    states = [rows[one.event.id][0].state for one in taken]
    assert states == [State.SUCCEEDED, State.RETRYING, State.DEAD_LETTERED, State.SUCCEEDED]
    assert (rows[taken[1].event.id][0].last_error or "").startswith("half ")
    assert rows[taken[2].event.id][0].reason == Reason.BAD_PAYLOAD
    assert not probe.fields("attempt.unsettled")
    assert (await ledger_of(store)).lost == 0


async def test_a_member_that_cannot_be_replayed_is_left_alone(store: Store) -> None:
    """A bulk replay goes on around an event whose next run no store can count, and says why it was skipped."""
    names = await dead(store, 6)
    store.driver.book = {**store.driver.book, "exhaust": EXHAUST}  # type: ignore[attr-defined]
    await store.driver.write(lambda: exhaust(names[3]))
    job = await create(store)
    await moved(store, job, JobState.RUNNING)
    replayed: list[str] = []
    skipped = 0
    for _ in range(10):
        done = await store.advance_replay(job.seq, 500, now_us())
        if done is None:
            break
        replayed += [event_id for event_id, _ in done.entries]
        skipped += done.skipped
    assert (sorted(replayed), skipped) == ([name for name in names if name != names[3]], 1)
    standing = await store.find_replay(job.seq)
    assert standing is not None
    ((skip,),) = [standing[1]]
    assert (skip.sample, skip.count) == (names[3], 1)
    assert (standing[0].replayed, standing[0].waiting) == (5, 0)


EXHAUST = "UPDATE events SET run = 9223372036854775807 WHERE id = :id"


def exhaust(event_id: str) -> Steps[None]:
    """Let an event have had as many runs as a column can count."""
    yield Fetch("exhaust", {"id": event_id})


async def test_an_unreadable_suspect_is_buried(store: Store) -> None:
    """A suspect that nobody can be given does not keep those behind it from running alone."""
    await put(store, [record("event-1"), record("event-2")])
    (event, _) = (await store.events_by_ids(["event-1"]))["event-1"]
    accuse = "UPDATE events SET suspect = 1, suspicion = '{}' WHERE id = :id"
    store.driver.book = {**store.driver.book, "exhaust": accuse}  # type: ignore[attr-defined]
    for name in ("event-1", "event-2"):
        await store.driver.write(lambda name=name: exhaust(name))  # type: ignore[misc]
    await store.driver.write(lambda: spoil(event.seq, b"\xff"))
    first = await store.claim_suspect(now_us())
    second = await store.claim_suspect(now_us())
    assert (first.taken, first.buried) == ([], [("event-1", "test")])
    assert [one.event.id for one in second.taken] == ["event-2"]


async def test_the_way_of_an_event_takes_so_many_statements(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten events, each of a workflow of its own, are stored, claimed and settled in three short transactions."""
    names: list[str] = []
    run_statement = store.driver.run_statement  # type: ignore[attr-defined]

    def counted(connection: object, statement: Batch | Fetch) -> object:
        names.append(statement.name)
        return run_statement(connection, statement)

    await store.open_cursor(LOG, "incarnation", 0, now_us())
    monkeypatch.setattr(store.driver, "run_statement", counted)
    records = [(number, record(f"event-{number}", workflow_id=f"w{number}")) for number in range(1, 11)]
    projected = await store.project(Projection(LOG, "incarnation", 0, 10, records, 0, now_us()))
    taken = (await store.claim(projected.queued, now_us())).taken
    await store.settle([success(one) for one in taken])
    projection = ["known_contents", "advance_cursor", "reserve_seqs", "insert_events", "insert_contents", "add_tallies"]
    claim = ["claimable_events", "claim_events", "add_tallies"]
    assert names == [*projection, *claim, "settle_events", "insert_attempts", "add_tallies"]
