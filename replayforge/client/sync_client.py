"""`replayforge.Client`: sends events and looks at them from ordinary code, from any thread."""

import os
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, Self, TypeVar

from replayforge.client import calls
from replayforge.client.calls import Call, Delay, Sent
from replayforge.client.http import DEFAULT_URL, TIMEOUT_SECONDS, ClientConnection, Problem, Unreachable
from replayforge.client.retry_budget import RetryBudget

T = TypeVar("T")

RETRY_SECONDS = 60.0


class Client:
    """Speaks with one daemon. `url` and `api_key` are by default those of REPLAYFORGE_URL and REPLAYFORGE_API_KEY.

    Every call raises Problem when the daemon says no, and Unreachable when none answers. What can pass (429, 503, 507,
    a lost connection) is tried again for `retry_seconds`, and never doubles anything: an event that was given no
    idempotency key gets a random one. Threads may share a client; each has a connection of its own, which a child
    of a fork does not inherit.
    """

    def __init__(
        self,
        url: str | None = None,
        api_key: str | None = None,
        *,
        timeout_seconds: float = TIMEOUT_SECONDS,
        retry_seconds: float = RETRY_SECONDS,
    ) -> None:
        self.url, self.api_key = address(url, api_key)
        self.timeout_seconds = timeout_seconds
        self.retry_seconds = retry_seconds
        self.own = threading.local()
        self.connection()

    def send(self, event_type: str, payload: Any = None, **fields: Any) -> Sent:
        """Send an event; it is on the daemon's disk when this returns.

        `fields` are those of the API: workflow_id (by default one of its own), idempotency_key, application_name,
        service_name, metadata, max_attempts, run_at.
        """
        return self.drive(calls.send(calls.event_document(event_type, payload, fields), self.budget()))

    def send_many(self, events: Iterable[Mapping[str, Any]]) -> list[Sent | Problem]:
        """Send events, each a mapping with event_type, payload and the fields of `send`; return their answers in order.

        One that the daemon will never take is a Problem in its place. After an error it is open which were sent:
        send them again, with the same keys.
        """
        return self.drive(calls.send_many(events, self.budget()))

    def result(self, event_id: str, timeout_seconds: float = 30.0) -> Any:
        """Wait until an event has ended and return what its handler returned.

        Raises NotSucceeded when it ended otherwise, TimeoutError when it has not ended in time.
        """
        return self.drive(calls.result(event_id, timeout_seconds, self.budget(), time.monotonic))

    def event(self, event_id: str) -> dict[str, Any]:
        """Return all that is known of an event, its runs and attempts too, as `GET /api/events/{id}` has it."""
        return self.drive(calls.event(event_id, self.budget()))

    def events(self, **filters: Any) -> Iterator[dict[str, Any]]:
        """Yield the events that filters of `GET /api/events` match, newest first, however many they are."""
        cursor = None
        while True:
            page = self.drive(calls.page(filters, cursor, self.budget()))
            yield from page["items"]
            cursor = page["next_cursor"]
            if cursor is None:
                return

    def replay(self, event_id: str, *, payload: Any = None, reason: str | None = None, force: bool = False) -> Sent:
        """Begin a new run of an event that has ended; with a payload, a new event that takes its place.

        One that has succeeded is replayed with `force` only.
        """
        asked = {"payload": payload, "reason": reason, "force": force or None}
        return self.drive(calls.replay(event_id, asked, self.budget()))

    def close(self) -> None:
        """Close the connection of this thread; those of others close when the threads end."""
        self.connection().close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def budget(self) -> RetryBudget:
        """Return what a call may spend on trying again."""
        return RetryBudget(self.retry_seconds)

    def connection(self) -> ClientConnection:
        """Return the connection of this thread and process."""
        if getattr(self.own, "pid", None) != os.getpid():
            self.own.connection = ClientConnection(self.url, self.api_key, self.timeout_seconds)
            self.own.pid = os.getpid()
        connection: ClientConnection = self.own.connection
        return connection

    def drive(self, call: Call[T]) -> T:
        """Carry a call out."""
        connection = self.connection()
        step = next(call)
        while True:
            try:
                if isinstance(step, Delay):
                    time.sleep(step.seconds)
                    step = next(call)
                else:
                    try:
                        reply = connection.request(step.method, step.target, step.body, further_headers=step.headers)
                    except (Problem, Unreachable) as error:
                        step = call.throw(error)
                    else:
                        step = call.send(reply)
            except StopIteration as end:
                value: T = end.value
                return value


def address(url: str | None, api_key: str | None) -> tuple[str, str | None]:
    """Return where to send, and with which key: what was said, else what the environment says."""
    return (
        url or os.environ.get("REPLAYFORGE_URL") or DEFAULT_URL,
        api_key or os.environ.get("REPLAYFORGE_API_KEY") or None,
    )
