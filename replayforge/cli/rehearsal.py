"""A conversation with an endpoint with steps as a daemon would lead it, with nothing behind it: no wait, no child."""

import asyncio
import base64
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn, cast

import msgspec
from aiohttp import web
from msgspec import UNSET

from replayforge.config.settings import HttpEndpoint
from replayforge.domain.clock import SystemClock, format_time
from replayforge.domain.errors import Rejected
from replayforge.domain.event import Event
from replayforge.domain.identity import new_event_id
from replayforge.domain.journal import RECORDED, StepKind, StepRecord, StepState
from replayforge.domain.retry import Permanent, Retry
from replayforge.domain.step_errors import Cancelled
from replayforge.engine.handlers.callbacks import CALLBACK_PATHS, Callbacks, Report
from replayforge.engine.handlers.context import Calls, ChildEvent, Context, NoAttempt, Signal
from replayforge.engine.handlers.conversation import Conversation
from replayforge.engine.handlers.endpoint_handlers import endpoint_for
from replayforge.engine.handlers.endpoints import WebhookClient
from replayforge.engine.handlers.step_messages import (
    Remembered,
    ReportedError,
    decode_checkpoint,
    journal_shown,
)

TRIES_MAX = 3
TOKEN = 1
REFUSALS = (401, 403)
ONCE_MORE = "Asked once more after its last answer, as after a crash,"


@dataclass(frozen=True, slots=True)
class Scenario:
    """What an endpoint is told: the event, the payloads of signals by their types, and the results of children.

    Where it asks for the wait that `cancel_at` names, it hears that the event is cancelled.
    """

    event_type: str
    payload: bytes
    signals: Mapping[str, bytes]
    results: Mapping[str, bytes]
    activations_max: int
    cancel_at: str | None = None


class Ended(Exception):
    """The conversation goes no further; what is wrong has been noted."""


class Restarted(Exception):
    """The conversation goes on with an empty journal, and with another payload."""

    def __init__(self, payload: bytes) -> None:
        self.payload = payload


