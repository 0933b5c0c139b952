"""What an event is: as it lies in the log, as it stands in the store, as a handler sees it."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, Generic, NamedTuple

import msgspec

from replayforge.domain.document import canonical, decode_exactly, quoted, same_json
from replayforge.domain.lifecycle import Outcome, State

if TYPE_CHECKING:
    from typing_extensions import TypeVar  # which tools know without its being installed

    Payload = TypeVar("Payload", covariant=True, default=Any)  # the default is for a plain `Event`, in strict mode too
else:
    from typing import TypeVar

    Payload = TypeVar("Payload", covariant=True)

EVENT_RECORD_TYPE = 1
ON = "on"  # the subscriber that stands for the handler which `on` has registered

# `$` alone would let a line feed pass at the end.
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=255, pattern=r"^[^\x00-\x1f\x7f]+$(?!\n)")]
OptionalName = Annotated[str, msgspec.Meta(max_length=255, pattern=r"^[^\x00-\x1f\x7f]*$(?!\n)")]


class Envelope(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a sender says of one event; payload and metadata stay the bytes they came as."""

    workflow_id: Name
    event_type: Name
    payload: msgspec.Raw = msgspec.Raw(b"{}")
    application_name: Name = "default"
    service_name: OptionalName = ""
    idempotency_key: Name | None = None
    metadata: Annotated[msgspec.Raw, msgspec.Meta(extra_json_schema={"type": "object"})] = msgspec.Raw(b"{}")
    max_attempts: Annotated[int, msgspec.Meta(ge=1, le=1000)] | None = None
    run_at: Annotated[str, msgspec.Meta(extra_json_schema={"format": "date-time"})] | None = None


ENVELOPE_NAMES = quoted(Envelope.__struct_fields__)


class EventRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """One accepted event exactly as ForgeLog keeps it; payload and metadata are the sender's own bytes.

    `origin` says who made it, if no client did: the event whose handler has, `source:NAME` or `schedule:NAME`. These
    may send it again, and the first stands. A child event is for one `subscriber` of its parent, or for whoever handles
    its type. White space around the JSON of a webhook, which a record cannot hold in its payload, stands beside it.
    `trace` is the W3C trace context that it came with.
    """

    id: str
    application_name: str
    workflow_id: str
    event_type: str
    created_at_us: int
    service_name: str = ""
    idempotency_key: str | None = None
    metadata: msgspec.Raw = msgspec.Raw(b"{}")
    max_attempts: int | None = None
    run_at_us: int | None = None
    replay_of: str | None = None
    origin: str | None = None
    subscriber: str | None = None
    before_payload: str = ""
    after_payload: str = ""
    trace: str | None = None
    payload: msgspec.Raw = msgspec.Raw(b"{}")

    @property
    def route(self) -> str:
        """By what its handler is found as long as nobody has looked whether its type has subscribers."""
        return route(self.event_type, self.subscriber)

    @property
    def content(self) -> "Content":
        """The sender's own bytes."""
        payload = bytes(self.payload)
        if self.before_payload or self.after_payload:
            payload = self.before_payload.encode() + payload + self.after_payload.encode()
        return Content(payload, bytes(self.metadata))

    @property
    def meaning(self) -> "Meaning":
        """What must be the same for two records of one key to be the same event."""
        return (self.workflow_id, self.event_type, bytes(self.payload))

    @property
    def parent_id(self) -> str | None:
        """The event whose handler made it."""
        return parent_of(self.origin)


def route(event_type: str, subscriber: str | None, subscribers: str | None = None) -> str:
    """Return by what the handler of an event is found: its type; its subscriber, too, if it is for one of several.

    One that goes to `subscribers` is for none of them. No name holds a line feed.
    """
    if subscribers is not None:
        return f"\n{event_type}"
    return event_type if subscriber is None else f"{subscriber}\n{event_type}"


def listed(subscribers: str | None) -> list[str]:
    """Return the names in a list of subscribers."""
    return [] if subscribers is None else msgspec.json.decode(subscribers, type=list[str])


def parts_of(taken: str) -> tuple[str, str | None]:
    """Return the event type and the subscriber of a route; the subscriber is empty for what goes to all of them."""
    subscriber, between, event_type = taken.rpartition("\n")
    return event_type, subscriber if between else None


def parent_of(origin: str | None) -> str | None:
    """Return the event that an origin names, or None where it names something else."""
    return None if origin is None or ":" in origin else origin


Meaning = tuple[str, str, bytes]


def same_event(first: Meaning | str, second: Meaning) -> bool:
    """Tell whether two records of one key are the same event: workflow, type and payload mean the same.

    Everything else may differ, and the first stands: a provider that sends again signs anew and traces anew. Of an
    event that retention has removed only the digest is known.
    """
    if isinstance(first, str):
        return first == content_digest(second)
    return first[:2] == second[:2] and same_json(first[2], second[2])


def content_digest(meaning: Meaning) -> str:
    """Return what stands for the content of an event once it is removed: equal for the same event, and for no other."""
    workflow_id, event_type, payload = meaning
    digest = hashlib.sha256()
    for part in (workflow_id.encode(), event_type.encode(), canonical(payload)):
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.hexdigest()


