"""What user code returned or raised, as a result of ours. Everything here may be called on hostile objects."""

import hashlib
import inspect
import math
import re
import traceback
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec

from replayforge import event_loop
from replayforge.domain.journal import ARGUMENTS_BYTES_MAX, StepError
from replayforge.domain.lifecycle import Outcome, Reason, State
from replayforge.domain.retry import BadPayload, Permanent, Retry, after_seconds
from replayforge.domain.step_errors import Cancelled, StepFailed
from replayforge.domain.verdict import Result
from replayforge.event_loop import HandlerExited
from replayforge.tracebacks import FRAMES_MAX, is_long_chain

ERROR_CHARACTERS_MAX = 8_000
MESSAGE_CHARACTERS_MAX = 4_000
RESULT_BYTES_MAX = 256 * 1024
GROUP_MAX = 1_000
DETAILS_MAX = 32
DETAIL_CHARACTERS_MAX = 1_000
RUN = Path(__file__).parents[1] / "run"
OURS = frozenset(
    {
        event_loop.__file__,
        str(Path(__file__).with_name("payloads.py")),
        *(str(RUN / name) for name in ("attempt.py", "journal_answers.py", "step_runner.py")),
    }
)
# What JSON has no word for is encoded as one of these, which may stand for something else as well.
SUSPICIOUS = re.compile(rb"null|[nN]a[nN]|[iI]nf")
NOTHING = Result(Outcome.SUCCEEDED)
check_json = msgspec.json.Decoder(msgspec.Raw).decode
# Past what a subclass makes of them.
CAUSE = BaseException.__dict__["__cause__"].__get__
CONTEXT = BaseException.__dict__["__context__"].__get__
EXITS = (SystemExit, KeyboardInterrupt, GeneratorExit, HandlerExited)


def returned(value: Any, what: str = "The handler's return value", bytes_max: int = RESULT_BYTES_MAX) -> Result:
    """Return the result of user code that returned; a value that is not JSON can never become one.

    `what` names it in words.
    """
    if value is None:
        return NOTHING
    try:
        encoded = msgspec.json.encode(value)
        flaw = flaw_of(value, encoded, bytes_max)
    except Exception as error:  # the value's class is the user's, and it may raise whatever it likes
        flaw = f"is not JSON: {name_of(error)}: {words_of(error)}"
    if flaw:
        if inspect.iscoroutine(value):
            value.close()
        return Result(Outcome.FAILED, readable(f"{what} {flaw}."), permanent=True)
    return Result(Outcome.SUCCEEDED, value=encoded)


def encoded_json(value: Any, what: str) -> bytes:
    """Return a value as JSON; raises ValueError, which calls it `what`, for one that is none."""
    result = returned(value, what)
    if result.outcome is not Outcome.SUCCEEDED:
        raise ValueError(result.error)
    return b"null" if result.value is None else result.value


def flaw_of(value: Any, encoded: bytes, bytes_max: int) -> str:
    """Say what is wrong with a value that could be encoded, or nothing."""
    if len(encoded) > bytes_max:
        return f"has {len(encoded):,} bytes of JSON, more than {bytes_max:,}"
    check_json(encoded)  # the user may have handed over bytes as JSON that are none
    if SUSPICIOUS.search(encoded):
        shown = msgspec.to_builtins(value, builtin_types=(Decimal,), str_keys=False, enc_hook=nothing_endless)
        place = next(endless(shown), None)
        if place is not None:
            return f"is not JSON: it holds {place[1]} at {place[0]}"
    return ""


def nothing_endless(value: Any) -> None:
    """Stand for JSON that came as it is, which holds no number that is not finite; nothing else comes here."""
    if not isinstance(value, msgspec.Raw):
        raise TypeError(f"{name_of_type(value)} is not JSON")


