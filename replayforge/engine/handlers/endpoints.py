"""HTTP endpoints as handlers: an event is POSTed and signed, and the answer's status decides what becomes of it."""

import base64
import contextlib
import hashlib
import hmac
import io
import math
import re
from asyncio import get_running_loop, timeout
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from urllib.parse import urlsplit

import aiohttp
import msgspec
from yarl import URL

from replayforge.config.settings import HttpEndpoint
from replayforge.domain.clock import MICROSECONDS_PER_SECOND, Clock, to_us
from replayforge.domain.document import decode_document, decode_exactly
from replayforge.domain.errors import Refused, Rejected
from replayforge.domain.event import Event
from replayforge.domain.retry import Permanent, Retry
from replayforge.engine.handlers.addresses import CheckedResolver, LookUp, look_up, objection, written_address
from replayforge.engine.handlers.context import Context
from replayforge.engine.handlers.endpoint_connection import connector
from replayforge.engine.handlers.registry import Handler, Handlers
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
KEY_PREFIX = "whsec_"


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
        session = self.webhook_client.session(allow_private=self.allow_private)
        # BytesIO, because aiohttp warns of large bytes; they are sent unchanged and with their length either way.
        body, headers = io.BytesIO(event.payload_bytes), self.headers(event, context)
        try:
            async with session.post(self.url, data=body, headers=headers, allow_redirects=False) as response:
                answer = await beginning(response, context.deadline)
        except (aiohttp.ClientError, OSError) as error:
            raise Retry(f"{self.url.origin()} did not answer: {cause(error, self.url)}") from None
        if 200 <= response.status < 300:
            return await computed(result, answer, size=len(answer)) if response.content.at_eof() else None
        raise failure(
            str(self.url.origin()), response.status, response.headers, answer, self.webhook_client.clock.now_us()
        )

    def headers(self, event: Event, context: Context) -> dict[str, str]:
        """Return what the endpoint is told beside the payload; only time, attempt and token change from try to try.

        Names are UTF-8, as they were accepted; the metadata, any JSON, is base64.
        """
        timestamp = str(self.webhook_client.clock.now_us() // MICROSECONDS_PER_SECOND)
        headers = {
            "Content-Type": "application/json",
            "webhook-id": event.id,
            "webhook-timestamp": timestamp,
            "replayforge-attempt": str(event.attempt),
            "replayforge-run": str(event.run),
            "replayforge-lease-token": str(context.lease_token),
            "replayforge-event-type": in_a_header(event.event_type),
            "replayforge-workflow-id": in_a_header(event.workflow_id),
            "replayforge-application": in_a_header(event.application),
            **metadata_header(event.metadata_bytes),
        }
        if event.service:
            headers["replayforge-service"] = in_a_header(event.service)
        if event.idempotency_key is not None:
            headers["replayforge-idempotency-key"] = in_a_header(event.idempotency_key)
        if self.key:
            headers["webhook-signature"] = signature(self.key, event.id, timestamp, event.payload_bytes)
        return headers


def with_endpoints(handlers: Handlers, endpoints: Iterable[HttpEndpoint], webhook_client: WebhookClient) -> Handlers:
    """Return a registry of the handlers and the endpoints; the most specific pattern wins, whichever it belongs to.

    Raises Refused when a pattern is taken or an endpoint is wrong.
    """
    collected = Handlers()
    collected.include(handlers)
    for settings in endpoints:
        collected.add(handler_for(settings, webhook_client))
    return collected


def handler_for(settings: HttpEndpoint, webhook_client: WebhookClient) -> Handler:
    """Return the handler that POSTs to an endpoint; raises Refused with one sentence when it is wrong."""
    try:
        url, key = checked_url(settings), signing_key(settings.secret)
    except ValueError as error:
        raise Refused(f"The HTTP endpoint for {settings.match!r} cannot be used: {error}.") from None
    endpoint = Endpoint(url, key, settings.allow_private, webhook_client)
    return Handler(
        settings.match,
        endpoint.deliver,
        timeout_seconds=settings.timeout_seconds,
        concurrency_max=settings.concurrency_max,
        endpoint=str(url.origin()),
        breaker=settings.breaker,
    )


def checked_url(settings: HttpEndpoint) -> URL:
    """Return the URL; raises ValueError for one that is not plain http or whose written address may not be had."""
    try:
        url, user = URL(settings.url), "@" in urlsplit(settings.url).netloc
    except ValueError:
        raise ValueError("its url is not a URL") from None
    if url.scheme not in ("http", "https") or not url.host:
        raise ValueError("its url must begin with http:// or https:// and a host")
    if user:
        raise ValueError("its url must not hold a user or a password")
    try:
        address = written_address(url.host)
    except ValueError:
        raise ValueError(f"{url.host} is not a host; write an address as four numbers from 0 to 255") from None
    if address and (reason := objection(address, allow_private=settings.allow_private)):
        raise ValueError(f"its address {url.host} {reason}")
    return url


def signing_key(secret: str) -> bytes:
    """Return the key of a secret, `whsec_` and base64 or any text; raises ValueError that does not show the secret."""
    if not secret.startswith(KEY_PREFIX):
        return secret.encode("utf-8", "surrogateescape")
    try:
        key = base64.b64decode(secret.removeprefix(KEY_PREFIX), validate=True)
    except ValueError:
        key = b""
    if not key:
        raise ValueError("its secret begins with whsec_, but no base64 follows")
    return key


def signature(key: bytes, event_id: str, timestamp: str, body: bytes) -> str:
    """Sign a message by the rules of Standard Webhooks."""
    message = f"{event_id}.{timestamp}.".encode() + body
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
