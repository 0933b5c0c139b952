"""Read-only queries of the store, each one transaction on one snapshot."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from msgspec import structs

from replayforge.domain.event import Action, Attempt, Content, Entry, Lease, Meaning, StoredEvent
from replayforge.domain.lifecycle import State
from replayforge.domain.reports import EventFilter, Group, LogCursor, NewError, Node, WorkflowSummary
from replayforge.stores.driver import Fetch, Steps
from replayforge.stores.lanes import Behind, all_problems, behind
from replayforge.stores.rows import Row, attempt, group, node, stored_event


@dataclass(frozen=True, slots=True)
class EventPage:
    """A page of a list of events, which ends early where more would be too large; it goes on before `next_seq`."""

    events: list[tuple[StoredEvent, Content]]
    next_seq: int | None


@dataclass(frozen=True, slots=True)
class RowPage:
    """Events without what came with them, newest first; the list goes on before the row number `next_seq`, if it does.

    A page ends, and may be empty, where LOOKED_AT_MAX events were looked at to find those that pass the filter.
    """

    events: list[StoredEvent]
    next_seq: int | None


@dataclass(frozen=True, slots=True)
class WorkflowPage:
    """A page of the list of workflows, and before which row number the next one begins, if there is one."""

    workflows: list[WorkflowSummary]
    next_seq: int | None


class Outstanding(NamedTuple):
    """What is known of the work that there is, all of one moment: the cursors of all logs, the tallies, how many
    waiting events are due soon, when the longest waiting queued event was last touched, and what waits in lanes."""

    cursors: list[LogCursor]
    tallies: dict[str, int]
    soon: dict[State, int]
    oldest_queued_us: int | None
    behind: list[Behind]


@dataclass(frozen=True, slots=True)
class Discrepancies:
    """(event id, run, outcomes) of runs that ended twice, the leases of attempts whose event is gone, and
    how many rows stand in each state, and wait for each handler, counted one by one; (what is wrong, row number,
    journal, step) of workflows that remember or wait for what is not so; (what is wrong, lane) of lanes."""

    doubled: list[tuple[str, int, int]]
    orphans: list[Lease]
    states: dict[State, int]
    deferred: dict[str, int]
    inconsistent: list[tuple[str, int, int, str]]
    lanes: list[tuple[str, str]]


SEQ_MAX = 2**62
PAGE_BYTES_MAX = 4 << 20  # of contents and results on one page; the API shows each payload under two names
NEWEST_MAX = 5_000  # of the newest events, how many are looked at for the workflows they name
LOOKS_BACK_MAX = 40  # how often one page looks at as many rows further back
WORKFLOWS_MAX = 2_000  # how many workflows are found by going from name to name
WORKFLOW_EVENTS_MAX = 1_000  # of one workflow, how many of its newest events a list counts
ALONE_EVENTS_MAX = 10_000  # the same of a workflow that is looked at alone
COUNTED_MAX = 50_000  # events after which a page of workflows ends
COUNTED_AT_ONCE = 50  # workflows
GONE = Content(b"null", b"{}")  # what is shown where somebody removed what came with an event
SCAN_MAX = 10_000
ERRORS_JUDGED_MAX = 1_000  # one by one; of more, those of the newest dead letters are looked for instead
NEW_LETTERS_MAX = 1_000  # of one new error no more are counted
LOOKED_AT_MAX = 100_000  # events that one page looks at where no index tells which of them pass its filter
NEAR_MAX = 5_000  # events among which it looks first: to count off all the others takes longer than most pages
BEGINNING_MAX = 10_000  # events whose ids, workflows or keys begin with a text, up to which all of them are gathered
LIKE_ESCAPES = str.maketrans({"\\": "\\\\", "%": "\\%", "_": "\\_"})

# Conditions for the `{filters}` place of list queries; the same in both dialects, each served by an index.
FILTERS = {
    "state": "AND state = :state",
    "event_type": "AND event_type = :event_type",
    "service_name": "AND service_name = :service_name",
    "workflow_id": "AND workflow_id = :workflow_id",
    "application_name": "AND application_name = :application_name",
    "error_signature": "AND error_signature = :error_signature",
    "since_us": "AND created_at_us >= :since_us",
    "until_us": "AND created_at_us < :until_us",
    "failed_since_us": "AND state IN ('dead_lettered', 'retrying') AND updated_at_us >= :failed_since_us",
    "awaits": "AND state = 'waiting' AND seq IN (SELECT event_seq FROM waits WHERE event_type = :awaits)",
    "idempotency_key": "AND idempotency_key = :idempotency_key",
}
# The indexes that lists go down, the one that names fewest events first; and what is found before a list is gone down.
NAMED_BY_INDEX = ("workflow_id", "error_signature", "event_type", "state")
FOUND_BEFORE = frozenset({"awaits", "idempotency_key", "text"})
TYPE_PATTERN = "AND event_type LIKE :event_type ESCAPE '\\'"
TEXT = (
    "AND seq IN (SELECT seq FROM events WHERE id = :text UNION SELECT seq FROM events WHERE id = :key_id"
    " UNION SELECT seq FROM events WHERE workflow_id >= :text AND workflow_id < :text_end"
    " UNION SELECT seq FROM events WHERE idempotency_key >= :text AND idempotency_key < :text_end"
    " UNION SELECT seq FROM events WHERE id >= :text AND id < :text_end)"
)
# The same row by row, where very many events begin so: no index is asked.
TEXT_IN_ROW = (
    "AND (id = :text OR id = :key_id OR (workflow_id || '' >= :text AND workflow_id || '' < :text_end)"
    " OR (idempotency_key || '' >= :text AND idempotency_key || '' < :text_end)"
    " OR (id || '' >= :text AND id || '' < :text_end))"
)
TEXT_END = "\U0010ffff"


def cursor(log_id: str) -> Steps[tuple[int, str] | None]:
    """Fetch (offset, incarnation) of the log's cursor."""
    rows = yield Fetch("cursor", {"log_id": log_id})
    return (rows[0][0], rows[0][1]) if rows else None


