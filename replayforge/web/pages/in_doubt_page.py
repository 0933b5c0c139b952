"""The page of what is in doubt: what may have had an effect that nobody recorded, and a person's decision about it."""

from dataclasses import dataclass

import msgspec
from aiohttp import web

from replayforge.domain.doubt import DoubtDecision, EventInDoubt, Standing
from replayforge.domain.errors import Rejected
from replayforge.domain.lifecycle import Reason
from replayforge.web.api.answers import AttemptShape
from replayforge.web.api.in_doubt import StepInDoubt, in_doubt_shape
from replayforge.web.http.context import WebContext, context_of
from replayforge.web.http.reading import query_cursor, read_form, reason_in
from replayforge.web.pages.flash import Flash, back_of, see_other
from replayforge.web.pages.paging import PAGE_SIZE, goes_on_at
from replayforge.web.pages.rendering import PageTemplate, show
from replayforge.web.pages.words import plural, segment

SECTION = "events"
WORDS = {
    Standing.UNDECIDED: "It waits for a decision.",
    Standing.DECIDED: "",
    Standing.STARTED_AGAIN: "Nobody is asked: it is started again.",
    Standing.ENDED: "It is not started again by itself.",
}
DONE_WORDS = {
    DoubtDecision.DONE: "it is done",
    DoubtDecision.AGAIN: "it runs again",
    DoubtDecision.DEAD_LETTERED: "it is a dead letter",
}


@dataclass(frozen=True, slots=True)
class InDoubtRow:
    """One event in doubt. `becomes` says what becomes of it, `choices` are the steps a decision may be about, empty
    where it is about the whole event; `asks` says that a person has to decide."""

    id: str
    event_type: str
    workflow_id: str
    state: str
    handler: str
    starts: str
    attempts: list[AttemptShape]
    steps: list[tuple[StepInDoubt, str]]
    becomes: str
    decided_by: str
    decided_at: str
    asks: bool
    choices: list[str]


@dataclass(frozen=True, slots=True)
class InDoubtView:
    """Events in doubt, newest first; with `only_undecided` those that wait for a decision."""

    rows: list[InDoubtRow]
    only_undecided: bool
    first_page: bool
    older: str


async def in_doubt(request: web.Request) -> web.Response:
    """Show what may have had an effect that nobody recorded."""
    context, cursor = context_of(request), query_cursor(request)
    only_undecided = request.query.get("standing") == Standing.UNDECIDED
    found = await context.queries.list_in_doubt(cursor, PAGE_SIZE, undecided=only_undecided)
    view = InDoubtView(
        rows=[in_doubt_row(one, context) for one in found.events],
        only_undecided=only_undecided,
        first_page=cursor is None,
        older="" if found.next_seq is None else goes_on_at(request, found.next_seq),
    )
    return await show(request, PageTemplate("in_doubt.html", "In doubt", SECTION), view)


def in_doubt_row(one: EventInDoubt, context: WebContext) -> InDoubtRow:
    """Return the row of an event in doubt."""
    shape, asks = in_doubt_shape(one, context.queries.handler_of(one.event)), one.standing is Standing.UNDECIDED
    decision = shape.decision
    started = [step.name for step in shape.steps if step.state == "started"]
    return InDoubtRow(
        id=shape.id,
        event_type=shape.event_type,
        workflow_id=shape.workflow_id,
        state=shape.status,
        handler=f'{shape.handler}, on_crash="{shape.on_crash}"' if shape.handler else "no handler by now",
        starts=plural(shape.starts, "start"),
        attempts=shape.attempts,
        steps=[(step, "" if step.arguments is None else bytes(step.arguments).decode()) for step in shape.steps],
        becomes=f"Decided: {decision.detail}" if decision and not asks else WORDS[one.standing],
        decided_by=(decision.by or "") if decision and not asks else "",
        decided_at=decision.at if decision and not asks else "",
        asks=asks,
        choices=started if shape.reason == Reason.IN_DOUBT else [],
    )


async def decide(request: web.Request) -> web.Response:
    """Carry out what a person says of an event in doubt, and go back."""
    form, context = await read_form(request), context_of(request)
    event_id, back = form.get("id", ""), back_of(form, f"{context.base_path}/in-doubt")
    try:
        decision = DoubtDecision(form.get("decision", ""))
        result = result_in(form.get("result", "")) if decision is DoubtDecision.DONE else None
    except msgspec.DecodeError as error:
        return see_other(request, back, Flash("err", f"A result is JSON: {error}."))
    except ValueError:
        return see_other(request, back, Flash("err", "Say whether it is done, is to run again, or has failed."))
    try:
        await context.replayer.decide(event_id, decision, reason_in(form), step=form.get("step") or None, result=result)
    except Rejected as error:
        return see_other(request, back, Flash("err", str(error)))
    said = f"Decided: {DONE_WORDS[decision]}."
    return see_other(request, back, Flash("ok", said, f"/events/{segment(event_id)}"))


def result_in(text: str) -> bytes | None:
    """Return the result that a form names, if it names one; raises DecodeError for what is no JSON."""
    if not text.strip():
        return None
    return bytes(msgspec.json.decode(text.encode(errors="surrogatepass"), type=msgspec.Raw))
