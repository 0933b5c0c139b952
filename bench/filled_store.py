"""A store as a week of work leaves it, written at once and not event by event: the same rows for both kinds.

Of 10,000 events 9,000 or so succeeded, 500 are dead letters with some 200 kinds of errors, and the others stand in
every other state: parked, scheduled, kept, held, in doubt, behind the dead letters of their lanes, deferred because
their handler is paused. Some workflows have a few events, some a few hundred, and one a tenth of all. One event in
twenty has recorded steps. There are bulk replays, refused deliveries, keys of removed events, a history of metrics.
"""

import asyncio
import contextlib
import itertools
import json
import random
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg

from replayforge.domain.histogram import BUCKETS
from replayforge.domain.metrics_history import EVENTFUL, LATENCIES, RANGES

LANES = {"match": "lane.*", "key": "workflow_id", "order": "strict"}
PAUSED = "busy.*"
SOURCE = "hooks"
NODE, LOG = "filled", "filled-log"
WEEK_US = 7 * 86_400 * 1_000_000
HOUR_US = 3600 * 1_000_000
DAY_US = 24 * HOUR_US
EVENTS_PER_LANE = 200
EVENTS_PER_STEP = 20_000
TYPES = [f"{area}.{verb}" for area in ("order", "cart", "user", "mail", "stock") for verb in "abcdefghijklmnopqrst"]
SERVICES = ["checkout", "payments", "shipping", "mail", "search", "login", "stock", "reports", ""]
ERRORS = [
    f"{kind}: {what} answered {status} for …"
    for kind in ("TimeoutError", "ConnectionError", "ValueError", "HttpError", "KeyError")
    for what in ("payment-gw", "carrier", "mailer", "ledger", "stock", "crm", "search", "tax")
    for status in (500, 502, 503, 504, 429)
]
LARGE = "x" * 20_000  # the payload of one event in 500


@dataclass(frozen=True)
class Kind:
    """How some events stand: how many of 10,000, from which state to which, and what their attempts came to."""

    share: int
    previous: str
    state: str
    reason: str | None = None
    outcomes: tuple[str, ...] = ()


SUCCEEDED = Kind(0, "processing", "succeeded", None, ("succeeded",))
AFTER_A_FAILURE = Kind(500, "processing", "succeeded", None, ("failed", "succeeded"))
DEAD = Kind(490, "processing", "dead_lettered", "attempts_exhausted", ("failed", "failed", "failed"))
BLOCKED = Kind(200, "received", "queued")
PARKED = Kind(100, "processing", "waiting")
DEFERRED = Kind(50, "received", "queued")
KINDS = (
    AFTER_A_FAILURE,
    DEAD,
    Kind(10, "processing", "dead_lettered", "no_handler", ("failed",)),
    BLOCKED,
    PARKED,
    DEFERRED,
    Kind(50, "dead_lettered", "discarded", None, ("failed",)),
    Kind(50, "scheduled", "cancelled"),
    Kind(50, "received", "scheduled"),
    Kind(20, "processing", "retrying", None, ("failed",)),
    Kind(10, "received", "kept"),
    Kind(2, "queued", "held", "in_doubt", ("crashed",)),
    Kind(2, "queued", "held", "suspected_poison", ("crashed",)),
)
DUE = ("scheduled", "retrying", "waiting")

