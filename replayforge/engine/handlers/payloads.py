"""Payloads by annotation: what type a handler wants its payload as, and the Event that has it so."""

import dataclasses
import inspect
import re
import typing
from collections.abc import Callable
from functools import cached_property, partial
from types import SimpleNamespace
from typing import Any

import msgspec

from replayforge.domain.event import Event
from replayforge.domain.retry import BadPayload
from replayforge.engine.handlers.functions import in_words, plain_function

Decode = Callable[[bytes], Any]

ANYTHING = (Any, object)
TYPED = re.compile(r"\bEvent\s*\[")
PLACE = re.compile(r"(?P<reason>.*) - at `(?P<place>[^`]*)`", re.DOTALL)


def event_class(function: Any) -> type[Event[Any]]:
    """Return the Event that a handler is given; decided once, so that one without a type costs nothing more.

    Raises ValueError with a clause when its annotation cannot be meant.
    """
    annotation = annotation_of(function)
    if typing.get_origin(annotation) is Event:
        (kind,) = typing.get_args(annotation)
        if kind not in ANYTHING and not isinstance(kind, typing.TypeVar):
            typed: type[Event[Any]] = typed_event(function, kind)
            return typed
    if is_model(annotation):
        name = name_of(annotation)
        raise ValueError(f"{in_words(function)} is given an event, not its payload; write `event: Event[{name}]`")
    return Event


def annotation_of(function: Any) -> Any:
    """Return what the parameter that takes the event is annotated with; the function behind a decorator says so too.

    Raises ValueError for a text that names a type of payload which cannot be found.
    """
    try:
        annotation = next(iter(inspect.signature(function).parameters.values())).annotation
    except (TypeError, ValueError, StopIteration):  # a function of C, or one behind a decorator that takes nothing
        return Event
    home = getattr(inspect.unwrap(plain_function(function)), "__globals__", {})
    try:
        named = SimpleNamespace(__annotations__={"event": annotation})
        return typing.get_type_hints(named, home, include_extras=True)["event"]
    except Exception as error:  # whatever users write there is evaluated
        if TYPED.search(str(annotation)) is None:
            return Event
        raise ValueError(
            f"{in_words(function)} has the annotation `{annotation}`, which cannot be resolved ({error}); import its"
            " names at the top of the module, outside of TYPE_CHECKING"
        ) from None


def is_model(annotation: Any) -> bool:
    """Tell whether a type is one of those that payloads are described with."""
    if not isinstance(annotation, type) or issubclass(annotation, Event):
        return False
    is_struct = issubclass(annotation, msgspec.Struct)
    return (
        is_struct or dataclasses.is_dataclass(annotation) or typing.is_typeddict(annotation) or is_pydantic(annotation)
    )


def is_pydantic(kind: Any) -> bool:
    """Tell whether a type is a model of pydantic, which nobody needs to have."""
    return isinstance(kind, type) and hasattr(kind, "model_validate_json")


def name_of(kind: Any) -> str:
    """Return what people call a type."""
    return kind.__name__ if isinstance(kind, type) and not typing.get_args(kind) else str(kind)


def typed_event(function: Any, kind: Any) -> Any:
    """Return an Event whose payload is of a type; raises ValueError with a clause for one that no JSON becomes."""
    name = name_of(kind)
    try:
        decode = partial(by_pydantic, kind, name) if is_pydantic(kind) else decoder(kind, name)
    except Exception as error:  # among others the user's own classes
        why = str(error).strip().rpartition("\n")[2]
        raise ValueError(f"{in_words(function)} wants its payload as {name}, which no JSON becomes: {why}") from None
    namespace = {"payload": cached_property(lambda event: decode(event.payload_bytes))}
    return msgspec.defstruct(
        f"Event[{name}]", [], bases=(Event,), namespace=namespace, frozen=True, dict=True, module=Event.__module__
    )


def called_with_payload(function: Callable[[Event[Any], Any], Any], event: Event[Any], context: Any) -> Any:
    """Call a function with an event whose payload is of its type; raises BadPayload before anything of it has run."""
    event.payload  # noqa: B018 - decoded once, and kept
    return function(event, context)


def decoder(kind: Any, name: str) -> Decode:
    """Return what decodes JSON to a type; raises TypeError for a type that msgspec does not know."""
    decode = msgspec.json.Decoder(kind).decode
    msgspec.json.schema(kind)  # which looks at every type within; the decoder says so only when it meets one

    def decoded(body: bytes) -> Any:
        try:
            return decode(body)
        except msgspec.ValidationError as error:
            found = PLACE.fullmatch(str(error))
            reason, place = (found["reason"], found["place"]) if found else (str(error), "$")
            raise misfit(name, place, reason) from None

    return decoded


def by_pydantic(kind: Any, name: str, body: bytes) -> Any:
    """Return a payload as a model of pydantic."""
    try:
        return kind.model_validate_json(body)
    except ValueError as error:
        mistakes: Any = error.errors() if hasattr(error, "errors") else [{"loc": (), "msg": str(error)}]
        place = "$" + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in mistakes[0]["loc"])
        more = f" (and {len(mistakes) - 1} more)" if len(mistakes) > 1 else ""
        raise misfit(name, place, mistakes[0]["msg"] + more) from None


def misfit(name: str, place: str, reason: str) -> BadPayload:
    """Return what a handler hears of a payload that is not what it wants."""
    return BadPayload(f"The payload does not fit {name}: at {place}, {reason[:1].lower()}{reason[1:]}.")