def meta_value(name: str) -> Steps[str]:
    """Fetch one of the store's own notes."""
    rows = yield Fetch("meta_value", {"name": name})
    return str(rows[0][0])


def ledger_snapshot() -> Steps[tuple[list[LogCursor], dict[str, int]]]:
    """Fetch the cursors of all logs and the tallies, on one snapshot."""
    cursors = yield Fetch("cursors")
    tallies = yield Fetch("tallies")
    return [LogCursor(*row) for row in cursors], {name: int(amount) for name, amount in tallies}


def recount() -> Steps[dict[State, int]]:
    """Fetch by how many the rows of each state differ from the tallies, on one snapshot; empty where they agree."""
    counted = yield Fetch("check_states")
    tallies = yield Fetch("tallies")
    rows, booked = {row[0]: row[1] for row in counted}, {name: int(amount) for name, amount in tallies}
    differences = {state: rows.get(state, 0) - booked.get(state, 0) for state in State}
    return {state: more for state, more in differences.items() if more}


def nodes(now_us: int) -> Steps[list[Node]]:
    """Fetch every daemon that shares this store."""
    rows = yield Fetch("nodes", {"now_us": now_us})
    return [node(row) for row in rows]


def end_stalled_transactions(seconds: float) -> Steps[int]:
    """End transactions that have waited for so long for the rest of a statement; returns how many."""
    return len((yield Fetch("end_stalled_transactions", {"seconds": seconds})))


def long_transactions(seconds: float) -> Steps[list[tuple[int, float, str]]]:
    """Fetch (process, seconds, statement) of foreign transactions that have been open for longer."""
    rows = yield Fetch("long_transactions", {"seconds": seconds})
    return [(row[0], row[1], row[2]) for row in rows]


def events_by_ids(ids: Sequence[str]) -> Steps[dict[str, tuple[StoredEvent, Content]]]:
    """Fetch the events of these ids with their contents; ids without a row are left out."""
    rows = yield Fetch("events_by_ids", {"ids": list(ids)})
    events = [stored_event(row) for row in rows]
    contents = yield from contents_of(events)
    return {event.id: (event, contents[event.seq]) for event in events}


