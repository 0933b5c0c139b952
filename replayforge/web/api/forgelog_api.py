"""ForgeLog over HTTP: append any JSON, read on from an offset, commit how far one has read."""

from typing import Annotated, Any

import msgspec
from aiohttp import web

from replayforge.domain.clock import format_time
from replayforge.domain.document import decode_document
from replayforge.turns import computed
from replayforge.web.api.shapes import json_response
from replayforge.web.http.bodies import read_body
from replayforge.web.http.context import CONTEXT, context_of
from replayforge.web.http.long_requests import long_request
from replayforge.web.http.reading import JSON, check_type, query_float, query_int, read_object

OFFSET_MAX = 2**53
READ_LIMIT_MAX = 1000

decode_anything = msgspec.json.Decoder(msgspec.Raw).decode


class CommitRequest(msgspec.Struct, forbid_unknown_fields=True):
    """How far a consumer has read."""

    consumer: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9._-]{1,64}$(?!\n)")]
    offset: Annotated[int, msgspec.Meta(ge=0)]


async def append(request: web.Request) -> web.Response:
    """Append any JSON as a record that is not an event."""
    context = context_of(request)
    check_type(request, JSON)
    body = await read_body(request, context.limits.event_bytes_max)
    event = await computed(decode_document, body, decode_anything, size=len(body))
    offset = await context.forgelog_service.append(bytes(event))
    return json_response({"offset": offset, "event": event}, status=201)


async def read(request: web.Request) -> web.Response:
    """Answer with records after an offset; waits for the first one for up to `wait_seconds`."""
    after = query_int(request, "offset", 0, low=0, high=OFFSET_MAX)
    limit = query_int(request, "limit", 100, low=1, high=READ_LIMIT_MAX)
    wait_seconds = query_float(request, "wait_seconds", 0, low=0, high=30)
    with long_request(request):
        found = await context_of(request).forgelog_service.read(after, limit, wait_seconds)
    events = [
        {"offset": offset, "appended_at": format_time(at_us), "event": as_json(payload)}
        for offset, at_us, payload in found.records
    ]
    return json_response({"events": events, "next_offset": found.next_offset})


async def let_readers_go(app: web.Application) -> None:
    """Answer those who wait for records, else they would hold up the exit."""
    app[CONTEXT].forgelog_service.close()


def as_json(payload: bytes) -> msgspec.Raw:
    """Return the record's JSON; everything that this API appends is JSON."""
    return msgspec.Raw(payload)


async def commit(request: web.Request) -> web.Response:
    """Note durably how far a consumer has read."""
    asked = await read_object(request, CommitRequest)
    await context_of(request).forgelog_service.commit(asked.consumer, asked.offset)
    return json_response({"consumer": asked.consumer, "offset": asked.offset})


async def health(request: web.Request) -> web.Response:
    """Answer whether the log can be written."""
    stats = context_of(request).forgelog_service.stats()
    body = {"status": "ok" if stats.writable else "unavailable", "writable": stats.writable, "detail": stats.reason}
    return json_response(body, status=200 if stats.writable else 503)


async def statistics(request: web.Request) -> web.Response:
    """Answer with the figures of the log, their legacy names among them."""
    stats = context_of(request).forgelog_service.stats()
    figures: dict[str, Any] = {name: getattr(stats, name) for name in stats.__dataclass_fields__}
    consumers = figures["consumers"]
    return json_response(
        figures
        | {
            "committed_offset": max(consumers.values(), default=0),
            "wal_size": stats.wal_bytes,
            "fsync_p50_ms": stats.sync_p50_ms,
            "fsync_p99_ms": stats.sync_p99_ms,
            "torn_bytes": stats.torn_bytes_repaired,
            "raft_state": "standalone",
            "leader_id": stats.log_id,
        }
    )
