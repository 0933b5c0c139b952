"""What people do to events: replay, retry now, cancel, discard, and let go of what was held."""

from collections.abc import Collection
from dataclasses import dataclass

from replayforge import crashpoints
from replayforge.domain.clock import Clock
from replayforge.domain.doubt import DoubtDecision, decision_in_words, is_undecided, target_of
from replayforge.domain.errors import Conflict, NotFound, Rejected
from replayforge.domain.event import Content, Entry, StoredEvent, listed
from replayforge.domain.identity import subscriber_event_id
from replayforge.domain.lifecycle import (
    CANCELLABLE,
    FAILED,
    REPLAYABLE,
    TIMED,
    TRANSITIONS,
    Reason,
    State,
    held_way_out,
)
from replayforge.engine.dispatch.publisher import Publisher
from replayforge.engine.handlers.registry import Handlers
from replayforge.stores.decisions import CancelAnswer, Resolution
from replayforge.stores.replaying import Planned, Replayed
from replayforge.stores.store import Store
from replayforge.telemetry import Telemetry

WORKFLOW_EVENTS_MAX = 10_000
NOTHING = b"null"  # what a step has come to that is done and of which nobody says more


@dataclass(frozen=True, slots=True)
class SeveralReplays:
    """What a replay of several events did: ids queued again, and ids left alone with the reason."""

    replayed: list[str]
    skipped: dict[str, str]


@dataclass(frozen=True, slots=True)
class Replay:
    """A run that a replay has begun, and where the event stands; `duplicate` when an earlier request had begun it.

    `done` is what that did beside: to its journal, and to other events.
    """

    event_id: str
    run: int
    state: State
    duplicate: bool = False
    done: Replayed | None = None