def contents_of(events: Sequence[StoredEvent]) -> Steps[dict[int, Content]]:
    """Fetch row number -> content."""
    if not events:
        return {}
    rows = yield Fetch("contents", {"seqs": [event.seq for event in events]})
    contents = {seq: Content(bytes(payload), bytes(metadata)) for seq, payload, metadata in rows}
    return {event.seq: contents.get(event.seq, GONE) for event in events}


def history(event_id: str) -> Steps[tuple[StoredEvent, Content, list[Attempt], list[Action]] | None]:
    """Fetch an event with what came with it, its newest 1,000 attempts and what was done to it."""
    rows = yield Fetch("event", {"id": event_id})
    if not rows:
        return None
    event = stored_event(rows[0])
    contents = yield from contents_of([event])
    attempts = yield Fetch("event_attempts", {"seq": event.seq, "count": 1000})
    actions = yield Fetch("event_actions", {"seq": event.seq, "count": 1000})
    return event, contents[event.seq], [attempt(row) for row in attempts], [Action(*row) for row in actions]


def list_events(wanted: EventFilter, before_seq: int | None, limit: int) -> Steps[EventPage]:
    """Fetch events that pass the filter, newest first, with their contents and results, as many as fit into a page."""
    return (yield from filled_page((yield from page_of_rows(wanted, before_seq, limit))))


def filled_page(page: RowPage) -> Steps[EventPage]:
    """Fetch the contents and results of the first events of a page, as many as fit into one."""
    rows = page.events
    seqs = [event.seq for event in rows]
    rows_of_sizes = (yield Fetch("sizes", {"seqs": seqs})) if seqs else []
    sizes: dict[int, int] = {row[0]: row[1] for row in rows_of_sizes}
    count = fitting([sizes[seq] for seq in seqs], PAGE_BYTES_MAX)
    results = (yield Fetch("results", {"seqs": seqs[:count]})) if count else []
    result_of = {seq: None if result is None else bytes(result) for seq, result in results}
    events = [structs.replace(event, result=result_of[event.seq]) for event in rows[:count]]
    contents = yield from contents_of(events)
    next_seq = page.next_seq if count == len(rows) else seqs[count - 1]
    return EventPage([(event, contents[event.seq]) for event in events], next_seq)


def fitting(sizes: Sequence[int], bytes_max: int) -> int:
    """Return how many of the first things of these sizes fit together, at least one."""
    total = 0
    for count, size in enumerate(sizes):
        total += size
        if count and total > bytes_max:
            return count
    return len(sizes)


def page_of_rows(wanted: EventFilter, before_seq: int | None, limit: int) -> Steps[RowPage]:
    """Fetch a page of the events that pass the filter, without their contents and results."""
    rows: list[StoredEvent] = []
    goes_on: int | None = None
    for looked_at in (min(NEAR_MAX, LOOKED_AT_MAX), LOOKED_AT_MAX):
        goes_on = yield from end_of_look(wanted, before_seq or SEQ_MAX, looked_at)
        rows = yield from list_rows(wanted, before_seq, limit + 1, goes_on or 0)
        if goes_on is None or len(rows) > limit:
            break
    return RowPage(rows[:limit], rows[limit - 1].seq if len(rows) > limit else goes_on)


def end_of_look(wanted: EventFilter, before_seq: int, count: int) -> Steps[int | None]:
    """Fetch the row number at which a look at so many events ends; None where it need not end before the list.

    An index names the events of a workflow, an error, a type or a state: all that a page can find among so many of
    those.
    """
    given = {name for name in FILTERS if getattr(wanted, name) is not None} | ({"text"} if wanted.text else set())
    named = next((name for name in NAMED_BY_INDEX if name in given), None)
    if wanted.event_type is not None and "*" in wanted.event_type and named == "event_type":
        named = "state" if "state" in given else None
    if not given - {named} or given & FOUND_BEFORE:
        return None
    filters, parameters = ("", {}) if named is None else (FILTERS[named], {named: getattr(wanted, named)})
    asked = {**parameters, "before_seq": before_seq, "count": count}
    behind = yield Fetch("seq_behind", asked, filters)
    return behind[0][0] if behind else None


