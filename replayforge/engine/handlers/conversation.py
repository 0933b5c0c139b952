"""A handler behind an HTTP endpoint with steps: it is asked, does something and says what is next, until it is done."""

from asyncio import create_task, get_running_loop, wait
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

import aiohttp
import msgspec
from msgspec import UnsetType

from replayforge.domain.document import Unacceptable
from replayforge.domain.errors import Rejected
from replayforge.domain.event import Event
from replayforge.domain.journal import StepKind, StepState
from replayforge.domain.retry import Permanent
from replayforge.domain.step_errors import Cancelled, StepFailed
from replayforge.engine.handlers.callbacks import Callbacks, Listener, Report
from replayforge.engine.handlers.context import Calls, Context, child_event
from replayforge.engine.handlers.endpoints import Endpoint, beginning, result
from replayforge.engine.handlers.step_messages import (
    INLINE_BYTES_MAX,
    MESSAGE_BYTES_MAX,
    NEXT_TYPE,
    JournalEntry,
    NamedNext,
    NextAgain,
    NextAnswer,
    NextCall,
    NextRestart,
    NextSend,
    NextSleep,
    NextWait,
    Remembered,
    StepsRequest,
    decode_next,
    event_shown,
    is_tried_again,
    journal_key,
    journal_shown,
    kinds_of,
    objection_to_next,
    objection_to_report,
)
from replayforge.turns import computed

KINDS = {
    NextSleep: StepKind.SLEEP,
    NextWait: StepKind.WAIT,
    NextSend: StepKind.SEND,
    NextCall: StepKind.CALL,
}
Kinds = dict[str, StepKind]
Final = msgspec.Raw | None


@dataclass(frozen=True, slots=True)
class Conversation:
    """Runs the handler that an endpoint with steps is, by the calls that a handler in Python makes.

    What the endpoint says it did is recorded as steps, and what it wants next is slept, waited for, sent or called; in
    between it holds neither a worker nor a connection. Each time it is asked, it is shown all that is recorded by then.
    """

    endpoint: Endpoint
    callbacks: Callbacks = field(repr=False)
    timeout_seconds: float

    async def deliver(self, event: Event, context: Context) -> Final:
        """Talk until the endpoint has finished, and return the JSON of its last answer, if it has any.

        Raises Retry when another attempt may succeed, Permanent when none can, such as after an answer that means
        nothing: to ask once more would have its effects once more.
        """
        calls = context.calls
        while True:
            remembered = await calls.remembered()
            kinds = kinds_of(remembered.records)
            journal = journal_shown(remembered.records)
            encoded = msgspec.json.encode(journal)
            record = partial(recorded, calls, kinds, answered=False)
            listener = Listener(encoded, record)
            body = self.request(event, context, remembered, journal if len(encoded) <= INLINE_BYTES_MAX else None)
            with self.callbacks.listening(event.id, context.lease_token, listener):
                answer = await self.asked(event, context, remembered, listener, body)
            if not isinstance(answer, NextAnswer):
                return answer
            try:
                await self.go_on(calls, kinds, answer, listener.fresh)
            except ValueError as error:
                raise Permanent(f"{self.endpoint.place} cannot be followed. {error}") from None

    def request(
        self, event: Event, context: Context, remembered: Remembered, journal: dict[str, JournalEntry] | None
    ) -> bytes:
        """Return what the endpoint is asked; a journal that is too large to be sent is left to be fetched."""
        token = context.lease_token
        journal_url = self.callbacks.url(event.id, token, "journal") if journal is None else None
        return msgspec.json.encode(
            StepsRequest(
                event=event_shown(event),
                lease_token=token,
                journal=journal,
                journal_url=journal_url,
                checkpoint_url=self.callbacks.url(event.id, token, "checkpoint"),
                journal_key=journal_key(event.id, remembered),
                cancelled=remembered.cancelled,
            )
        )

    async def asked(
        self, event: Event, context: Context, remembered: Remembered, listener: Listener, body: bytes
    ) -> NextAnswer | Final:
        """POST what the endpoint is asked, record what it reports meanwhile, and return what it answers in the end."""
        serving = create_task(listener.serve())
        try:
            answer = await self.answer(event, context, remembered, body)
            listener.finish()
            await serving
        finally:
            serving.cancel()
            await wait([serving])
        return answer

    async def answer(self, event: Event, context: Context, remembered: Remembered, body: bytes) -> NextAnswer | Final:
        """POST once and read the answer."""
        deadline = get_running_loop().time() + self.timeout_seconds
        async with self.endpoint.post(event, context, f"{event.id}.{remembered.activation}", body) as response:
            if 200 <= response.status < 300 and response.content_type == NEXT_TYPE:
                return await self.next_of(response)
            said = await beginning(response, deadline)
        if 200 <= response.status < 300:
            return await computed(result, said, size=len(said)) if response.content.at_eof() else None
        failure = self.endpoint.failure(response, said)
        raise failure from (last_failure(remembered) if isinstance(failure, Permanent) else None)

    async def next_of(self, response: aiohttp.ClientResponse) -> NextAnswer:
        """Read an answer that says what is next, all of it."""
        body = bytearray()
        async for piece in response.content.iter_any():
            body += piece
            if len(body) > MESSAGE_BYTES_MAX:
                raise Permanent(f"{self.endpoint.place} answered with more than {MESSAGE_BYTES_MAX:,} bytes.")
        try:
            return await computed(decode_next, bytes(body), size=len(body))
        except (Rejected, ValueError) as error:
            place = f" (at {error.pointer})" if isinstance(error, Unacceptable) and error.pointer else ""
            words = f"{self.endpoint.place} gave an answer of type {NEXT_TYPE} that is none: {error}{place}"
            raise Permanent(words) from None

    async def go_on(self, calls: Calls, kinds: Kinds, answer: NextAnswer, fresh: int) -> None:
        """Record what was done and do what is next; raises ValueError when that cannot be done.

        A step that is to be tried again comes first: its endpoint cannot have gone beyond it.
        """
        fresh += await recorded(calls, kinds, answer.did, answered=True)
        if any(map(is_tried_again, answer.did)):
            return
        wanted = answer.wanted
        if isinstance(wanted, NextAgain):
            if not fresh:
                raise ValueError("It asked to be asked again without having done anything: that would never end.")
            return
        if isinstance(wanted, NextRestart):
            await calls.restart(payload_of(wanted))
            return
        if objection := objection_to_next(wanted, KINDS[type(wanted)], kinds):
            raise ValueError(objection)
        with suppress(StepFailed, Cancelled):  # which is recorded: the endpoint is told in the journal
            await carried_out(calls, wanted)