def endless(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield each number that is not finite, with the path to it."""
    pending = [("$", value)]
    while pending:
        path, one = pending.pop()
        if isinstance(one, (float, Decimal)) and not math.isfinite(one):
            yield path, one
        elif isinstance(one, dict):
            pending += [(f"{path}[{name!r}]", name) for name in one if isinstance(name, (float, Decimal))]
            pending += [(f"{path}.{name}", part) for name, part in one.items()]
        elif isinstance(one, (list, tuple)):
            pending += [(f"{path}[{number}]", part) for number, part in enumerate(one)]


def raised(error: BaseException) -> Result:
    """Return the result of user code that raised: failed, or crashed when it wanted the program to end."""
    try:
        return judged(error)
    except BaseException as another:  # an error that cannot even be looked at
        return Result(Outcome.FAILED, f"{name_of(error)}: (looking at it raises {name_of(another)})")


def judged(error: BaseException) -> Result:
    """Return what an error means: Permanent anywhere in a group wins, then an exit, then the longest Retry."""
    parts = list(parts_of(error))
    permanent = any(issubclass(type(one), (StepFailed, Permanent)) for one in parts)
    cancelled = any(issubclass(type(one), Cancelled) for one in parts)
    exits = not issubclass(type(error), Exception) or any(issubclass(type(one), EXITS) for one in parts)
    asked, complaint = asked_seconds([one for one in parts if issubclass(type(one), Retry)])
    return Result(
        Outcome.CRASHED if exits and not permanent else Outcome.FAILED,
        described(error, complaint),
        retry_after_seconds=asked,
        permanent=permanent,
        reason=reason_of(parts),
        state=State.CANCELLED if cancelled else None,
        failed_steps=failed_steps_in(error),
        counts=not all(is_free(one) for one in parts if not issubclass(type(one), BaseExceptionGroup)),
    )


def reason_of(parts: list[BaseException]) -> Reason | None:
    """Return why an event becomes a dead letter, where the errors that ended its handler say so by themselves."""
    kinds = ((BadPayload, Reason.BAD_PAYLOAD), (StepFailed, Reason.STEP_FAILED))
    return next((reason for kind, reason in kinds if any(issubclass(type(one), kind) for one in parts)), None)


def is_free(error: BaseException) -> bool:
    """Tell whether an error asks for another attempt and says that this one is not to count."""
    return issubclass(type(error), Retry) and getattr(error, "counts", True) is False


def parts_of(error: BaseException) -> Iterator[BaseException]:
    """Yield an error, and what it holds if it is a group, however deep."""
    pending = [error]
    for _ in range(GROUP_MAX):
        if not pending:
            return
        one = pending.pop()
        yield one
        if issubclass(type(one), BaseExceptionGroup):
            pending += BaseExceptionGroup.exceptions.__get__(one)  # past what a subclass makes of it


def failed_steps_in(error: BaseException) -> tuple[str, ...]:
    """Return the names of the steps whose failures an error carries, in groups, as causes or as contexts."""
    pending, seen, names = [error], {id(error)}, []
    for one in pending:
        if issubclass(type(one), StepFailed):
            names.append(name_of_step(one))
        within = list(BaseExceptionGroup.exceptions.__get__(one)) if issubclass(type(one), BaseExceptionGroup) else []
        for further in (*within, CAUSE(one), CONTEXT(one)):
            if further is not None and id(further) not in seen and len(pending) < GROUP_MAX:
                seen.add(id(further))
                pending.append(further)
    return tuple(dict.fromkeys(name for name in names if name))


def name_of_step(error: BaseException) -> str:
    """Return which step an error says has failed, or nothing; its class may be the user's."""
    try:
        step = error.step  # type: ignore[attr-defined]
    except BaseException:
        return ""
    return readable(step) if type(step) is str else ""


def asked_seconds(retries: list[BaseException]) -> tuple[float | None, str]:
    """Return the longest wait that was asked for, and a complaint about one that is not a wait."""
    longest: float | None = None
    complaint = ""
    for one in retries:
        try:
            seconds = after_seconds(getattr(one, "after", None))
        except Exception as error:  # whatever hides behind the name is the user's
            complaint = f" ({words_of(error)} The usual backoff applies.)"
        else:
            longest = max(longest or 0.0, seconds) if seconds is not None else longest
    return longest, complaint


def described(error: BaseException, complaint: str = "") -> str:
    """Return the error in words and its traceback, which begins at the user's frame."""
    words = f"{name_of(error)}: {words_of(error)}"[:MESSAGE_CHARACTERS_MAX]
    return readable(f"{words}{complaint}\n\n{trace_of(error)}"[:ERROR_CHARACTERS_MAX])


def error_of(error: BaseException) -> StepError:
    """Return what is kept of an error that a step ended with."""
    message = readable(words_of(error)[:MESSAGE_CHARACTERS_MAX])
    return StepError(readable(name_of(error)), message, readable(trace_of(error)[:ERROR_CHARACTERS_MAX]))


def arguments_in_words(args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    """Return what a step was called with as JSON, and where that is long or none, its digest and the types."""
    if not args and not kwargs:
        return ""
    given = [*args, kwargs] if kwargs else list(args)
    try:
        encoded = msgspec.json.encode(given)
    except Exception:  # the values' classes are the user's
        return json_text({"types": [name_of_type(one) for one in given]})
    if len(encoded) <= ARGUMENTS_BYTES_MAX:
        return encoded.decode()
    return json_text({"sha256": hashlib.sha256(encoded).hexdigest(), "types": [name_of_type(one) for one in given]})


def json_text(value: Any) -> str:
    """Return a value as JSON."""
    return msgspec.json.encode(value).decode()


def name_of_type(value: Any) -> str:
    """Return the name of a value's class."""
    return str(type.__dict__["__name__"].__get__(type(value)))


def name_of(error: BaseException) -> str:
    """Return the name of the error's class, which the user may have made unreadable."""
    try:
        return str(type.__dict__["__name__"].__get__(type(error)))
    except Exception:
        return "an error"


def words_of(error: BaseException) -> str:
    """Return what the error says; its class is the user's, so even that may raise."""
    try:
        return str(error)
    except BaseException as another:
        return f"(its own words raise {name_of(another)})"


def trace_of(error: BaseException) -> str:
    """Return the traceback, without our own frames; only its places where the errors themselves cannot be shown."""
    try:
        if is_long_chain(error):
            raise ValueError("a chain of errors too long to be read")
        shown = traceback.TracebackException(type(error), error, error.__traceback__, limit=-FRAMES_MAX, compact=True)
        for one in chained(shown):
            one.stack[:] = [frame for frame in one.stack if frame.filename not in OURS]
        return "".join(shown.format())
    except BaseException:
        return "".join(traceback.format_tb(beginning(error.__traceback__), limit=-FRAMES_MAX))


def chained(shown: traceback.TracebackException) -> Iterator[traceback.TracebackException]:
    """Yield an error that is to be shown, and all those that are shown with it."""
    pending: list[traceback.TracebackException | None] = [shown]
    while pending:
        one = pending.pop()
        if one is not None:
            yield one
            pending += [one.__cause__, one.__context__, *(one.exceptions or ())]


def beginning(trace: TracebackType | None) -> TracebackType | None:
    """Return the traceback from the first frame on that is not ours."""
    while trace is not None and trace.tb_frame.f_code.co_filename in OURS:
        trace = trace.tb_next
    return trace


def readable(text: str) -> str:
    """Return text that every store can keep: without halves of surrogate pairs."""
    return text.encode("utf-8", "backslashreplace").decode()


def shown_details(details: dict[str, Any]) -> dict[str, Any]:
    """Return what a handler says of itself as JSON that anybody may read; a value that is none is shown as text."""
    return {readable(name): shown_detail(value) for name, value in list(details.items())[:DETAILS_MAX]}


def shown_detail(value: Any) -> Any:
    """Return a short value as it is, and anything else as a text that is cut."""
    try:
        result = returned(value)
        encoded = result.value or b"null"
        if result.outcome is Outcome.SUCCEEDED and len(encoded) <= DETAIL_CHARACTERS_MAX:
            return msgspec.json.decode(encoded)
        return readable(str(value)[:DETAIL_CHARACTERS_MAX])
    except Exception as error:
        return f"(a value that cannot be shown: {name_of(error)})"
