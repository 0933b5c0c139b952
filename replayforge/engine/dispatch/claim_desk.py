"""The one desk where events are claimed: room first, then admission, then the store, then the buffer."""

from asyncio import get_running_loop
from collections.abc import Collection, Iterable, Mapping, Sequence
from types import TracebackType

from replayforge.domain.admission import Admission, Preference
from replayforge.domain.clock import Clock
from replayforge.domain.event import ClaimedEvent, Entry, Lease
from replayforge.domain.lifecycle import Reason
from replayforge.engine.dispatch.claim_buffer import ClaimBuffer
from replayforge.engine.dispatch.handler_limits import HandlerLimit, HandlerLimits
from replayforge.engine.dispatch.publisher import Publisher
from replayforge.stores.store import Store
from replayforge.telemetry import Telemetry

DROPPED_AFTER_SECONDS = 4.0  # less than from one sweep to the next, so that the second look decides
PREFERRED_SECONDS = 0.5  # a reader that waits for entries takes them before this one reads again, as a rule
NONE_DEFERRED: Mapping[str, int] = {}


class ClaimInProgress:
    """A claim under way, from before the store is asked until what it took is in the buffer.

    At most `count` events may be claimed, as far as `admission` lets them. `reserved` is the room that the buffer keeps
    for them. What was promised and not taken is free again at the end, however that comes.
    """

    __slots__ = ("admission", "count", "desk", "from_store", "reserved", "under_way")

    def __init__(
        self, desk: "ClaimDesk", count: int, admission: Admission, *, reserved: int = 0, from_store: bool = False
    ) -> None:
        self.desk = desk
        self.count = count
        self.admission = admission
        self.reserved = reserved
        self.from_store = from_store  # what waited there for its handler is told of by whoever asked for it

    def __enter__(self) -> "ClaimInProgress":
        self.under_way = self.desk.leases.begin_claim()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.desk.leases.end_claim(self.under_way)
        self.desk.limits.close_admission(self.admission)
        if self.reserved:
            self.desk.buffer.unreserve(self.reserved)

    async def take(
        self,
        claimed: Sequence[ClaimedEvent],
        *,
        queued: Sequence[Entry] = (),
        suspects: int = 0,
        deferred: Mapping[str, int] = NONE_DEFERRED,
        buried: Sequence[tuple[str, str]] = (),
    ) -> None:
        """Take in what the store gave: workers get what was claimed, the publisher the entries of the rest.

        `suspects` are as many events that are to run alone; `deferred` says for each handler how many began to wait for
        it, and `buried` are the (id, event type) of what the store can never take or give. A buffer that was closed
        meanwhile takes nothing: what was claimed goes back.
        """
        desk = self.desk
        desk.hand_on(queued, suspects)
        desk.limits.note_deferred(deferred)
        if claimed and desk.buffer.closed:
            await desk.store.hand_back([one.lease for one in claimed], desk.clock.now_us())
        elif claimed:
            desk.limits.acquire(claimed)
            desk.buffer.put(claimed, self.under_way)
            if not self.from_store:
                desk.telemetry.emit("event.claimed", len(claimed))
        for event_id, event_type in buried:
            desk.telemetry.emit(
                "event.dead_lettered", event_id=event_id, event_type=event_type, reason=Reason.BAD_PAYLOAD
            )


