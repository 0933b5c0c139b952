"""The page of one event: its history, and what it holds, with secrets hidden until somebody asks for them."""

from typing import NamedTuple

from aiohttp import web

from replayforge.domain.errors import NotFound
from replayforge.domain.event import StoredEvent
from replayforge.domain.journal import StepKind
from replayforge.domain.lifecycle import TERMINAL, State
from replayforge.engine.accept.intake import Receipt
from replayforge.engine.report.event_queries import History
from replayforge.engine.report.why import WaitReason
from replayforge.stores.stories import Story
from replayforge.turns import computed
from replayforge.web.http.context import WebContext, context_of
from replayforge.web.pages import rows, views
from replayforge.web.pages.awaited import (
    RelativeRow,
    awaited_rows,
    code_change_row,
    reason_to_stay,
    relative_row,
    step_in_doubt,
    turn_row,
)
from replayforge.web.pages.documents import Reading, shown
from replayforge.web.pages.event_facts import history_facts, receipt_facts, told_facts
from replayforge.web.pages.rendering import PageTemplate, show
from replayforge.web.pages.step_rows import Waterfall, waterfall
from replayforge.web.pages.words import plural

RESULT_BYTES = 4096  # of each step; all of it is behind a link
SECRETS_SHOWN = {"secrets": "shown"}
INDENTED = {"layout": "indented"}


async def event(request: web.Request) -> web.Response:
    """Show one event with all that happened to it."""
    context = context_of(request)
    found = await context.queries.find(request.match_info["id"], RESULT_BYTES)
    asked = dict(request.query)
    masked_names = () if SECRETS_SHOWN.items() <= asked.items() else context.masked_names
    reading = Reading(masked_names, indented=INDENTED.items() <= asked.items())
    bodies = bodies_of(found)
    texts = {part: await computed(shown, body, reading, size=len(body)) for part, body in bodies.items()}
    falls = None if isinstance(found, Receipt) else await steps_of(found, context, reading)
    attempts = [] if isinstance(found, Receipt) else await rows.attempt_rows(found.attempts, reading)
    errors = [one.error for one in attempts if one.error is not None]
    hidden = sum(text.masked_count for text in (*texts.values(), *errors)) + (falls.masked_count if falls else 0)
    holds = views.HeldView(
        payload=texts["payload"],
        metadata=texts["metadata"],
        result=texts.get("result"),
        indented=reading.indented,
        readings=other_readings(request, reading, hidden),
    )
    if isinstance(found, Receipt):
        view = received_view(found, holds)
    else:
        told = told_facts(await context.status.details_of(found.event))
        view = history_view(found, Shown(holds, attempts, falls, told, context.why.of(found)), context, reading)
    return await show(request, PageTemplate("event.html", view.event.event_type, "events"), view)


async def steps_of(found: History, context: WebContext, reading: Reading) -> Waterfall | None:
    """Return the event's steps as the page shows them."""
    story, now_us = found.story, context.clock.now_us()
    size = sum(len(one.record.result or b"") + one.record.size for one in story.steps)
    return await computed(waterfall, found.event, found.attempts, story, now_us, reading, size=size)


def bodies_of(found: History | Receipt) -> dict[str, bytes]:
    """Return the documents of an event by their names."""
    if isinstance(found, Receipt):
        return {"payload": bytes(found.record.payload), "metadata": bytes(found.record.metadata)}
    bodies = {"payload": found.content.payload, "metadata": found.content.metadata}
    return bodies if found.event.result is None else bodies | {"result": found.event.result}


def other_readings(request: web.Request, reading: Reading, hidden: int) -> list[tuple[str, str]]:
    """Return the other ways to read the documents, each with its link; so many values are hidden."""
    layout, secrets = INDENTED if reading.indented else {}, {} if reading.masked_names else SECRETS_SHOWN
    ways = [("As sent", secrets) if reading.indented else ("Indented", secrets | INDENTED)]
    if hidden:
        ways.append((f"Show {plural(hidden, 'hidden value')}", layout | SECRETS_SHOWN))
    elif SECRETS_SHOWN.items() <= dict(request.query).items():
        ways.append(("Hide secrets", layout))
    return [(words, str(request.rel_url.with_query(query))) for words, query in ways]


def received_view(receipt: Receipt, holds: views.HeldView) -> views.EventView:
    """Return the view of an event that is durable and not dispatched yet."""
    return views.EventView(
        event=rows.received_row(receipt),
        facts=receipt_facts(receipt),
        verbs=frozenset(),
        attempts=[],
        actions=[],
        holds=holds,
        replay_of=receipt.record.replay_of or "",
        edited_replays=[],
        why="",
        turn=None,
        in_doubt="",
        code_change=None,
        awaits=[],
        parent=None if receipt.record.parent_id is None else RelativeRow(receipt.record.parent_id, "", ""),
        waterfall=None,
        subscribers=[],
        told=[],
    )


class Shown(NamedTuple):
    """What of an event was made for its reader: documents, attempts, steps, what its handler says, and why it waits."""

    holds: views.HeldView
    attempts: list[rows.AttemptRow]
    waterfall: Waterfall | None
    told: list[rows.Fact]
    why: WaitReason


def history_view(found: History, made: Shown, context: WebContext, reading: Reading) -> views.EventView:
    """Return the view of an event with its history."""
    event, story = found.event, found.story
    return views.EventView(
        event=rows.event_row(found.event, context.queries.attempts_max(found.event), reading),
        facts=history_facts(found, reading),
        verbs=verbs_of(event, story) - ({"replay"} if context.queries.is_signal(event.event_type) else set()),
        attempts=made.attempts,
        actions=[rows.action_row(action) for action in found.actions],
        holds=made.holds,
        replay_of=found.event.replay_of or "",
        edited_replays=found.edited_replays,
        why=reason_to_stay(event, story),
        turn=None if event.state in TERMINAL else turn_row(made.why.sentence, made.why.event_id),
        in_doubt=step_in_doubt(event, story),
        code_change=code_change_row(event, story),
        awaits=awaited_rows(event, story),
        parent=None if event.parent_id is None else relative_row(event.parent_id, story),
        waterfall=made.waterfall,
        subscribers=event.subscriber_names,
        told=made.told,
    )


def verbs_of(event: StoredEvent, story: Story) -> frozenset[str]:
    """Return what may be done to an event; one that runs, or has begun, is cancelled at its next step if it has any."""
    verbs = rows.verbs_of(event.state)
    if event.subscribers is not None and event.state is State.SUCCEEDED:
        verbs -= {"replay"}
    if event.state is State.PROCESSING and (story.cancel_requested or not story.steps_count):
        verbs -= {"cancel"}
    if event.state is State.WAITING and not any(one.kind is StepKind.STEP for one in story.awaited(event)):
        verbs -= {"retry"}
    return verbs


async def event_part(request: web.Request) -> web.Response:
    """Answer with the exact bytes of an event's payload, metadata or result: as text, or as a file to keep."""
    event_id, part = request.match_info["id"], request.match_info["part"]
    body = bodies_of(await context_of(request).queries.find(event_id)).get(part)
    if body is None:
        raise NotFound(f"Event {event_id} has no {part}.")
    headers = {"Cache-Control": "no-store"}
    if "download" in request.query:
        headers["Content-Disposition"] = f'attachment; filename="{part}.json"'
    return web.Response(body=body, content_type="text/plain", charset="utf-8", headers=headers)