def list_rows(wanted: EventFilter, before_seq: int | None, limit: int, from_seq: int = 0) -> Steps[list[StoredEvent]]:
    """Fetch events that pass the filter, newest first, without their contents and results, which may be large.

    However many have to be looked at for that: for people there are pages. Where few events begin with a text, indexes
    find all of them; where many do, some of the newest will be among them, and to gather all would take far longer.
    """
    if wanted.text:
        seqs = yield from seqs_beginning(wanted, wanted.text, BEGINNING_MAX)
        if len(seqs) < BEGINNING_MAX:
            filters, parameters = conditions(replace(wanted, text=None))
            looked_at = sorted(seq for seq in seqs if from_seq <= seq < (before_seq or SEQ_MAX))
            rows = yield Fetch("listed_by_seqs", parameters | {"seqs": looked_at, "count": limit}, filters)
            return [stored_event(row) for row in rows]
    filters, parameters = conditions(wanted, TEXT_IN_ROW)
    parameters |= {"before_seq": before_seq or SEQ_MAX, "from_seq": from_seq, "count": limit}
    rows = yield Fetch("list_events", parameters, filters)
    return [stored_event(row) for row in rows]


def seqs_beginning(wanted: EventFilter, text: str, each: int) -> Steps[list[int]]:
    """Fetch the row numbers of events whose id, workflow or key is or begins with a text, so many for each of these."""
    rows = yield Fetch("seqs_beginning", text_parameters(wanted, text) | {"each": each})
    return [row[0] for row in rows]


def text_parameters(wanted: EventFilter, text: str) -> dict[str, Any]:
    """Return the parameters of a search for a text, among them the id that an event with this key has."""
    return {"text": text, "key_id": wanted.id_of_key(text), "text_end": text + TEXT_END}


def look_up(text: str, limit: int) -> Steps[list[StoredEvent]]:
    """Fetch events whose id, workflow or key begins with a text, newest first, at most `limit` for each."""
    seqs = yield from seqs_beginning(EventFilter(), text, limit)
    rows = (yield Fetch("listed_by_seqs", {"seqs": seqs, "count": len(seqs)})) if seqs else []
    return [stored_event(row) for row in rows]


def count_newest(wanted: EventFilter, scan_max: int) -> Steps[int]:
    """Count those of the newest events that pass the filter."""
    filters, parameters = conditions(wanted, TEXT_IN_ROW)
    rows = yield Fetch("count_newest", parameters | {"scan_max": scan_max}, filters)
    return int(rows[0][0])


def conditions(wanted: EventFilter, text: str = TEXT) -> tuple[str, dict[str, Any]]:
    """Return the SQL conditions of a filter, with this one for its text, and their parameters."""
    parameters = {name: getattr(wanted, name) for name in FILTERS if getattr(wanted, name) is not None}
    fragments = [FILTERS[name] for name in parameters]
    if wanted.event_type is not None and "*" in wanted.event_type:
        fragments[fragments.index(FILTERS["event_type"])] = TYPE_PATTERN
        parameters["event_type"] = wanted.event_type.translate(LIKE_ESCAPES).replace("*", "%")
    if wanted.text:
        fragments.append(text)
        parameters |= text_parameters(wanted, wanted.text)
    return " ".join(fragments), parameters


def of_application(application: str | None) -> tuple[dict[str, Any], str]:
    """Return parameters and SQL for the events of one application, or of all."""
    return ({}, "") if application is None else ({"application_name": application}, FILTERS["application_name"])


def workflow(workflow_id: str, application: str | None) -> Steps[WorkflowSummary | None]:
    """Fetch how the events of a workflow stand, those of one application or of all."""
    given, filters = of_application(application)
    rows = yield Fetch("workflow_totals", given | {"workflow_id": workflow_id, "count": ALONE_EVENTS_MAX}, filters)
    return summary(workflow_id, 0, rows) if rows else None


