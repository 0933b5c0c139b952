"""Sends keyed events at a steady rate from a thread of its own, until each has its answer, whoever dies meanwhile."""

import threading
import time
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

import msgspec

from replayforge.client.bulk import BulkSender, Line, Tally
from replayforge.client.http import ClientConnection, Problem, Unreachable
from replayforge.client.progress import Bar, ignore
from replayforge.client.retry_budget import RetryBudget
from replayforge.domain.identity import event_id_for_key

PIECE_LINES = 20
BURST_SECONDS = 0.5
RETRY_SECONDS = 120.0
RECONNECT_SECONDS = 0.05


class Stopped(Exception):
    """The sender was told to stop."""


class Eager(RetryBudget):
    """Tries a daemon that is being started many times a second; a daemon that answers is waited for as it asks."""

    def next_pause_seconds(self, error: Problem | Unreachable) -> float:
        """Return a short time while nobody answers."""
        return RECONNECT_SECONDS if isinstance(error, Unreachable) else super().next_pause_seconds(error)


class Names(msgspec.Struct):
    """The two fields of an event that decide its id."""

    idempotency_key: str
    application_name: str = "default"


class Sender(threading.Thread):
    """Sends every line, at most `events_per_second`, and again after a broken connection; each line has a key.

    While it `is_too_fast` it sends nothing. `tally` counts the answers; `on_acknowledged` hears of each line that is
    safe, in this thread; `error` is set when the sender gave up.
    """

    def __init__(
        self,
        url: str,
        lines: Iterable[Line],
        events_per_second: float,
        *,
        say: Callable[[str], None],
        on_acknowledged: Callable[[Line], None] | None = None,
        is_too_fast: Callable[[], bool] = lambda: False,
    ) -> None:
        super().__init__(name="sender", daemon=True)
        self.url = url
        self.lines = iter(lines)
        self.events_per_second = events_per_second
        self.say = say
        self.on_acknowledged = on_acknowledged
        self.is_too_fast = is_too_fast
        self.tally = Tally()
        self.ack_times: list[float] = []
        self.error: Exception | None = None
        self.stopping = threading.Event()

    def run(self) -> None:
        """Send until the lines are at their end or somebody says stop."""
        retry_budget = Eager(RETRY_SECONDS, sleep=self.wait)
        next_at = time.monotonic()
        try:
            with ClientConnection(self.url) as client:
                bulk = Acknowledging(client, retry_budget, self.tally, Bar(ignore, self.say), self.acknowledged)
                while piece := list(islice(self.lines, PIECE_LINES)):
                    while self.is_too_fast():
                        self.wait(RECONNECT_SECONDS)
                    bulk.send(piece)
                    next_at = max(next_at + len(piece) / self.events_per_second, time.monotonic() - BURST_SECONDS)
                    self.wait(next_at - time.monotonic())
        except Stopped:
            return
        except Exception as error:  # whatever it is, the main thread has to know
            self.error = error

    def wait(self, seconds: float) -> None:
        """Sleep; raises Stopped when told to stop meanwhile."""
        if self.stopping.wait(max(0.0, seconds)):
            raise Stopped

    def stop(self) -> None:
        """Send nothing more, and return when that is so."""
        self.stopping.set()
        if self.ident is not None:
            self.join(10)

    @property
    def done(self) -> bool:
        """Whether nothing more will be sent."""
        return self.ident is not None and not self.is_alive()

    def acknowledged(self, line: Line) -> None:
        """Note that a line is safe."""
        self.ack_times.append(time.monotonic())
        if self.on_acknowledged is not None:
            self.on_acknowledged(line)

    def first_ack_after(self, moment: float) -> float | None:
        """Return when the first event was acknowledged after a moment of the monotonic clock."""
        place = bisect_right(self.ack_times, moment)
        return self.ack_times[place] if place < len(self.ack_times) else None


class Acknowledging(BulkSender):
    """Tells somebody of each line that is safe."""

    def __init__(
        self,
        client: ClientConnection,
        retry_budget: RetryBudget,
        tally: Tally,
        bar: Bar,
        acknowledged: Callable[[Line], None],
    ) -> None:
        super().__init__(client, retry_budget, tally, bar)
        self.acknowledged = acknowledged

    def accept(self, line: Line, *, duplicate: bool) -> None:
        """Count a line and pass it on."""
        super().accept(line, duplicate=duplicate)
        self.acknowledged(line)


def event_id_of(line: Line) -> str:
    """Return the id that the event on a line has on every daemon."""
    names = msgspec.json.decode(line.body, type=Names)
    return event_id_for_key(names.application_name, names.idempotency_key)


def lines_of(events: Iterable[Mapping[str, Any]]) -> Iterator[Line]:
    """Write events as lines."""
    for number, event in enumerate(events, start=1):
        body = msgspec.json.encode(event)
        yield Line(number, body, len(body))


def with_keys(lines: Iterable[Line], name: str) -> Iterator[Line]:
    """Give each line that has no idempotency key one of its own, so that it can be sent again; bytes stay otherwise."""
    for line in lines:
        try:
            event = msgspec.json.decode(line.body, type=dict[str, msgspec.Raw])
        except (msgspec.MsgspecError, UnicodeDecodeError):
            yield line  # the daemon says what is wrong with it
            continue
        if "idempotency_key" in event:
            yield line
        else:
            keyed = event | {"idempotency_key": msgspec.Raw(msgspec.json.encode(f"{name}:{line.number}"))}
            yield Line(line.number, msgspec.json.encode(keyed), line.size)