COLUMNS = {
    "events": "seq id application_name workflow_id event_type service_name idempotency_key created_at_us updated_at_us"
    " log_id log_offset previous_state state run attempt_count starts crashes suspect lease_token due_at_us reason"
    " last_error error_signature result waits_for lane lane_place blocked",
    "contents": "seq payload metadata",
    "attempts": "event_seq token run number outcome ended_run owner worker started_at_us ended_at_us error"
    " error_signature",
    "actions": "event_seq at_us run action detail",
    "journals": "event_seq number run run_started_at_us parked_token label",
    "steps": "event_seq journal kind step generation state token run begun recorded tries started_at_us ended_at_us"
    " due_at_us arguments result event_type label",
    "waits": "event_seq step application_name workflow_id event_type since_us",
    "lanes": "lane strict dead_blocks width counts_running interval_us last_place",
    "tallies": "node name amount",
    "cursors": "log_id incarnation log_offset inserted updated_at_us durable_offset",
    "pauses": "pattern reason paused_by since_us",
    "retired_keys": "id digest state log_id log_offset created_at_us retired_at_us",
    "refusals": "source at_us reason url headers body size_bytes",
    "replays": "previous_state state resumes_as note reason selection members_max canary digest matched total replayed"
    " skipped succeeded dead_lettered superseded through_seq due_at_us created_at_us updated_at_us",
    "replay_members": "replay_seq event_seq event_id run state outcome note",
    "metrics_history": "step_seconds at_us node event_type name amount",
}
Rows = dict[str, list[tuple[Any, ...]]]
Writer = Callable[[str, list[tuple[Any, ...]]], None]
Opened = tuple[Writer, str, int]  # what writes rows, the label of the code that parks events, the last row number
FIRST = "SELECT (SELECT label FROM journals LIMIT 1), (SELECT max(seq) FROM events)"
NO_NEWS = "DELETE FROM lane_news"


