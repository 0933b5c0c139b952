"""HTTP endpoints: an event is POSTed and signed, and the answer's status decides what becomes of it."""

import base64
import contextlib
import hashlib
import hmac
import io
import math
import re
from asyncio import get_running_loop, timeout
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC
from email.utils import parsedate_to_datetime
from http import HTTPStatus

import aiohttp
import msgspec
from yarl import URL

from replayforge.domain.clock import MICROSECONDS_PER_SECOND, Clock, to_us
from replayforge.domain.document import decode_document, decode_exactly
from replayforge.domain.errors import Rejected
from replayforge.domain.event import Event
from replayforge.domain.retry import Permanent, Retry
from replayforge.engine.handlers.addresses import CheckedResolver, LookUp, look_up
from replayforge.engine.handlers.context import Context
from replayforge.engine.handlers.endpoint_connection import connector
from replayforge.engine.handlers.results import RESULT_BYTES_MAX
from replayforge.turns import computed

# 401, 403 and 404 are what a bad deploy of the endpoint, or one that is under way, says of every event.
RETRIED_STATUSES = frozenset({401, 403, 404, 408, 425, 429})
RETRY_AFTER_SECONDS_MAX = 86_400.0
EXCERPT_CHARACTERS_MAX = 500
BODY_SECONDS_MAX = 5.0  # for the body of an answer, which decides nothing
BODY_SECONDS_MIN = 0.05  # however little time the attempt has left
HEADER_BYTES_MAX = 8192  # for a line; servers commonly have no room for longer ones
CONTROLS = re.compile("[\x00-\x1f\x7f]")


