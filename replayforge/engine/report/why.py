"""Why an event is not done: what an open one waits for, in one sentence that names the nearest thing in its way."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import msgspec

from replayforge.domain.admission import EVERYTHING, NO_HANDLER, Pause
from replayforge.domain.breaker import BreakerState
from replayforge.domain.clock import MICROSECONDS_PER_SECOND, Clock, format_time, to_us
from replayforge.domain.errors import Unavailable
from replayforge.domain.event import StoredEvent
from replayforge.domain.journal import StepKind, StepRecord
from replayforge.domain.lifecycle import TERMINAL, Reason, State
from replayforge.engine.dispatch.dispatcher import Dispatcher
from replayforge.engine.dispatch.handler_limits import HandlerLimit, HandlerLimits
from replayforge.engine.report.daemon_status import DaemonStatus, WorkerStatus
from replayforge.engine.report.event_queries import EventQueries, History
from replayforge.stores.stories import Story


class Cause(StrEnum):
    """What kind of thing keeps an event from going on."""

    ENDED = "ended"
    LOG = "log"
    STORE_AWAY = "store_away"
    DUE = "due"
    PAUSED = "paused"
    BREAKER = "breaker"
    LIMIT = "limit"
    STUCK_HANDLER = "stuck_handler"
    LANE = "lane"
    NO_FREE_WORKER = "no_free_worker"
    NEXT = "next"
    RUNNING = "running"
    LEASE = "lease"
    SIGNAL = "signal"
    CHILD = "child"
    SLEEP = "sleep"
    STEP = "step"
    NO_WAIT = "no_wait"
    DECISION = "decision"


class WaitReason(msgspec.Struct, frozen=True):
    """One sentence about an event, with what it names: `event_id` is the event in its way, `handler` the pattern whose
    pause or limit it is, `until_us` when that ends by itself."""

    cause: Cause
    sentence: str
    event_id: str | None = None
    handler: str | None = None
    until_us: int | None = None


@dataclass(frozen=True, slots=True)
class Queue:
    """What stands before an event that is ready to run, at one moment: its handler's limit, pauses, and the workers.

    `pauses` are those that hold for its handler, `now_us` and `monotonic` the moment.
    """

    limit: HandlerLimit
    pauses: Sequence[Pause]
    workers: Sequence[WorkerStatus]
    now_us: int
    monotonic: float


class WhyQuery:
    """Looks for what an event waits for, where this daemon can see it."""

    def __init__(
        self,
        queries: EventQueries,
        handler_limits: HandlerLimits,
        status: DaemonStatus,
        dispatcher: Dispatcher,
        clock: Clock,
    ) -> None:
        self.queries = queries
        self.handler_limits = handler_limits
        self.status = status
        self.dispatcher = dispatcher
        self.clock = clock

    async def find(self, event_id: str) -> WaitReason:
        """Return what an event waits for; raises NotFound, and Unavailable for one that is known to the store alone."""
        try:
            found = await self.queries.find(event_id)
        except Unavailable as error:
            if await self.queries.intake.find_unprojected(event_id) is None:
                raise
            return self.in_the_log(error)
        return self.of(found) if isinstance(found, History) else self.in_the_log(None)

    def of(self, found: History) -> WaitReason:
        """Return what an event with this history waits for."""
        event = found.event
        if event.state is not State.QUEUED:
            return why_not_queued(event, found.story) or self.where_it_runs(event)
        if found.turn is not None:
            return WaitReason(Cause.LANE, found.turn.words, found.turn.event_id, until_us=found.turn.until_us)
        return why_not_taken(self.queue_of(event))

    def in_the_log(self, error: Unavailable | None) -> WaitReason:
        """Say why an event has no row yet."""
        lasted_seconds = self.dispatcher.outage.lasted_seconds
        if error is None and not lasted_seconds:
            return WaitReason(Cause.LOG, "It is in the log, and gets its row in the store in a moment.")
        began = format_time(self.clock.now_us() - to_us(lasted_seconds))
        return WaitReason(Cause.STORE_AWAY, f"It waits in the log, since the store has not answered since {began}.")

    def queue_of(self, event: StoredEvent) -> Queue:
        """Return what stands before an event that is ready to run."""
        limits, pattern = self.handler_limits, self.handler_limits.pattern_of(event.route)
        held = [limits.pauses[name] for name in (EVERYTHING, pattern) if name in limits.pauses]
        return Queue(
            limits.by_pattern[pattern], held, self.status.workers(), self.clock.now_us(), self.clock.monotonic()
        )

    def where_it_runs(self, event: StoredEvent) -> WaitReason:
        """Say which worker has an event that was claimed, here or in another daemon, or that none is free for it."""
        for worker in self.status.workers():
            if worker.event is not None and worker.event.lease == event.lease:
                since = "" if worker.busy_since_us is None else f" since {format_time(worker.busy_since_us)}"
                return WaitReason(Cause.RUNNING, f"It runs in {worker.name}{since}, as its start {event.starts}.")
        if any(claimed.event.lease == event.lease for claimed in self.status.buffer.unstarted):
            return why_no_worker(self.queue_of(event))
        return why_leased(event, self.status.peers.lapse_us(event.lease))


def why_leased(event: StoredEvent, lapse_us: int | None) -> WaitReason:
    """Say which other daemon holds an event, and when its lease lapses."""
    whose = f"Daemon {event.lease_owner} holds it under the lease token {event.lease_token}"
    if lapse_us is None:
        return WaitReason(Cause.LEASE, f"{whose}; it is taken from a daemon that is heard of no more.")
    until = f"until {format_time(lapse_us)}, or longer if it renews that"
    return WaitReason(Cause.LEASE, f"{whose} {until}; else another daemon takes it over then.", until_us=lapse_us)


def why_not_queued(event: StoredEvent, story: Story) -> WaitReason | None:
    """Say what an event waits for that nobody may run now; None for one that is being run."""
    if event.state in TERMINAL:
        return WaitReason(Cause.ENDED, f"It has ended: {event.state}.")
    if event.state is State.KEPT:
        wanted = f"It is kept until a handler of its workflow waits for {event.event_type}"
        return WaitReason(Cause.NO_WAIT, f"No wait of its workflow has taken it yet. {wanted}.")
    if event.state is State.HELD:
        return why_held(event)
    if event.state in (State.SCHEDULED, State.RETRYING):
        return why_later(event)
    return why_parked(event, story) if event.state is State.WAITING else None


def why_held(event: StoredEvent) -> WaitReason:
    """Say what a person has to decide."""
    if event.reason == Reason.CODE_CHANGED:
        return WaitReason(Cause.DECISION, f"It waits for other code, or a person to decide: {event.last_error}")
    if event.reason == Reason.IN_DOUBT:
        doubt = "a step that is to run once had begun, and nobody knows whether it ended"
    else:
        doubt = "its process died while it ran, and its handler wants to be asked before it runs again"
    return WaitReason(Cause.DECISION, f"It waits for a person to decide: {doubt}.")


def why_later(event: StoredEvent) -> WaitReason:
    """Say when an event is due."""
    at = "as soon as it is looked at" if event.due_at_us is None else f"at {format_time(event.due_at_us)}"
    if event.state is State.SCHEDULED:
        return WaitReason(Cause.DUE, f"It is due {at}.", until_us=event.due_at_us)
    failed = f"attempt {event.attempt_count} has failed" if event.attempt_count else "its attempt was interrupted"
    return WaitReason(Cause.DUE, f"Its next attempt is due {at}: {failed}.", until_us=event.due_at_us)


def why_parked(event: StoredEvent, story: Story) -> WaitReason:
    """Say what a handler has parked its event for; of several things what comes first by itself."""
    awaited = sorted(story.awaited(event), key=lambda one: (one.due_at_us is None, one.due_at_us or 0))
    if not awaited:
        return WaitReason(Cause.SLEEP, "Its handler waits for a time.", until_us=event.due_at_us)
    first, others = awaited[0], len(awaited) - 1
    said = why_of_step(first, story)
    more = f", and for {others} more" if others else ""
    return msgspec.structs.replace(said, sentence=f"{said.sentence}{more}.")


def why_of_step(step: StepRecord, story: Story) -> WaitReason:
    """Say what a step waits for, without a full stop."""
    until_us, name = step.due_at_us, step.event_type or step.step
    until = "" if until_us is None else f" until {format_time(until_us)}"
    since = f" since {format_time(step.started_at_us)}"
    if step.kind is StepKind.WAIT:
        return WaitReason(
            Cause.SIGNAL, f"It is parked for the signal {name}{since}{until or ', for as long as it takes'}"
        )
    if step.kind is StepKind.CALL:
        child = next((one for one in story.relatives if one.id == step.other_id), None)
        state = f", which is {child.state}" if child else ""
        return WaitReason(
            Cause.CHILD, f"It waits for the end of its child {step.other_id}{state}{until}", step.other_id
        )
    if step.kind is StepKind.STEP:
        return WaitReason(
            Cause.STEP, f"It tries its step {name} again{until.replace(' until', ' at')}", until_us=until_us
        )
    return WaitReason(Cause.SLEEP, f"It sleeps ({name}){until}", until_us=until_us)


def why_not_taken(queue: Queue) -> WaitReason:
    """Say what keeps a queued event from a worker: its handler's pause, breaker or limit, or that no worker is free."""
    limit = queue.limit
    pattern = limit.pattern
    for pause in queue.pauses:
        what = "Everything is" if pause.pattern == EVERYTHING else f"Its handler {pattern} is"
        said = f"{what} paused by {pause.by} since {format_time(pause.since_us)}: {pause.reason}."
        return WaitReason(Cause.PAUSED, said, handler=pause.pattern)
    if limit.breaker.tripped:
        return why_broken(queue)
    if limit.stuck:
        said = f"{limit.lingering} attempts of its handler {pattern} do not end, and it is given no more"
        return WaitReason(Cause.STUCK_HANDLER, f"{said} until some of them do.", handler=pattern)
    room = limit.room(queue.monotonic)
    if room == 0 and pattern != NO_HANDLER:
        said = f"Its handler {pattern} runs at most {limit.concurrency_max} at once in this daemon, and so many run"
        return WaitReason(Cause.LIMIT, f"{said}.", handler=pattern)
    return why_no_worker(queue)


