"""The daemons that share one store: who lives, who is gone, and who takes over what these left behind."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

from replayforge import crashpoints
from replayforge.domain.clock import DRIFT_SECONDS_MAX, MICROSECONDS_PER_SECOND, Clock, SampledClock, to_us
from replayforge.domain.errors import Unavailable
from replayforge.domain.event import Lease, SeenLease
from replayforge.domain.reclaim import InFlight, Reclaim, after_lapse
from replayforge.domain.reports import Node
from replayforge.domain.watch import Watch
from replayforge.engine.care.startup_recovery import report_reclaimed
from replayforge.engine.dispatch.publisher import Publisher
from replayforge.engine.handlers.registry import Handlers
from replayforge.stores.store import Store
from replayforge.streams.stream import Stream
from replayforge.telemetry import Telemetry

LAPSED = "The lease of this event lapsed: the daemon that held it died or was cut off from the store."
FORGOTTEN_AFTER_SECONDS = 7 * 86_400.0
# What a holder renewed last is seen for the first time, and found to be old, each within half a sweep.
LOOKS_PER_SWEEP = 2
TAKEN_OVER_MAX = 1000


class Peers:
    """Looks after what other daemons left behind; each chore is safe on any number of daemons at once.

    `store_answers_since` says since when this daemon's own leases could be renewed without a break; while it says None
    nothing is concluded from those of others. `see_labels` is told of the code that living daemons run,
    `note_others` whether any but this one lives.
    """

    def __init__(
        self,
        store: Store,
        stream: Stream,
        publisher: Publisher,
        handlers: Handlers,
        store_answers_since: Callable[[], float | None],
        see_labels: Callable[[frozenset[str]], None],
        note_others: Callable[..., None],
        clock: Clock,
        telemetry: Telemetry,
        *,
        log_id: str,
        lease_seconds: float,
        sweep_seconds: float,
    ) -> None:
        self.store = store
        self.log_id = log_id
        self.stream = stream
        self.publisher = publisher
        self.handlers = handlers
        self.store_answers_since = store_answers_since
        self.clock = clock
        self.telemetry = telemetry
        self.see_labels = see_labels
        self.note_others = note_others
        self.lease_seconds = lease_seconds
        self.lease_us = to_us(lease_seconds)
        self.beating_since: float | None = None
        self.lease_beats: Watch[Lease] = Watch(sweep_seconds)
        self.node_beats: Watch[str] = Watch(sweep_seconds)
        self.store_clock = SampledClock(clock)
        self.drift_seconds = 0.0

    async def nodes(self) -> list[Node]:
        """Return every daemon that shares the store, this one among them; none where a store cannot be shared."""
        known = await self.store.nodes(self.clock.now_us()) if self.store.shared else []
        return [self.as_seen_here(node) for node in known]

    def as_seen_here(self, node: Node) -> Node:
        """Return a daemon with how long it was silent: as it was seen here, and only once it is gone by the store's
        clock, which remembers longer and may be wrong."""
        silent_us = to_us(self.node_beats.silent_seconds(node.log_id) or 0.0)
        gone = node.stopped or node.given_up or silent_us > self.lease_us
        return replace(node, silent_us=max(silent_us, node.silent_us) if gone else silent_us)

    def alive(self, node: Node) -> bool:
        """Tell whether a daemon was heard of within a lease; one that was not watched for so long yet may well live."""
        return self.is_own(node) or node.alive(self.lease_us)

    def is_own(self, node: Node) -> bool:
        """Tell whether the row is this daemon's own, and not that of a log it has given up."""
        return node.name == self.store.node and not node.given_up

    async def others(self) -> tuple[list[Node], list[Node]]:
        """Return the other daemons: those that live, and those that are gone."""
        others = [node for node in await self.nodes() if not self.is_own(node)]
        return [node for node in others if self.alive(node)], [node for node in others if not self.alive(node)]

    async def known_others(self) -> list[Node]:
        """Return the other daemons, or none while the store does not answer."""
        try:
            living, gone = await self.others()
        except Unavailable:
            return []
        return [*living, *gone]

    async def take_over(self) -> int:
        """Take back events whose leases nobody has renewed for a lease, by this daemon's own monotonic clock.

        After the store was away everybody has a whole lease again to renew what they hold and to commit what they did.
        """
        if not self.heard_of_others(self.store_answers_since()):
            return 0
        beats = await self.store.beats(self.clock.now_us())
        now = self.clock.monotonic()
        if beats.now_us is not None:
            self.look_at_clock(beats.now_us)
        self.node_beats.look(beats.nodes, now)
        self.lease_beats.look(beats.leases, now)
        silent = set(self.node_beats.silent(self.lease_seconds))
        living = {log_id: labels for log_id, labels in beats.labels.items() if log_id not in silent}
        self.see_labels(frozenset().union(*living.values()))
        self.note_others(living=has_others(living, self.log_id))
        lapsed = [SeenLease(*lease, beats.leases[lease]) for lease in self.lease_beats.silent(self.lease_seconds)]
        if not lapsed:
            return 0
        draining = await self.store.draining()
        taken = await self.store.take_over(
            lapsed[:TAKEN_OVER_MAX], lambda left: self.decide(left, draining), LAPSED, self.clock.now_us()
        )
        if taken:
            crashpoints.reach("takeover.committed", len(taken))
            report_reclaimed(self.telemetry, taken, LAPSED)
            self.publisher.fall_behind()
        return len(taken)

    def lapse_us(self, lease: Lease) -> int | None:
        """Return when a lease of another daemon lapses if that does not renew it; None while it is not known."""
        silent_seconds = self.lease_beats.silent_seconds(lease)
        if silent_seconds is None:
            return None
        since_look_seconds = self.clock.monotonic() - self.lease_beats.looked_at
        left_seconds = max(0.0, self.lease_seconds - silent_seconds - since_look_seconds)
        return self.clock.now_us() + to_us(left_seconds)

    def look_at_clock(self, now_us: int) -> None:
        """Take in the store's time, and warn each time its clock was set, also when it was set right."""
        self.store_clock.sample(now_us)
        drift_seconds = self.store_clock.drift_seconds()
        if abs(drift_seconds - self.drift_seconds) > DRIFT_SECONDS_MAX:
            self.drift_seconds = drift_seconds
            remedy = "" if abs(drift_seconds) <= DRIFT_SECONDS_MAX else "set it right, or restart if it is right now"
            self.telemetry.emit("clock.jumped", of="store", drift_seconds=round(drift_seconds, 3), remedy=remedy)

    def heard_of_others(self, beating_since: float | None) -> bool:
        """Tell whether the store answers, and forget what was seen before it was away."""
        if beating_since != self.beating_since:
            self.beating_since = beating_since
            self.lease_beats.forget()
            self.node_beats.forget()
        return beating_since is not None

    def decide(self, left: Sequence[InFlight], draining: Collection[str]) -> list[Reclaim]:
        """Decide what becomes of events left behind; a lapsed lease proves no death, so it charges nobody.

        What an incarnation left that was told to end, one of `draining`, was interrupted.

        Our own are either in hand, or were claimed by a transaction whose answer was lost and are handed back.
        """
        holds = self.handlers.holds_on_crash
        return [
            after_lapse(event, hold=holds(event.route), draining=event.owner in draining)
            for event in left
            if event.owner != self.store.owner
        ]

    async def remove_dead_consumers(self) -> int:
        """Let the stream forget the readers of daemons that are gone."""
        alive = {node.name for node in await self.nodes() if self.alive(node)}
        return await self.stream.remove_dead_consumers(alive | {self.store.node})

    async def forget_nodes(self) -> int:
        """Forget daemons that have been gone for a week and left nothing on their disks."""
        _, gone = await self.others()
        log_ids = [node.log_id for node in gone]
        return await self.store.forget_nodes(log_ids, to_us(FORGOTTEN_AFTER_SECONDS), self.clock.now_us())


def in_words(node: Node) -> str:
    """Say of a daemon that is gone what nobody can reach."""
    silent = f"{node.silent_us // MICROSECONDS_PER_SECOND:,} s"
    last_seen = "stopped" if node.stopped else "was last heard of"
    gone = f"Node {node.name} (log {node.log_id}, host {node.host}) {last_seen} {silent} ago"
    if node.given_up:
        gone = f"Node {node.name} gave up its log {node.log_id}, seen {silent} ago"
    if not node.unprojected:
        return f"{gone}: nothing is known to wait on its disk, but what it accepted last may."
    offsets = f"offsets {node.projected_offset + 1:,} to {node.durable_offset:,}"
    later = "" if node.stopped else ", and perhaps later ones"
    return f"{gone}: {node.unprojected:,} accepted records ({offsets}{later}) wait on its disk; start it there again."


def has_others(living: Mapping[str, frozenset[str]], own: str) -> bool:
    """Tell whether any daemon but that of the own log runs code, by their labels; one that has stopped has none."""
    return any(labels and log_id != own for log_id, labels in living.items())
