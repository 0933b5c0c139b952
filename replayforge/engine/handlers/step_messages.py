"""What the daemon and an endpoint with steps say to each other: the messages as values, read and written."""

from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from replayforge.domain.clock import format_time
from replayforge.domain.document import decode_document
from replayforge.domain.event import Event
from replayforge.domain.identity import hashed_id
from replayforge.domain.journal import NAME_CHARACTERS_MAX, RECORDED, StepKind, StepRecord, StepState, objection_to_name

SCHEMA_DIALECT = "https://json-schema.org/draft/2020-12/schema"
NEXT_TYPE = "application/vnd.replayforge.next+json"
MESSAGE_BYTES_MAX = 16 << 20
INLINE_BYTES_MAX = 1 << 20
PASS_NAMESPACE = b"replayforge/journal/1"
SPOKEN_OF = frozenset({StepKind.STEP, StepKind.SLEEP, StepKind.WAIT, StepKind.SEND, StepKind.CALL})

StepName = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=NAME_CHARACTERS_MAX,
        description="What the step is called; each name of a journal means one thing.",
        extra_json_schema={"pattern": r"^[^#\[]*$"},  # whose words for what is wrong are ours
    ),
]
EventType = Annotated[str, Meta(min_length=1, max_length=255, pattern="^[^\x00-\x1f\x7f]*$")]
Length = Annotated[float, Meta(ge=0, description="A number of seconds.")]
Message = TypeVar("Message")


class ReportedError(Struct, frozen=True, forbid_unknown_fields=True):
    """Why a step failed. One that is not `permanent` is tried again as the handler's retries say."""

    type: Annotated[str, Meta(max_length=255)] = "Error"
    message: Annotated[str, Meta(max_length=4_000)] = ""
    permanent: bool = False


class ReportedStep(Struct, frozen=True, forbid_unknown_fields=True):
    """A step that was taken: `ok` is its result, any JSON, or `error` says why there is none."""

    step: StepName
    ok: Raw | UnsetType = UNSET
    error: ReportedError | UnsetType = UNSET


class NextSleep(Struct, frozen=True, forbid_unknown_fields=True):
    """Come back after so many seconds."""

    step: StepName
    seconds: Length


class NextWait(Struct, frozen=True, forbid_unknown_fields=True):
    """Come back with the oldest event of a type in the same workflow that no wait has taken."""

    step: StepName
    event_type: EventType
    timeout_seconds: Length | None = None


class NextSend(Struct, frozen=True, forbid_unknown_fields=True):
    """Send one child event, and come back with its id."""

    step: StepName
    event_type: EventType
    payload: Raw | UnsetType = UNSET
    workflow_id: EventType | None = None
    run_at: Annotated[datetime, Meta(tz=True)] | None = None


class NextCall(NextSend, frozen=True, forbid_unknown_fields=True):
    """Send one child event, and come back with its result."""

    timeout_seconds: Length | None = None


class NextAgain(Struct, frozen=True, forbid_unknown_fields=True):
    """Record what was done and come back at once."""


class NextRestart(Struct, frozen=True, forbid_unknown_fields=True):
    """Come back with an empty journal, in the same run, and with this as the event's payload."""

    payload: Raw | UnsetType = UNSET


class Next(Struct, frozen=True, forbid_unknown_fields=True):
    """What is to happen before the endpoint is asked again: one of these."""

    sleep: NextSleep | UnsetType = UNSET
    wait_for: NextWait | UnsetType = UNSET
    send: NextSend | UnsetType = UNSET
    call: NextCall | UnsetType = UNSET
    again: NextAgain | UnsetType = UNSET
    restart: NextRestart | UnsetType = UNSET


NamedNext = NextSleep | NextWait | NextSend | NextCall
NextStep = NamedNext | NextAgain | NextRestart


class NextAnswer(Struct, frozen=True, forbid_unknown_fields=True):
    """An answer of type application/vnd.replayforge.next+json: the steps taken since it was asked, and what is next."""

    next: Next
    did: tuple[ReportedStep, ...] = ()

    @property
    def wanted(self) -> NextStep:
        """The one thing that is next."""
        (found,) = given(self.next)
        assert not isinstance(found, UnsetType)
        return found


class Checkpoint(Struct, frozen=True, forbid_unknown_fields=True):
    """What is POSTed to checkpoint_url: steps taken so far by an endpoint that goes on."""

    lease_token: int
    did: tuple[ReportedStep, ...]


class JournalError(Struct, frozen=True):
    """Why a step has failed for good."""

    type: str
    message: str


class JournalEntry(Struct, frozen=True):
    """What the journal holds of a step: its result in `ok`, or why it has failed for good."""

    ok: Raw | UnsetType = UNSET
    error: JournalError | UnsetType = UNSET


class EventInRequest(Struct, frozen=True):
    """The event as the endpoint is shown it."""

    id: str
    application_name: str
    workflow_id: str
    event_type: str
    service_name: str
    idempotency_key: str | None
    payload: Raw
    metadata: Raw
    created_at: str
    run: int
    attempt: int
    subscriber: str | None


class StepsRequest(Struct, frozen=True):
    """What an endpoint with steps is asked.

    `journal` holds the steps recorded so far by their names. Where it is larger than 1 MiB it is null, and
    `journal_url` is where to GET it. `checkpoint_url` takes steps before the answer; null where the daemon has no port.
    `journal_key` followed by a step's name is the same on every try of that step, and another one after a replay that
    has it done again: hand it to whatever has effects outside. `cancelled` is true once the event was cancelled, where
    its handler says `on_cancel = "run"`: undo what has to be undone, and finish.
    """

    event: EventInRequest
    lease_token: int
    journal: dict[str, JournalEntry] | None
    journal_url: str | None
    checkpoint_url: str | None
    journal_key: str
    cancelled: bool


