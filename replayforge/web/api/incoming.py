"""Webhooks as their providers send them: `POST /in/{source}`, and the question whether the address is ours."""

from aiohttp import web

from replayforge.domain.errors import ReplayForgeError
from replayforge.domain.trace import trace_headers
from replayforge.domain.webhook_presets import Challenge
from replayforge.domain.webhook_signature import WebhookDelivery, echoed
from replayforge.engine.accept.sources import SignatureRefused
from replayforge.web.http.answers import WholeAnswer
from replayforge.web.http.bodies import read_body
from replayforge.web.http.context import WebContext, context_of
from replayforge.web.http.problems import HttpProblem, describe
from replayforge.web.http.reading import check_encoding
from replayforge.web.http.traces import TRACE

EVENT_HEADER = "ReplayForge-Event-Id"
DUPLICATE_HEADER = "ReplayForge-Duplicate"


async def receive(request: web.Request) -> web.StreamResponse:
    """Accept a delivery as its provider sends it: 200 after the fsync that covers it.

    Its signature is checked over the raw bytes, and needs no key of this API; a wrong one is 401. The same delivery id
    again is the same event, and 200 as well. The answer's body is what the provider expects; the event is named in the
    header `ReplayForge-Event-Id`. A source that is paused is answered 503, one that sends too fast 429.
    """
    context, name = context_of(request), request.match_info["source"]
    source = context.sources.source(name)
    try:
        delivery = await read_delivery(request, context)
        received = await context.sources.receive(name, delivery)
    except SignatureRefused as error:
        context.sources.note_refused(name, error.reason)
        raise
    except (ReplayForgeError, HttpProblem) as error:
        context.sources.note_refused(name, describe(error)["type"].rpartition(":")[2])
        raise
    if received.event_id is None:
        return web.Response(body=received.challenge, content_type="text/plain")
    headers = {EVENT_HEADER: received.event_id}
    if received.duplicate:
        headers[DUPLICATE_HEADER] = "true"
    return WholeAnswer(source.preset.answer, status=200, headers=headers | {"Content-Type": source.preset.answer_type})


async def read_delivery(request: web.Request, context: WebContext) -> WebhookDelivery:
    """Return what was sent; raises 415 for a body that is packed, 413 for one that is too large."""
    check_encoding(request)
    headers: dict[str, str] = {}
    for name, value in request.headers.items():
        headers.setdefault(name.lower(), value)
    headers |= trace_headers(request.get(TRACE))
    body = await read_body(request, context.limits.event_bytes_max)
    return WebhookDelivery(url_of(request, context), headers, body)


def url_of(request: web.Request, context: WebContext) -> str:
    """Return the URL as the provider calls it, character by character; some sign it."""
    origin = context.public_url or f"{request.scheme}://{request.host}"
    return f"{origin}{request.raw_path}"


async def answer_challenge(request: web.Request) -> web.Response:
    """Answer a provider that asks by GET whether the address is ours, if it knows a secret of the source.

    `hub.challenge` is given back when `hub.verify_token` is one of the secrets; `crc_token` is signed. No event comes
    of it.
    """
    source = context_of(request).sources.source(request.match_info["source"])
    if source.preset.challenge is not Challenge.ASKED:
        raise HttpProblem("method-not-allowed", "Deliveries of this source come by POST.")
    answer = echoed(source.keys, request.query)
    if answer is None:
        raise HttpProblem("unauthorized", "Neither hub.challenge with a verify_token that is known, nor crc_token.")
    kind = "application/json" if "crc_token" in request.query else "text/plain"
    return web.Response(body=answer, content_type=kind)