def list_workflows(before_seq: int | None, limit: int, application: str | None) -> Steps[WorkflowPage]:
    """Fetch workflows, the one with the newest event first, until so many events were counted.

    With an application only its events count. There is no row for each workflow: one kept in every transaction that
    moves an event would cost each of them a statement, and a lock that every transaction of the workflow waits for.
    """
    ends, next_seq = yield from newest_workflows(before_seq or SEQ_MAX, limit, application)
    summaries: list[WorkflowSummary] = []
    counted = 0
    while counted < COUNTED_MAX and len(summaries) < min(limit, len(ends)):
        some = ends[len(summaries) : min(limit, len(summaries) + COUNTED_AT_ONCE)]
        for one in (yield from summaries_of(some, application)):
            if counted < COUNTED_MAX:
                summaries.append(one)
                counted += one.total
    if len(summaries) < len(ends):
        next_seq = summaries[-1].cursor
    return WorkflowPage(summaries, next_seq)


def summaries_of(ends: Sequence[tuple[str, int]], application: str | None) -> Steps[list[WorkflowSummary]]:
    """Fetch how the newest events of some workflows stand, in one statement."""
    given, filters = of_application(application)
    asked = given | {"workflow_ids": [workflow_id for workflow_id, _ in ends], "count": WORKFLOW_EVENTS_MAX}
    rows_of: dict[str, list[Row]] = {}
    for workflow_id, *row in (yield Fetch("totals_of_workflows", asked, filters)):
        rows_of.setdefault(workflow_id, []).append(row)
    return [summary(workflow_id, seq, rows_of[workflow_id]) for workflow_id, seq in ends]


def newest_workflows(
    before_seq: int, limit: int, application: str | None
) -> Steps[tuple[list[tuple[str, int]], int | None]]:
    """Fetch (workflow, newest event) by their newest events before a row number, and where the next look goes on.

    The newest rows name enough of them, or there are few enough to go from name to name. Where there are many, and
    some with very many events, further rows are looked at, up to a number.
    """
    given, filters = of_application(application)
    found, from_seq = yield from look_back(before_seq, limit, application)
    if from_seq is None or len(found) > limit:
        return found, None
    counted = yield Fetch("count_workflows", {"count": WORKFLOWS_MAX + 1})
    if counted[0][0] <= WORKFLOWS_MAX:
        # Only now: where none of its events passes, a workflow is gone through to its beginning.
        rows = yield Fetch("workflow_ends", given | {"count": WORKFLOWS_MAX}, filters)
        named = [(row[0], row[1]) for row in rows if row[1] is not None and row[1] < before_seq]
        ends = sorted(named, key=lambda end: -end[1])
        return ends[: limit + 1], None
    for _ in range(LOOKS_BACK_MAX):
        more, from_seq = yield from look_back(from_seq, limit - len(found), application)
        found += more
        if from_seq is None or len(found) > limit:
            return found, None
    return found, from_seq


def look_back(before_seq: int, limit: int, application: str | None) -> Steps[tuple[list[tuple[str, int]], int | None]]:
    """Fetch the workflows whose newest events are among the next rows, and where those rows end, if more follow."""
    behind = yield Fetch("seq_behind", {"before_seq": before_seq, "count": NEWEST_MAX})
    from_seq: int | None = behind[0][0] if behind else None
    given, filters = of_application(application)
    asked = given | {"from_seq": from_seq or 0, "before_seq": before_seq, "count": limit + 1}
    rows = yield Fetch("newest_workflows", asked, filters)
    return [(row[0], row[1]) for row in rows], from_seq


def summary(workflow_id: str, seq: int, rows: Sequence[Row]) -> WorkflowSummary:
    """Add up the totals of a workflow."""
    return WorkflowSummary(
        workflow_id=workflow_id,
        cursor=seq,
        totals={State(row[0]): int(row[1]) for row in rows},
        created_at_us=min(row[3] for row in rows),
        updated_at_us=max(row[2] for row in rows),
        capped=bool(rows[0][4]),
    )


