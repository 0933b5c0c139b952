"""Takes in what providers send: verified, handed to ingest, counted; what is refused is kept to be looked at again."""

from asyncio import timeout
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import msgspec
from msgspec.structs import replace

from replayforge.domain.admission import Pause
from replayforge.domain.clock import Clock
from replayforge.domain.errors import NotFound, Overloaded, Rejected, ReplayForgeError, Unavailable
from replayforge.domain.event import EventRecord
from replayforge.domain.identity import source_event_id
from replayforge.domain.webhook_signature import Refusal, WebhookDelivery
from replayforge.domain.webhook_source import Source, evidence, judged
from replayforge.engine.accept.intake import KeyReused, Receipt
from replayforge.stores.batches import RefusedDelivery
from replayforge.stores.rows import KeptRefusal
from replayforge.stores.store import Store
from replayforge.telemetry import Telemetry
from replayforge.turns import computed

DIFFERS = "differs"
REFUSALS_KEPT = 100  # of each source; what is forged has its share by its reason
KEPT_BODY_BYTES_MAX = 64 << 10
KEPT_EVERY_SECONDS = 1.0
KEEP_SECONDS_MAX = 1.0  # nobody's answer waits longer for a store that does not answer
PAUSED_RETRY_SECONDS = 30.0
IN_WORDS = {
    Refusal.NO_SIGNATURE: "It is not signed: {headers} should say so.",
    Refusal.WRONG_SIGNATURE: "Its signature fits none of the secrets that are configured for it.",
    Refusal.STALE: "It was signed too long ago, or the clocks disagree.",
}


class SignatureRefused(Rejected):
    """The delivery does not prove where it comes from; `reason` says why."""

    def __init__(self, source: Source, reason: Refusal) -> None:
        headers = " or ".join(source.preset.signature_headers[:2])
        super().__init__(f"The delivery is not accepted. {IN_WORDS[reason].format(headers=headers)}")
        self.reason = reason


class TooLarge(Rejected):
    """The event would be larger than events may be."""


class SourcePaused(Unavailable):
    """Somebody has paused the source; send it again later."""

    retry_after_seconds = PAUSED_RETRY_SECONDS


class TooFast(Overloaded):
    """The source sends faster than it may; nothing was accepted, so send it again later."""


@dataclass(frozen=True, slots=True)
class Received:
    """What a source is answered: the event that stands, or the answer to its challenge."""

    event_id: str | None
    duplicate: bool = False
    challenge: bytes | None = None


@dataclass(frozen=True, slots=True)
class Verified:
    """What came of looking at refused deliveries again."""

    accepted: list[str]
    duplicates: int
    still_refused: int
    cut: int


@dataclass(slots=True)
class SourceFigures:
    """What one source has sent since this daemon started. `refused` counts by reason."""

    accepted: int = 0
    duplicates: int = 0
    differing: int = 0
    unkeyed: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    last_at_us: int | None = None
    last_event_id: str | None = None
    last_refused_at_us: int | None = None
    last_reason: str | None = None


@dataclass(frozen=True, slots=True)
class SourceStatus:
    """A source as people see it: its figures since the start, its pause, and how many refused deliveries are kept."""

    source: Source
    figures: SourceFigures
    pause: Pause | None
    refusals_kept: int


class Allowance:
    """How many more deliveries a source may send now: those of one second at once, and then its rate."""

    def __init__(self, rate: float, now: float) -> None:
        self.rate = rate
        self.room = max(1.0, rate)
        self.left = self.room
        self.at = now

    def take(self, now: float) -> float:
        """Count one delivery; returns 0, or how many seconds it has to wait and is not counted."""
        self.left = min(self.room, self.left + (now - self.at) * self.rate)
        self.at = now
        if self.left < 1:
            return (1 - self.left) / self.rate
        self.left -= 1
        return 0.0


