"""What leaves the loop is reported with the attempt that it belongs to, and the loop goes on."""

import asyncio
import sys
from collections.abc import Callable
from typing import Any

import pytest

from replayforge.event_loop import ESCAPES_MAX, Escapes, SelectorLoop, loop_factory, run_to_the_end
from replayforge.telemetry import Telemetry, attempt_context

LOOPS = [loop_factory(), SelectorLoop]
ATTEMPT = {"event_id": "e", "event_type": "t"}


def interrupt() -> None:
    raise KeyboardInterrupt


EXITS: dict[str, tuple[Callable[[Any], object], str]] = {
    "call_soon": (lambda loop: loop.call_soon(interrupt), "KeyboardInterrupt"),
    "call_later": (lambda loop: loop.call_later(0, sys.exit, 3), "SystemExit"),
    "call_at": (lambda loop: loop.call_at(loop.time(), interrupt), "KeyboardInterrupt"),
    "stop": (lambda loop: loop.stop(), "the loop was stopped"),
}


@pytest.mark.parametrize("make_loop", LOOPS)
@pytest.mark.parametrize("way", EXITS)
def test_an_exit_is_survived_and_named(make_loop: Callable[[], asyncio.AbstractEventLoop], way: str) -> None:
    """Where uvloop does not tell whose callback it was, the type of the event that ran last is."""
    telemetry, escapes = Telemetry(), Escapes()
    found: list[dict[str, Any]] = []
    telemetry.listen(lambda name, count, fields: found.append(fields))
    escapes.report_to(telemetry, lambda: "t")
    leave, what = EXITS[way]

    async def live() -> str:
        token = attempt_context.set(ATTEMPT)
        leave(asyncio.get_running_loop())
        attempt_context.reset(token)
        while not found:  # noqa: ASYNC110 - it is the turns that count
            await asyncio.sleep(0)
        return "alive"

    with asyncio.Runner(loop_factory=make_loop) as runner:
        assert run_to_the_end(runner.get_loop(), live(), escapes) == "alive"
        named = {"suspect": "t"} if way == "call_soon" and make_loop is not SelectorLoop else ATTEMPT
    assert [{name: value for name, value in fields.items() if name != "place"} for fields in found] == [
        {"error": what, **named}
    ]


@pytest.mark.parametrize("make_loop", LOOPS)
def test_an_exit_in_the_turn_of_a_stop_hides_neither(make_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """Both are reported, each once."""
    telemetry, escapes = Telemetry(), Escapes()
    found: list[str] = []
    telemetry.listen(lambda name, count, fields: found.append(fields["error"]))
    escapes.report_to(telemetry, str)

    async def live() -> None:
        loop = asyncio.get_running_loop()
        attempt_context.set(ATTEMPT)
        loop.call_soon(loop.stop)
        loop.call_soon(interrupt)
        while len(found) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0)

    with asyncio.Runner(loop_factory=make_loop) as runner:
        run_to_the_end(runner.get_loop(), live(), escapes)
    assert sorted(found) == ["KeyboardInterrupt", "the loop was stopped"]


async def never() -> None:
    await asyncio.Event().wait()


def test_what_a_signals_handler_raises_is_survived_until_it_is_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be raised anywhere in the loop itself; a loop that makes no headway is given up, at once where it cannot
    go on."""
    telemetry, escapes = Telemetry(), Escapes()
    escapes.report_to(telemetry, str)
    kind: type[Exception] = ValueError

    def select(timeout: object) -> None:
        raise kind("anywhere")

    with asyncio.Runner(loop_factory=SelectorLoop) as runner:
        loop: Any = runner.get_loop()
        with monkeypatch.context() as patch:
            patch.setattr(loop._selector, "select", select)
            with pytest.raises(ValueError, match="anywhere"):
                run_to_the_end(loop, never(), escapes)
            assert telemetry.counts["callback.exited"] == ESCAPES_MAX
            kind = OSError  # the loop's descriptors were closed, say
            with pytest.raises(OSError, match="anywhere"):
                run_to_the_end(loop, never(), escapes)