def timeline(workflow_id: str, limit: int, application: str | None) -> Steps[tuple[list[StoredEvent], list[Attempt]]]:
    """Fetch the events of a workflow in order and their attempts, at most `limit` of each."""
    given, filters = of_application(application)
    asked = given | {"workflow_id": workflow_id, "count": limit}
    rows = yield Fetch("workflow_events", asked | {"after_seq": 0}, filters)
    attempts = yield Fetch("workflow_attempts", asked, filters)
    return [stored_event(row) for row in rows], [attempt(row) for row in attempts]


def dead_letter_groups(group_by: str, limit: int) -> Steps[list[Group]]:
    """Fetch the newest 10,000 dead letters gathered by `error`, `type`, `service` or `reason`."""
    rows = yield Fetch("dead_letter_groups", {"group_by": group_by, "scan_max": SCAN_MAX, "count": limit})
    return [group(row) for row in rows]


def new_errors(since_us: int, limit: int) -> Steps[list[NewError]]:
    """Fetch the errors of dead letters that none had up to a time, of 10,000 different ones, the first ones first."""
    asked = {"since_us": since_us, "count": limit, "scan_max": SCAN_MAX, "letters_max": NEW_LETTERS_MAX}
    rows = yield Fetch("new_errors", asked)
    return [NewError(*row) for row in rows]


def dead_letters_of(
    group_by: str, belongs: Callable[[str], bool], before_seq: int | None, limit: int
) -> Steps[list[StoredEvent]]:
    """Fetch those of the newest 10,000 dead letters before a row number whose group belongs to what is looked for."""
    asked = {"before_seq": before_seq or SEQ_MAX, "scan_max": SCAN_MAX}
    seqs = (yield from seqs_of_errors(belongs, asked | {"count": limit})) if group_by == "error" else None
    if seqs is None:
        kinds = yield Fetch("dead_letter_kinds", asked | {"group_by": group_by})
        judged = {kind: belongs(str(kind)) for kind in {row[1] for row in kinds}}
        seqs = [row[0] for row in kinds if judged[row[1]]][:limit]
    rows = (yield Fetch("listed_by_seqs", {"seqs": seqs, "count": limit})) if seqs else []
    return [stored_event(row) for row in rows]


def seqs_of_errors(belongs: Callable[[str], bool], asked: Mapping[str, Any]) -> Steps[list[int] | None]:
    """Fetch the row numbers of the same by the index of errors, without a look at the others.

    None where there are many errors, or many dead letters with them: then the others are hardly more.
    """
    names = [row[0] for row in (yield Fetch("errors_of_letters", {"count": ERRORS_JUDGED_MAX}))]
    if len(names) == ERRORS_JUDGED_MAX:
        return None
    chosen = {"errors": [name for name in names if belongs(name)]}
    if not chosen["errors"]:
        return []
    counted = yield Fetch("count_letters", chosen | {"count": SCAN_MAX})
    if counted[0][0] >= SCAN_MAX:
        return None
    return [row[0] for row in (yield Fetch("letters_with_errors", {**asked, **chosen}))]


def handlerless(limit: int) -> Steps[list[Group]]:
    """Fetch those of the newest 10,000 dead letters that found no handler, gathered by type."""
    rows = yield Fetch("handlerless", {"scan_max": SCAN_MAX, "count": limit})
    return [group(row) for row in rows]


def error_insights(since_us: int, limit: int) -> Steps[list[Group]]:
    """Fetch the newest 10,000 failed attempts since a time gathered by error."""
    rows = yield Fetch("error_insights", {"since_us": since_us, "scan_max": SCAN_MAX, "count": limit})
    return [Group(str(row[0]), row[1], row[2], row[3], 0, str(row[4]), bool(row[5])) for row in rows]


def queued_entries(after_seq: int, limit: int) -> Steps[list[Entry]]:
    """Fetch (id, run) of queued events in order, suspects left out."""
    rows = yield Fetch("queued_entries", {"after_seq": after_seq, "count": limit})
    return [Entry(*row) for row in rows]


def paced_entries(limit: int) -> Steps[list[Entry]]:
    """Fetch (id, run) of queued events that are released by a rate, in order."""
    rows = yield Fetch("paced_entries", {"count": limit})
    return [Entry(*row) for row in rows]


