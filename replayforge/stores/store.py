"""The store: each operation once, over whichever driver; what it returns is durable."""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from time import monotonic

from replayforge.domain.acting import acting
from replayforge.domain.admission import ALL_WELCOME, Admission, PatternOf, Pause, Preference
from replayforge.domain.alerts import Alert
from replayforge.domain.bulk_replay import JobState, Preview, ReplayJob, ReplayOrder, Skip
from replayforge.domain.errors import Refused, Unstorable
from replayforge.domain.event import (
    Attempt,
    Content,
    Entry,
    EventRecord,
    Lease,
    Meaning,
    RetiredKey,
    SeenLease,
    StoredEvent,
)
from replayforge.domain.journal import Journal, StepRecord
from replayforge.domain.lane import LaneReport, Lanes
from replayforge.domain.lifecycle import State
from replayforge.domain.metrics_history import MetricsHistory, Range
from replayforge.domain.poison import Suspicion
from replayforge.domain.reclaim import InFlight, Reclaim
from replayforge.domain.recorded_run import RecordedRun
from replayforge.domain.replay_plan import PastJournal
from replayforge.domain.reports import EventFilter, Group, LogCursor, NewError, Node, WorkflowSummary
from replayforge.stores import (
    alerts,
    code_changes,
    content_search,
    decisions,
    deferred,
    doubts,
    journals,
    lane_sorting,
    lanes,
    lookups,
    metrics_history,
    nodes,
    recordings,
    refusals,
    replaying,
    replays,
    retention,
    schedules,
    sessions,
    stories,
    suspicions,
    transactions,
    wakes,
)
from replayforge.stores.batches import (
    AdvancedSchedule,
    KnownSchedule,
    OpenedCursor,
    RefusedDelivery,
    ResumedSchedule,
    ScheduleNote,
)
from replayforge.stores.burial import ERROR_CHARACTERS_MAX, bury, narrowed, storable_text
from replayforge.stores.code_changes import ChangedRun, OpenRun
from replayforge.stores.content_search import SearchPage
from replayforge.stores.decisions import CancelOutcome, Resolution
from replayforge.stores.deferred import Recalled, Sorted
from replayforge.stores.doubts import DoubtPage
from replayforge.stores.driver import Batch, Driver, Result, Steps, Transaction
from replayforge.stores.journals import SignalTaken, StepCommit, StepCommitted
from replayforge.stores.lookups import Discrepancies, EventPage, Outstanding, RowPage, WorkflowPage
from replayforge.stores.metrics_history import Amount, StepAmount
from replayforge.stores.migrations import migrate
from replayforge.stores.projection import Projected, Projection, project
from replayforge.stores.replaying import Planned, Replayed, Wanted
from replayforge.stores.rows import KeptRefusal, StoredSchedule
from replayforge.stores.sqlite import SqliteDriver
from replayforge.stores.stories import StepsPage, StoredHistory
from replayforge.stores.suspicions import Change, Suspect
from replayforge.stores.transactions import ClaimResult, Settled, Settlement
from replayforge.turns import computed

PROBE_SECONDS = 3.0  # longer than anybody waits who has something to write


