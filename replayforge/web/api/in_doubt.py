"""In doubt: what may have had an effect that nobody recorded, and what a person decides about it."""

import msgspec
from aiohttp import web

from replayforge.domain.doubt import DoubtDecision, EventInDoubt, Standing
from replayforge.domain.event import Action
from replayforge.domain.journal import StepRecord, StepState
from replayforge.domain.lifecycle import State
from replayforge.engine.handlers.registry import Handler
from replayforge.web.api import shapes
from replayforge.web.api.answers import AttemptShape
from replayforge.web.api.events import StepName
from replayforge.web.api.shapes import Time, Words, json_response
from replayforge.web.api.step_shapes import time_of
from replayforge.web.http.context import context_of
from replayforge.web.http.reading import bad_query, cut_page, query_cursor, query_limit, read_object


class StepInDoubt(msgspec.Struct):
    """A step that an attempt in doubt may have begun. One in the state `started` is to run once and waits for a
    decision; any other was begun, perhaps again, by the later attempt with this `lease_token`."""

    name: str
    state: StepState
    generation: int
    run: int
    lease_token: int
    started_at: Time
    ended_at: Time | None
    arguments: msgspec.Raw | None
    label: str


class DecidedShape(msgspec.Struct):
    """What was decided, when, and with which key."""

    at: Time
    detail: str
    by: str | None


class InDoubtShape(msgspec.Struct):
    """An event that may have had an effect which nobody recorded, and what becomes of it.

    `handler` is the pattern of the handler that would run it now; `attempts` are the newest
    in doubt, newest first: each was found cut short when it `finished`.
    """

    id: str
    application_name: str
    workflow_id: str
    event_type: str
    service_name: str
    status: State
    reason: str | None
    standing: Standing
    handler: str | None
    on_crash: str | None
    run: int
    starts: int
    attempts: list[AttemptShape]
    steps: list[StepInDoubt]
    decision: DecidedShape | None


class DecisionRequest(msgspec.Struct, forbid_unknown_fields=True):
    """What a person says of an event in doubt: it is `done`, with a result, it is to run `again`, or `dead_lettered`.

    Of an event that is held for a step that is said of the step, which is named where several are in doubt.
    """

    decision: DoubtDecision
    reason: Words = ""
    step: StepName | None = None
    result: msgspec.Raw = msgspec.Raw()


async def list_in_doubt(request: web.Request) -> web.Response:
    """Answer with what may have had an effect that nobody recorded, newest first: attempts and steps of events."""
    context, standing = context_of(request), request.query.get("standing")
    if standing not in (None, Standing.UNDECIDED):
        raise bad_query("standing", standing or "", Standing.UNDECIDED)
    found = await context.queries.list_in_doubt(query_cursor(request), query_limit(request), undecided=bool(standing))
    items = [in_doubt_shape(one, context.queries.handler_of(one.event)) for one in found.events]
    return json_response(cut_page(items, found.next_seq))


async def decide(request: web.Request) -> web.Response:
    """Carry out what a person says of an event in doubt; 409 when it waits for no decision any more."""
    asked = await read_object(request, DecisionRequest)
    event, target = await context_of(request).replayer.decide(
        request.match_info["id"], asked.decision, asked.reason, step=asked.step, result=bytes(asked.result) or None
    )
    return json_response({"id": event.id, "run": event.run, "status": target.value})


def in_doubt_shape(one: EventInDoubt, handler: Handler | None) -> InDoubtShape:
    """Show an event in doubt."""
    event = one.event
    return InDoubtShape(
        id=event.id,
        application_name=event.application_name,
        workflow_id=event.workflow_id,
        event_type=event.event_type,
        service_name=event.service_name,
        status=event.state,
        reason=event.reason,
        standing=one.standing,
        handler=None if handler is None else handler.identity,
        on_crash=None if handler is None else handler.on_crash,
        run=event.run,
        starts=event.starts,
        attempts=[AttemptShape(**shapes.attempt(attempt)) for attempt in one.attempts],
        steps=[step_in_doubt(step) for step in one.steps],
        decision=None if one.decision is None else decided_shape(one.decision),
    )


def step_in_doubt(one: StepRecord) -> StepInDoubt:
    """Show a step that may have been begun."""
    return StepInDoubt(
        name=one.step,
        state=one.state,
        generation=one.generation,
        run=one.run,
        lease_token=one.token,
        started_at=time_of(one.started_at_us) or "",
        ended_at=time_of(one.ended_at_us),
        arguments=msgspec.Raw(one.arguments.encode()) if one.arguments else None,
        label=one.label,
    )


def decided_shape(one: Action) -> DecidedShape:
    """Show a decision."""
    return DecidedShape(time_of(one.at_us) or "", one.detail, one.acted_by or None)