def run_of_request(seq: int, request_key: str) -> Steps[int | None]:
    """Fetch the run of an event that a request with this key has begun; None when there was no such request."""
    rows = yield Fetch("run_of_request", {"seq": seq, "request_key": request_key})
    return rows[0][0] if rows else None


def any_stranded(now_us: int, ahead_us: int) -> Steps[bool]:
    """Tell whether a retry waits that was decided further ahead of now."""
    rows = yield Fetch("any_stranded", {"now_us": now_us, "ahead_us": ahead_us})
    return bool(rows)


def oldest_queued() -> Steps[int | None]:
    """Fetch when the longest waiting queued event was last touched."""
    rows = yield Fetch("oldest_queued")
    return rows[0][0] if rows else None


def next_due(now_us: int) -> Steps[int | None]:
    """Fetch when the next waiting event falls due, by the clock of who asks."""
    rows = yield Fetch("next_due", {"now_us": now_us})
    due: int | None = rows[0][0]
    return due


def due_soon(now_us: int, soon_us: int) -> Steps[dict[State, int]]:
    """Fetch how many waiting events are due, retries that are due soon among them; no more than so many are counted."""
    rows = yield Fetch("due_soon", {"now_us": now_us, "soon_us": soon_us, "scan_max": SCAN_MAX})
    return {State(row[0]): row[1] for row in rows}


def ledger_and_due(now_us: int, soon_us: int) -> Steps[tuple[list[LogCursor], dict[str, int], dict[State, int]]]:
    """Fetch the ledger and what is due soon, on one snapshot: between two an event could leave the one unseen by the
    other."""
    cursors, tallies = yield from ledger_snapshot()
    soon = yield from due_soon(now_us, soon_us)
    return cursors, tallies, soon


def standing(now_us: int, soon_us: int) -> Steps[Outstanding]:
    """Fetch all that tells whether everything due has ended: nearly every page shows it, so it is one transaction."""
    ledger = yield from ledger_and_due(now_us, soon_us)
    oldest_us = yield from oldest_queued()
    return Outstanding(*ledger, oldest_us, (yield from behind(now_us, soon_us)))


def ping() -> Steps[None]:
    """Return when the store answers."""
    yield Fetch("ping")


def origins(ids: Sequence[str]) -> Steps[dict[str, tuple[str, int, Meaning]]]:
    """Fetch id -> (log id, log offset, what must be the same for a record to be a copy)."""
    rows = yield Fetch("check_ids", {"ids": list(ids)})
    return {row[0]: (row[1], row[2], (row[3], row[4], bytes(row[5]))) for row in rows}


def newest_of_log(log_id: str, count: int) -> Steps[list[tuple[int, str]]]:
    """Fetch (log offset, id) of the events that came from a log last."""
    rows = yield Fetch("newest_of_log", {"log_id": log_id, "scan_max": 10 * SCAN_MAX, "count": count})
    return [(row[0], row[1]) for row in rows]


def discrepancies(limit: int) -> Steps[Discrepancies]:
    """Fetch what must not be: runs with two outcomes, attempts without an event; and the rows counted by state."""
    doubled = yield Fetch("check_doubled", {"count": limit})
    orphans = yield Fetch("check_orphans", {"count": limit})
    states = yield Fetch("check_states")
    deferred = yield Fetch("check_deferred")
    inconsistent = yield Fetch("check_journals", {"count": limit})
    missed = yield Fetch("missed_wakes", {"count": limit})
    signals = yield Fetch("check_signals", {"count": limit})
    lanes = yield from all_problems(limit)
    return Discrepancies(
        doubled=[(row[0], row[1], row[2]) for row in doubled],
        orphans=[Lease(*row) for row in orphans],
        states={State(row[0]): row[1] for row in states},
        deferred={row[0]: row[1] for row in deferred},
        inconsistent=[(row[0], row[1], row[2], row[3]) for row in (*inconsistent, *missed, *signals)],
        lanes=lanes,
    )
