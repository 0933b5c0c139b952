"""Values that answer a question about many events: filters, totals, groups, the ledger."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from replayforge.domain.identity import event_id_for_key
from replayforge.domain.lifecycle import OPEN, TERMINAL, State

# What a filter of events is called outside: in queries, in the bodies of bulk replays, on the command line.
FILTER_NAMES = (
    "status",
    "event_type",
    "service_name",
    "workflow_id",
    "application_name",
    "error",
    "since",
    "until",
    "failed_since",
    "q",
    "awaits",
    "idempotency_key",
)


@dataclass(frozen=True, slots=True)
class EventFilter:
    """Which events a list shows; None means any. `event_type` may hold `*`; times are microseconds.

    `failed_since_us` means those whose last attempt failed, and that not before; `awaits` is the type of the event that
    parked ones wait for.
    """

    state: State | None = None
    event_type: str | None = None
    service_name: str | None = None
    workflow_id: str | None = None
    application_name: str | None = None
    error_signature: str | None = None
    since_us: int | None = None
    until_us: int | None = None
    failed_since_us: int | None = None
    text: str | None = None
    awaits: str | None = None
    idempotency_key: str | None = None

    @classmethod
    def of(
        cls,
        given: Mapping[str, Any],
        since_us: int | None = None,
        until_us: int | None = None,
        failed_since_us: int | None = None,
    ) -> "EventFilter":
        """Return the filter that is meant by the names it has outside; what is empty means any, times come as read."""
        status = given.get("status")
        return cls(
            state=State(status) if status else None,
            event_type=given.get("event_type") or None,
            service_name=given.get("service_name") or None,
            workflow_id=given.get("workflow_id") or None,
            application_name=given.get("application_name") or None,
            error_signature=given.get("error") or None,
            since_us=since_us,
            until_us=until_us,
            failed_since_us=failed_since_us,
            text=given.get("q") or None,
            awaits=given.get("awaits") or None,
            idempotency_key=given.get("idempotency_key") or None,
        )

    def id_of_key(self, key: str) -> str:
        """Return the id that an event with this key has in the application that is meant."""
        return event_id_for_key(self.application_name or "default", key)


@dataclass(frozen=True, slots=True)
class WorkflowSummary:
    """One workflow and how its events stand; `capped` says that there are older ones, which were not counted."""

    workflow_id: str
    cursor: int
    totals: dict[State, int]
    created_at_us: int
    updated_at_us: int
    capped: bool = False

    @property
    def total(self) -> int:
        """How many events the workflow has."""
        return sum(self.totals.values())

    @property
    def failed(self) -> int:
        """How many of them failed and wait for another attempt; what has ended is counted under its own state."""
        return self.totals.get(State.RETRYING, 0)

    @property
    def in_flight(self) -> int:
        """How many of them have not ended; what is kept until somebody takes it is under way to nowhere."""
        return sum(count for state, count in self.totals.items() if state in OPEN and state is not State.KEPT)


@dataclass(frozen=True, slots=True)
class Group:
    """Events or attempts that have something in common, usually their error.

    `capped` says that only the newest 10,000 were looked at and that there are older ones: there may be more of it.
    """

    name: str
    count: int
    first_at_us: int
    last_at_us: int
    event_types: int
    sample: str
    capped: bool = False


@dataclass(frozen=True, slots=True)
class NewError:
    """An error that dead letters have, none of which had it before: how many, 1,000 at most, and since when."""

    name: str
    count: int
    first_at_us: int


@dataclass(frozen=True, slots=True)
class LogCursor:
    """How far one log has been projected into the store, and what became of its records."""

    log_id: str
    log_offset: int
    inserted: int
    copies: int
    not_events: int
    updated_at_us: int
    durable_offset: int = 0
    unreadable: int = 0
    gaps: int = 0


@dataclass(frozen=True, slots=True)
class Node:
    """One daemon as it reported last, at its beat number `beat`; `silent_us` is how long ago that was.

    `durable_offset` is where its log ended, as far as anybody else knows, `projected_offset` how far the store has it.
    `workers` is a JSON array of what its workers do, `labels` one of the labels of its handlers' code.
    `stopped` says that it ended in order, `given_up` that its node has begun another log since.
    """

    name: str
    log_id: str
    incarnation: str
    host: str
    pid: int
    started_at_us: int
    seen_at_us: int = 0
    silent_us: int = 0
    stopped: bool = False
    durable_offset: int = 0
    projected_offset: int = 0
    workers: str = "[]"
    given_up: bool = False
    beat: int = 0
    labels: str = "[]"

    @property
    def unprojected(self) -> int:
        """How many records of its log are known to have no row yet."""
        return max(0, self.durable_offset - self.projected_offset)

    def alive(self, silent_us_max: int) -> bool:
        """Tell whether the daemon was heard of lately."""
        return not self.stopped and not self.given_up and self.silent_us <= silent_us_max


@dataclass(frozen=True, slots=True)
class DeployFindings:
    """How many open runs were held against the code that the daemon has begun with, and what becomes of them.

    `breaking` of them would not go on. It is not `complete` where some were not looked at, for `error`.
    """

    runs: int
    verdicts: dict[str, int]
    breaking: int
    complete: bool
    error: str


@dataclass(frozen=True, slots=True)
class Ledger:
    """The ledger: every record of the log is a copy, not an event, or a row; every row is in one state or retired.

    Not events are `unreadable` records, which were to be events, those in `gaps`, which were gone before they were
    read, and foreign ones, which somebody appended for another purpose.

    `unprojected` are records behind no cursor yet. `lost` is computed from what the log holds and what the store holds.
    """

    records: int
    unprojected: int
    not_events: int
    copies: int
    inserted: int
    states: dict[State, int]
    retired: int
    unreadable: int = 0
    gaps: int = 0

    @property
    def foreign(self) -> int:
        """How many records were appended for another purpose."""
        return self.not_events - self.unreadable - self.gaps

    @property
    def accepted(self) -> int:
        """How many different events were acknowledged."""
        return self.records - self.not_events - self.copies

    @property
    def open(self) -> int:
        """How many events have not reached a terminal state, those not yet dispatched among them."""
        return self.unprojected + sum(self.states.get(state, 0) for state in OPEN)

    @property
    def terminal(self) -> int:
        """How many events stand in a terminal state."""
        return sum(self.states.get(state, 0) for state in TERMINAL)

    @property
    def lost(self) -> int:
        """How many acknowledged events have neither a row nor a place in the queue for one."""
        return self.accepted - self.open - self.terminal - self.retired

    def as_json(self) -> dict[str, Any]:
        """Return the ledger with the names of the API."""
        return {
            "accepted": self.accepted,
            "copies": self.copies,
            **{state.value: self.states.get(state, 0) for state in sorted(TERMINAL)},
            "open": self.open,
            "retired": self.retired,
            "lost": self.lost,
            "foreign_records": self.foreign,
            "unreadable_records": self.unreadable,
            "gap_records": self.gaps,
        }

    def in_words(self) -> str:
        """Return the ledger as one line a person can check."""
        ended = " + ".join(f"{state.value} {self.states.get(state, 0):,}" for state in sorted(TERMINAL))
        retired = f" + retired {self.retired:,}" if self.retired else ""
        apart = {"foreign": self.foreign, "unreadable": self.unreadable, "gone unread": self.gaps}
        beside = "".join(f" · {name} {count:,}" for name, count in apart.items() if count)
        return f"accepted {self.accepted:,} = {ended} + open {self.open:,}{retired} · lost {self.lost:,}{beside}"


def dead_in_words(count: int) -> str:
    """Say how many dead letters wait for somebody."""
    return "1 dead letter waits for a decision." if count == 1 else f"{count:,} dead letters wait for a decision."


def held_in_words(count: int) -> str:
    """Say how many events are held, without a full stop."""
    many = "1 event is held and waits" if count == 1 else f"{count:,} events are held and wait"
    return f"{many} for a decision"
