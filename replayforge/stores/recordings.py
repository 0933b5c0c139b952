"""Recorded runs as whole values: what code that may be new is held against. Only reads."""

from collections import defaultdict
from collections.abc import Collection, Sequence

from msgspec import structs

from replayforge.domain.event import Content, StoredEvent
from replayforge.domain.journal import Journal, StepRecord
from replayforge.domain.lifecycle import Reason, State
from replayforge.domain.recorded_run import RecordedRun
from replayforge.domain.reports import EventFilter
from replayforge.stores.driver import Fetch, Steps
from replayforge.stores.lookups import contents_of, list_rows
from replayforge.stores.rows import Row, step_record

PAGE_EVENTS = 500
# How runs end that code can be held against, and the one way in which open ones stand still.
COMPARABLE = frozenset({State.SUCCEEDED, State.DEAD_LETTERED, State.WAITING})
# What no code had a part in.
NOT_BY_CODE = frozenset({Reason.KEY_REUSED, Reason.OVERLAP, Reason.GIVEN_UP})


def recorded_runs(wanted: EventFilter, states: Collection[State], limit: int) -> Steps[list[RecordedRun]]:
    """Fetch the runs of the newest events that pass a filter and stand in one of the states, the oldest of them first.

    Left out is what no handler was ever given: signals, events whose children go to subscribers, reused keys.
    """
    runs: list[RecordedRun] = []
    before_seq: int | None = None
    while len(runs) < limit:
        page = yield from list_rows(wanted, before_seq, PAGE_EVENTS)
        events = [event for event in page if event.state in states and was_handled(event)]
        runs += yield from runs_of(events[: limit - len(runs)])
        if len(page) < PAGE_EVENTS:
            break
        before_seq = page[-1].seq
    return sorted(runs, key=lambda run: run.event.seq)


def was_handled(event: StoredEvent) -> bool:
    """Tell whether a handler was given the event, or would have been."""
    if event.subscribers is not None or event.reason in NOT_BY_CODE:
        return False
    return event.starts > 0 or event.reason == Reason.NO_HANDLER


def runs_of(events: Sequence[StoredEvent]) -> Steps[list[RecordedRun]]:
    """Fetch the current runs of events, in their order."""
    if not events:
        return []
    asked = {"seqs": [event.seq for event in events]}
    contents = yield from contents_of(events)
    results = {row[0]: row[1] for row in (yield Fetch("results", asked))}
    started = {row[0]: row[1] for row in (yield Fetch("last_attempts", asked))}
    journals = {row[0]: row for row in (yield Fetch("recorded_journals", asked))}
    steps: defaultdict[int, list[StepRecord]] = defaultdict(list)
    rows = (yield Fetch("recorded_steps_of", asked)) if journals else []
    for seq, *row in rows:
        steps[seq].append(step_record(row))
    made = sorted({step.other_id for own in steps.values() for step in own if step.other_id is not None})
    children = {row[0]: bytes(row[1]) for row in (yield Fetch("payloads_by_ids", {"ids": made}))} if made else {}
    return [
        recorded_run(
            structs.replace(event, result=None if results[event.seq] is None else bytes(results[event.seq])),
            contents[event.seq],
            journal_of(event, journals.get(event.seq), steps[event.seq]),
            started.get(event.seq, event.updated_at_us),
            children,
        )
        for event in events
    ]


def journal_of(event: StoredEvent, row: Row | None, steps: Sequence[StepRecord]) -> Journal:
    """Return an event's current journal, which is empty where nothing was recorded."""
    newest = {(record.kind, record.step): record for record in steps}
    if row is None:
        return Journal(run_started_at_us=event.updated_at_us, now_us=event.updated_at_us)
    _, number, run_started_at_us, payload, activation = row
    return Journal(
        number=number,
        run_started_at_us=run_started_at_us,
        now_us=event.updated_at_us,
        payload=None if payload is None else bytes(payload),
        activation=activation,
        records=tuple(newest.values()),
    )


def recorded_run(
    event: StoredEvent, content: Content, journal: Journal, started_at_us: int, payloads: dict[str, bytes]
) -> RecordedRun:
    """Put the run of an event together; `payloads` are those of more children than its own."""
    made = {record.other_id for record in journal.records}
    return RecordedRun(
        event=event,
        content=content if journal.payload is None else structs.replace(content, payload=journal.payload),
        journal=journal,
        started_at_us=started_at_us,
        children={child: payload for child, payload in payloads.items() if child in made} if payloads else {},
    )
