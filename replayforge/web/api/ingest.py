"""HTTP ingest: single events, bulk arrays and NDJSON streams."""

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Protocol, TypeGuard

from aiohttp import hdrs, web
from msgspec.structs import replace
from multidict import istr

from replayforge.domain import cloud_event
from replayforge.domain.document import TooMany, split_array
from replayforge.domain.errors import OutcomeUnknown, ReplayForgeError, Unavailable
from replayforge.domain.event import Envelope
from replayforge.domain.identity import event_id_for_key
from replayforge.engine.accept.intake import Receipt
from replayforge.turns import Turns, computed
from replayforge.web.api.shapes import encode, json_answer, json_response, receipt_event
from replayforge.web.http import problems
from replayforge.web.http.answers import HEADERS
from replayforge.web.http.bodies import parsing, read_body, read_lines, too_large
from replayforge.web.http.context import REQUEST_ID, WebContext, context_of
from replayforge.web.http.guard import check_access
from replayforge.web.http.problems import HttpProblem
from replayforge.web.http.reading import JSON, NDJSON, check_encoding, check_type, header_key, media_type, read_envelope
from replayforge.web.http.traces import trace_of_request

LINES_PER_APPEND_MAX = 500
CLOUD_EVENT = "application/cloudevents+json"
CLOUD_EVENTS = "application/cloudevents-batch+json"
MARK_HEADER = istr("ce-specversion")  # by which a request is known to be a CloudEvent whose attributes are headers


class ReadEvent(Protocol):
    """Reads one event of many; raises what is wrong with it."""

    def __call__(self, body: bytes, *, event_bytes_max: int) -> Awaitable[Envelope]:
        """Return the event."""


async def post_event(request: web.Request) -> web.StreamResponse:
    """Accept one event: 201 after the fsync that covers it, 200 when it was known before.

    The same idempotency key with the same workflow, type and payload is the same event, whatever its metadata; with
    other content it is 422. A key is remembered as long as its event is kept, and for `[retention] keys_seconds` (90
    days) beyond; meanwhile a repeat is answered with what is known of the event and with `retired_at`. The header
    `Idempotency-Key-Remembered` says it in words. A key that is forgotten names a new event with the same id.

    CloudEvents 1.0 come as `application/cloudevents+json`, with `ce-` headers, or several at once as
    `application/cloudevents-batch+json`, which is answered as in bulk.
    """
    context = context_of(request)
    kind = media_type(request)
    if kind == CLOUD_EVENTS:
        return await post_array(request, read_cloud_event)
    is_cloud_event = kind == CLOUD_EVENT or MARK_HEADER in request.headers
    read = read_posted_cloud_event if is_cloud_event else read_posted_event
    envelope = with_header_key(request, await read(request, context.limits.event_bytes_max))
    try:
        told = cloud_event.trace_in(envelope) if is_cloud_event else None
        receipt = await context.intake.accept(envelope, trace=trace_of_request(request, context.tracer, told))
    except OutcomeUnknown as error:
        return problems.respond(request, error, **named(envelope))
    if context.stored is not None:
        (outcome,) = await once_stored(context.stored, [receipt])
        if not isinstance(outcome, Receipt):
            return problems.respond(request, outcome)
    event = receipt_event(receipt, context.status.log_id, context.queries.attempts_max(receipt.event))
    location = f"{context.base_path}/api/events/{event.id}"
    headers = {"Location": location}
    if event.idempotency_key is not None:
        headers["Idempotency-Key-Remembered"] = f"as long as its event is kept, and {context.intake.key_memory}"
    return json_answer(event, status=200 if receipt.duplicate else 201, headers=headers)


async def read_posted_event(request: web.Request, bytes_max: int) -> Envelope:
    """Return the event that a request brings as our own JSON."""
    check_type(request, JSON)
    return await read_envelope(await read_body(request, bytes_max), event_bytes_max=bytes_max)


async def read_posted_cloud_event(request: web.Request, bytes_max: int) -> Envelope:
    """Return the event that a request brings as a CloudEvent, in either of its modes."""
    if request.content_type == CLOUD_EVENT:
        check_type(request, JSON)
        return await read_cloud_event(await read_body(request, bytes_max), event_bytes_max=bytes_max)
    check_encoding(request)
    body, given = await read_body(request, bytes_max), request.headers.get(hdrs.CONTENT_TYPE, "")
    return await computed(cloud_event.from_headers, list(request.headers.items()), given, body, size=len(body))


async def read_cloud_event(body: bytes, *, event_bytes_max: int) -> Envelope:
    """Return the event that a CloudEvent in JSON is; raises as read_envelope."""
    if len(body) > event_bytes_max:
        raise too_large(event_bytes_max)
    return await computed(cloud_event.from_json, body, size=len(body))


def with_header_key(request: web.Request, envelope: Envelope) -> Envelope:
    """Return the event with the key of the Idempotency-Key header, which must not contradict the field."""
    key = header_key(request)
    if key is None:
        return envelope
    if envelope.idempotency_key is not None and envelope.idempotency_key != key:
        detail = "The Idempotency-Key header and the field idempotency_key differ; send one of them."
        raise HttpProblem("bad-idempotency-key", detail, "/idempotency_key")
    return replace(envelope, idempotency_key=key)


def named(envelope: Envelope) -> dict[str, Any]:
    """Name the event whose outcome is unknown, where its key tells the id."""
    if envelope.idempotency_key is None:
        return {}
    return {"event_id": event_id_for_key(envelope.application_name, envelope.idempotency_key)}