@dataclass
class Rehearsal:
    """A journal in memory, in which every wait comes true at once.

    `wrong` is what an endpoint does that it must not, in sentences; `is_over` is true once it has finished, when there
    is nothing left that it could do.
    """

    scenario: Scenario
    tell: Callable[[str], None]
    records: dict[str, StepRecord] = field(default_factory=dict)
    reported: set[str] = field(default_factory=set)
    number: int = 1
    activation: int = 0
    cancelled: bool = False
    is_over: bool = False
    wrong: list[str] = field(default_factory=list)

    async def remembered(self) -> Remembered:
        """See Calls.remembered."""
        if self.activation >= self.scenario.activations_max:
            self.fail(f"It did not finish within {self.activation} answers.")
        self.reported.clear()
        return Remembered(self.number, self.activation, tuple(self.records.values()), cancelled=self.cancelled)

    async def report(self, did: Report, *, answered: bool) -> int:
        """See Calls.report."""
        fresh = 0
        for one in did:
            known = self.records.get(one.step)
            if known is not None and known.state in RECORDED:
                if one.step not in self.reported:
                    self.wrong.append(f"It did {one.step!r} again, although the journal that it was shown holds it.")
                continue
            fresh += 1
            self.reported.add(one.step)
            if isinstance(one.error, ReportedError):
                self.note_failure(one.step, one.error, 0 if known is None else known.tries)
            else:
                value = b"null" if one.ok is UNSET else bytes(one.ok)
                self.note(StepKind.STEP, one.step, value)
                self.tell(f"{one.step}: {shown(value)}")
        if answered and self.is_over:
            self.fail(f"{ONCE_MORE} it wants to go on.")
        self.activation += answered
        return fresh

    def note_failure(self, step: str, error: ReportedError, tries: int) -> None:
        """Record a failure, for good when it is permanent or has come often enough."""
        tries += 1
        is_final = error.permanent or tries >= TRIES_MAX
        self.note(StepKind.STEP, step, None, StepState.FAILED if is_final else StepState.PENDING)
        self.records[step] = msgspec.structs.replace(
            self.records[step], error_type=error.type, error=error.message, tries=tries
        )
        self.tell(f"{step}: failed, {'for good' if is_final else 'to be tried again'}: {error.type}: {error.message}")

    def note(
        self, kind: StepKind, step: str, result: bytes | None, state: StepState = StepState.DONE, **fields: Any
    ) -> None:
        """Record a step."""
        place = len(self.records) + 1
        self.records[step] = StepRecord(
            kind=kind, step=step, state=state, token=TOKEN, run=1, begun=place,
            recorded=place if state in RECORDED else 0, started_at_us=0, result=result, **fields,
        )  # fmt: skip

    def cancel(self, kind: StepKind, step: str) -> None:
        """Have the event be cancelled where it was to wait for something, if that is the place."""
        if step == self.scenario.cancel_at and not self.cancelled:
            self.cancelled = True
            self.note(kind, step, None, StepState.FAILED, error_type="Cancelled", error="")
            self.tell(f"{step}: the event is cancelled")
            raise Cancelled

    async def restart(self, payload: bytes) -> NoReturn:
        """Go on with an empty journal."""
        self.number += 1
        self.records.clear()
        self.tell(f"restarted with {shown(payload)}")
        raise Restarted(payload)

    async def sleep(self, name: str, seconds: float) -> None:
        """Let a sleep be over."""
        self.cancel(StepKind.SLEEP, name)
        self.note(StepKind.SLEEP, name, None)
        self.tell(f"{name}: slept {seconds:g} s, which were passed over")

    async def wait_for(
        self, event_type: str, key: str | None, timeout_seconds: float | None, name: str | None = None
    ) -> None:
        """Let the signal be there."""
        self.cancel(StepKind.WAIT, name or event_type)
        payload = self.scenario.signals.get(event_type, b"{}")
        now_us = SystemClock().now_us()
        signal = Signal(new_event_id(now_us), event_type, msgspec.Raw(payload), format_time(now_us))
        self.note(StepKind.WAIT, name or event_type, msgspec.json.encode(signal))
        self.tell(f"{name}: got {event_type} with {shown(payload)}")

    async def send(self, child: ChildEvent) -> None:
        """Let a child be sent."""
        self.note(StepKind.SEND, child.step_name, msgspec.json.encode(new_event_id(SystemClock().now_us())))
        self.tell(f"{child.step_name}: sent {child.event_type} with {shown(child.payload)}")

    async def call(self, child: ChildEvent, timeout_seconds: float | None) -> None:
        """Let a child have ended."""
        self.cancel(StepKind.CALL, child.step_name)
        result = self.scenario.results.get(child.event_type, b"null")
        self.note(StepKind.CALL, child.step_name, result)
        self.tell(f"{child.step_name}: called {child.event_type} with {shown(child.payload)}, got {shown(result)}")

    def fail(self, words: str) -> None:
        """End the conversation with something that is wrong."""
        self.wrong.append(words)
        raise Ended


def shown(value: bytes) -> str:
    """Return JSON as far as it fits into a line."""
    text = value.decode()
    return text if len(text) <= 80 else f"{text[:79]}…"


@dataclass(frozen=True, slots=True)
class Rehearsed:
    """What came of a conversation: the answers that were needed, the last one, and what is wrong."""

    answers: int
    steps: Mapping[str, Any]
    result: msgspec.Raw | None
    wrong: tuple[str, ...]


class Rehearsing(NoAttempt):
    """Stands behind the context of a rehearsal."""

    def __init__(self, rehearsal: Rehearsal) -> None:
        self.rehearsal = rehearsal

    def opened_calls(self) -> Calls:
        """Return what answers calls here."""
        return cast("Calls", self.rehearsal)