class Store:
    """What became of every event. All times are microseconds since the epoch; every method may raise Unavailable.

    `node` names this daemon's counters, `owner` this incarnation of it as the holder of leases.
    """

    def __init__(self, driver: Driver, *, node: str, owner: str, schema_version: int, store_id: str) -> None:
        self.driver = driver
        self.node = node
        self.owner = owner
        self.schema_version = schema_version
        self.store_id = store_id
        self.lanes_moved: Callable[[], None] | None = None

    @classmethod
    async def open(cls, url: str, *, node: str, owner: str) -> "Store":
        """Open the store that `url` names and bring its schema up to date; raises Refused with the reason."""
        driver = await open_driver(url)
        try:
            version = await migrate(driver)
            store_id = await driver.read(lambda: lookups.meta_value("store_id"))
        except BaseException:
            await driver.close()
            raise
        return cls(driver, node=node, owner=owner, schema_version=version, store_id=store_id)

    @property
    def shared(self) -> bool:
        """Whether several daemons may use the store at once, so that leases have to be renewed."""
        return self.driver.beside is not None

    @property
    def beside(self) -> "Callable[[float], Store] | None":
        """What opens a shared store over a connection of its own, for the event loop of another thread; else None."""
        open_beside = self.driver.beside
        return None if open_beside is None else lambda call_seconds: self.over(open_beside(call_seconds))

    def over(self, driver: Driver) -> "Store":
        """Return the same store over another driver."""
        return Store(
            driver, node=self.node, owner=self.owner, schema_version=self.schema_version, store_id=self.store_id
        )

    async def close(self) -> None:
        """Finish what was handed in and let go of the database; safe twice."""
        await self.driver.close()

    def abandon(self) -> None:
        """Commit nothing more, not even what was handed in; `close` lets go of the database all the same."""
        self.driver.abandon()

    def call_when_written(self, callback: Callable[[], None]) -> None:
        """Have a function called after each commit from now on."""
        self.driver.writes.listen(callback)

    def call_when_lanes_move(self, callback: Callable[[], None]) -> None:
        """Have a function called after each commit of ours that may have moved something in a lane."""
        self.lanes_moved = callback

    def tell_lanes(self, moved: Iterable[StoredEvent]) -> None:
        """Say so, if any of these events is in a lane."""
        if self.lanes_moved is not None and any(event.lane is not None for event in moved):
            self.lanes_moved()

    async def write_and_tell(self, transaction: Transaction[Result]) -> Result:
        """Carry out what is done seldom and may move events of lanes, and say so."""
        result = await self.driver.write(transaction)
        if self.lanes_moved is not None:
            self.lanes_moved()
        return result

    async def callback_key(self) -> bytes:
        """Return the secret that all daemons on this store sign callback URLs with."""
        return (await self.driver.read(lambda: lookups.meta_value("callback_key"))).encode()

    async def ping(self) -> None:
        """Return when the store answers."""
        await self.driver.read(lookups.ping)

    @property
    def wal_bytes(self) -> int:
        """How long the write-ahead file is that this process looks after; 0 where a server does."""
        return self.driver.wal_bytes()

    def shorten_wal(self) -> None:
        """Begin to empty the write-ahead file where it has become long."""
        self.driver.shorten_wal()

    def check_place(self) -> None:
        """Raise Fatal when somebody has removed or replaced the store's files meanwhile."""
        self.driver.check_place()

    @property
    def write_error(self) -> str | None:
        """What stood in the way of the last write, or None."""
        return self.driver.writes.error

    async def probe(self) -> bool:
        """Write once to see whether it can be done again, where the last write failed and nobody has tried since.

        Returns whether it was tried.
        """
        writes = self.driver.writes
        if writes.error is None or monotonic() - writes.ended < PROBE_SECONDS:
            return False
        await self.driver.write(transactions.touch)
        return True

    # The way of an event

    async def cursor(self, log_id: str) -> tuple[int, str] | None:
        """Return (offset, incarnation) up to which the log was projected, or None for a log never seen."""
        return await self.driver.read(lambda: lookups.cursor(log_id))

    async def open_cursor(self, log_id: str, incarnation: str, offset: int, now_us: int) -> int:
        """Take the log's cursor over for this incarnation, made at `offset` for a new log; returns where it stands."""

        def steps() -> Steps[int]:
            opened = OpenedCursor(log_id=log_id, incarnation=incarnation, log_offset=offset, updated_at_us=now_us)
            yield Batch("open_cursor", [opened])
            cursor = yield from lookups.cursor(log_id)
            return cursor[0] if cursor else offset

        return await self.driver.write(steps)

    async def project(self, projection: Projection) -> Projected:
        """Insert the rows of a stretch of the log and move its cursor, in one transaction.

        Where the store can never take one of its records, the stretch ends before it, and is that record alone the next
        time: it gets a row with what can be kept of it, a dead letter that says why.
        """

        async def attempt(records: Sequence[tuple[int, EventRecord]]) -> Projected:
            stretch = projection.first(len(records))
            return await self.driver.write(lambda: project(self.node, self.owner, stretch))

        async def bury(_: tuple[int, EventRecord], error: Unstorable) -> Projected:
            try:
                alone = projection.buried(error, keep_content=True)
                return await self.driver.write(lambda: project(self.node, self.owner, alone))
            except Unstorable:
                bare = projection.buried(error, keep_content=False)
                return await self.driver.write(lambda: project(self.node, self.owner, bare))

        projected = await narrowed(projection.records, attempt, bury)
        if projected.laned and self.lanes_moved is not None:
            self.lanes_moved()
        return projected

    async def claim(
        self,
        entries: Sequence[Entry],
        now_us: int,
        admission: Admission = ALL_WELCOME,
        preference: Preference | None = None,
    ) -> ClaimResult:
        """Take the queued ones of these entries; those that lost a race are simply not returned.

        Those without admission wait for their handlers from now on, those that others are to go on with stay as they
        are. Where one can never be claimed, those before it are, and the others are left; alone it is buried.
        """

        async def attempt(some: Sequence[Entry]) -> ClaimResult:
            claim = await self.driver.write(
                lambda: transactions.claim(self.node, self.owner, some, admission, now_us, preference)
            )
            claim.left.extend(entries[len(some) :])
            self.tell_lanes(one.event for one in claim.taken)
            return claim

        async def bury_one(entry: Entry, error: Unstorable) -> ClaimResult:
            buried = await self.driver.write(lambda: bury(self.node, entry, str(error), now_us))
            return ClaimResult([], {}, list(entries[1:]), buried)

        return await narrowed(entries, attempt, bury_one)

    async def claim_suspect(self, now_us: int, admission: Admission = ALL_WELCOME) -> ClaimResult:
        """Take the likeliest suspect that has admission, which is to run alone; what cannot be claimed is buried."""
        try:
            return await self.driver.write(
                lambda: transactions.claim_suspect(self.node, self.owner, admission, now_us),
            )
        except Unstorable as error:
            why = str(error)
        return await self.driver.write(lambda: transactions.bury_suspect(self.node, why, now_us))

    async def recall(self, pattern: str, pattern_of: PatternOf, count: int, now_us: int) -> Recalled:
        """Claim the oldest events that wait for a handler, up to a number; those of another one by now are let go."""

        async def attempt(places: Sequence[int]) -> Recalled:
            recalled = await self.driver.write(
                lambda: deferred.recall(self.node, self.owner, pattern, pattern_of, len(places), now_us)
            )
            self.tell_lanes(one.event for one in recalled.taken)
            return replace(recalled, left=recalled.left + count - len(places))

        async def bury_one(_: int, error: Unstorable) -> Recalled:
            return await self.driver.write(lambda: deferred.bury_oldest(self.node, pattern, str(error), now_us))

        return await narrowed(range(count), attempt, bury_one)

    async def release(self, pattern: str, count: int) -> Recalled:
        """Queue the oldest events that wait for a handler as any other; they are looked at anew when claimed."""
        return await self.driver.write(lambda: deferred.release(self.node, pattern, count))

    async def sort_out(self, admission: Admission, after_seq: int, count: int) -> Sorted:
        """Let those of the next queued events wait whose handlers have no room."""
        return await self.driver.write(lambda: deferred.sort_out(self.node, admission, after_seq, count))

    async def settle(self, settlements: Sequence[Settlement]) -> Settled:
        """Commit outcomes and parks; returns those that came after their lease was lost, and what they have woken."""
        try:
            settled = await self.driver.write(lambda: transactions.settle_all(self.node, self.owner, settlements))
        except transactions.LeaseLost:
            settled = await self.driver.write(lambda: transactions.settle_held(self.node, self.owner, settlements))
        self.tell_lanes(one.event for one in settlements)
        return settled

    async def read_journal(self, event: StoredEvent, now_us: int) -> Journal:
        """Return the current journal of an event."""
        return await self.driver.read(lambda: journals.read_journal(event, now_us))

    async def record_steps(self, commits: Sequence[StepCommit]) -> list[StepCommitted]:
        """Record steps of events that are held; says for each commit whether its lease was lost before."""
        return await self.driver.write(lambda: journals.record_steps(self.owner, commits))

    async def take_signal(
        self, commit: StepCommit, taken: StepRecord, timed_out: StepRecord | None, now_us: int, *, again: bool = False
    ) -> SignalTaken:
        """Take the oldest kept signal for the wait of a running event; without one it may be recorded as timed out.

        Whoever had no answer says that he asks `again`.
        """
        return await self.driver.write(
            lambda: wakes.take_signal(self.node, self.owner, commit, taken, timed_out, now_us, again=again)
        )

    async def hand_back(self, leases: Sequence[Lease], now_us: int) -> int:
        """Return claimed events that were never started; returns how many were still ours."""
        return await self.write_and_tell(lambda: transactions.hand_back(self.node, self.owner, leases, now_us))

    async def in_flight(self, owner_prefix: str, limit: int = 10_000) -> list[InFlight]:
        """Return what owners with this prefix hold in processing."""
        return await self.driver.read(lambda: transactions.in_flight(owner_prefix, limit))

    async def beats(self, now_us: int, limit: int = 100_000) -> transactions.Beats:
        """Return the leases of all other owners and the daemons, with the beat that each was seen at last."""
        return await self.driver.read(lambda: transactions.beats(self.owner, now_us, limit))

    async def take_over(
        self, leases: Sequence[SeenLease], decide: transactions.Decide, error: str, now_us: int
    ) -> list[Reclaim]:
        """Take back those of the leases that nobody has renewed since they were seen, as `decide` says.

        Returns those taken back; of several daemons that try at once one takes each.
        """
        return await self.write_and_tell(lambda: transactions.take_over(self.node, leases, decide, error, now_us))

    async def beat(
        self,
        leases: Sequence[Lease],
        now_us: int,
        report: Node,
        *,
        besides: Sequence[Lease] | None = None,
    ) -> transactions.Renewal:
        """Renew leases and report this daemon.

        With `besides` all that this daemon holds and that is not among those is renewed too.
        """
        return await self.driver.write(lambda: transactions.beat(self.owner, leases, besides, now_us, report))

    async def reclaim(self, reclaims: Sequence[Reclaim], error: str, now_us: int) -> list[Reclaim]:
        """Take back events that a crash left in processing, as decided; returns those that were still there."""
        return await self.write_and_tell(lambda: transactions.reclaim(self.node, reclaims, error, now_us))

    async def promote(
        self, now_us: int, limit: int = 1000, *, signals: Sequence[str] = ()
    ) -> tuple[list[Entry], int | None]:
        """Queue waiting events that fell due; returns their entries and when the next falls due.

        Events of the types that are `signals` are given to whoever waits for them, or kept.
        """
        due = await self.next_due(now_us)
        if due is None or due > now_us:
            return [], due
        return await self.write_and_tell(lambda: transactions.promote(self.node, now_us, limit, signals))

    async def next_due(self, now_us: int) -> int | None:
        """Return when the next waiting event falls due, which may have been long ago; None when none waits."""
        return await self.driver.read(lambda: lookups.next_due(now_us))

    async def promote_stranded(self, now_us: int, ahead_us: int, limit: int = 1000) -> list[Entry]:
        """Queue retries that were decided more than `ahead_us` after now: the clock was set back since.

        Returns their entries.
        """
        if not await self.driver.read(lambda: lookups.any_stranded(now_us, ahead_us)):
            return []
        return await self.write_and_tell(lambda: transactions.promote_stranded(self.node, now_us, ahead_us, limit))

    async def queued_entries(self, limit: int, after_seq: int = 0) -> list[Entry]:
        """Return the entries of queued events, oldest first."""
        return await self.driver.read(lambda: lookups.queued_entries(after_seq, limit))

    async def paced_entries(self, limit: int) -> list[Entry]:
        """Return the entries of queued events that are released by a rate, oldest first."""
        return await self.driver.read(lambda: lookups.paced_entries(limit))

    async def next_suspect(self) -> Suspicion | None:
        """Return what is known of the suspect that is to run alone next; None when there is none."""
        return await self.driver.read(suspicions.next_suspect)

    async def set_aside(self) -> list[Suspect]:
        """Return the suspects whose control is not over."""
        return await self.driver.read(suspicions.set_aside)

    async def suspicion(self, event_id: str) -> Suspect | None:
        """Return what is known of one event; None when it is under no suspicion."""
        return await self.driver.read(lambda: suspicions.suspicion(event_id))

    async def change_suspicions(self, decide: Callable[[Sequence[Suspect]], Sequence[Change]]) -> int:
        """Change what is known of all open suspects, as `decide` says; returns of how many."""
        return await self.driver.write(lambda: suspicions.change("suspicions", decide))

    async def end_controls(self, decide: Callable[[Sequence[Suspect]], Sequence[Change]]) -> int:
        """Change what is known of the suspects that are set aside, as `decide` says; returns of how many."""
        return await self.driver.write(lambda: suspicions.change("set_aside", decide))

    async def retire(self, state: State, before_us: int, limit: int = 500, *, now_us: int | None = None) -> int:
        """Remove finished events last touched before a time and remember their keys since `now_us`; returns how many.

        What is to be remembered of them is worked out in a thread, for contents may be large.
        """
        retired = 0
        while retired < limit:
            found = await self.driver.read(partial(retention.retirable, state, before_us, limit - retired))
            if not found[0]:
                break
            size = sum(map(len, found[1].values()))
            at_us = before_us if now_us is None else now_us
            keys = await computed(retention.keys_of, *found, state, at_us, size=size)
            seqs = [one.seq for one in found[0]]
            gone = await self.driver.write(partial(retention.retire, self.node, state, before_us, seqs, keys))
            retired += gone
            if not gone:
                break
        return retired

    async def retired_keys(self, ids: Sequence[str]) -> dict[str, RetiredKey]:
        """Return those of the ids that are the keys of events which retention has removed."""
        return await self.driver.read(lambda: retention.retired_keys(ids))

    async def count_retired_keys(self) -> int:
        """Return how many keys of removed events are remembered."""
        return await self.driver.read(retention.count_retired_keys)

    async def forget_keys(self, before_us: int, limit: int = 500) -> int:
        """Forget the keys of events that were removed before a time; returns how many."""
        return await self.driver.write(lambda: retention.forget_keys(before_us, limit))

    # What people do

    async def replay(
        self,
        event: StoredEvent,
        now_us: int,
        reason: str,
        request_key: str | None = None,
        *,
        begins_from: str | None = None,
    ) -> Replayed | None:
        """Queue a finished event for a new run; None when it is no longer what the caller saw.

        Raises Conflict where its journal does not let it begin from there.
        """
        wanted = Wanted(event.seq, event.id, event.run, event.state, begins_from, reason, request_key, acting.get())
        return await self.write_and_tell(lambda: replaying.replay(self.node, wanted, now_us))

    async def past_journals(self, events: Sequence[StoredEvent]) -> dict[int, PastJournal]:
        """Return what the journals of those events hold that have one, by row number."""
        return await self.driver.read(lambda: replaying.past_journals([event.seq for event in events]))

    async def look_at_replay(self, event: StoredEvent, begins_from: str | None) -> Planned:
        """Return what a replay of an event would do now."""
        wanted = Wanted(event.seq, event.id, event.run, event.state, begins_from, "")
        return await self.driver.read(lambda: replaying.look(wanted))

    async def run_of_request(self, event: StoredEvent, request_key: str) -> int | None:
        """Return the run of the event that a request with this key has begun, or None."""
        return await self.driver.read(lambda: lookups.run_of_request(event.seq, request_key))

    async def move(
        self,
        event: StoredEvent,
        target: State,
        action: str,
        detail: str,
        now_us: int,
        *,
        result: bytes | None = None,
    ) -> list[Entry] | None:
        """Move an event by hand and note it; None when it is no longer what the caller saw.

        With a `result` it has that from now on. Returns the entries of parents whom its end has woken.
        """
        by = acting.get()  # here, for the transaction may be carried out in another thread
        return await self.write_and_tell(
            lambda: decisions.move(self.node, event, target, action, detail, now_us, by, result),
        )

    async def retry(self, event: StoredEvent, detail: str, now_us: int) -> list[Entry] | None:
        """Queue an event that waits for a time, its steps that are to be tried again included; otherwise as `move`.

        Raises Conflict for one that waits for something else.
        """
        by = acting.get()
        return await self.write_and_tell(lambda: decisions.retry(self.node, event, detail, now_us, by))

    async def resolve_step(
        self, event: StoredEvent, resolution: Resolution, detail: str, now_us: int
    ) -> list[Entry] | None:
        """Decide about a step in doubt of a held event, and move that; otherwise as `move`.

        Raises Conflict for a step that is not in doubt.
        """
        by = acting.get()
        return await self.write_and_tell(
            lambda: decisions.resolve_step(self.node, event, resolution, detail, now_us, by)
        )

    async def open_runs(self, state: State, after_seq: int, count: int) -> list[OpenRun]:
        """Return the next runs in this state that have a journal; of held ones those whose code has changed."""
        return await self.driver.read(lambda: code_changes.open_runs(state, after_seq, count))

    async def open_run(self, event: StoredEvent) -> OpenRun | None:
        """Return the run of an event that was claimed just now, as it stood before; None where it has no journal."""
        return await self.driver.read(lambda: code_changes.open_run(event))

    async def hold_changed(self, changed: Sequence[ChangedRun], now_us: int) -> list[str]:
        """Hold those of the runs that stand as they were looked at, with what is otherwise; returns their ids."""
        return await self.write_and_tell(lambda: code_changes.hold(self.node, changed, now_us))

    async def note_changes(self, changed: Sequence[ChangedRun]) -> None:
        """Note anew with runs that are held what their code does otherwise."""
        await self.driver.write(lambda: code_changes.note_changes(changed))

    async def release_changed(self, events: Sequence[StoredEvent], words: str, now_us: int) -> list[Entry]:
        """Queue those of the events that are held still, as their code continues them; returns their entries."""
        return await self.write_and_tell(lambda: code_changes.release(self.node, events, words, now_us))

    async def request_cancel(
        self, event: StoredEvent, detail: str, now_us: int, *, compensates: bool = False
    ) -> CancelOutcome:
        """Cancel an event, or ask it to end if it is running; see what has come of it in the answer."""
        by = acting.get()
        return await self.write_and_tell(
            lambda: decisions.request_cancel(self.node, event, detail, now_us, compensates=compensates, acted_by=by)
        )

    async def mend(self, now_us: int) -> list[Entry]:
        """Wake who is parked although what it waits for has come; returns their entries, which should be none."""
        if not await self.driver.read(wakes.any_missed):
            return []
        return await self.write_and_tell(lambda: wakes.mend(self.node, now_us))

    async def discard_unclaimed(self, before_us: int, now_us: int, limit: int = 500) -> int:
        """Discard signals kept since before a time that no open event could take any more; returns how many."""
        return await self.driver.write(lambda: decisions.discard_unclaimed(self.node, before_us, limit, now_us))

    # Lanes

    async def lane_news(self, now_us: int) -> tuple[bool, int | None]:
        """Tell whether anything has happened in lanes, and in how many microseconds to look although nothing has."""
        return await self.driver.read(lambda: lanes.any_news(now_us))

    async def release_lanes(self, rules_of: lanes.RulesOfLane, now_us: int) -> lanes.Released:
        """Give places to events of lanes that have none, and release those whose turn it is; a step at a time."""
        return await self.driver.write(lambda: lanes.release(rules_of, now_us))

    async def list_lanes(self, now_us: int, limit: int) -> list[LaneReport]:
        """Return the lanes in which most events wait for their turn, and how they stand."""
        return await self.driver.look(lambda: lanes.by_backlog(now_us, limit))

    async def lane(self, name: str, now_us: int) -> LaneReport | None:
        """Return how a lane stands; None for one in which nobody is known yet."""
        return await self.driver.look(lambda: lanes.one_lane(name, now_us))

    async def blocked_by(self, matches: Sequence[str]) -> dict[str, int]:
        """Return how many events wait for their turn in the lanes of each pattern, up to a number."""
        return await self.driver.look(lambda: lanes.blocked_by(matches))

    async def mend_lanes(self, limit: int = 1000) -> int:
        """Have lanes looked at again in which somebody waits although it need not; returns how many, which should be
        none."""
        wrong = await self.driver.read(lambda: lanes.problems(limit))
        missed = sorted({lane for finding, lane in wrong if finding == lanes.MISSED})
        if missed:
            await self.write_and_tell(lambda: lanes.mend(missed))
        return len(missed)

    async def sort_lanes(self, configured: Lanes) -> int | None:
        """Sort open events into the lanes of a configuration that differs from the last one, before anything runs.

        Returns how many changed their lanes, None where there are no lanes and never were any. A start that was
        interrupted begins again.
        """
        noted = await self.driver.read(lane_sorting.noted_digest)
        if noted is None and not configured:
            return None
        sorted_events = 0
        if noted != configured.digest:
            moved = 1
            while moved:  # until other daemons have moved nothing past the look
                moved = sum([await self.sort_state(configured, state) for state in lane_sorting.STATES_TO_SORT])
                sorted_events += moved
            after_lane: str | None = ""
            while after_lane is not None:
                after_lane = await self.driver.write(partial(lane_sorting.sort_lanes, configured, after_lane))
            await self.driver.write(lambda: lane_sorting.note_digest(configured.digest))
        return sorted_events

    async def sort_state(self, configured: Lanes, state: State) -> int:
        """Sort the open events in one state; returns how many changed their lanes."""
        moved, after_seq = 0, 0
        while True:
            count, next_seq = await self.driver.write(
                partial(lane_sorting.sort_events, self.node, configured, state, after_seq)
            )
            moved += count
            if next_seq is None:
                return moved
            after_seq = next_seq

    # Pauses

    async def pause(self, pause: Pause) -> None:
        """Pause a handler; one that is paused already stays as it is."""
        await self.driver.write(lambda: deferred.pause(pause))

    async def resume(self, pattern: str) -> bool:
        """Take the pause off a handler; False when there is none."""
        return await self.driver.write(lambda: deferred.resume(pattern))

    async def pauses_and_deferred(self) -> tuple[list[Pause], dict[str, int]]:
        """Return the pauses, and how many events wait for each handler."""
        return await self.driver.read(deferred.pauses_and_deferred)

    # Bulk replays

    async def preview_replay(self, wanted: EventFilter, begins_from: str | None = None) -> Preview:
        """Return what a bulk replay of this filter would take."""
        return await self.driver.look(lambda: replays.preview_matching(wanted, begins_from))

    async def preview_replay_of(
        self, ids: Sequence[str], states: frozenset[State], begins_from: str | None = None
    ) -> Preview:
        """Return what a bulk replay of the named events in these states would take."""
        return await self.driver.look(lambda: replays.preview_named(ids, states, begins_from))

    async def create_replay(
        self,
        order: ReplayOrder,
        wanted: EventFilter | None,
        *,
        ids: Sequence[str],
        states: frozenset[State],
        now_us: int,
    ) -> tuple[ReplayJob, bool]:
        """Make a bulk replay and freeze its membership: what passes the filter, or the ids in these states.

        Returns it, and whether it is new. Raises Miscounted or Rejected, and has written nothing then.
        """
        return await self.driver.write(lambda: replays.create(order, wanted, ids, states, now_us))

    async def advance_replay(
        self, seq: int, count_max: int, now_us: int, signals: Collection[str] = ()
    ) -> replays.Advance | None:
        """Replay the next members at once; None when the job is in other hands or asks for something else by now.

        One that the store can never take is left alone, with a note that says why; so is one of the types that are
        `signals`.
        """

        async def attempt(places: Sequence[int]) -> replays.Advance | None:
            return await self.write_and_tell(lambda: replays.advance(self.node, seq, len(places), now_us, signals))

        async def skip(_: int, error: Unstorable) -> replays.Advance | None:
            note = storable_text(str(error), ERROR_CHARACTERS_MAX)
            skipped = await self.driver.write(lambda: replays.skip_next(seq, note, now_us))
            return replays.Advance([], skipped, 0)

        return await narrowed(range(count_max), attempt, skip)

    async def any_replay_ended(self, seq: int, after_seq: int, count: int) -> tuple[bool, int]:
        """Tell whether some of the next replayed members have come to their ends, and where the next look goes on."""
        ended, next_seq = await self.driver.read(lambda: replays.look_at_open(seq, after_seq, count))
        return bool(ended), next_seq

    async def follow_replay(self, seq: int, after_seq: int, count: int, now_us: int) -> replays.Followed:
        """Count those of the next replayed members that have come to their ends."""
        return await self.driver.write(lambda: replays.follow(seq, after_seq, count, now_us))

    async def move_replay(
        self, job: ReplayJob, target: JobState, *, resumes_as: JobState, note: str, now_us: int
    ) -> bool:
        """Move a bulk replay from the state it was seen in; False when it moved meanwhile."""
        return await self.driver.write(lambda: replays.move(job, target, resumes_as, note, now_us))

    async def retire_replays(self, before_us: int, count: int) -> int:
        """Remove a piece of the oldest bulk replay that ended before a time; returns how many members."""
        return await self.driver.write(lambda: replays.retire(before_us, count))

    async def find_replay(self, seq: int) -> tuple[ReplayJob, list[Skip]] | None:
        """Return a bulk replay and why members of it were left alone."""
        return await self.driver.look(lambda: replays.find(seq))

    async def list_replays(self, *, before_seq: int | None, limit: int) -> list[ReplayJob]:
        """Return bulk replays, newest first."""
        return await self.driver.look(lambda: replays.list_jobs(before_seq, limit))

    async def active_replays(self) -> list[ReplayJob]:
        """Return the bulk replays that have something left to do or to follow."""
        return await self.driver.read(replays.active)

    # What people see

    async def events_by_ids(self, ids: Sequence[str]) -> dict[str, tuple[StoredEvent, Content]]:
        """Return the events of these ids that have a row."""
        return await self.driver.read(lambda: lookups.events_by_ids(ids))

    async def runs_of(self, events: Sequence[StoredEvent]) -> list[RecordedRun]:
        """Return what is recorded of the current runs of events."""
        return await self.driver.look(lambda: recordings.runs_of(events))

    async def history(self, event_id: str, step_bytes: int = 0) -> StoredHistory | None:
        """Return one event with everything that happened to it, and so much of the result of each step."""
        return await self.driver.look(lambda: stories.history(event_id, step_bytes))

    async def steps_page(self, event: StoredEvent, after_place: int, limit: int) -> StepsPage:
        """Return steps of the event's current journal in their order, as many as fit into a page."""
        return await self.driver.look(lambda: stories.steps_page(event, after_place, limit))

    async def list_events(self, wanted: EventFilter, *, before_seq: int | None, limit: int) -> EventPage:
        """Return events that pass the filter, newest first; `before_seq` goes on where an earlier page ended.

        A page has at most `limit` events, and fewer where they are large.
        """
        return await self.driver.look(lambda: lookups.list_events(wanted, before_seq, limit))

    async def search(self, wanted: EventFilter, sought: bytes, *, before_seq: int | None, limit: int) -> SearchPage:
        """Return those of these events whose payload or metadata holds some bytes, as far as one search goes."""
        return await content_search.search(self.driver, wanted, sought, before_seq, limit)

    async def list_rows(self, wanted: EventFilter, *, before_seq: int | None, limit: int) -> list[StoredEvent]:
        """Return the same without what came with the events, or of them, which may be large."""
        return await self.driver.look(lambda: lookups.list_rows(wanted, before_seq, limit))

    async def page_of_rows(self, wanted: EventFilter, *, before_seq: int | None, limit: int) -> RowPage:
        """Return a page of them, which may end early where few of very many pass the filter."""
        return await self.driver.look(lambda: lookups.page_of_rows(wanted, before_seq, limit))

    async def look_up(self, text: str, limit: int) -> list[StoredEvent]:
        """Return events whose id, workflow or key begins with a text, newest first, a few for each of the three."""
        return await self.driver.look(lambda: lookups.look_up(text, limit))

    async def count_newest(self, wanted: EventFilter, scan_max: int) -> int:
        """Return how many of the newest events pass the filter."""
        return await self.driver.look(lambda: lookups.count_newest(wanted, scan_max))

    async def workflow(self, workflow_id: str, application: str | None = None) -> WorkflowSummary | None:
        """Return how the events of a workflow stand: those of one application, or of all that use its name."""
        return await self.driver.look(lambda: lookups.workflow(workflow_id, application))

    async def list_workflows(
        self, *, before_seq: int | None, limit: int, application: str | None = None
    ) -> WorkflowPage:
        """Return workflows, the one with the newest event first; `before_seq` goes on where an earlier page ended."""
        return await self.driver.look(lambda: lookups.list_workflows(before_seq, limit, application))

    async def list_in_doubt(self, before_seq: int | None, limit: int, *, undecided: bool = False) -> DoubtPage:
        """Return events of which attempts or steps are in doubt, newest first, with what is known of these."""
        return await self.driver.look(lambda: doubts.list_in_doubt(before_seq, limit, undecided=undecided))

    async def timeline(
        self, workflow_id: str, limit: int = 2000, application: str | None = None
    ) -> tuple[list[StoredEvent], list[Attempt]]:
        """Return a workflow's events in order and their attempts."""
        return await self.driver.look(lambda: lookups.timeline(workflow_id, limit, application))

    async def workflow_steps(
        self, workflow_id: str, events_max: int = 2000, application: str | None = None
    ) -> dict[int, list[StepRecord]]:
        """Return row number -> steps, without what they hold, of a workflow's first events."""
        return await self.driver.look(lambda: stories.workflow_steps(workflow_id, events_max, application))

    async def dead_letter_groups(self, group_by: str, limit: int = 100) -> list[Group]:
        """Return the newest dead letters gathered by error, type, service or reason."""
        return await self.driver.look(lambda: lookups.dead_letter_groups(group_by, limit))

    async def new_errors(self, since_us: int, limit: int) -> list[NewError]:
        """Return the errors of dead letters that none had up to a time, the first ones, of 10,000 different ones."""
        return await self.driver.look(lambda: lookups.new_errors(since_us, limit))

    async def dead_letters_of(
        self, group_by: str, belongs: Callable[[str], bool], *, before_seq: int | None, limit: int
    ) -> list[StoredEvent]:
        """Return those of the newest dead letters whose group, judged once for each, belongs to what is looked for."""
        return await self.driver.look(lambda: lookups.dead_letters_of(group_by, belongs, before_seq, limit))

    async def handlerless(self, limit: int = 20) -> list[Group]:
        """Return the newest dead letters that found no handler, gathered by type."""
        return await self.driver.look(lambda: lookups.handlerless(limit))

    async def error_insights(self, since_us: int, limit: int = 50) -> list[Group]:
        """Return failed attempts since a time gathered by error."""
        return await self.driver.look(lambda: lookups.error_insights(since_us, limit))

    async def queued_types(self, count_max: int) -> dict[str, int]:
        """Return how many events of each type are queued, counting no more than so many in all."""
        return await self.driver.look(lambda: metrics_history.queued_types(count_max))

    async def ledger_and_due(
        self, now_us: int, soon_us: int
    ) -> tuple[list[LogCursor], dict[str, int], dict[State, int]]:
        """Return the same as `ledger_snapshot` and, of the same moment, how many scheduled events are due, and how many
        retries are or will be within `soon_us`; of more than 10,000 no more are counted."""
        return await self.driver.read(lambda: lookups.ledger_and_due(now_us, soon_us))

    async def standing(self, now_us: int, soon_us: int) -> Outstanding:
        """Return the same and, of the same moment, the oldest queued event and what waits in strict lanes."""
        return await self.driver.read(lambda: lookups.standing(now_us, soon_us))

    async def ledger_snapshot(self) -> tuple[list[LogCursor], dict[str, int]]:
        """Return every log's cursor and how many events stand in each state."""
        return await self.driver.read(lookups.ledger_snapshot)

    async def recount(self, *, few: bool = False) -> dict[State, int]:
        """Return by how many the rows of each state differ from the ledger; where there are `few`, without waiting."""
        read = self.driver.read if few else self.driver.look
        return await read(lookups.recount)

    async def nodes(self, now_us: int) -> list[Node]:
        """Return every daemon that shares this store, as it reported last."""
        return await self.driver.read(lambda: lookups.nodes(now_us))

    async def register_node(self, report: Node) -> None:
        """Note which log this node has from now on; what waits on one it had before stays named."""
        await self.driver.write(lambda: nodes.register(report, report.started_at_us))

    async def mark_draining(self, now_us: int) -> None:
        """Note that this incarnation was told to stop: what it leaves in processing was interrupted, not crashed."""
        await self.driver.write(lambda: nodes.mark_draining(self.owner, now_us))

    async def draining(self) -> set[str]:
        """Return the owners of leases that were told to stop and whose events were not all taken back since."""
        return await self.driver.read(nodes.draining)

    async def forget_draining(self, owner_prefix: str, now_us: int) -> None:
        """Forget that former incarnations were told to stop, once what they left has been taken back."""
        await self.driver.write(lambda: nodes.forget_draining(owner_prefix, self.owner, now_us))

    async def forget_nodes(self, log_ids: Sequence[str], silent_us: int, now_us: int) -> int:
        """Forget those daemons of these logs that have been silent for so long and left nothing behind.

        Returns how many.
        """
        return await self.driver.write(lambda: transactions.forget_nodes(log_ids, silent_us, now_us))

    async def end_stalled_transactions(self, seconds: float) -> int:
        """End what daemons that stand still hold locked, in the middle of a statement for so long; returns how many.

        One that stands still elsewhere is ended by the server itself.
        """
        return await self.driver.read(lambda: lookups.end_stalled_transactions(seconds))

    async def long_transactions(self, seconds: float) -> list[tuple[int, float, str]]:
        """Return (process, seconds, statement) of foreign transactions that have been open for longer."""
        return await self.driver.read(lambda: lookups.long_transactions(seconds))

    # Sources of webhooks

    async def pause_source(self, pause: Pause) -> None:
        """Pause a source; one that is paused already stays as it is."""
        await self.driver.write(lambda: refusals.pause(pause))

    async def resume_source(self, source: str) -> bool:
        """Take the pause off a source; False when there is none."""
        return await self.driver.write(lambda: refusals.resume(source))

    async def source_pauses(self) -> list[Pause]:
        """Return the pauses of sources, by their names."""
        return await self.driver.read(refusals.pauses)

    async def keep_refusal(self, refused: RefusedDelivery, kept: int) -> None:
        """Keep a refused delivery, and no more than so many of its source."""
        await self.driver.write(lambda: refusals.keep(refused, kept))

    async def refusals(self, source: str) -> list[KeptRefusal]:
        """Return the refused deliveries of a source, oldest first."""
        return await self.driver.look(lambda: refusals.of_source(source))

    async def refusal_counts(self) -> dict[str, int]:
        """Return how many refused deliveries are kept of each source."""
        return await self.driver.read(refusals.counts)

    async def remove_refusals(self, seqs: Sequence[int]) -> None:
        """Let go of refused deliveries."""
        await self.driver.write(lambda: refusals.remove(seqs))

    # Schedules

    async def enter_schedules(self, known: Sequence[KnownSchedule], kept: int) -> None:
        """Have schedules that are new, or whose timing is, begin at the place given; so many notes of each are kept."""
        await self.driver.write(lambda: schedules.enter(known, kept))

    async def schedules(self) -> dict[str, StoredSchedule]:
        """Return where every schedule stands, by its name."""
        return await self.driver.read(schedules.standing)

    async def advance_schedule(self, advanced: AdvancedSchedule, note: ScheduleNote | None, kept: int) -> bool:
        """Move the place of a schedule, and note what of it gets no event; False when somebody else has moved it."""
        return await self.driver.write(lambda: schedules.advance(advanced, note, kept))

    async def note_schedule_run(self, name: str, event_id: str) -> None:
        """Note the event of a schedule that somebody had made by hand."""
        await self.driver.write(lambda: schedules.note_run(name, event_id))

    async def pause_schedule(self, pause: Pause) -> None:
        """Pause a schedule; one that is paused already stays as it is."""
        await self.driver.write(lambda: schedules.pause(pause))

    async def resume_schedule(self, resumed: ResumedSchedule, note: ScheduleNote | None, kept: int) -> bool:
        """Have a schedule go on, noting what got no event; False when it is not paused at that place any more."""
        return await self.driver.write(lambda: schedules.resume(resumed, note, kept))

    async def schedule_notes(self) -> dict[str, list[ScheduleNote]]:
        """Return what was noted of every schedule, newest first."""
        return await self.driver.look(schedules.notes)

    # Sessions of pages

    async def end_session(self, value: str, ends_at_us: int, now_us: int) -> None:
        """Note, durably, that a session was signed out, until it would have ended."""
        await self.driver.write(lambda: sessions.end(value, ends_at_us, now_us))

    async def ended_sessions(self) -> dict[str, int]:
        """Return value -> time of end of the sessions that were signed out."""
        return await self.driver.read(sessions.ended)

    # Alerts

    async def alerts(self) -> list[Alert]:
        """Return what is written down of every alert."""
        return await self.driver.read(alerts.standing)

    async def write_alert(self, alert: Alert) -> Alert | None:
        """Write an alert down, durably, and return it with its next version; None when somebody else has changed it."""
        return await self.driver.write(lambda: alerts.write(alert))

    async def forget_alerts(self, before_us: int) -> int:
        """Let go of alerts whose end was said before a time; returns how many."""
        return await self.driver.write(lambda: alerts.forget(before_us))

    # The metrics history

    async def write_metrics(self, amounts: Sequence[StepAmount]) -> None:
        """Note what this node has counted by now; writing the same twice changes nothing."""
        await self.driver.write(lambda: metrics_history.write(self.node, amounts))

    async def own_metrics(self, step_seconds: int, at_us: int) -> list[Amount]:
        """Return what this node has written about one step."""
        return await self.driver.read(lambda: metrics_history.own(self.node, step_seconds, at_us))

    async def read_metrics(self, chosen: Range, now_us: int) -> MetricsHistory:
        """Return what happened within a range on all nodes together."""
        return await self.driver.look(lambda: metrics_history.read(chosen, now_us))

    async def retire_metrics(self, step_seconds: int, before_us: int, limit: int = 5000) -> int:
        """Remove a piece of the steps that began before a time; returns how many amounts."""
        return await self.driver.write(lambda: metrics_history.retire(step_seconds, before_us, limit))

    # The offline check

    async def newest_of_log(self, log_id: str, count: int) -> list[tuple[int, str]]:
        """Return (log offset, id) of the events that came from a log last."""
        return await self.driver.read(lambda: lookups.newest_of_log(log_id, count))

    async def origins(self, ids: Sequence[str]) -> dict[str, tuple[str, int, Meaning]]:
        """Return id -> (log id, log offset, meaning) of the events that have a row."""
        return await self.driver.read(lambda: lookups.origins(ids))

    async def discrepancies(self, limit: int = 1000) -> Discrepancies:
        """Return what must not be, each kind at most `limit` times, and the rows counted by state."""
        return await self.driver.read(lambda: lookups.discrepancies(limit))


async def open_driver(url: str) -> Driver:
    """Return the driver that a store URL names; raises Refused for a URL of no known kind."""
    if url.startswith("sqlite:///"):
        return await SqliteDriver.open(Path(url.removeprefix("sqlite:///")))
    if url.startswith(("postgresql://", "postgres://")):
        from replayforge.stores.postgres import PostgresDriver  # who has no PostgreSQL need not wait for its library

        return await PostgresDriver.open(url)
    named = url.partition("@")[2] or url
    raise Refused(f"The store URL {named!r} is of no known kind; use sqlite:///PATH or postgresql://HOST/DATABASE.")
