"""Reads a daemon's log from outside and sends its events on as they came, in order, touching nothing of them."""

import http.client
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any
from urllib.parse import urlsplit

import msgspec

from replayforge.client.http import ClientConnection, Problem, Unreachable, split
from replayforge.domain.clock import parse_time
from replayforge.domain.document import decode_exactly
from replayforge.domain.event import EventRecord, decode_record
from replayforge.domain.webhook_body import raw_of

RECORDS_PER_PAGE = 100
WAIT_SECONDS = 25.0
RETRY_SECONDS = 1.0
TIMEOUT_SECONDS = 60.0
GONE = 410
SOURCE = "source:"
JSON = "application/json"


class LoggedRecord(msgspec.Struct):
    """A record of the log as the daemon shows it."""

    offset: int
    appended_at: str
    event: msgspec.Raw


class LogPage(msgspec.Struct):
    """Some records, and the offset to read on after."""

    events: list[LoggedRecord]
    next_offset: int


decode_page = msgspec.json.Decoder(LogPage).decode


class LogFollower:
    """Follows the log of a daemon; `say` is told when the daemon does not answer, and that is waited for."""

    def __init__(self, client: ClientConnection, say: Callable[[str], None]) -> None:
        self.client = client
        self.say = say

    def bounds(self) -> tuple[int, int]:
        """Return the offsets before the first record that is still there, and of the last one."""
        stats = self.client.get("forgelog", "stats").document()
        return max(stats["first_offset"] - 1, 0), stats["durable_offset"]

    def page(self, after: int, limit: int, wait_seconds: float) -> LogPage:
        """Return records after an offset; those that are gone are passed over."""
        try:
            reply = self.client.get("forgelog", "read", offset=after, limit=limit, wait_seconds=str(wait_seconds))
        except Problem as problem:
            if problem.status != GONE:
                raise
            return LogPage([], self.bounds()[0])
        return decode_page(reply.body)

    def offset_at(self, at_us: int) -> int:
        """Return the offset before the first record that was appended at a time or later."""
        low, high = self.bounds()
        while low < high:
            middle = (low + high) // 2
            records = self.page(middle, 1, 0).events
            if records and parse_time(records[0].appended_at) < at_us:
                low = records[0].offset
            else:
                high = middle
        return low

    def records(self, after: int, *, until: int | None = None) -> Iterator[EventRecord]:
        """Yield the events after an offset, and go on with those to come unless there is an end."""
        while until is None or after < until:
            try:
                page = self.page(after, RECORDS_PER_PAGE, 0 if until is not None else WAIT_SECONDS)
            except Unreachable as error:
                self.say(str(error))
                time.sleep(RETRY_SECONDS)
                continue
            for record in page.events:
                event = event_of(bytes(record.event))
                if event is not None:
                    yield event
            after = page.next_offset


def event_of(record: bytes) -> EventRecord | None:
    """Return the event that came with a record; None for one of another kind, and for one that a handler has made."""
    try:
        event = decode_record(record)
    except msgspec.MsgspecError:
        return None
    return None if event.parent_id is not None else event


def is_wanted(event: EventRecord, pattern: str | None) -> bool:
    """Tell whether an event has the type that is asked for, in which * stands for anything."""
    return pattern is None or fnmatchcase(event.event_type, pattern)


@dataclass(frozen=True, slots=True)
class Outgoing:
    """What is sent on of an event."""

    headers: Mapping[str, str]
    body: bytes


def outgoing(event: EventRecord) -> Outgoing:
    """Return an event as it came: a webhook's raw body with the headers that were kept, any other one's payload."""
    content = event.content
    metadata: dict[str, Any] = decode_exactly(content.metadata)
    came = event.origin is not None and event.origin.startswith(SOURCE)
    kept = {str(name): str(value) for name, value in metadata["headers"].items()} if came else {"content-type": JSON}
    named = {"replayforge-event-id": event.id, "replayforge-event-type": event.event_type}
    return Outgoing(kept | named, raw_of(content.payload, metadata) if came else content.payload)


class Receiver:
    """The address that events are sent on to; one that does not answer is waited for, and `say` is told."""

    def __init__(self, url: str, say: Callable[[str], None]) -> None:
        parts, port = split(url)
        self.url = url
        self.say = say
        self.target = parts.path or "/"
        if parts.query:
            self.target += f"?{urlsplit(url).query}"
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self.connection = kind(parts.hostname or "", port, timeout=TIMEOUT_SECONDS)

    def send(self, out: Outgoing) -> int:
        """Send it once to the end, and return the status of the answer."""
        headers = {name: value.encode() for name, value in out.headers.items()}
        while True:
            try:
                self.connection.request("POST", self.target, out.body, headers)
                response = self.connection.getresponse()
                response.read()
            except (OSError, http.client.HTTPException) as error:
                self.connection.close()
                self.say(f"Nobody answers at {self.url} ({error or type(error).__name__}); it is tried again.")
                time.sleep(RETRY_SECONDS)
            else:
                return response.status
