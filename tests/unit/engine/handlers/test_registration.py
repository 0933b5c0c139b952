"""What a handler may be, and what of it is checked when it is registered."""

import functools
import re
import sys
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from replayforge import Handlers, Permanent, Retry
from replayforge.domain.errors import Refused
from replayforge.domain.lifecycle import Outcome
from replayforge.engine.handlers.loading import load_handlers
from replayforge.engine.handlers.results import raised, returned


async def fine(event: Any, context: Any) -> None:
    return None


def generator(event: Any, context: Any) -> Iterator[int]:
    yield 1


async def async_generator(event: Any, context: Any) -> Any:
    yield 1


@pytest.mark.parametrize(
    "options",
    [
        {"max_attempts": 0}, {"max_attempts": "3"}, {"max_attempts": True}, {"max_attempts": 2.0}, {"max_attempts": -1},
        {"timeout_seconds": 0}, {"timeout_seconds": "30"}, {"timeout_seconds": -1}, {"timeout_seconds": float("nan")},
        {"timeout_seconds": float("inf")}, {"timeout_seconds": True}, {"timeout_seconds": 1e300},
        {"on_crash": "holds"}, {"on_crash": None}, {"concurrency_max": 0}, {"concurrency_max": True},
    ],
    ids=str,
)  # fmt: skip
def test_wrong_options_are_refused(options: dict[str, Any]) -> None:
    """Every option that could not be meant is refused when the handler is registered, and named."""
    with pytest.raises(Refused, match=next(iter(options))):
        Handlers().on("t", **options)(fine)


class Desk:
    async def pay(self, event: Any, context: Any) -> None:
        return None

    async def __call__(self, event: Any, context: Any) -> None:
        return None

    def amounts(self, event: Any, context: Any) -> Iterator[int]:
        yield 1

    @staticmethod
    async def static(event: Any, context: Any) -> None:
        return None


def needs_more(event: Any, context: Any, session: Any) -> None:
    return None


async def only_by_name(*, event: Any, context: Any) -> None:
    return None


def with_session(function: Any) -> Any:
    """Decorate what takes three arguments, so that it can be called with two."""

    @functools.wraps(function)
    def called(event: Any, context: Any) -> Any:
        return function(event, context, "session")

    return called


def without_context(function: Any) -> Any:
    """Decorate what could be called with two, so that it no longer can."""

    @functools.wraps(function)
    def called(event: Any) -> Any:
        return function(event, None)

    return called


@pytest.mark.parametrize(
    ("function", "is_async"),
    [
        (fine, True), (lambda event, context=None, *more: None, False), (lambda *both: None, False),
        (Desk().pay, True), (Desk(), True), (Desk.static, True), (staticmethod(fine), True),
        (functools.partial(needs_more, session=1), False), (functools.partial(Desk.pay, Desk()), True),
        (with_session(needs_more), False), (print, False),
    ],
)  # fmt: skip
def test_what_can_be_called_with_event_and_context_is_a_handler(function: Any, is_async: bool) -> None:
    """Functions of every kind are handlers if they take two arguments as they are called, whatever they wrap."""
    handlers = Handlers()
    handlers.on("t")(function)
    handlers.subscribe("t", name="beside")(function)
    assert [one.is_async for one in handlers.registered] == [is_async, is_async]


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda event: None, ["test_registration.<lambda>", "too many positional", "`def handler(event, ctx):`"]),
        (lambda: None, ["too many positional"]),
        (needs_more, ["missing a required argument: 'session'", "`def needs_more(event, ctx):`"]),
        (only_by_name, ["too many positional arguments", "`async def only_by_name(event, ctx):`"]),
        (without_context(fine), ["test_registration.fine", "(event: Any) -> None"]),
        (Desk.pay, ["Desk.pay", "'context'", "the method of an object: `on(pattern)(Handler().method)`"]),
        (functools.partial(fine, 1), ["too many positional"]),
        (generator, ["test_registration.generator", "is a generator", "`return`", "`def generator(event, ctx):`"]),
        (async_generator, ["is a generator", "`async def async_generator(event, ctx):`"]),
        (Desk().amounts, ["Desk.amounts", "is a generator"]),
    ],
)
def test_what_cannot_be_called_so_is_refused_with_its_place_and_the_remedy(function: Any, words: list[str]) -> None:
    """A generator and a signature that does not fit are refused, by both ways to register, before any event comes."""
    for register in (Handlers().on("t"), Handlers().subscribe("t", name="beside"), Handlers().every(60, name="t")):
        with pytest.raises(Refused, match="cannot be used") as caught:
            register(function)
        missing = [one for one in words if one not in str(caught.value)]
        assert not missing, str(caught.value)
        assert re.search(rf"\({re.escape(__file__)}, line \d+\)", str(caught.value))


@pytest.mark.parametrize("function", [None, 3, "fine"])
def test_what_is_no_function_is_refused(function: Any) -> None:
    """What cannot be called at all is named."""
    with pytest.raises(Refused, match=f"{function!r} is not a function"):
        Handlers().on("t")(function)


@pytest.mark.parametrize(
    ("pattern", "matching", "other"),
    [("a[b]", "a[b]", "ab"), ("a?", "a?", "ab"), ("[!x]*", "[!x]y", "y"), ("a*", "a[", "b"), ("*]", "]", "[")],
)
def test_only_the_star_is_special(pattern: str, matching: str, other: str) -> None:
    """Every character of a pattern but `*` stands for itself."""
    handlers = Handlers()
    handlers.on(pattern)(fine)
    assert handlers.find(matching) is not None
    assert handlers.find(other) is None