async def recorded(calls: Calls, kinds: Kinds, did: Report, *, answered: bool) -> int:
    """Record steps and return how many are new; raises ValueError for one that cannot be, when the others are."""
    objections = {one.step: words for one in did if (words := objection_to_report(one, kinds))}
    fine = tuple(one for one in did if one.step not in objections)
    fresh: int = await calls.report(fine, answered=answered)
    kinds.update({one.step: StepKind.STEP for one in fine})
    for words in objections.values():
        raise ValueError(words)
    return fresh


async def carried_out(calls: Calls, wanted: NamedNext) -> None:
    """Do what is next, under its name in the journal."""
    match wanted:
        case NextSleep():
            await calls.sleep(wanted.step, wanted.seconds)
        case NextWait():
            await calls.wait_for(wanted.event_type, None, wanted.timeout_seconds, name=wanted.step)
        case NextSend():  # and NextCall, which is one
            child = child_event(wanted.event_type, None, wanted.workflow_id, None, wanted.run_at)
            child = msgspec.structs.replace(child, payload=payload_of(wanted), name=wanted.step)
            if isinstance(wanted, NextCall):
                await calls.call(child, wanted.timeout_seconds)
            else:
                await calls.send(child)


def payload_of(wanted: NextSend | NextRestart) -> bytes:
    """Return the payload that is given, or the empty one."""
    return b"{}" if isinstance(wanted.payload, UnsetType) else bytes(wanted.payload)


def last_failure(remembered: Remembered) -> StepFailed | None:
    """Return the failed step that an endpoint gave up for, which is the last thing that the journal holds, or None."""
    last = max(remembered.records, key=lambda record: record.recorded, default=None)
    if last is None or last.state is not StepState.FAILED:
        return None
    return StepFailed(last.step, last.error_type or "", last.error or "")
