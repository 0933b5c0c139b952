"""Events and workflows: lists, one event with its history, timelines, and what can be done to them."""

from asyncio import timeout
from contextlib import suppress
from typing import Annotated, Any, Literal

import msgspec
from aiohttp import web
from msgspec.structs import asdict

from replayforge.domain.clock import format_time
from replayforge.domain.document import Unacceptable
from replayforge.domain.event import Envelope, Name
from replayforge.domain.journal import NAME_CHARACTERS_MAX
from replayforge.domain.lifecycle import TERMINAL, State
from replayforge.domain.replay_plan import ReplayPlan
from replayforge.domain.reports import FILTER_NAMES, EventFilter
from replayforge.domain.trace import trace_id
from replayforge.engine.accept.intake import Receipt
from replayforge.engine.replay.replayer import Replay
from replayforge.engine.report.event_queries import History
from replayforge.stores.replaying import Planned
from replayforge.stores.stories import UNTOLD
from replayforge.web.api import shapes
from replayforge.web.api.ingest import with_header_key
from replayforge.web.api.lanes import turn_shape
from replayforge.web.api.shapes import Words, json_response
from replayforge.web.api.step_shapes import relative_shape, step_in_brief, step_shape, stored_story, story_shape
from replayforge.web.http.context import context_of
from replayforge.web.http.long_requests import long_request
from replayforge.web.http.reading import (
    bad_query,
    cut_page,
    header_key,
    query_cursor,
    query_float,
    query_limit,
    query_time,
    read_object,
)
from replayforge.web.http.traces import trace_of_request
from replayforge.web.live.hints import HUB, changed

WAIT_SECONDS_MAX = 60.0
ENDS = frozenset({"events", "dead"})  # topics of hints that tell of an event's end
LOOK_SECONDS = 2.0  # between two looks at what no hint tells of: events that end on other daemons

Ending = Literal["queued", "succeeded", "dead_lettered"]
# A name, a key and a number, see step_name.
StepName = Annotated[str, msgspec.Meta(min_length=1, max_length=2 * NAME_CHARACTERS_MAX + 32)]


class ReplayRequest(msgspec.Struct, forbid_unknown_fields=True):
    """What may be said with a replay of one event; an empty payload means that none was given.

    `from` says from where in its journal: `failure`, `start`, or the name of a step (`step:NAME` where it
    is called so). With `dry_run` nothing is done.
    `subscribers` has the child events replayed that an event has sent to its subscribers: the `failed` ones, `all`, or
    those of the subscribers that are named. None is made.
    """

    payload: msgspec.Raw = msgspec.Raw()  # in a union msgspec would take null only
    reason: Words = ""
    force: bool = False
    begins_from: StepName | None = msgspec.field(default=None, name="from")
    dry_run: bool = False
    subscribers: Literal["failed", "all"] | tuple[Name, ...] | None = None


class WorkflowReplayRequest(msgspec.Struct, forbid_unknown_fields=True):
    """What may be said with a replay of a workflow; `from` is that of each of its events."""

    only: Literal["failed", "all"] = "failed"
    reason: Words = ""
    begins_from: StepName | None = msgspec.field(default=None, name="from")


SHORT_NAMES = {
    "event_type": "type",
    "service_name": "service",
    "workflow_id": "workflow",
    "application_name": "application",
}

SOUGHT_CHARACTERS_MAX = 255


class ReasonRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Why something is done."""

    reason: Words = ""


class ResolveRequest(msgspec.Struct, forbid_unknown_fields=True):
    """What a held event becomes, said as `to` or as `status`, and why.

    Of one that is held for a step in doubt `step` names that. Queued with a `result` the step has ended with that, and
    without one it is done again. As a dead letter it has failed. One that is held because its code has changed goes on
    as it is, or `from` says from where: `start`, or the name of a step (`step:NAME` where it is called so).
    """

    to: Ending | None = None
    status: Ending | None = None
    reason: Words = ""
    step: StepName | None = None
    result: msgspec.Raw = msgspec.Raw()
    begins_from: StepName | None = msgspec.field(default=None, name="from")


def event_filter(request: web.Request) -> EventFilter:
    """Read the filters of a list from the query."""
    query = request.query
    status = query.get("status")
    if status is not None and status not in set(State):
        raise bad_query("status", status, ", ".join(State))
    given = {name: query.get(name) or query.get(SHORT_NAMES.get(name, name)) for name in FILTER_NAMES}
    return EventFilter.of(
        given, query_time(request, "since"), query_time(request, "until"), query_time(request, "failed_since")
    )


async def list_events(request: web.Request) -> web.Response:
    """Answer with a page of events, newest first; with `contains`, of those that came with a text."""
    wanted, sought = event_filter(request), request.query.get("contains")
    return json_response(await (search_page(request, wanted, sought) if sought else event_page(request, wanted)))


async def recent_events(request: web.Request) -> web.Response:
    """Answer with the newest events."""
    return json_response(await event_page(request, EventFilter()))


async def event_page(request: web.Request, wanted: EventFilter) -> dict[str, Any]:
    """Return one page of events that pass a filter; who has just sent an event finds it by its key."""
    context, limit = context_of(request), query_limit(request)
    attempts_max = context.queries.attempts_max
    received = await context.queries.find_unprojected_by_key(wanted)
    found = await context.queries.list_events(wanted, query_cursor(request), limit)
    items = [shapes.stored_event(event, content, attempts_max(event)) for event, content in found.events]
    if received is not None and all(item.id != received.record.id for item in items):
        items.insert(0, shapes.received_event(received, context.status.log_id, attempts_max(received.record)))
    return cut_page(items, found.next_seq)


async def search_page(request: web.Request, wanted: EventFilter, sought: str) -> dict[str, Any]:
    """Return one page of events that came with a text, and how far it was searched for."""
    if len(sought) > SOUGHT_CHARACTERS_MAX:
        raise bad_query("contains", sought, f"at most {SOUGHT_CHARACTERS_MAX} characters")
    context, limit = context_of(request), query_limit(request)
    found = await context.queries.search(wanted, sought, query_cursor(request), limit)
    attempts_max = context.queries.attempts_max
    items = [shapes.stored_event(event, content, attempts_max(event)) for event, content in found.events]
    return cut_page(items, found.next_seq) | {"searched": found.searched, "search_complete": found.complete}


async def show_event(request: web.Request) -> web.Response:
    """Answer with an event, its runs and its attempts, newest first; with `wait` once it has ended, or time is up."""
    context = context_of(request)
    if wait_seconds := query_float(request, "wait", 0, low=0, high=WAIT_SECONDS_MAX):
        await wait_for_end(request, request.match_info["id"], wait_seconds)
    found = await context.queries.find(request.match_info["id"])
    if isinstance(found, Receipt):
        event = shapes.received_event(found, context.status.log_id, context.queries.attempts_max(found.record))
        story = story_shape(UNTOLD, (), relative_shape(found.record.parent_id, None))
        nothing: dict[str, Any] = {"details": {}, "attempts": [], "runs": [], "actions": [], "edited_replays": []}
        nothing["trace_id"] = trace_id(found.record.trace)
        return json_response(asdict(event) | story | turn_shape(None) | nothing)
    details = await context.status.details_of(found.event)
    return json_response(history_shape(found, context.queries.attempts_max(found.event)) | {"details": details})


async def wait_for_end(request: web.Request, event_id: str, seconds: float) -> None:
    """Return when an event has ended, the time is over, or the daemon stops.

    Looks again at each hint that events have changed, and from time to time for what other daemons do. Raises NotFound,
    and Unavailable when too many wait. Ends with the client.
    """
    queries = context_of(request).queries
    await queries.find(event_id)
    with long_request(request), request.config_dict[HUB].waiter() as hints, suppress(TimeoutError):
        async with timeout(seconds):
            while not any(one.state in TERMINAL for one in await queries.events_by_ids([event_id])):
                if not await changed(hints, ENDS, LOOK_SECONDS):
                    return


def history_shape(found: History, max_attempts: int) -> dict[str, Any]:
    """Show an event with all that happened to it."""
    event = asdict(shapes.stored_event(found.event, found.content, max_attempts))
    event |= stored_story(found.event, found.story)
    attempts = [shapes.attempt(attempt) for attempt in found.attempts]
    runs = [
        {"run": run, "attempts": [attempt for attempt in attempts if attempt["run"] == run]}
        for run in range(found.event.run, 0, -1)
    ]
    actions = [shapes.action(one) for one in found.actions]
    suspicion = None if found.suspect is None else shapes.suspicion(found.suspect)
    event |= turn_shape(found.turn) | {"trace_id": trace_id(found.event.trace)}
    event |= {"attempts": attempts, "runs": runs, "actions": actions, "edited_replays": found.edited_replays}
    return event | {"suspicion": suspicion}


async def list_steps(request: web.Request) -> web.Response:
    """Answer with the steps that an event's handler has taken, in their order: those of its current journal."""
    limit = query_limit(request)
    found = await context_of(request).queries.steps_page(request.match_info["id"], query_cursor(request) or 0, limit)
    page = cut_page([step_shape(one) for one in found.steps], found.next_place)
    return json_response(page | {"journal": found.journal, "earlier_steps": found.earlier_steps})


