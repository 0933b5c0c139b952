"""Tracebacks of errors that want to cost time, or to be errors themselves."""

import pytest

from replayforge.tracebacks import ERRORS_MAX, formatted, is_long_chain


class Speechless(Exception):
    def __str__(self) -> str:
        raise SystemExit


def chain_of(length: int, *, group: bool = False) -> BaseException:
    error: BaseException = ValueError("first")
    for number in range(length):
        outer = ExceptionGroup("group", [error]) if group and isinstance(error, Exception) else ValueError(str(number))
        outer.__cause__ = outer.__context__ = error
        error = outer
    return error


def test_a_short_chain_is_shown_and_a_long_one_is_not() -> None:
    """A cause that is the context too counts once; chains of groups count like others, cycles end."""
    assert "direct cause" in formatted(chain_of(10))
    for group in (False, True):
        assert is_long_chain(chain_of(10_000, group=group))
        assert "direct cause" not in formatted(chain_of(10_000, group=group))
    first, second = ValueError(1), ValueError(2)
    first.__context__, second.__context__ = second, first
    assert not is_long_chain(first)


def test_a_wide_group_is_shown_in_part() -> None:
    """Many errors beside one another are no long chain, unless there are hundreds."""
    assert "ValueError: 7" in formatted(ExceptionGroup("many", [ValueError(number) for number in range(50)]))
    assert is_long_chain(ExceptionGroup("many", [ValueError(number) for number in range(2 * ERRORS_MAX)]))


def test_an_error_without_words_has_places() -> None:
    """Whatever showing it raises."""
    with pytest.raises(Speechless) as found:
        raise Speechless
    assert "test_an_error_without_words_has_places" in formatted(found.value)