class WebhookClient:
    """The connections that all endpoints of a daemon share; none is opened before the first event.

    Endpoints that may have private addresses get a session of their own, so that no other is ever served over one of
    their connections.
    """

    def __init__(self, clock: Clock, look_up: LookUp = look_up) -> None:
        self.clock = clock
        self.look_up = look_up
        self.sessions: dict[bool, aiohttp.ClientSession] = {}

    def session(self, *, allow_private: bool) -> aiohttp.ClientSession:
        """Return the session for endpoints that may, or may not, have private addresses."""
        if allow_private not in self.sessions:
            self.sessions[allow_private] = self.opened(allow_private=allow_private)
        return self.sessions[allow_private]

    def opened(self, *, allow_private: bool) -> aiohttp.ClientSession:
        """Open a session that keeps no cookies, waits as long as the handler may and unpacks nothing."""
        return aiohttp.ClientSession(
            connector=connector(CheckedResolver(self.look_up, allow_private=allow_private)),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
            headers={"User-Agent": "ReplayForge", "Accept": "application/json", "Accept-Encoding": "identity"},
            auto_decompress=False,
        )

    async def close(self) -> None:
        """Close every connection; safe to call twice."""
        for session in self.sessions.values():
            await session.close()


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the events of one pattern are POSTed, and the key that signs them; without a key nothing is signed."""

    url: URL = field(repr=False)
    key: bytes = field(repr=False)
    allow_private: bool
    webhook_client: WebhookClient = field(repr=False)

    async def deliver(self, event: Event, context: Context) -> msgspec.Raw | None:
        """POST the event and return the JSON of a 2xx answer, if it has any.

        The status alone decides, whatever becomes of the body behind it. Raises Retry when another attempt may
        succeed, Permanent when none can. No error shows the path of the URL, which may be a secret.
        """
        async with self.post(event, context, event.id, event.payload_bytes) as response:
            answer = await beginning(response, context.deadline)
        if 200 <= response.status < 300:
            return await computed(result, answer, size=len(answer)) if response.content.at_eof() else None
        raise self.failure(response, answer)

    @contextlib.asynccontextmanager
    async def post(
        self, event: Event, context: Context, message_id: str, body: bytes
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """POST a message about an event and give the answer; raises Retry where none comes, or breaks off."""
        session = self.webhook_client.session(allow_private=self.allow_private)
        headers = self.headers(event, context, message_id, body)
        try:
            # BytesIO, because aiohttp warns of large bytes; they are sent unchanged and with their length either way.
            async with session.post(self.url, data=io.BytesIO(body), headers=headers, allow_redirects=False) as answer:
                yield answer
        except (aiohttp.ClientError, OSError) as error:
            raise Retry(f"{self.place} did not answer: {cause(error, self.url)}") from None

    @property
    def place(self) -> str:
        """What people may know of its URL."""
        return str(self.url.origin())

    def failure(self, response: aiohttp.ClientResponse, answer: bytes) -> Retry | Permanent:
        """Return what to raise for an answer that is no 2xx."""
        now_us = self.webhook_client.clock.now_us()
        return failure(self.place, response.status, response.headers, answer, now_us)

    def headers(self, event: Event, context: Context, message_id: str, body: bytes) -> dict[str, str]:
        """Return what the endpoint is told beside the body; only time, attempt and token change from try to try.

        Names are UTF-8, as they were accepted; the metadata, any JSON, is base64.
        """
        timestamp = str(self.webhook_client.clock.now_us() // MICROSECONDS_PER_SECOND)
        headers = {
            "Content-Type": "application/json",
            "webhook-id": message_id,
            "webhook-timestamp": timestamp,
            "replayforge-attempt": str(event.attempt),
            "replayforge-run": str(event.run),
            "replayforge-lease-token": str(context.lease_token),
            "replayforge-event-type": in_a_header(event.event_type),
            "replayforge-workflow-id": in_a_header(event.workflow_id),
            "replayforge-application": in_a_header(event.application),
            **metadata_header(event.metadata_bytes),
            **context.trace_headers,
        }
        if event.service:
            headers["replayforge-service"] = in_a_header(event.service)
        if event.subscriber is not None:
            headers["replayforge-subscriber"] = event.subscriber
        if event.idempotency_key is not None:
            headers["replayforge-idempotency-key"] = in_a_header(event.idempotency_key)
        if self.key:
            headers["webhook-signature"] = signature(self.key, message_id, timestamp, body)
        return headers


def signature(key: bytes, message_id: str, timestamp: str, body: bytes) -> str:
    """Sign a message by the rules of Standard Webhooks."""
    message = f"{message_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(key, message, hashlib.sha256)).decode()


def in_a_header(text: str) -> str:
    """Return a text that begins no other header; ingest lets no control character in, but a log may hold some."""
    return CONTROLS.sub("\N{REPLACEMENT CHARACTER}", text)


def metadata_header(metadata: bytes) -> dict[str, str]:
    """Return the header with the metadata, or, when a header has no room for it, one that says how much is left out."""
    encoded = base64.b64encode(metadata).decode()
    if len(f"replayforge-metadata: {encoded}\r\n") > HEADER_BYTES_MAX:
        return {"replayforge-metadata-omitted": str(len(metadata))}
    return {"replayforge-metadata": encoded}


async def beginning(response: aiohttp.ClientResponse, deadline: float = math.inf) -> bytes:
    """Return the body as far as it comes, in a few seconds and before the attempt's time is over, on the loop's clock.

    Never more than one byte above what a result may have, so that more can be told. A body that breaks off or cannot
    be read raises nothing: the status has said what counts.
    """
    body, now = bytearray(), get_running_loop().time()
    seconds = min(BODY_SECONDS_MAX, (deadline - now) / 2)
    with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError, ValueError):
        async with timeout(max(BODY_SECONDS_MIN, seconds)):
            async for piece in response.content.iter_any():
                body += piece
                if len(body) > RESULT_BYTES_MAX:
                    break
    return bytes(body[: RESULT_BYTES_MAX + 1])


def result(body: bytes) -> msgspec.Raw | None:
    """Return the JSON of an answer, digit for digit; None when there is none or more than can be kept.

    The endpoint has done its work, so an answer that cannot be kept is no reason to fail.
    """
    if len(body) > RESULT_BYTES_MAX:
        return None
    try:
        decode_document(body, decode_exactly)
    except Rejected:
        return None
    return msgspec.Raw(msgspec.json.format(body, indent=-1))


def failure(place: str, status: int, headers: Mapping[str, str], body: bytes, now_us: int) -> Retry | Permanent:
    """Return what to raise for an answer that is no 2xx."""
    said = f"{place} answered {status}{phrase(status)}"
    if 300 <= status < 400:
        return Permanent(f"{said}; redirects are not followed, so correct its url in [[handlers.http]].")
    if text := printable(body.decode("utf-8", "replace")):
        said = f"{said}: {text}"
    if status in RETRIED_STATUSES or 500 <= status < 600:
        return Retry(said, after=retry_after_seconds(headers.get("Retry-After", ""), now_us))
    return Permanent(said)


def phrase(status: int) -> str:
    """Return the words of a status, so that errors of different kinds are told apart by more than a number."""
    return f" {HTTPStatus(status).phrase}" if status in set(HTTPStatus) else ""


def retry_after_seconds(text: str, now_us: int) -> float | None:
    """Read Retry-After, seconds or a date, up to a day; None, the usual backoff, when it says nothing or no time."""
    try:
        if re.fullmatch(r"[0-9]+", text.strip()):
            seconds = float(text)
        else:
            date = parsedate_to_datetime(text)
            seconds = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - now_us / to_us(1)
    except (ValueError, OverflowError):
        return None
    return min(seconds, RETRY_AFTER_SECONDS_MAX) if seconds > 0 else None


def cause(error: Exception, url: URL) -> str:
    """Say what went wrong on the way, without the URL that some of aiohttp's errors repeat."""
    text = error.message if isinstance(error, aiohttp.ClientResponseError) else str(error)
    return f"{type(error).__name__}: {printable(text.replace(str(url), str(url.origin())))}"


def printable(text: str) -> str:
    """Return the text on one line, cut, and without anything that a terminal or a page might obey."""
    line = " ".join(text[: 4 * EXCERPT_CHARACTERS_MAX].split())
    return "".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in line)[:EXCERPT_CHARACTERS_MAX]
