"""How one connection talks to a running daemon: every failure is an error that says what happened."""

import http.client
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any
from urllib.parse import SplitResult, quote, urlencode, urlsplit

import msgspec

from replayforge.domain.document import decode_exactly
from replayforge.domain.errors import Rejected, ReplayForgeError, Unavailable

JSON = "application/json"
NDJSON = "application/x-ndjson"
DEFAULT_URL = "http://127.0.0.1:8787"
TIMEOUT_SECONDS = 60.0
PAGE_EVENTS = 200
DETAIL_CHARACTERS_MAX = 200
DIGITS_MAX = 10


class Unreachable(Unavailable):
    """No daemon answered to the end. `sent` says whether the request may have reached one all the same.

    `partial` is the part of an answer that came before it broke off.
    """

    exit_code = 2

    def __init__(self, url: str, cause: Exception, *, sent: bool) -> None:
        reason = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
        advice = "start one with `replayforge serve`, or name another with --url"
        super().__init__(
            f"The connection to {url} broke: {reason}." if sent else f"No daemon answers at {url} ({reason}); {advice}."
        )
        self.sent = sent
        self.partial = cause.partial if isinstance(cause, http.client.IncompleteRead) else b""


class Misunderstood(ReplayForgeError):
    """Something answered that does not speak as a daemon does."""

    def __init__(self, url: str, error: Exception) -> None:
        detail = f"{type(error).__name__}: {str(error) or 'no words'}"[:DETAIL_CHARACTERS_MAX]
        super().__init__(f"What {url} answered cannot be understood ({detail}); is it a ReplayForge daemon?")


class Problem(ReplayForgeError):
    """The daemon said no, in the words of problem+json.

    `type` is what programs go by, such as "urn:replayforge:idempotency-key-reused", `event_id` the event that it names,
    if it names one, and `errors` says what is wrong where: mappings of `pointer` and `detail`.
    """

    def __init__(self, status: int, document: Mapping[str, Any], retry_after_seconds: float | None = None) -> None:
        self.status = status
        self.type = str(document.get("type", "about:blank"))
        self.event_id: str | None = document.get("event_id")
        self.errors: tuple[Mapping[str, str], ...] = tuple(document.get("errors", ()))
        self.outcome_unknown = document.get("outcome") == "unknown" or status in (502, 504)
        self.retry_after_seconds = retry_after_seconds
        super().__init__(sentence(status, document))


@dataclass(frozen=True, slots=True)
class Reply:
    """A good answer; `body` is exactly what was sent, `headers` go by their names in small letters."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)

    def document(self) -> Any:
        """Return the body decoded."""
        return decode_exactly(self.body)


class ClientConnection:
    """Speaks HTTP with one daemon. Every call returns a 2xx Reply, or raises Problem or Unreachable."""

    def __init__(self, url: str, api_key: str | None = None, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        parts, port = split(url)
        if api_key is not None and not re.fullmatch(r"[\x21-\x7e]+", api_key):
            raise Rejected("The API key holds characters that no key can have.")
        self.url = url.rstrip("/")
        self.base_path = quote(parts.path.rstrip("/"), safe="/%")
        self.root = f"{parts.scheme}://{parts.netloc}{self.base_path}"
        self.headers = {"Accept": JSON} | ({"X-API-Key": api_key} if api_key else {})
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self.connection = kind(parts.hostname or "", port, timeout=timeout_seconds)

    def __enter__(self) -> "ClientConnection":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; the next request makes another."""
        self.connection.close()

    def get(self, *path: str, **query: str | int | None) -> Reply:
        """Ask for what lies at the path; its parts are quoted, and query parts that are None left out."""
        given = {name: value for name, value in query.items() if value is not None}
        return self.request("GET", at(*path) + (f"?{urlencode(given, errors='surrogateescape')}" if given else ""))

    def events(self, filters: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """Yield every event that the filters match, page after page."""
        cursor = None
        while True:
            page = self.get("api", "events", **filters, limit=PAGE_EVENTS, cursor=cursor).document()
            yield from page["items"]
            cursor = page.get("next_cursor")
            if not page.get("has_more") or not cursor:
                return

    def post(self, *path: str, document: Any = None) -> Reply:
        """Send a document; nothing is sent a second time."""
        return self.request("POST", at(*path), msgspec.json.encode({} if document is None else document))

    def request(
        self,
        method: str,
        target: str,
        body: bytes | None = None,
        content_type: str = JSON,
        further_headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """Carry out one request."""
        headers = self.headers | ({"Content-Type": content_type} if body is not None else {})
        headers |= further_headers or {}
        sent = self.connection.sock is not None
        try:
            if not sent:
                self.connection.connect()
                sent = True
            self.connection.request(method, self.base_path + target, body, headers)
            response = self.connection.getresponse()
            named = {name.lower(): value for name, value in response.getheaders()}
            reply = Reply(response.status, response.read(), named)
        except (OSError, http.client.HTTPException, ValueError) as error:  # ValueError: a name no host can have
            self.connection.close()
            raise Unreachable(self.url, error, sent=sent) from error
        return checked(reply)


def checked(reply: Reply) -> Reply:
    """Return a good answer; raises Problem for any other."""
    if not 200 <= reply.status < 300:
        raise Problem(reply.status, problem_document(reply.body), seconds(reply.headers.get("retry-after")))
    return reply


def split(url: str) -> tuple[SplitResult, int | None]:
    """Return the parts and the port of an address; raises Rejected when it is none."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        parts, port = SplitResult("", "", "", "", ""), None
    if parts.scheme not in ("http", "https") or not parts.hostname or not url.isprintable() or port == 0:
        raise Rejected(f"{url!r} is not the address of a daemon; it should look like http://127.0.0.1:8787.")
    return parts, port


def at(*path: str) -> str:
    """Join the parts of a path, each quoted; what no text can hold is quoted byte by byte."""
    return "/" + "/".join(quote(part, safe="", errors="surrogateescape") for part in path)


def problem_document(body: bytes) -> dict[str, Any]:
    """Read a problem+json body; anything else is an empty problem."""
    try:
        return msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return {}


def sentence(status: int, document: Mapping[str, Any]) -> str:
    """Say a problem in one sentence: title, detail, and each wrong field."""
    title = document.get("title") or f"The daemon answered {status} {http.client.responses.get(status, '')}".strip()
    detail = document.get("detail")
    errors = document.get("errors")
    named = [field for field in errors if isinstance(field, dict)] if isinstance(errors, list) else []
    fields = [f"{field.get('pointer', '')} {field.get('detail', '')}".strip() for field in named]
    request_id = f" (request id {document.get('request_id')})" if status >= 500 and document.get("request_id") else ""
    return ": ".join(str(part) for part in (title, detail, "; ".join(fields)) if part) + request_id


def seconds(text: str | None) -> float | None:
    """Read a Retry-After in seconds; any other form is left to the caller's own retry budget."""
    return float(text) if text and text.isascii() and text.isdecimal() and len(text) < DIGITS_MAX else None