encode_record = msgspec.json.Encoder().encode
decode_record = msgspec.json.Decoder(EventRecord).decode


class Lease(NamedTuple):
    """The right to run one event: its row number, and the token that grows with each start, so that old ones lose."""

    seq: int
    token: int


class SeenLease(NamedTuple):
    """A lease as an observer saw it last: `beat` grows whenever its owner renews it."""

    seq: int
    token: int
    beat: int


class Entry(NamedTuple):
    """Says that one run of an event may be ready; the store alone knows whether that is still true."""

    event_id: str
    run: int


class StoredEvent(msgspec.Struct, frozen=True):
    """An event and what has become of it, as the store's row says. Times are microseconds since the epoch.

    `waits_for` names the handler that a queued event waits for, which takes no more now. `origin` says who made it, as
    its record does. One that is `blocked` waits for its turn in its `lane`. `subscribers` are those that an event was
    for when it was dispatched, as a JSON list: each gets a child event.
    """

    seq: int
    id: str
    application_name: str
    workflow_id: str
    event_type: str
    service_name: str
    idempotency_key: str | None
    created_at_us: int
    updated_at_us: int
    log_id: str
    log_offset: int
    replay_of: str | None
    max_attempts: int | None
    state: State
    run: int
    attempt_count: int
    starts: int
    crashes: int
    lease_owner: str | None
    lease_token: int
    due_at_us: int | None
    reason: str | None
    last_error: str | None
    error_signature: str | None
    result: bytes | None
    waits_for: str | None = None
    origin: str | None = None
    subscriber: str | None = None
    lane: str | None = None
    blocked: int = 0
    subscribers: str | None = None
    trace: str | None = None

    @property
    def route(self) -> str:
        """By what its handler is found."""
        if self.subscriber is None and self.subscribers is None:  # most events, and each of them is asked some times
            return self.event_type
        return route(self.event_type, self.subscriber, self.subscribers)

    @property
    def subscriber_names(self) -> list[str]:
        """The subscribers that it goes to."""
        return listed(self.subscribers)

    @property
    def parent_id(self) -> str | None:
        """The event whose handler made it."""
        return parent_of(self.origin)

    @property
    def lease(self) -> Lease:
        """What it is held under, if anybody holds it."""
        return Lease(self.seq, self.lease_token)

    @property
    def entry(self) -> Entry:
        """What the stream says of it once it is queued."""
        return Entry(self.id, self.run)


class RetiredKey(msgspec.Struct, frozen=True):
    """What is known of an event with a key that retention has removed."""

    id: str
    digest: str
    state: State
    log_id: str
    log_offset: int
    created_at_us: int
    retired_at_us: int


class Content(msgspec.Struct, frozen=True):
    """The bytes that came with an event."""

    payload: bytes
    metadata: bytes


class ClaimedEvent(msgspec.Struct, frozen=True):
    """An event in the hands of this process, with what came with it, and what it is held under.

    `is_restarted` says that a restart has left another payload for it, which may not stand in the place of its own yet.
    """

    event: StoredEvent
    content: Content
    lease: Lease
    is_restarted: bool = False

    @classmethod
    def of(cls, event: StoredEvent, content: Content) -> "ClaimedEvent":
        """Return the event as it is held; the lease is looked at often, so it is made once."""
        return cls(event, content, event.lease)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One ended attempt; append-only, one for each (event id, lease token)."""

    event_id: str
    token: int
    run: int
    number: int
    outcome: Outcome
    ended_run: bool
    owner: str
    worker: str
    started_at_us: int
    ended_at_us: int
    error: str | None
    error_signature: str | None


@dataclass(frozen=True, slots=True)
class Action:
    """Something a person or the daemon did to an event outside an attempt; `acted_by` names its key, if any."""

    event_id: str
    at_us: int
    run: int
    action: str
    detail: str
    acted_by: str = ""


class Event(msgspec.Struct, Generic[Payload], frozen=True, dict=True):
    """What a handler gets: the event and which run and attempt this is. `payload` is decoded on first use, exactly.

    A handler whose parameter is an `Event[Payment]` gets the payload as a Payment, or BadPayload where it is none.

    `subscriber` is whom of several an event is for; see Handlers.subscribe.
    """

    id: str
    application: str
    workflow_id: str
    event_type: str
    service: str
    idempotency_key: str | None
    payload_bytes: bytes
    metadata_bytes: bytes
    created_at_us: int
    run: int
    attempt: int
    subscriber: str | None = None

    def __repr__(self) -> str:
        """Show all but the metadata, which may hold what a sender has to keep to itself."""
        names = [name for name in self.__struct_fields__ if name != "metadata_bytes"]
        return f"Event({', '.join(f'{name}={getattr(self, name)!r}' for name in names)})"

    @cached_property
    def payload(self) -> Payload:
        """The payload as Python values; integers keep every digit."""
        payload: Payload = decode_exactly(self.payload_bytes)
        return payload

    @cached_property
    def metadata(self) -> dict[str, Any]:
        """The metadata as a dict."""
        metadata: dict[str, Any] = decode_exactly(self.metadata_bytes)
        return metadata

    @property
    def created_at(self) -> float:
        """When the event was accepted, in seconds since the epoch."""
        return self.created_at_us / 1_000_000