class Remembered(Struct, frozen=True):
    """What a journal holds when nothing of it is waited for; `activation` counts the answers committed before.

    `cancelled` says that its endpoint is told of a cancel.
    """

    number: int
    activation: int
    records: tuple[StepRecord, ...]
    cancelled: bool = False


def given(wanted: Next) -> list[NextStep | UnsetType]:
    """Return what is asked for."""
    return [value for value in msgspec.structs.astuple(wanted) if value is not UNSET]


def decode_next(body: bytes) -> NextAnswer:
    """Return an answer that says what is next; raises Rejected, or ValueError, with what is wrong with it."""
    answer = decode_message(body, NextAnswer)
    if len(given(answer.next)) != 1:
        raise ValueError("`next` must hold exactly one of sleep, wait_for, send, call, again and restart")
    check_reports(answer.did)
    return answer


def decode_checkpoint(body: bytes) -> Checkpoint:
    """Return a checkpoint; raises Rejected, or ValueError, with what is wrong with it."""
    checkpoint = decode_message(body, Checkpoint)
    check_reports(checkpoint.did)
    return checkpoint


def decode_message(body: bytes, kind: type[Message]) -> Message:
    """Return a message; raises Rejected with what is wrong."""
    return decode_document(body, msgspec.json.Decoder(kind).decode)


def check_reports(did: Iterable[ReportedStep]) -> None:
    """Raise ValueError for a step that says both how it ended and why not, or neither."""
    for one in did:
        if (one.ok is UNSET) == (one.error is UNSET):
            raise ValueError(f"the step {one.step!r} must hold either `ok` or `error`")


def is_tried_again(report: ReportedStep) -> bool:
    """Tell whether a step failed and its endpoint takes it that another try may succeed."""
    return isinstance(report.error, ReportedError) and not report.error.permanent


def objection_to_report(report: ReportedStep, kinds: dict[str, StepKind]) -> str:
    """Say in a sentence why a step cannot be recorded beside those that are known, or nothing."""
    if objection := objection_to_name(report.step):
        return f"A step cannot be recorded: {objection}."
    kind = kinds.get(report.step, StepKind.STEP)
    if kind is StepKind.STEP:
        return ""
    return f"The name {report.step!r} is that of a {kind} in this journal and cannot be a step as well."


def objection_to_next(wanted: NamedNext, kind: StepKind, kinds: dict[str, StepKind]) -> str:
    """Say in a sentence why what is asked for next cannot be done, or nothing."""
    if objection := objection_to_name(wanted.step):
        return f"It asked for what cannot be done: {objection}."
    known = kinds.get(wanted.step)
    if known is None:
        return ""
    if known is kind:
        return f"It asked for the {kind} {wanted.step!r} again, although the journal that it was shown holds it."
    return f"The name {wanted.step!r} is that of a {known} in this journal and cannot be a {kind} as well."


def kinds_of(records: Iterable[StepRecord]) -> dict[str, StepKind]:
    """Return what each name of a journal means."""
    return {record.step: record.kind for record in records if record.kind in SPOKEN_OF}


def journal_shown(records: Iterable[StepRecord]) -> dict[str, JournalEntry]:
    """Return a journal as endpoints are shown it: what has come to its end, by name."""
    shown = (record for record in records if record.kind in SPOKEN_OF and record.begun and record.state in RECORDED)
    return {record.step: step_shown(record) for record in sorted(shown, key=lambda record: record.recorded)}


def step_shown(record: StepRecord) -> JournalEntry:
    """Return a step as endpoints are shown it."""
    if record.state is StepState.DONE:
        return JournalEntry(ok=Raw(b"null" if record.result is None else record.result))
    return JournalEntry(error=JournalError(record.error_type or "", record.error or ""))


def event_shown(event: Event) -> EventInRequest:
    """Return an event as endpoints are shown it."""
    return EventInRequest(
        id=event.id,
        application_name=event.application,
        workflow_id=event.workflow_id,
        event_type=event.event_type,
        service_name=event.service,
        idempotency_key=event.idempotency_key,
        payload=Raw(event.payload_bytes),
        metadata=Raw(event.metadata_bytes),
        created_at=format_time(event.created_at_us),
        run=event.run,
        attempt=event.attempt,
        subscriber=event.subscriber,
    )


def journal_key(event_id: str, remembered: Remembered) -> str:
    """Return what is the same for all tries of the steps to come; replays that have steps done again change it.

    Replays raise generations, and nothing lowers them, so their sum is another one after each.
    """
    generations = sum(record.generation for record in remembered.records)
    parts = (event_id, str(remembered.number), str(generations))
    return hashed_id(PASS_NAMESPACE, *(part.encode() for part in parts))


def schema() -> dict[str, Any]:
    """Return the messages as one JSON Schema: an endpoint is sent a StepsRequest, answers a NextAnswer, and may POST
    Checkpoints."""
    messages = [StepsRequest, NextAnswer, Checkpoint]
    references, definitions = msgspec.json.schema_components(messages, ref_template="#/$defs/{name}")
    definitions["Next"] |= {"minProperties": 1, "maxProperties": 1}
    for name in ("ReportedStep", "JournalEntry"):
        definitions[name]["oneOf"] = [{"required": ["ok"]}, {"required": ["error"]}]
    return {
        "$schema": SCHEMA_DIALECT,
        "title": "Steps over HTTP",
        "anyOf": list(references),
        "$defs": definitions,
    }
