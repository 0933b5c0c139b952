"""The form that sends an event, and the one that replays an event with another payload."""

import msgspec
from aiohttp import web
from multidict import MultiDict, MultiMapping

from replayforge.domain.document import decode_document
from replayforge.domain.errors import ReplayForgeError
from replayforge.domain.event import Envelope
from replayforge.turns import computed
from replayforge.web.http.context import WebContext, context_of
from replayforge.web.http.problems import HttpProblem
from replayforge.web.http.reading import read_envelope, read_form
from replayforge.web.pages.flash import Flash, back_of, see_other
from replayforge.web.pages.rendering import PageTemplate, show
from replayforge.web.pages.views import SendView
from replayforge.web.pages.words import segment

decode_anything = msgspec.json.Decoder(msgspec.Raw).decode
FIELDS = ("workflow_id", "event_type", "service_name", "application_name", "idempotency_key")


async def show_form(request: web.Request) -> web.Response:
    """Show the form: empty, with given values, or with those of an event that is to be replayed with changes."""
    source = request.query.get("from")
    view = await form_of(context_of(request), source) if source else from_values(request.query, "")
    return await show(request, PageTemplate("send.html", title_of(view), "events"), view)


async def form_of(context: WebContext, event_id: str) -> SendView:
    """Return the form filled with an event; raises NotFound."""
    event, content = await context.replayer.find(event_id)
    return SendView(
        workflow_id=event.workflow_id,
        event_type=event.event_type,
        service_name=event.service_name,
        application_name=event.application_name,
        idempotency_key="",
        payload=content.payload.decode("utf-8", "backslashreplace"),
        replay_of=event.id,
        error="",
    )


def from_values(values: MultiMapping[str], error: str) -> SendView:
    """Return the form with the values that were given."""
    given = {name: values.get(name, "") for name in FIELDS}
    return SendView(**given, payload=values.get("payload", "{}"), replay_of=values.get("replay_of", ""), error=error)


def title_of(view: SendView) -> str:
    """Return the title of the form."""
    return "Edit and replay" if view.replay_of else "Send an event"


async def send(request: web.Request) -> web.Response:
    """Accept the event of the form, or show the form again and say what is wrong with it."""
    return await sent(request, await read_form(request))


async def send_edited(request: web.Request) -> web.Response:
    """Accept an edited replay likewise; unlike any other event it needs no key that sends events."""
    form = await read_form(request)
    if not form.get("replay_of"):
        raise HttpProblem("nothing-selected", "Say which event is replayed.")
    return await sent(request, form)


async def sent(request: web.Request, form: MultiMapping[str]) -> web.Response:
    """Accept what a form says, and lead to it."""
    context = context_of(request)
    try:
        event_id = await accept(context, form)
    except (HttpProblem, ReplayForgeError) as error:
        view = from_values(form, str(error))
        return await show(request, PageTemplate("send.html", title_of(view), "events", status=422), view)
    path = f"/events/{segment(event_id)}"
    return see_other(request, context.base_path + path, Flash("ok", "The event is durable and on its way."))


async def send_signal(request: web.Request) -> web.Response:
    """Accept the event that a parked one waits for, in the same workflow, and go back."""
    form, context = await read_form(request), context_of(request)
    event_type = form.get("event_type", "")
    waiting, _ = await context.replayer.find(form.get("id", ""))
    back = back_of(form, f"{context.base_path}/events/{segment(waiting.id)}")
    names = {"workflow_id": waiting.workflow_id, "application_name": waiting.application_name, "event_type": event_type}
    try:
        event_id = await accept(context, MultiDict(names | {"payload": form.get("payload", "")}))
    except (HttpProblem, ReplayForgeError) as error:
        return see_other(request, back, Flash("err", f"{event_type} was not sent: {error}"))
    return see_other(
        request, back, Flash("ok", f"{event_type} is durable and on its way.", f"/events/{segment(event_id)}")
    )


async def accept(context: WebContext, form: MultiMapping[str]) -> str:
    """Accept the event that a form describes, just as the API would; returns its id."""
    replay_of = form.get("replay_of") or None
    body = {name: form[name] for name in FIELDS if form.get(name)}
    text = (form.get("payload") or "{}").encode(errors="surrogatepass")
    payload = await computed(decode_document, text, decode_anything, size=len(text))
    body_bytes = msgspec.json.encode(body | {"payload": payload})
    envelope = await read_envelope(body_bytes, event_bytes_max=context.limits.event_bytes_max)
    if replay_of is None:
        return (await context.intake.accept(envelope)).record.id
    replayed, content = await context.replayer.find(replay_of)
    return (await context.intake.accept(with_origin(envelope, content.metadata), replay_of=replayed)).record.id


def with_origin(envelope: Envelope, metadata: bytes) -> Envelope:
    """Return an edited replay with the metadata of the event it replays."""
    return msgspec.structs.replace(envelope, metadata=msgspec.Raw(metadata))