async def rehearse(settings: HttpEndpoint, scenario: Scenario, host: str, tell: Callable[[str], None]) -> Rehearsed:
    """Lead a conversation to its end, and once more from there; say what came of it."""
    callbacks, client = Callbacks(), WebhookClient(SystemClock())
    callbacks.sign_with(os.urandom(32))
    rehearsal = Rehearsal(scenario, tell)
    now_us = SystemClock().now_us()
    event_id, event_type, payload = new_event_id(now_us), scenario.event_type, scenario.payload
    event = Event(event_id, "default", "rehearsal", event_type, "", None, payload, b"{}", now_us, 1, 1)
    context = Context(event, TOKEN, 0.0, backing=Rehearsing(rehearsal))
    conversation = Conversation(endpoint_for(settings, client), callbacks, settings.timeout_seconds)
    result = None
    try:
        async with reachable(callbacks, host):
            event, result = await delivered(conversation, event, context)
            rehearsal.is_over = True
            if scenario.cancel_at is not None and not rehearsal.cancelled:
                rehearsal.wrong.append(f"It never waited at {scenario.cancel_at!r}, where it was to be cancelled.")
            again = await conversation.deliver(event, context)
            if again != result:
                rehearsal.wrong.append(f"{ONCE_MORE} it answers with another result.")
            if settings.secret:
                await check_signature(conversation, event, context, rehearsal)
    except Ended:
        pass
    except (Permanent, Retry) as error:
        rehearsal.wrong.append(str(error))
    finally:
        await client.close()
    return Rehearsed(
        rehearsal.activation + 1, journal_shown(rehearsal.records.values()), result, tuple(rehearsal.wrong)
    )


async def delivered(conversation: Conversation, event: Event, context: Context) -> tuple[Event, msgspec.Raw | None]:
    """Lead a conversation through all its journals; returns the event as the last one has it, and the result."""
    while True:
        try:
            return event, await conversation.deliver(event, context)
        except Restarted as restarted:
            event = msgspec.structs.replace(event, payload_bytes=restarted.payload)


async def check_signature(conversation: Conversation, event: Event, context: Context, rehearsal: Rehearsal) -> None:
    """Ask once more with a signature that is wrong; who knows the secret refuses that."""
    forged = replace(conversation.endpoint, key=base64.b64encode(os.urandom(24)))
    records = tuple(rehearsal.records.values())
    remembered = Remembered(rehearsal.number, rehearsal.activation, records, cancelled=rehearsal.cancelled)
    body = conversation.request(event, context, remembered, journal_shown(records))
    async with forged.post(event, context, f"{event.id}.{rehearsal.activation}", body) as response:
        if response.status not in REFUSALS:
            rehearsal.wrong.append(f"It answers {response.status} to a wrong signature; 401 is right.")


@asynccontextmanager
async def reachable(callbacks: Callbacks, host: str) -> AsyncIterator[None]:
    """Serve the callback URLs."""

    async def called_back(request: web.Request) -> web.Response:
        listener = callbacks.listener(request.match_info["id"], TOKEN)
        if listener is None:
            return web.Response(status=409)
        if request.match_info["what"] == "journal":
            return web.Response(body=listener.journal, content_type="application/json")
        try:
            await listener.report(decode_checkpoint(await request.read()).did)
        except (Rejected, ValueError) as error:
            return web.Response(status=422, text=str(error))
        return web.Response(status=204)

    app = web.Application(client_max_size=1 << 24)
    app.router.add_route("*", CALLBACK_PATHS + "{id}/{token}/{signature}/{what}", called_back)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, 0)
        await site.start()
        callbacks.lead_to(f"http://{host}:{runner.addresses[0][1]}")
        yield
    finally:
        await runner.cleanup()


def run_rehearsal(
    settings: HttpEndpoint, scenario: Scenario, host: str, seconds: float, tell: Callable[[str], None]
) -> Rehearsed:
    """Do so, and give up after a while."""

    async def limited() -> Rehearsed:
        async with asyncio.timeout(seconds):
            return await rehearse(settings, scenario, host, tell)

    try:
        return asyncio.run(limited())
    except TimeoutError:
        return Rehearsed(0, {}, None, (f"It did not finish within {seconds:g} s.",))