async def post_bulk(request: web.Request) -> web.StreamResponse:
    """Accept many events, or as `application/cloudevents-batch+json` many CloudEvents; each is answered for itself."""
    if check_type(request, JSON, NDJSON) == NDJSON:
        return await stream_lines(request)
    return await post_array(request, read_cloud_event if request.content_type == CLOUD_EVENTS else read_envelope)


async def post_array(request: web.Request, read: ReadEvent) -> web.Response:
    """Accept the events of an array."""
    check_type(request, JSON)
    context = context_of(request)
    limits = context.limits
    context.intake.check_load()  # what would be refused is not taken apart first
    pieces = await read_array(request, limits.bulk_bytes_max, limits.bulk_events_max)
    trace_of_each = partial(trace_of_request, request, context.tracer)
    items = await accept_pieces(context, pieces, 0, trace_of_each, read)
    return json_response({**totals(items), "items": items})


async def read_array(request: web.Request, bytes_max: int, items_max: int) -> list[bytes]:
    """Return the items of the array that a body is; the body itself is not kept beside them."""
    body = await read_body(request, bytes_max)
    async with parsing(request, body):
        try:
            return await computed(split_array, body, items_max, size=len(body))
        except TooMany:
            detail = f"More than {items_max:,} events in one request; send fewer at once, or send NDJSON."
            raise HttpProblem("too-many-events", detail) from None


async def stream_lines(request: web.Request) -> web.StreamResponse:
    """Accept NDJSON of any length: lines are taken as they come, and answered one line for each.

    What ends a body in its midst, such as a line that is too long, or a key that was taken back, is the last line of
    the answer.
    """
    context = context_of(request)
    response = web.StreamResponse(headers=HEADERS | {"Content-Type": NDJSON, "X-Request-ID": request[REQUEST_ID]})
    index, trace = 0, partial(trace_of_request, request, context.tracer)
    try:
        async for lines in read_lines(request, context.limits.event_bytes_max):
            for start in range(0, len(lines), LINES_PER_APPEND_MAX):
                check_access(request, context)
                items = await accept_pieces(context, lines[start : start + LINES_PER_APPEND_MAX], index, trace)
                index += len(items)
                # The headers wait for the first answers, so that a request that fails at once gets its own status.
                if not response.prepared:
                    await response.prepare(request)
                await response.write(b"".join(encode(item) + b"\n" for item in items))
    except HttpProblem as error:
        if not response.prepared:
            raise
        await response.write(encode({"index": index, "problem": problems.describe(error)}) + b"\n")
    if not response.prepared:
        await response.prepare(request)
    await response.write_eof()
    return response


async def accept_pieces(
    context: WebContext,
    pieces: list[bytes],
    first_index: int,
    trace: Callable[[str | None], str | None],
    read: ReadEvent = read_envelope,
) -> list[dict[str, Any]]:
    """Accept pieces of JSON and return for each what became of it; a bad one never affects its neighbours."""
    envelopes: list[tuple[int, Envelope]] = []
    items: list[dict[str, Any]] = [{"index": first_index + position} for position in range(len(pieces))]
    turns = Turns()
    for position, piece in enumerate(pieces):
        if turns.is_over():
            await turns.pass_on()
        try:
            envelope = await read(piece, event_bytes_max=context.limits.event_bytes_max)
        except (ReplayForgeError, HttpProblem) as error:
            items[position]["problem"] = problems.describe(error)
        else:
            envelopes.append((position, envelope))
    try:
        if read is read_cloud_event:  # each of these may name one of its own
            traces = [trace(cloud_event.trace_in(envelope)) for _, envelope in envelopes]
        else:
            traces = [trace(None)] * len(envelopes)
        outcomes = await context.intake.accept_all([envelope for _, envelope in envelopes], traces)
    except Unavailable as error:
        if first_index == 0 and len(envelopes) == len(pieces):
            raise
        outcomes = [error] * len(envelopes)
    said = outcomes if context.stored is None else await once_stored(context.stored, outcomes)
    for (position, envelope), outcome in zip(envelopes, said, strict=True):
        items[position] |= answer(outcome, envelope)
    return items


async def once_stored(
    stored: Callable[[int], Awaitable[None]], outcomes: Sequence[Receipt | ReplayForgeError]
) -> Sequence[Receipt | ReplayForgeError]:
    """Return the outcomes once every fresh event has its row; one that takes too long says so."""
    fresh = [outcome.log_offset for outcome in outcomes if is_fresh(outcome)]
    if not fresh:
        return outcomes
    try:
        await stored(max(fresh))
    except OutcomeUnknown as late:
        return [OutcomeUnknown(str(late), one.record.id) if is_fresh(one) else one for one in outcomes]
    return outcomes


def is_fresh(outcome: Receipt | ReplayForgeError) -> TypeGuard[Receipt]:
    """Tell whether an event lies in this daemon's log and may have no row yet."""
    return isinstance(outcome, Receipt) and outcome.stored is None and outcome.retired is None


def answer(outcome: Receipt | ReplayForgeError, envelope: Envelope) -> dict[str, Any]:
    """Return what is said of one event of many."""
    if isinstance(outcome, Receipt):
        return {"id": outcome.record.id, "status": outcome.state, "duplicate": outcome.duplicate}
    members = named(envelope) if isinstance(outcome, OutcomeUnknown) else {}
    return {"problem": problems.describe(outcome, **members)}


def totals(items: list[dict[str, Any]]) -> dict[str, int]:
    """Count what became of many events."""
    duplicates = sum(bool(item.get("duplicate")) for item in items)
    rejected = sum("problem" in item for item in items)
    return {"accepted": len(items) - duplicates - rejected, "duplicates": duplicates, "rejected": rejected}