def why_broken(queue: Queue) -> WaitReason:
    """Say until when an endpoint is left alone."""
    limit = queue.limit
    failed = f"The endpoint of its handler {limit.pattern} has failed {limit.breaker.failures} times in a row"
    if limit.breaker.state(queue.monotonic) is BreakerState.HALF_OPEN:
        return WaitReason(Cause.BREAKER, f"{failed}; one event tries it now.", handler=limit.pattern)
    until_us = queue.now_us + to_us(limit.breaker.open_until - queue.monotonic)
    return WaitReason(
        Cause.BREAKER,
        f"{failed} and is left alone until {format_time(until_us)}.",
        handler=limit.pattern,
        until_us=until_us,
    )


def why_no_worker(queue: Queue) -> WaitReason:
    """Say which worker will be free last, if none is."""
    busy = [one for one in queue.workers if one.event is not None]
    if len(busy) < len(queue.workers) or not busy:
        return WaitReason(Cause.NEXT, "It is next: a worker is free, and takes it in a moment.")
    longest = min(busy, key=lambda one: one.busy_since_us or queue.now_us)
    seconds = (queue.now_us - (longest.busy_since_us or queue.now_us)) / MICROSECONDS_PER_SECOND
    event_id = longest.event.id if longest.event else None
    said = f"No worker is free: {len(busy)} of {len(queue.workers)} are busy, the longest for {seconds:,.0f} s"
    return WaitReason(Cause.NO_FREE_WORKER, f"{said} with event {event_id}.", event_id)
