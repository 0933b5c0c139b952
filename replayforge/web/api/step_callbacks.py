"""What endpoints with steps say and ask before they answer, and the schema of all that is said between them and us."""

from functools import partial
from http import HTTPStatus

from aiohttp import web

from replayforge.domain.errors import Rejected, Unavailable
from replayforge.engine.handlers.callbacks import Listener, lapsed
from replayforge.engine.handlers.step_messages import MESSAGE_BYTES_MAX, decode_checkpoint, schema
from replayforge.turns import computed
from replayforge.web.api.shapes import json_response
from replayforge.web.http.bodies import read_body
from replayforge.web.http.context import context_of
from replayforge.web.http.problems import HttpProblem
from replayforge.web.http.reading import JSON, check_type


async def post_checkpoint(request: web.Request) -> web.Response:
    """Record steps of an endpoint that goes on, and answer when they are durable; 409 when its attempt has ended."""
    listener = await listener_of(request)
    check_type(request, JSON)
    body = await read_body(request, MESSAGE_BYTES_MAX)
    try:
        checkpoint = await computed(partial(decode_checkpoint, body), size=len(body))
    except ValueError as error:
        raise Rejected(f"The checkpoint cannot be recorded: {error}.") from None
    if checkpoint.lease_token != int(request.match_info["token"]):
        raise lapsed()
    await listener.report(checkpoint.did)
    return web.Response(status=HTTPStatus.NO_CONTENT)


async def show_journal(request: web.Request) -> web.Response:
    """Answer with the journal that was too large to be sent; 409 when the attempt it was for has ended."""
    listener = await listener_of(request)
    return web.Response(body=listener.journal, content_type=JSON)


async def listener_of(request: web.Request) -> Listener:
    """Return who listens to a callback URL; raises 403 for a URL that is none of ours, 409 for one that has lapsed."""
    context, event_id, token = context_of(request), request.match_info["id"], int(request.match_info["token"])
    if not context.callbacks.is_ours(event_id, token, request.match_info["signature"]):
        detail = "The signature in this URL is not ours: use it as it was sent, without a change."
        raise HttpProblem("bad-signature", detail)
    listener = context.callbacks.listener(event_id, token)
    if listener is not None:
        return listener
    if await context.queries.runs_elsewhere(event_id, token):
        raise Unavailable("Another daemon runs this event: its [server] public_url must lead to it and to no other.")
    raise lapsed()


async def show_schema(_: web.Request) -> web.Response:
    """Answer with the JSON Schema of what is said between the daemon and endpoints with steps."""
    return json_response(schema())