async def show_why(request: web.Request) -> web.Response:
    """Answer with what an event waits for, in one sentence that names what is in its way."""
    event_id = request.match_info["id"]
    why = await context_of(request).why.find(event_id)
    answer = {
        "id": event_id,
        "cause": why.cause,
        "sentence": why.sentence,
        "event_id": why.event_id,
        "handler": why.handler,
        "until": None if why.until_us is None else format_time(why.until_us),
    }
    return json_response(answer)


async def replay_event(request: web.Request) -> web.Response:
    """Replay an event, or say what that would do; with a payload, accept a new event that remembers the one it replays.

    With the header Idempotency-Key it can be sent again: it names the run, or it is the key of that new event.
    """
    context, event_id = context_of(request), request.match_info["id"]
    asked = await read_object(request, ReplayRequest)
    if asked.subscribers is not None:
        return await replay_subscribers(request, asked, asked.subscribers)
    if not bytes(asked.payload):
        replayer, force, begins_from = context.replayer, asked.force, asked.begins_from
        if asked.dry_run:
            return previewed(await replayer.look_at_replay(event_id, force=force, begins_from=begins_from))
        key = header_key(request)
        return replayed(await replayer.replay(event_id, asked.reason, force=force, key=key, begins_from=begins_from))
    if asked.begins_from is not None or asked.dry_run:
        raise Unacceptable("A new event with a payload has no journal yet, and is not tried first.", "/from")
    event, content = await context.replayer.find(event_id)
    envelope = Envelope(
        workflow_id=event.workflow_id,
        event_type=event.event_type,
        payload=asked.payload,
        application_name=event.application_name,
        service_name=event.service_name,
        metadata=msgspec.Raw(content.metadata),
        max_attempts=event.max_attempts,
    )
    receipt = await context.intake.accept(
        with_header_key(request, envelope), replay_of=event, trace=trace_of_request(request, context.tracer)
    )
    answer = {
        "id": receipt.record.id,
        "run": receipt.run,
        "status": receipt.state.value,
        "duplicate": receipt.duplicate,
        "replay_of": receipt.event.replay_of,
    }
    return json_response(answer, status=200 if receipt.duplicate else 202)


async def replay_subscribers(
    request: web.Request, asked: ReplayRequest, which: Literal["failed", "all"] | tuple[str, ...]
) -> web.Response:
    """Replay child events that an event has sent to its subscribers."""
    if bytes(asked.payload) or asked.begins_from is not None or asked.dry_run:
        raise Unacceptable("A replay of subscribers' events takes a reason, and nothing else.", "/subscribers")
    replayer, event_id = context_of(request).replayer, request.match_info["id"]
    done = await replayer.replay_subscribers(event_id, which, asked.reason, key=header_key(request))
    answer = {"id": event_id, "replayed": len(done.replayed), "ids": done.replayed, "skipped": done.skipped}
    return json_response(answer, status=202)


def replayed(replay: Replay) -> web.Response:
    """Answer with the run that a replay has begun: 202, or 200 when this very request had begun it before."""
    answer = {"id": replay.event_id, "run": replay.run, "status": replay.state.value, "duplicate": replay.duplicate}
    if replay.done is not None:
        children = [entry.event_id for entry in replay.done.entries[1:]]
        answer |= plan_shape(replay.done.plan) | {
            "given_back": replay.done.given_back,
            "gone": replay.done.gone,
            "children": children,
        }
    return json_response(answer, status=200 if replay.duplicate else 202)


