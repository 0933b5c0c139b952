"""Payloads by annotation: what a handler's parameter says of its payload, and what becomes of one that does not fit."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from random import Random
from typing import Any, TypedDict, assert_type

import msgspec
import pytest

from replayforge import BadPayload, Context, Event, Handlers
from replayforge.domain.errors import Refused
from replayforge.domain.lifecycle import Reason
from replayforge.engine.handlers.registry import Handler
from replayforge.engine.handlers.results import raised
from replayforge.engine.run.chaos import Chaos, ForcedFailure
from replayforge.telemetry import Telemetry


class Payment(msgspec.Struct):
    order: str
    amount: int


@dataclass
class Refund:
    order: str
    parts: list[Payment]


class Note(TypedDict):
    text: str


class Foreign:
    """A class that no JSON becomes."""


class Mistake(ValueError):
    """What pydantic raises, as far as anybody looks at it."""

    def errors(self) -> list[dict[str, Any]]:
        return [{"loc": ("parts", 1, "amount"), "msg": "Input should be a valid integer"}, {"loc": (), "msg": "other"}]


class Model:
    """Stands for a model of pydantic, which is told from others by this method."""

    def __init__(self, order: str) -> None:
        self.order = order

    @classmethod
    def model_validate_json(cls, body: bytes) -> Model:
        document = msgspec.json.decode(body)
        if "order" not in document:
            raise Mistake
        return cls(document["order"])


Handle = Callable[[Event, Context], Awaitable[Any]]


def timed(function: Handle) -> Handle:
    @functools.wraps(function)
    async def called(*arguments: Any) -> Any:
        return await function(*arguments)

    return called


async def pay(event: Event[Payment], ctx: Context) -> int:
    assert_type(event.payload, Payment)
    return event.payload.amount


async def refund(event: Event[Refund], ctx: Context) -> int:
    assert_type(event.payload, Refund)
    return len(event.payload.parts)


def note(event: Event[Note], ctx: Context, times: int = 1) -> str:
    assert_type(event.payload["text"], str)
    return event.payload["text"] * times


async def model(event: Event[Model], ctx: Context) -> str:
    return event.payload.order


async def untyped(event: Event, ctx: Context) -> Any:
    assert_type(event.payload, Any)
    return event.payload["anything"].goes


async def of_anything(event: Event[Any], ctx: Context) -> None:
    return None


async def wrong(event: Event[Payment], ctx: Context) -> None:
    event.payload.amuont  # type: ignore[attr-defined]  # noqa: B018 - mypy sees it


class Desk:
    async def pay(self, event: Event[Payment], ctx: Context) -> int:
        return event.payload.amount

    async def __call__(self, event: Event[Payment], ctx: Context) -> int:
        return event.payload.amount


def registered(function: Any) -> Handler:
    handlers = Handlers()
    handlers.on("t")(function)
    return handlers.registered[0]


def event_of(function: Any, payload: bytes) -> Event:
    """Return an event as it is made for a handler."""
    made = registered(function).event_class
    return made("id", "app", "w", "t", "", None, payload, b"{}", 0, 1, 1)


PAYMENT = b'{"order": "a", "amount": 3}'
THIRTY_DIGITS = b'{"order": "a", "amount": 123456789012345678901234567890}'


@pytest.mark.parametrize(
    ("function", "payload", "expected"),
    [
        (pay, PAYMENT, Payment("a", 3)),
        (pay, THIRTY_DIGITS, Payment("a", 123456789012345678901234567890)),
        (refund, b'{"order": "a", "parts": [' + PAYMENT + b"]}", Refund("a", [Payment("a", 3)])),
        (note, b'{"text": "hm"}', {"text": "hm"}),
        (timed(pay), PAYMENT, Payment("a", 3)),
        (functools.partial(note, times=2), b'{"text": "hm"}', {"text": "hm"}),
        (Desk().pay, PAYMENT, Payment("a", 3)),
        (Desk(), PAYMENT, Payment("a", 3)),
        (untyped, PAYMENT, {"order": "a", "amount": 3}),
    ],
    ids=["struct", "every digit", "dataclass", "typed dict", "decorated", "partial", "method", "object", "untyped"],
)
def test_the_payload_is_what_the_annotation_says(function: Any, payload: bytes, expected: Any) -> None:
    """Whatever kind of function a handler is, its payload is of the type it names, made once."""
    event = event_of(function, payload)
    assert event.payload == expected
    assert event.payload is event.payload
    assert isinstance(event, Event)


def test_a_model_of_pydantic_makes_itself() -> None:
    """A class that validates JSON itself is asked to."""
    made = event_of(model, b'{"order": "a"}').payload
    assert (type(made), made.order) == (Model, "a")


@pytest.mark.parametrize("function", [untyped, of_anything, lambda event, ctx: None, print])
def test_without_a_type_the_event_is_the_plain_one(function: Any) -> None:
    """A handler that names no type is given what it always was, so that it costs nothing more."""
    assert registered(function).event_class is Event


@pytest.mark.parametrize(
    ("function", "payload", "words"),
    [
        (pay, b'{"order": "a"}', "The payload does not fit Payment: at $, object missing required field `amount`."),
        (
            refund,
            b'{"order": "a", "parts": [{"order": "b", "amount": "3"}]}',
            "The payload does not fit Refund: at $.parts[0].amount, expected `int`, got `str`.",
        ),
        (
            model,
            b"{}",
            "The payload does not fit Model: at $.parts[1].amount, input should be a valid integer (and 1 more).",
        ),
    ],
    ids=["missing", "nested", "pydantic"],
)
def test_what_does_not_fit_is_a_bad_payload(function: Any, payload: bytes, words: str) -> None:
    """The first use says in one sentence where the payload is not what the handler wants, and why."""
    with pytest.raises(BadPayload) as caught:
        _ = event_of(function, payload).payload
    assert str(caught.value) == words
    result = raised(ExceptionGroup("of a task group", [caught.value, ValueError()]))
    assert (result.permanent, result.reason) == (True, Reason.BAD_PAYLOAD)
    assert "handlers/payloads.py" not in str(result.error)


async def foreign(event: Event[Foreign], ctx: Context) -> None:
    return None


async def of_foreigners(event: Event[list[Foreign]], ctx: Context) -> None:
    return None


async def unknown(event: Event[Payment], ctx: Context) -> None:
    return None


unknown.__annotations__["event"] = "Event[Paiment]"


async def bare(event: Payment, ctx: Context) -> None:
    return None


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (foreign, "which no JSON becomes: type .*Foreign'> is not supported"),
        (of_foreigners, "which no JSON becomes: type .*Foreign'> is not supported"),
        (unknown, "`Event\\[Paiment\\]`, which cannot be resolved"),
        (bare, "write `event: Event\\[Payment\\]`"),
    ],
)
def test_a_type_that_cannot_be_meant_is_refused(function: Any, words: str) -> None:
    """What would fail with every event is refused when the handler is registered, with the place in the file."""
    with pytest.raises(Refused, match=f"{function.__name__} \\(.*test_typed_payloads.py, line \\d+\\).*{words}"):
        registered(function)


async def test_simulated_failures_read_the_payload_as_it_came() -> None:
    """The flags of a payload are obeyed whatever type its handler wants it as."""
    with pytest.raises(ForcedFailure):
        await Chaos(Telemetry(), Random()).inject(event_of(pay, b'{"_force_fail": true}'))


def test_what_is_registered_keeps_its_type() -> None:
    """A decorated handler is still the function that it was, for those who check types and for those who call it."""
    kept = Handlers().on("t")(note)
    assert_type(kept(event_of(note, b'{"text": "hm"}'), Context(event_of(note, b""), 1, 0.0), times=2), str)
    assert kept is note