def write(directory: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(text)


REGISTER = "from replayforge import Handlers\n{names} = Handlers()\n@{first}.on('{pattern}')\nasync def f(e, c): pass\n"
ONE = REGISTER.format(names="a = b", first="a", pattern="one")


@pytest.mark.parametrize(
    ("files", "modules"),
    [
        ({"twice1.py": ONE}, ["twice1.py"]),
        ({"shared2.py": ONE, "more2.py": "from shared2 import a\n"}, ["shared2.py", "more2.py"]),
        ({"shared3.py": ONE, "more3.py": "from shared3 import a\n"}, ["more3.py", "shared3.py"]),
        (
            {"pkg4/__init__.py": "", "pkg4/one.py": ONE, "pkg4/handlers.py": "from .one import a\n"},
            ["pkg4/handlers.py"],
        ),
        ({"pkg5/one5.py": ONE, "pkg5/handlers.py": "from one5 import a\n"}, ["pkg5/handlers.py"]),
        ({"pkg6/one.py": ONE, "pkg6/handlers.py": "from .one import a\n"}, ["pkg6/handlers.py"]),
        ({"pkg7/one.py": ONE, "pkg7/handlers.py": "from pkg7.one import a\n"}, ["pkg7/handlers.py", "pkg7/one.py"]),
        ({"inc8.py": ONE + "main = Handlers()\nmain.include(a)\n"}, ["inc8.py"]),
        ({"again9.py": ONE}, ["again9.py", "again9.py", "again9"]),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_each_handler_is_registered_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], modules: list[str]
) -> None:
    """However many names, modules and packages share a registry, the start works and its handlers count once."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    write(tmp_path, files)
    assert [handler.pattern for handler in load_handlers(modules).registered] == ["one"]


NAN = float("nan")


@pytest.mark.parametrize(
    ("value", "place"),
    [
        (NAN, r"nan at \$"), ({"a": [1, {"b": -float("inf")}]}, r"-inf at \$\.a\[1\]\.b"), ({NAN: 1}, "nan"),
        ([Decimal("NaN")], r"NaN at \$\[0\]"), (msgspec.Raw(b"NaN"), "not JSON"),
        ({"x": msgspec.Raw(b"nope")}, "not JSON"),
    ],
    ids=["nan", "nested", "key", "decimal", "raw", "nested raw"],
)  # fmt: skip
def test_what_json_has_no_word_for_is_named(value: Any, place: str) -> None:
    """A result with a number that is not finite, or with bytes that are not JSON, fails for good and says where."""
    result = returned(value)
    assert (result.outcome, result.permanent) == (Outcome.FAILED, True)
    with pytest.raises(AssertionError, match=place):
        raise AssertionError(result.error)


RAW = [pytest.param(msgspec.Raw(b"null"), id="raw"), pytest.param({"x": msgspec.Raw(b'"info"')}, id="nested raw")]


@pytest.mark.parametrize("value", [None, {"a": None}, "NaN", ["null", "Infinity"], {"nan": "inf"}, 0.5, *RAW], ids=str)
def test_words_that_look_like_it_are_fine(value: Any) -> None:
    """Texts and nulls are results like any other."""
    assert returned(value).outcome is Outcome.SUCCEEDED


def test_permanent_wins_in_a_group_and_the_longest_retry_counts() -> None:
    """Permanent anywhere in a group is permanent; else the longest wait that was asked for."""
    retries = [Retry(after=3), ExceptionGroup("in", [Retry(after=timedelta(minutes=1)), ValueError()]), Retry()]
    assert raised(ExceptionGroup("out", retries)).retry_after_seconds == 60
    mixed = raised(BaseExceptionGroup("out", [*retries, SystemExit(1), Permanent("no")]))
    assert (mixed.outcome, mixed.permanent) == (Outcome.FAILED, True)
    assert raised(BaseExceptionGroup("out", [SystemExit(1)])).outcome is Outcome.CRASHED


def test_an_attempt_counts_unless_everything_that_it_raised_says_otherwise() -> None:
    free = Retry("busy", after=1, counts=False)
    assert not raised(free).counts
    assert not raised(ExceptionGroup("out", [free, ExceptionGroup("in", [free])])).counts
    assert raised(ExceptionGroup("out", [free, RuntimeError("a failure")])).counts
    assert raised(Retry("again")).counts


@pytest.mark.parametrize("after", ["soon", True, NAN, -1, 1e15, timedelta(days=-1), timedelta.max, 10**500])
def test_retry_refuses_what_is_no_time(after: Any) -> None:
    """`after` is seconds or a timedelta up to ten years; the rest is refused where it is raised."""
    with pytest.raises((TypeError, ValueError), match=r"Retry\(after="):
        Retry(after=after)


@pytest.mark.parametrize("after", ["soon", NAN, -1, object()])
def test_retry_that_was_changed_afterwards_backs_off_as_usual(after: Any) -> None:
    """A subclass with an `after` of its own that is no time gets the usual backoff, and is told so."""
    error = Retry("later")
    error.after = after
    result = raised(error)
    assert (result.outcome, result.retry_after_seconds) == (Outcome.FAILED, None)
    assert "usual backoff" in (result.error or "")