class Filling:
    """Makes the rows of so many events, always the same ones, after the row `after_seq`; `label` is the code's."""

    def __init__(self, events: int, after_seq: int, label: str, now_us: int) -> None:
        self.events = events
        self.after_seq = after_seq
        self.label = label
        self.now_us = now_us
        self.chance = random.Random(1)
        self.rows: Rows = {name: [] for name in COLUMNS}
        self.tallies: Counter[str] = Counter()
        self.blocked = 0

    def fill(self, write: Writer) -> None:
        """Hand all rows over, table by table and step by step."""
        kinds = self.chance.choices(
            (*KINDS, SUCCEEDED),
            [*(kind.share for kind in KINDS), 10_000 - sum(kind.share for kind in KINDS)],
            k=self.events,
        )
        for number, kind in enumerate(kinds):
            self.add_event(number, kind)
            if number % EVENTS_PER_STEP == 0:
                self.hand_over(write)
        self.add_rest()
        self.hand_over(write)

    def hand_over(self, write: Writer) -> None:
        """Write what was made."""
        for table, rows in self.rows.items():
            if rows:
                write(table, rows)
                rows.clear()

    def add_event(self, number: int, kind: Kind) -> None:
        """Make the rows of one event."""
        seq = self.after_seq + number + 1
        created_us = self.now_us - WEEK_US + WEEK_US * number // self.events
        updated_us = created_us + 20_000
        lane, place = None, None
        if kind is BLOCKED:
            lane_number, position = divmod(self.blocked, EVENTS_PER_LANE)
            self.blocked += 1
            lane, place, workflow = lane_of(lane_number), position + 1, f"lane-{lane_number}"
            if position == 0:
                kind = DEAD  # all others of its lane wait for somebody to decide about it
                self.rows["lanes"].append((lane, 1, 1, 1, 0, 0, EVENTS_PER_LANE))
        else:
            workflow = self.workflow_of(number)
        event_type = self.type_of(kind, lane)
        waits_for = PAUSED if kind is DEFERRED else None
        error = (
            self.chance.choice(ERRORS[: self.chance.randrange(1, len(ERRORS))]) if "failed" in kind.outcomes else None
        )
        error = "The process died." if kind.outcomes == ("crashed",) else error
        tokens = len(kind.outcomes) or int(kind is PARKED)
        is_open = kind.state not in ("succeeded", "discarded", "cancelled")
        event_id = id_of(created_us, number)
        self.rows["events"].append(
            (
                seq,
                event_id,
                "shop" if number % 3 else "default",
                workflow,
                event_type,
                SERVICES[number % len(SERVICES)],
                f"key-{number}" if number % 10 == 0 else None,
                created_us,
                updated_us,
                LOG,
                number + 1,
                kind.previous,
                kind.state,
                1,
                kind.outcomes.count("failed"),
                tokens,
                kind.outcomes.count("crashed"),
                0,
                tokens,
                self.now_us + DAY_US + number if kind.state in DUE else None,
                kind.reason,
                error if is_open else None,
                error if is_open else None,
                b'{"ok":true}' if kind.state == "succeeded" else None,
                waits_for,
                lane,
                place,
                int(lane is not None and kind.state == "queued"),
            )
        )
        self.rows["contents"].append((seq, payload_of(number), b"{}"))
        self.tallies[kind.state] += 1
        if waits_for:
            self.tallies[f"waits_for:{waits_for}"] += 1
        self.add_attempts(seq, kind, created_us, error)
        if kind is PARKED:
            self.add_parked(seq, workflow, created_us)
        elif kind is SUCCEEDED and number % 20 == 0:
            self.add_steps(seq, created_us)
        if kind.state == "discarded":
            self.rows["actions"].append((seq, updated_us, 1, "discarded", "not needed any more"))

    def workflow_of(self, number: int) -> str:
        """Return to which workflow an event belongs: an order, a customer's account, or the one great import."""
        drawn = self.chance.random()
        if drawn < 0.1:
            return "import"
        return f"account-{self.chance.randrange(1000)}" if drawn < 0.3 else f"order-{number // 8}"

    def type_of(self, kind: Kind, lane: str | None) -> str:
        """Return the type of an event."""
        if lane is not None:
            return "lane.one"
        if kind is PARKED:
            return "parked.one"
        if kind is DEFERRED:
            return "busy.one"
        return "wake" if kind.state == "kept" else self.chance.choice(TYPES)

    def error_of(self, kind: Kind) -> str | None:
        """Return how an event failed that did; some errors are far more frequent than others."""
        if kind.outcomes == ("crashed",):
            return "The process died."
        frequent = ERRORS[: self.chance.randrange(1, len(ERRORS))]
        return self.chance.choice(frequent) if "failed" in kind.outcomes else None

    def add_attempts(self, seq: int, kind: Kind, created_us: int, error: str | None) -> None:
        """Make the attempts of an event."""
        for number, outcome in enumerate(kind.outcomes, start=1):
            ended_run = int(number == len(kind.outcomes) and kind.state not in ("retrying", "held"))
            failed = error if outcome != "succeeded" else None
            times = (created_us + 4000 * number, created_us + 4000 * number + 3000)
            owner = ("filled/one", f"worker-{seq % 16}")
            self.rows["attempts"].append((seq, number, 1, number, outcome, ended_run, *owner, *times, failed, failed))

    def add_parked(self, seq: int, workflow: str, created_us: int) -> None:
        """Make what a handler remembers that waits for a signal, see handlers.py."""
        begun_us, due_us = created_us + 1000, self.now_us + DAY_US
        self.rows["journals"].append((seq, 1, 1, begun_us, 1, self.label))
        now = str(begun_us).encode()
        steps = [
            ("now", "now", "done", 1, 2, begun_us, None, now, None),
            ("wait_for", "wake", "pending", 3, 0, None, due_us, None, "wake"),
        ]
        for kind, step, state, begun, recorded, ended_us, until_us, result, event_type in steps:
            said = (seq, 1, kind, step, 0, state, 1, 1, begun, recorded, 0, begun_us, ended_us, until_us, "")
            self.rows["steps"].append((*said, result, event_type, self.label))
        self.rows["waits"].append((seq, "wake", "default", workflow, "wake", begun_us))

    def add_steps(self, seq: int, created_us: int) -> None:
        """Make three steps that have ended."""
        self.rows["journals"].append((seq, 1, 1, created_us, 0, ""))
        for number in range(3):
            place = (2 * number + 1, 2 * number + 2, 1, created_us, created_us + 1000, None, "")
            step = (seq, 1, "step", f"step-{number}", 0, "done", 1, 1)
            self.rows["steps"].append((*step, *place, b'{"id":1}', None, ""))

    def add_rest(self) -> None:
        """Make what belongs to no event, or to many."""
        self.rows["tallies"] += [(NODE, name, amount) for name, amount in self.tallies.items()]
        self.rows["cursors"].append((LOG, "one", self.events, self.events, self.now_us, self.events))
        self.rows["pauses"].append((PAUSED, "its service is away", "bench", self.now_us))
        for number in range(self.events // 10):
            removed_us = self.now_us - WEEK_US
            row = (id_of(removed_us, number), "0" * 64, "succeeded", LOG, number, removed_us, removed_us + number)
            self.rows["retired_keys"].append(row)
        for number in range(100):
            said = ("no_signature", f"/in/{SOURCE}", "{}", b"{}", 2)
            self.rows["refusals"].append((SOURCE, self.now_us - number * HOUR_US, *said))
        self.add_replays()
        self.add_metrics()

    def add_replays(self) -> None:
        """Make bulk replays that have ended, of a thousandth of all events each."""
        size = max(1, self.events // 1000)
        for number in range(1, 61):
            at_us = self.now_us - number * HOUR_US
            counts = (size, size, size, 0, size, 0, 0)
            said = ("running", "done", "running", "", "after the fix", '{"filter":{"status":"dead_lettered"}}', size, 0)
            self.rows["replays"].append((*said, f"{number}", *counts, self.after_seq + size, at_us, at_us, at_us))
            for member in range(size):
                place = (number, self.after_seq + member + 1, f"member-{member}")
                self.rows["replay_members"].append((*place, 1, "dead_lettered", "succeeded", ""))

    def add_metrics(self) -> None:
        """Make a metrics history without gaps, of as many types as are told apart."""
        names = (*EVENTFUL[:4], *LATENCIES[BUCKETS // 3 : BUCKETS // 3 + 10])
        for chosen in RANGES.values():
            for at_us, event_type, name in itertools.product(chosen.periods(self.now_us), TYPES[:50], names):
                amount = chosen.step_seconds * self.chance.randrange(1, 20)
                self.rows["metrics_history"].append((chosen.step_seconds, at_us, NODE, event_type, name, amount))


def lane_of(number: int) -> str:
    """Return the name of a lane, see LANES."""
    return json.dumps([LANES["match"], None, f"lane-{number}"], separators=(",", ":"))


def id_of(at_us: int, number: int) -> str:
    """Return an id like the ones that events get: a UUIDv7."""
    digits = f"{at_us // 1000:012x}7{number % 4096:03x}8{number:015x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def payload_of(number: int) -> bytes:
    """Return what came with an event."""
    text = LARGE if number % 500 == 0 else f"{number:06}" * 25
    return json.dumps({"order": number, "amount": number % 977, "note": text}).encode()


@contextlib.contextmanager
def sqlite_writer(data_dir: Path) -> Iterator[Opened]:
    """Write to a store that nobody has open; nothing is synced before the end."""
    with contextlib.closing(sqlite3.connect(data_dir / "store.db", isolation_level=None)) as database:
        database.execute("PRAGMA synchronous = OFF")
        database.execute("PRAGMA cache_size = -400000")

        def write(table: str, rows: list[tuple[Any, ...]]) -> None:
            columns = COLUMNS[table].split()
            places = ", ".join("?" * len(columns))
            database.execute("BEGIN")
            database.executemany(f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({places})", rows)
            database.execute("COMMIT")

        yield write, *database.execute(FIRST).fetchone()
        database.execute(NO_NEWS)
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")


@contextlib.contextmanager
def postgres_writer(url: str) -> Iterator[Opened]:
    """Write to a database, and leave it as cleaned up as one is that took a week for it."""
    with asyncio.Runner() as runner:
        link = runner.run(connected(url))

        def write(table: str, rows: list[tuple[Any, ...]]) -> None:
            runner.run(link.copy_records_to_table(table, records=rows, columns=COLUMNS[table].split()))

        yield write, *runner.run(link.fetchrow(FIRST))
        for statement in (NO_NEWS, "SELECT setval('event_seqs', (SELECT max(seq) FROM events))", "VACUUM (ANALYZE)"):
            runner.run(link.execute(statement))
        runner.run(link.close())


async def connected(url: str) -> Any:
    """Return a connection that waits for no disk."""
    return await asyncpg.connect(url, server_settings={"synchronous_commit": "off"})
