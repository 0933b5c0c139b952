"""What each call of a client asks of a daemon, and how it goes on from the answers: decisions only, no I/O."""

import secrets
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import urlencode

import msgspec

from replayforge.client.bulk import Line, chunks
from replayforge.client.http import PAGE_EVENTS, Problem, Reply, Unreachable, at
from replayforge.client.retry_budget import REFUSED_FOR_NOW, RetryBudget
from replayforge.domain.errors import ReplayForgeError
from replayforge.domain.lifecycle import TERMINAL, State

T = TypeVar("T")

LONG_POLL_SECONDS = 25.0
TOO_LARGE = 413
ENDED = frozenset(state.value for state in TERMINAL)


@dataclass(frozen=True, slots=True)
class Request:
    """Something to ask of the daemon."""

    method: str
    target: str
    body: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Delay:
    """Something to wait for before the next request."""

    seconds: float


# Whoever drives a call carries out what it yields and sends in the reply, or throws in Problem or Unreachable.
Call = Generator[Request | Delay, Any, T]


@dataclass(frozen=True, slots=True)
class Sent:
    """An event that is safe with the daemon: on its disk before it answered."""

    id: str
    status: str
    duplicate: bool


class NotSucceeded(ReplayForgeError):
    """The event has ended, and not by success. `event` is what the API says of it."""

    def __init__(self, event: Mapping[str, Any]) -> None:
        self.event = event
        why = f": {event['last_error']}" if event.get("last_error") else ""
        super().__init__(f"Event {event['id']} is {event['status']}{why}")


def patiently(request: Request, budget: RetryBudget) -> Call[Reply]:
    """Carry out a request that may be sent twice, again and again while its failure can pass."""
    while True:
        try:
            reply: Reply = yield request
        except (Problem, Unreachable) as error:
            yield Delay(budget.spend(error))
        else:
            budget.renew()
            return reply


def event_document(event_type: str, payload: Any, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return an event as the API takes it, with a key of its own where none was given: so it can be sent again."""
    given = {name: value for name, value in fields.items() if value is not None}
    key = given.setdefault("idempotency_key", secrets.token_hex(16))
    given.setdefault("workflow_id", key)
    return given | {"event_type": event_type} | ({} if payload is None else {"payload": payload})


def send(document: Mapping[str, Any], budget: RetryBudget) -> Call[Sent]:
    """Send one event until it is accepted."""
    reply = yield from patiently(Request("POST", "/api/events", msgspec.json.encode(document)), budget)
    return sent(reply.document())


def sent(item: Mapping[str, Any]) -> Sent:
    """Read what the daemon says of an event that it has accepted."""
    return Sent(item["id"], item["status"], bool(item["duplicate"]))


def send_many(events: Iterable[Mapping[str, Any]], budget: RetryBudget) -> Call[list[Sent | Problem]]:
    """Send events in order, many in a request; one that the daemon will never take is a Problem in its place."""
    answers: list[Sent | Problem] = []
    for chunk in chunks(map(line, events)):
        waiting, found = dict(enumerate(chunk)), dict[int, Sent | Problem]()
        while waiting:
            places = list(waiting)
            body = b"[%b]" % b",".join(one.body for one in waiting.values())
            try:
                reply = yield from patiently(Request("POST", "/api/events/bulk", body), budget)
            except Problem as error:
                if error.status != TOO_LARGE or len(places) > 1:
                    raise
                found[places[0]] = error
                break
            refusal = None
            for item in reply.document()["items"]:
                place, problem = places[item["index"]], item.get("problem")
                if problem and problem["status"] in REFUSED_FOR_NOW:
                    refusal = Problem(problem["status"], problem)
                else:
                    found[place] = Problem(problem["status"], problem) if problem else sent(item)
                    del waiting[place]
            if refusal:
                yield Delay(budget.spend(refusal))
        answers += [found[place] for place in range(len(chunk))]
    return answers


def line(event: Mapping[str, Any]) -> Line:
    """Return an event as one of a request of many."""
    fields = dict(event)
    body = msgspec.json.encode(event_document(fields.pop("event_type"), fields.pop("payload", None), fields))
    return Line(0, body, len(body))


def event(event_id: str, budget: RetryBudget, wait_seconds: float = 0.0) -> Call[dict[str, Any]]:
    """Ask for an event; with a wait, for as long as it has not ended."""
    query = f"?wait={wait_seconds:g}" if wait_seconds else ""
    reply = yield from patiently(Request("GET", at("api", "events", event_id) + query), budget)
    document: dict[str, Any] = reply.document()
    return document


def result(event_id: str, timeout_seconds: float, budget: RetryBudget, clock: Callable[[], float]) -> Call[Any]:
    """Wait for the end of an event and return what its handler returned.

    Raises NotSucceeded when it ended otherwise, TimeoutError when it has not ended in time.
    """
    until_seconds = clock() + timeout_seconds
    while True:
        left_seconds = max(until_seconds - clock(), 0.0)
        found = yield from event(event_id, budget, round(min(left_seconds, LONG_POLL_SECONDS), 3))
        if found["status"] == State.SUCCEEDED.value:
            return found["result"]
        if found["status"] in ENDED:
            raise NotSucceeded(found)
        if clock() >= until_seconds:
            raise TimeoutError(f"Event {event_id} is {found['status']} and has not ended within {timeout_seconds:g} s.")


def page(filters: Mapping[str, Any], cursor: str | None, budget: RetryBudget) -> Call[dict[str, Any]]:
    """Ask for some of the events that the filters match, and where to go on."""
    given = {**filters, "limit": PAGE_EVENTS, "cursor": cursor}
    query = urlencode({name: value for name, value in given.items() if value is not None})
    reply = yield from patiently(Request("GET", f"/api/events?{query}"), budget)
    document: dict[str, Any] = reply.document()
    return document


def replay(event_id: str, asked: Mapping[str, Any], budget: RetryBudget) -> Call[Sent]:
    """Replay an event once, however often the request has to be sent; with a payload, as a new event."""
    headers = {"Idempotency-Key": secrets.token_hex(16)}
    body = msgspec.json.encode({name: value for name, value in asked.items() if value is not None})
    reply = yield from patiently(Request("POST", at("api", "events", event_id, "replay"), body, headers), budget)
    return sent(reply.document())
