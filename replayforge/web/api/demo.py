"""The demo's workload on demand: a few checkouts, accepted as any other event is."""

import secrets

import msgspec
from aiohttp import web

from replayforge.engine.accept.intake import Receipt
from replayforge.web.api.operations import require_chaos
from replayforge.web.api.shapes import json_response
from replayforge.web.http.context import context_of
from replayforge.web.http.reading import decode_envelope, query_int

WORKFLOWS_DEFAULT = 10
WORKFLOWS_MAX = 500
EVENTS_PER_APPEND = 500


async def generate_workload(request: web.Request) -> web.Response:
    """Accept `count` checkouts of seven events each; only a daemon with simulated crashes plays with itself."""
    context = context_of(request)
    require_chaos(context)
    from replayforge.demo import workload  # no part of a daemon that serves in earnest

    workflows = query_int(request, "count", WORKFLOWS_DEFAULT, low=1, high=WORKFLOWS_MAX)
    bytes_max = context.limits.event_bytes_max
    events = list(workload.checkout_events(workflows * workload.EVENTS_PER_CHECKOUT, secrets.token_hex(4)))
    sent = 0
    for start in range(0, len(events), EVENTS_PER_APPEND):
        piece = events[start : start + EVENTS_PER_APPEND]
        envelopes = [decode_envelope(msgspec.json.encode(event), event_bytes_max=bytes_max) for event in piece]
        outcomes = await context.intake.accept_all(envelopes)
        sent += sum(isinstance(outcome, Receipt) for outcome in outcomes)
    return json_response({"workflows": workflows, "events_sent": sent, "errors": len(events) - sent})