class Sources:
    """The sources of this daemon. What they send is accepted by `accept`, after the fsync; the first of an id stands.

    Figures are those of this daemon since it started; pauses and refusals are in the store, for all daemons.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        store: Store,
        accept: Callable[[EventRecord], Awaitable[Receipt]],
        clock: Clock,
        telemetry: Telemetry,
        *,
        event_bytes_max: int,
    ) -> None:
        self.by_name = {source.name: source for source in sources}
        self.store = store
        self.accept = accept
        self.clock = clock
        self.telemetry = telemetry
        self.event_bytes_max = event_bytes_max
        self.figures = {source.name: SourceFigures() for source in sources}
        self.allowances = {one.name: Allowance(one.rate, clock.monotonic()) for one in sources if one.rate}
        self.pauses: dict[str, Pause] = {}
        self.kept_at: dict[tuple[str, str], float] = {}

    def source(self, name: str) -> Source:
        """Return a source; raises NotFound."""
        found = self.by_name.get(name)
        if found is None:
            raise NotFound(f"There is no source {name!r}; add it as [[sources]] to replayforge.toml.")
        return found

    def is_signed(self, name: str) -> bool:
        """Tell whether what comes for this name proves by itself where it comes from."""
        return name in self.by_name and self.by_name[name].is_signed

    async def receive(self, name: str, delivery: WebhookDelivery) -> Received:
        """Take in one delivery. Raises SignatureRefused, SourcePaused, TooFast, TooLarge, or what ingest raises."""
        source, now_us = self.source(name), self.clock.now_us()
        if name in self.pauses:
            raise SourcePaused
        arrival = await computed(judged, source, delivery, now_us, now_us, size=len(delivery.body))
        if isinstance(arrival, Refusal):
            await self.keep(source, arrival, delivery, now_us)
            raise SignatureRefused(source, arrival)
        if arrival.record is None:
            return Received(None, challenge=arrival.challenge)
        self.check_rate(name)
        return await self.accept_delivery(source, arrival.record, delivery)

    def check_rate(self, name: str) -> None:
        """Raise TooFast when the source has sent too much."""
        allowance = self.allowances.get(name)
        if allowance is None:
            return
        wait_seconds = allowance.take(self.clock.monotonic())
        if wait_seconds > 0:
            error = TooFast()
            error.retry_after_seconds = wait_seconds
            raise error

    async def accept_delivery(self, source: Source, record: EventRecord, delivery: WebhookDelivery) -> Received:
        """Have an event accepted. One whose id is known is the first one, whatever this one says; that is noted."""
        if len(record.payload) > self.event_bytes_max:
            raise TooLarge(f"The event would have more than {self.event_bytes_max:,} bytes.")
        figures = self.figures[source.name]
        try:
            receipt = await self.accept(record)
        except KeyReused as error:
            figures.differing += 1
            self.telemetry.emit("delivery.differed", source=source.name, event_id=error.event_id)
            await self.keep(source, DIFFERS, delivery, self.clock.now_us())
            return Received(error.event_id, duplicate=True)
        figures.last_at_us, figures.last_event_id = self.clock.now_us(), receipt.event.id
        figures.accepted += not receipt.duplicate
        figures.duplicates += receipt.duplicate
        figures.unkeyed += record.idempotency_key is None
        return Received(receipt.event.id, receipt.duplicate)

    # Refusals

    def note_refused(self, name: str, reason: str) -> None:
        """Count a delivery that was not accepted."""
        figures = self.figures[name]
        figures.refused[reason] += 1
        figures.last_refused_at_us, figures.last_reason = self.clock.now_us(), reason
        self.telemetry.emit("delivery.refused", source=name, reason=reason)

    async def keep(self, source: Source, reason: str, delivery: WebhookDelivery, at_us: int) -> None:
        """Keep a delivery to be looked at, unless another one was kept within the last second for the same reason."""
        now = self.clock.monotonic()
        if now - self.kept_at.get((source.name, reason), -KEPT_EVERY_SECONDS) < KEPT_EVERY_SECONDS:
            return
        self.kept_at[source.name, reason] = now
        row = RefusedDelivery(
            source=source.name,
            at_us=at_us,
            reason=reason,
            url=delivery.url.encode(errors="replace").decode(),
            headers=msgspec.json.encode(evidence(source, delivery.headers)).decode(),
            body=delivery.body[:KEPT_BODY_BYTES_MAX],
            size_bytes=len(delivery.body),
        )
        with suppress(ReplayForgeError, TimeoutError):
            async with timeout(KEEP_SECONDS_MAX):
                await self.store.keep_refusal(row, REFUSALS_KEPT)
            self.telemetry.emit("delivery.kept", source=source.name, reason=reason)

    async def refusals(self, name: str) -> list[KeptRefusal]:
        """Return the deliveries of a source that are kept, oldest first; raises NotFound."""
        return await self.store.refusals(self.source(name).name)

    async def verify_again(self, name: str) -> Verified:
        """Judge what was refused by the secrets of now and the time of then, and accept what is right.

        What is accepted is kept no longer. Sent again by its provider meanwhile it is the same event, if it has a key.
        """
        source, accepted, counts = self.source(name), list[str](), Counter[str]()
        for kept in await self.refusals(name):
            if kept.reason == DIFFERS:
                continue
            if not kept.is_whole:
                counts["cut"] += 1
                continue
            received = await self.verify(source, kept)
            if received is None:
                counts["refused"] += 1
                continue
            await self.store.remove_refusals([kept.seq])
            if received.event_id is not None and not received.duplicate:
                accepted.append(received.event_id)
            counts["duplicates"] += received.duplicate
        self.telemetry.emit("delivery.verified", source=name, accepted=len(accepted), refused=counts["refused"])
        return Verified(accepted, counts["duplicates"], counts["refused"], counts["cut"])

    async def verify(self, source: Source, kept: KeptRefusal) -> Received | None:
        """Accept a delivery that was refused, unless it would be refused today as well."""
        delivery = WebhookDelivery(kept.url, msgspec.json.decode(kept.headers), bytes(kept.body))
        arrival = await computed(judged, source, delivery, kept.at_us, self.clock.now_us(), size=len(delivery.body))
        if isinstance(arrival, Refusal):
            return None
        record = arrival.record
        if record is None:
            return Received(None)
        if record.idempotency_key is None:  # asked twice at once it is one event all the same
            record = replace(record, id=source_event_id(f"{source.name}\0refused", f"{kept.at_us}.{kept.seq}"))
        return await self.accept_delivery(source, record, delivery)

    # Pauses

    async def pause(self, name: str, reason: str, by: str) -> Pause:
        """Have a source answered 503 until somebody resumes it, on every daemon; raises NotFound, or Rejected.

        Providers send again what they were not told was accepted. A source that is paused already stays as it is.
        """
        wanted = Pause(self.source(name).name, reason, by, self.clock.now_us())
        await self.store.pause_source(wanted)
        await self.look()
        pause = self.pauses.get(name, wanted)
        if pause == wanted:
            self.telemetry.emit("source.paused", source=name, reason=reason, by=by)
        return pause

    async def resume(self, name: str) -> None:
        """Let a source send again; raises NotFound when it is not paused."""
        if not await self.store.resume_source(self.source(name).name):
            raise NotFound(f"The source {name!r} is not paused.")
        await self.look()
        self.telemetry.emit("source.resumed", source=name)

    async def look(self) -> int:
        """See which sources are paused; a chore, since another daemon may have paused them."""
        self.pauses = {pause.pattern: pause for pause in await self.store.source_pauses()}
        return 0

    def figures_by_name(self) -> dict[str, SourceFigures]:
        """Return what each source has seen since the start."""
        return self.figures

    async def report(self) -> list[SourceStatus]:
        """Return how every source stands."""
        kept = await self.store.refusal_counts() if self.by_name else {}
        return [
            SourceStatus(source, self.figures[name], self.pauses.get(name), kept.get(name, 0))
            for name, source in self.by_name.items()
        ]