class ClaimDesk:
    """Opens every claim of this process, and knows who goes before whom.

    While there may be suspects, events that were in flight when a process died, nobody claims but the reader, which
    runs them alone. Fresh events give way to a backlog, else a steady stream of them would starve it. Events that
    a rate has released alternate with the backlog: queued behind all of it they would miss their rate.
    """

    def __init__(
        self,
        store: Store,
        buffer: ClaimBuffer,
        limits: HandlerLimits,
        publisher: Publisher,
        clock: Clock,
        telemetry: Telemetry,
    ) -> None:
        self.store = store
        self.buffer = buffer
        self.limits = limits
        self.publisher = publisher
        self.clock = clock
        self.telemetry = telemetry
        self.leases = buffer.leases
        self.suspects_first = True
        self.backlog_first = False
        self.others_too = store.shared  # whether other daemons may have workers that are free
        self.paced_too = True  # whether the store may have released something by a rate
        self.preference: Preference | None = None  # what other daemons go on with first
        self.prefer_us = 0
        self.missing: dict[Lease, float] = {}  # since when, on the clock of the leases

    # Who goes first

    def look_for_suspects(self) -> None:
        """Say that there may be suspects in the store."""
        self.suspects_first = True

    def note_no_suspects(self) -> None:
        """Say that the store was asked and has none."""
        self.suspects_first = False

    def note_backlog(self, *, more: bool) -> None:
        """Note how the stream was left: with `more` entries, or emptied while rows may be without one."""
        self.backlog_first = more or self.publisher.behind

    def note_others(self, *, living: bool) -> None:
        """Note whether any other daemon lives that takes from the same queue."""
        self.others_too = living

    @property
    def fresh_first(self) -> bool:
        """Whether what comes next out of the log goes before all that waits, and to no other daemon."""
        return not (self.suspects_first or self.backlog_first or self.others_too or self.buffer.closed)

    async def take_paced(self, count: int) -> list[Entry]:
        """Fetch the entries of up to so many events that a rate has released; they may lie on the stream as well."""
        if not self.paced_too:
            return []
        self.paced_too = False
        entries = await self.store.paced_entries(count)
        self.paced_too = self.paced_too or len(entries) == count
        return entries

    async def look_for_paced(self) -> int:
        """Have the store asked for what a daemon has released by a rate that has ended since, or that was busy."""
        self.paced_too = True
        return 0

    # Whose code goes on

    def prefer(self, prefer_us: int) -> None:
        """Leave runs so long to those who have the code that parked them."""
        self.prefer_us = prefer_us

    def see_labels(self, living: frozenset[str]) -> None:
        """Take in the labels of the code that living daemons run, this one among them."""
        others = living - self.limits.handlers.labels
        self.preference = Preference(others, self.prefer_us) if others else None

    def hand_on_later(self, entries: Sequence[Entry]) -> None:
        """Have entries published again, after a moment, that a daemon with other code is to take first."""
        if entries:
            get_running_loop().call_later(PREFERRED_SECONDS, self.publisher.offer, entries)

    # Claims

    def claim_fresh(self, count: int, routes: Iterable[str]) -> ClaimInProgress:
        """Open a claim of so many events of these types, none of which has waited yet."""
        held_up = self.suspects_first or self.backlog_first
        reserved = 0 if held_up else self.buffer.reserve(count)
        return ClaimInProgress(self, reserved, self.limits.open_admission(reserved, routes), reserved=reserved)

    def claim_queued(self, count: int) -> ClaimInProgress:
        """Open a claim of so many events whose entries were read, since there was room for them then."""
        return ClaimInProgress(self, count, self.limits.open_admission(count))

    def claim_suspect(self) -> ClaimInProgress:
        """Open a claim of one suspect, which goes before those that wait for its handler."""
        return ClaimInProgress(self, 1, self.limits.open_admission(1, alone=True))

    def claim_deferred(self, limit: HandlerLimit, count: int) -> ClaimInProgress:
        """Open a claim of so many events that wait for a handler; nothing is `reserved` where the buffer is full."""
        reserved = 0 if self.suspects_first else self.buffer.reserve(count)
        admission = self.limits.open_admission_of(limit, reserved)
        return ClaimInProgress(self, admission.room[limit.pattern], admission, reserved=reserved, from_store=True)

    # What does not go to workers

    def hand_on(self, queued: Sequence[Entry], suspects: int = 0, paced: bool = False) -> None:
        """Have queued events run: by the entries of these, and so many suspects alone; what is `paced` of these goes
        before a backlog."""
        self.publisher.offer(queued)
        if paced and (self.backlog_first or self.publisher.behind):
            self.paced_too = True
        if suspects:
            self.look_for_suspects()

    def note_acked(self) -> None:
        """Say that entries were taken off the stream."""
        self.publisher.running_low()

    # Claims that came to grief

    async def recover_unanswered(self, leases: Collection[Lease]) -> None:
        """Queue again what a claim took whose answer was lost: nobody was told that the events are in this process.

        While another claim is under way it may be that one which took them; the sweep finds out later.
        """
        unanswered = [lease for lease in leases if not self.buffer.holds(lease)]
        if unanswered and not self.leases.claims:
            await self.store.hand_back(unanswered, self.clock.now_us())
        self.publisher.fall_behind()

    async def sweep(self) -> int:
        """Queue again what this process claimed and then dropped, which only a crash inside it can do."""
        held = await self.store.in_flight(self.store.owner)
        now = self.clock.elapsed()
        missing = [event.lease for event in held if not self.buffer.holds(event.lease)]
        # A claim whose answer is late is on its way to the buffer, however late; only what stays missing was dropped.
        self.missing = {lease: self.missing.get(lease, now) for lease in missing}
        old = [(lease, since) for lease, since in self.missing.items() if now - since >= DROPPED_AFTER_SECONDS]
        dropped = [lease for lease, since in old if not self.leases.any_claim_since(since)]
        if not dropped:
            return 0
        returned = await self.store.hand_back(dropped, self.clock.now_us())
        self.telemetry.emit("attempt.reclaimed", returned, reason="claimed by this process and dropped")
        self.publisher.fall_behind()
        return returned