def previewed(planned: Planned) -> web.Response:
    """Answer with what a replay would do."""
    wanted = planned.wanted
    children = [one.wanted.event_id for one in planned.family[1:]]
    answer = {"id": wanted.event_id, "run": wanted.run + 1, "status": "queued", "dry_run": True}
    given_back = planned.plan.signals
    return json_response(answer | plan_shape(planned.plan) | {"given_back": given_back, "children": children})


def plan_shape(plan: ReplayPlan) -> dict[str, Any]:
    """Show what a replay does to the journal of its event."""
    return {
        "from": plan.begins_from,
        "journal": plan.number,
        "cleared": [{"kind": step.kind, "name": step.step} for step in plan.cleared],
        "effects_again": plan.effects,
    }


async def retry_event(request: web.Request) -> web.Response:
    """Let a retrying event run now."""
    event = await context_of(request).replayer.retry_now(request.match_info["id"])
    return json_response({"id": event.id, "run": event.run, "status": "queued"}, status=202)


async def cancel_event(request: web.Request) -> web.Response:
    """Cancel an event that has not ended; 202 where its handler is told and ends it."""
    asked = await read_object(request, ReasonRequest)
    event, done = await context_of(request).replayer.cancel(request.match_info["id"], asked.reason)
    status = "cancelled" if done else "cancel_requested"
    return json_response({"id": event.id, "run": event.run, "status": status}, status=200 if done else 202)


async def resolve_event(request: web.Request) -> web.Response:
    """Decide about an event that was held."""
    asked = await read_object(request, ResolveRequest)
    status = asked.to or asked.status
    if status is None or (asked.to is not None and asked.status not in (None, asked.to)):
        raise Unacceptable('Say what it becomes: "to" is "queued", "succeeded" or "dead_lettered".', "/to")
    target, result = State(status), bytes(asked.result) or None
    event = await context_of(request).replayer.resolve(
        request.match_info["id"], target, asked.reason, step=asked.step, result=result, begins_from=asked.begins_from
    )
    return json_response({"id": event.id, "run": event.run, "status": target.value})


async def list_workflows(request: web.Request) -> web.Response:
    """Answer with a page of workflows, the one with the newest event first."""
    limit = query_limit(request)
    found = await context_of(request).queries.list_workflows(query_cursor(request), limit, application_in(request))
    return json_response(cut_page([shapes.workflow(one) for one in found.workflows], found.next_seq))


async def show_workflow(request: web.Request) -> web.Response:
    """Answer with the totals of one workflow."""
    summary = await context_of(request).queries.workflow(request.match_info["id"], application_in(request))
    return json_response(shapes.workflow(summary))


def application_in(request: web.Request) -> str | None:
    """Return the application whose workflows are meant; two applications may have workflows of one name."""
    return request.query.get("application") or request.query.get("application_name") or None


async def show_timeline(request: web.Request) -> web.Response:
    """Answer with a workflow's events in order, each with its attempts."""
    context, workflow_id = context_of(request), request.match_info["id"]
    application = application_in(request)
    events, attempts = await context.queries.timeline(workflow_id, application)
    steps = await context.queries.workflow_steps(workflow_id, application)
    by_event: dict[str, list[dict[str, Any]]] = {event.id: [] for event in events}
    for attempt in attempts:
        if attempt.event_id in by_event:
            by_event[attempt.event_id].append(shapes.attempt(attempt))
    shown = [
        shapes.row_shape(event, context.queries.attempts_max(event))
        | {"steps": [step_in_brief(one) for one in steps.get(event.seq, ())], "attempts": by_event[event.id]}
        for event in events
    ]
    return json_response({"workflow_id": workflow_id, "events": shown})


async def replay_workflow(request: web.Request) -> web.Response:
    """Replay the failed, or all finished, events of a workflow."""
    asked = await read_object(request, WorkflowReplayRequest)
    workflow_id = request.match_info["id"]
    done = await context_of(request).replayer.replay_workflow(
        workflow_id, only=asked.only, reason=asked.reason, key=header_key(request), begins_from=asked.begins_from
    )
    answer = {"workflow_id": workflow_id, "replayed": len(done.replayed), "ids": done.replayed, "skipped": done.skipped}
    return json_response(answer, status=202)