class Replayer:
    """Every method moves an event from the state it was seen in; a second caller at the same moment gets Conflict."""

    def __init__(
        self,
        store: Store,
        publisher: Publisher,
        handlers: Handlers,
        clock: Clock,
        telemetry: Telemetry,
    ) -> None:
        self.store = store
        self.handlers = handlers
        self.publisher = publisher
        self.clock = clock
        self.telemetry = telemetry

    async def find(self, event_id: str) -> tuple[StoredEvent, Content]:
        """Return the event; raises NotFound."""
        found = await self.store.events_by_ids([event_id])
        if event_id not in found:
            raise NotFound(f"There is no event {event_id}.")
        return found[event_id]

    async def replay(
        self, event_id: str, reason: str, *, force: bool = False, key: str | None = None, begins_from: str | None = None
    ) -> Replay:
        """Queue a finished event for a new run with a fresh budget of attempts.

        `begins_from` says from where in its journal: `failure`, `start`, the name of a step, or None for what is usual.
        A succeeded event is replayed only with `force`. A request that comes again with its `key` is told which run it
        has begun, and begins none. Raises NotFound or Conflict.
        """
        event, _ = await self.find(event_id)
        if (begun := await self.begun_by(event, key)) is not None:
            return begun
        self.check_replayable(event, force=force)
        done = await self.store.replay(event, self.clock.now_us(), reason, key, begins_from=begins_from)
        if done is None:
            if (begun := await self.begun_by(event, key)) is not None:
                return begun
            raise Conflict(f"Event {event_id} was replayed or moved by somebody else a moment ago.")
        crashpoints.reach("replay.committed")
        self.publisher.offer([*done.entries, *done.woken])
        for entry in done.entries:
            self.telemetry.emit("event.replayed", event_id=entry.event_id, run=entry.run)
        return Replay(event.id, event.run + 1, State.QUEUED, done=done)

    async def look_at_replay(self, event_id: str, *, force: bool, begins_from: str | None) -> Planned:
        """Return what a replay would do now, and do nothing; raises NotFound or Conflict as the replay would."""
        event, _ = await self.find(event_id)
        self.check_replayable(event, force=force)
        planned = await self.store.look_at_replay(event, begins_from)
        if planned.objection:
            raise Conflict(planned.objection)
        return planned

    async def begun_by(self, event: StoredEvent, key: str | None) -> Replay | None:
        """Return what an earlier request with this key has begun; None when there was none.

        Look once the event was read: a request that is faster after this has moved it.
        """
        run = None if key is None else await self.store.run_of_request(event, key)
        return None if run is None else Replay(event.id, run, event.state, duplicate=True)

    def check_replayable(self, event: StoredEvent, *, force: bool) -> None:
        """Raise Conflict when what the event is, or its state, rules a replay out."""
        if self.handlers.is_signal(event.event_type):
            raise Conflict(f"Event {event.id} is a signal: what waits for it takes it, and it is never queued.")
        if event.state not in REPLAYABLE:
            raise Conflict(f"Event {event.id} is {event.state}; only a finished event can be replayed.{way_out(event)}")
        if event.state is State.SUCCEEDED and event.subscribers is not None:
            names = ", ".join(event.subscriber_names)
            raise Conflict(f"Event {event.id} has gone to its subscribers {names}: say whose event to replay.")
        if event.state is State.SUCCEEDED and not force:
            raise Conflict(f"Event {event.id} has succeeded; replay it with force if it is to run once more.")

    async def replay_dead_letter(
        self, event_id: str, reason: str, *, key: str | None = None, begins_from: str | None = None
    ) -> Replay:
        """Replay an event that must be a dead letter still; Conflict when it was replayed already, by another key."""
        event, _ = await self.find(event_id)
        if (begun := await self.begun_by(event, key)) is not None:
            return begun
        if event.state is not State.DEAD_LETTERED:
            raise Conflict(f"Event {event_id} is {event.state}, no dead letter.{way_out(event)}")
        return await self.replay(event_id, reason, key=key, begins_from=begins_from)

    async def replay_workflow(
        self, workflow_id: str, *, only: str, reason: str, key: str | None = None, begins_from: str | None = None
    ) -> SeveralReplays:
        """Replay the `failed` or `all` finished events of a workflow in their order, each once for a `key`.

        Child events are left to those that made them, but for those of subscribers, and signals to what waits for them.
        """
        if await self.store.workflow(workflow_id) is None:
            raise NotFound(f"There is no workflow {workflow_id!r}.")
        events, _ = await self.store.timeline(workflow_id, WORKFLOW_EVENTS_MAX)
        replayed: list[str] = []
        skipped: dict[str, str] = {}
        for event in events:
            if (event.parent_id is not None and event.subscriber is None) or self.handlers.is_signal(event.event_type):
                continue
            if only == "failed" and event.state not in FAILED:
                continue
            if event.subscribers is not None and event.state is State.SUCCEEDED:
                continue  # it has gone to its subscribers, whose events come behind it
            try:
                await self.replay(event.id, reason, force=only == "all", key=key, begins_from=begins_from)
            except Conflict as conflict:
                skipped[event.id] = str(conflict)
            else:
                replayed.append(event.id)
        return SeveralReplays(replayed, skipped)

    async def replay_subscribers(
        self, event_id: str, which: str | Collection[str], reason: str, *, key: str | None = None
    ) -> SeveralReplays:
        """Replay the events that an event has sent to its subscribers: `failed`, `all` ended ones, or those named.

        Each once for a `key`; none is made. Raises NotFound, Conflict, and Rejected for a subscriber it did not go to.
        """
        event, _ = await self.find(event_id)
        names = event.subscriber_names or listed(self.handlers.subscribers(event.event_type))
        if not names:
            raise Conflict(f"Event {event_id} was for no subscribers.")
        if unknown := [] if isinstance(which, str) else sorted(set(which) - set(names)):
            raise Rejected(f"Event {event_id} went to {', '.join(names)}, and not to {', '.join(unknown)}.")
        chosen = names if isinstance(which, str) else [name for name in names if name in which]
        children = {subscriber_event_id(event_id, name): name for name in chosen}
        found = await self.store.events_by_ids(list(children))
        replayed: list[str] = []
        skipped = {child: f"Nothing was sent to {children[child]} yet." for child in children.keys() - found.keys()}
        for child in (child for child in children if child in found):
            if which == "failed" and found[child][0].state not in FAILED:
                continue
            try:
                await self.replay(child, reason, force=which != "failed", key=key)
            except Conflict as conflict:
                skipped[child] = str(conflict)
            else:
                replayed.append(child)
        return SeveralReplays(replayed, skipped)

    async def retry_now(self, event_id: str) -> StoredEvent:
        """Let a retrying or scheduled event run now instead of at its time; its budget of attempts stays.

        So do its steps that are to be tried again, for which it may be parked.
        """
        event, _ = await self.find(event_id)
        if event.state not in TIMED:
            words = "only a waiting, retrying or scheduled event can be hurried"
            raise Conflict(f"Event {event_id} is {event.state}; {words}.{way_out(event)}")
        self.moved(event, await self.store.retry(event, "asked to run now", self.clock.now_us()))
        self.publisher.offer([event.entry])
        return event

    async def cancel(self, event_id: str, reason: str) -> tuple[StoredEvent, bool]:
        """Cancel an event that has not ended, and return it and whether that is done.

        It is not yet where its handler is told: one that is running, or that undoes what it did.
        """
        event, _ = await self.find(event_id)
        if event.state not in CANCELLABLE:
            raise Conflict(f"Event {event_id} is {event.state}; only a waiting event can be cancelled.{way_out(event)}")
        told = self.handlers.compensates(event.route)
        cancelled = await self.store.request_cancel(event, reason, self.clock.now_us(), compensates=told)
        self.publisher.offer(cancelled.woken)
        if cancelled.answer is CancelAnswer.REFUSED:
            raise Conflict(f"Event {event_id} is processing; only a waiting event can be cancelled.")
        if cancelled.answer is CancelAnswer.MOVED:
            raise Conflict(f"Event {event.id} was moved by somebody else a moment ago.")
        done = cancelled.answer is CancelAnswer.CANCELLED
        self.telemetry.emit("event.cancelled" if done else "event.cancel_requested", event_id=event.id)
        return event, done

    async def resolve(
        self,
        event_id: str,
        target: State,
        reason: str,
        *,
        step: str | None = None,
        result: bytes | None = None,
        begins_from: str | None = None,
    ) -> StoredEvent:
        """Decide about an event that was held: run it again, or note that it succeeded, with a `result`, or failed.

        Of one that is held for a `step` in doubt, that step is decided about as well: queued with a `result` it has
        ended with that, and without one it is done again; as a dead letter it has failed. One that is held because its
        code has changed goes on as it is, or, as a new run, `begins_from` its start or a step.
        """
        event, _ = await self.find(event_id)
        if event.state is not State.HELD:
            raise Conflict(f"Event {event_id} is {event.state}; only a held event waits for such a decision.")
        if target not in TRANSITIONS[State.HELD]:
            named = ", ".join(sorted(TRANSITIONS[State.HELD]))
            raise Rejected(f"A held event can become {named}, not {target}.")
        self.check_resolution(event, target, step, result)
        if begins_from is not None:
            await self.release(event, target, reason, begins_from)
            return event
        resolution = None if step is None else Resolution(target, step, result, reason)
        await self.carry_out(event, target, reason, result, resolution)
        return event

    async def decide(
        self,
        event_id: str,
        decision: DoubtDecision,
        reason: str,
        *,
        step: str | None = None,
        result: bytes | None = None,
    ) -> tuple[StoredEvent, State]:
        """Say what an attempt in doubt did: all of it is done, with a `result`, or it is to run again, or has failed.

        Of an event that is held for a step, that is said of the step, which is named where several are in doubt. It is
        carried out once: whoever comes second gets Conflict. Returns where the event goes.
        """
        event, _ = await self.find(event_id)
        if not is_undecided(event):
            raise Conflict(f"Event {event_id} is {event.state}, and nobody has to decide what its attempts did.")
        if step is not None and event.reason != Reason.IN_DOUBT:
            raise Conflict(f"All of event {event_id} is in doubt, and no step of it alone; leave the step away.")
        if result is not None and decision is not DoubtDecision.DONE:
            raise Rejected("Only what is done has a result.")
        target, resolution = target_of(event, decision), None
        if event.reason == Reason.IN_DOUBT:
            result = NOTHING if result is None and decision is DoubtDecision.DONE else result
            resolution = Resolution(target, step, result, reason)
        await self.carry_out(event, target, reason, result, resolution)
        return event, target

    async def carry_out(
        self, event: StoredEvent, target: State, reason: str, result: bytes | None, resolution: Resolution | None
    ) -> None:
        """Move an event as was decided about it, or about a step of it; Conflict when it moved meanwhile."""
        subject = "it" if resolution is None else f"step {resolution.step}" if resolution.step else "its step"
        detail, now_us = decision_in_words(target, subject, reason, with_result=result is not None), self.clock.now_us()
        if resolution is None:
            moved = await self.store.move(event, target, "decided", detail, now_us, result=result)
        else:
            moved = await self.store.resolve_step(event, resolution, detail, now_us)
        self.moved(event, moved)
        if target is State.QUEUED:
            self.publisher.offer([event.entry])

    async def release(self, event: StoredEvent, target: State, reason: str, begins_from: str) -> None:
        """Let an event whose code has changed run again from its start or a step, which is a replay of it."""
        if target is not State.QUEUED:
            raise Rejected("From where it goes on is said of an event that is queued.")
        if event.reason != Reason.CODE_CHANGED:
            raise Conflict(f"Event {event.id} is not held because its code has changed; it goes on where it was.")
        done = await self.store.replay(event, self.clock.now_us(), reason, begins_from=begins_from)
        if done is None:
            raise Conflict(f"Event {event.id} was moved by somebody else a moment ago.")
        self.publisher.offer([*done.entries, *done.woken])

    def check_resolution(self, event: StoredEvent, target: State, step: str | None, result: bytes | None) -> None:
        """Raise Conflict or Rejected for a decision that leaves open, or says, what it must not."""
        in_doubt = event.reason == Reason.IN_DOUBT
        if in_doubt and target is State.QUEUED and step is None:
            raise Conflict(
                f"Say which step of event {event.id} is meant: with its result, if it has ended, or without one, if it"
                f" is to be done again. {event.last_error or ''}".rstrip()
            )
        if step is not None and (not in_doubt or target is State.SUCCEEDED):
            raise Conflict(f"No step of event {event.id} can be decided about so; leave the step away.")
        if result is not None and target is not (State.SUCCEEDED if step is None else State.QUEUED):
            raise Rejected("A result is that of an event that has succeeded, or of a step of one that is queued.")

    async def discard(self, event_id: str, reason: str) -> StoredEvent:
        """Set a dead letter aside for a reason; a replay still brings it back."""
        if not reason.strip():
            raise Rejected("A discard needs a reason, so that the next person knows why.")
        event, _ = await self.find(event_id)
        if event.state is not State.DEAD_LETTERED:
            raise Conflict(f"Event {event_id} is {event.state}; only a dead letter can be discarded.{way_out(event)}")
        await self.move(event, State.DISCARDED, "discarded", reason)
        self.telemetry.emit("event.discarded", event_id=event.id)
        return event

    async def move(self, event: StoredEvent, target: State, action: str, detail: str) -> None:
        """Move the event; Conflict when it moved meanwhile."""
        self.moved(event, await self.store.move(event, target, action, detail, self.clock.now_us()))

    def moved(self, event: StoredEvent, woken: list[Entry] | None) -> None:
        """Publish whom the end of an event has woken; Conflict when it moved meanwhile."""
        if woken is None:
            raise Conflict(f"Event {event.id} was moved by somebody else a moment ago.")
        self.publisher.offer(woken)


def way_out(event: StoredEvent) -> str:
    """Say how a held event gets on, for whoever is refused something else; nothing for any other event."""
    return f" {held_way_out(event.id)}" if event.state is State.HELD else ""
