"""Who holds the event loop is named while it lasts: handler, event and place, in the log, in metrics, on the page."""

import asyncio
import ctypes
import re
import sys
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import uvloop

from replayforge.domain.event import Event
from replayforge.engine.handlers.context import Context
from replayforge.engine.handlers.registry import Handlers
from replayforge.engine.run import loop_watch
from replayforge.engine.run.loop_watch import LIMIT_SECONDS, LoopWatch, is_waiting
from replayforge.telemetry import Telemetry
from tests.support.clock import FakeClock
from tests.support.house import House, open_house
from tests.support.polling import persist
from tests.support.probe import Probe

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
HELD_SECONDS_MAX = 20


@pytest.fixture
def every_stall_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of who has just been warned of, as that may be nobody in particular."""
    monkeypatch.setattr(loop_watch, "WARNED_EVERY_SECONDS", 0.0)


def hold_until_named(named: threading.Event) -> None:
    """Stand still until somebody has named who stands still."""
    named.wait(HELD_SECONDS_MAX)


def hold_the_interpreter(named: threading.Event) -> None:
    """Stand still in foreign code that lets no thread run, as a regular expression can, until there is time to look."""
    ctypes.PyDLL(None).usleep(900_000)
    hold_until_named(named)


def holding_handlers(named: threading.Event) -> Handlers:
    handlers = Handlers()

    @handlers.on("holds.directly")
    async def holds_directly(event: Event, context: Context) -> None:
        hold_until_named(named)

    @handlers.on("holds.interpreter")
    async def holds_interpreter(event: Event, context: Context) -> None:
        hold_the_interpreter(named)

    @handlers.on("holds.child")
    async def holds_child(event: Event, context: Context) -> None:
        async def holds_child_task() -> None:
            hold_until_named(named)

        await asyncio.create_task(holds_child_task())

    @handlers.on("holds.callback")
    async def holds_callback(event: Event, context: Context) -> None:
        done = asyncio.get_running_loop().create_future()

        def holds_callback_of_the_loop() -> None:
            hold_until_named(named)
            done.set_result(None)

        asyncio.get_running_loop().call_soon(holds_callback_of_the_loop)
        await done

    return handlers


async def blocked(
    directory: Path, event_type: str, look: Callable[[House, dict[str, Any]], Coroutine[Any, Any, None]]
) -> None:
    """Have a handler hold the loop until that is told, whatever held it before on a busy machine."""
    named = threading.Event()
    async with open_house(directory, holding_handlers(named)) as house:
        mine: list[dict[str, Any]] = []

        def listen(name: str, count: int, fields: dict[str, Any]) -> None:
            if name == "loop.blocked" and "holds_" in fields["stack"]:
                house.daemon.loop_watch.lately.clear()  # only the longest is kept
                mine.append(fields)
                named.set()

        house.daemon.telemetry.listen(listen)
        sent = await house.send(event_type)
        await persist(lambda: asyncio.sleep(0, named.is_set() and house.daemon.loop_watch.current is None))
        fields = mine[0]
        await house.reaches(sent, "succeeded")
        await look(house, {**fields, "sent": sent})


@pytest.mark.usefixtures("every_stall_is_told")
@pytest.mark.parametrize("loop", list(LOOPS))
@pytest.mark.parametrize("event_type", ["holds.directly", "holds.interpreter"])
def test_handler_is_named_while_it_holds_the_loop(tmp_path: Path, loop: str, event_type: str) -> None:
    """The warning comes while the loop stands still, and says handler, event, and where, in the user's frames only."""
    function = event_type.replace(".", "_")

    async def look(house: House, fields: dict[str, Any]) -> None:
        handler = f"{__name__}.holding_handlers.<locals>.{function}"
        assert (fields["handler"], fields["event_id"], fields["event_type"]) == (handler, fields["sent"], event_type)
        assert function in fields["stack"]
        assert "worker.py" not in fields["stack"]
        assert "asyncio" not in fields["stack"]
        report = await house.get("/api/convergence")
        assert any(handler in issue and fields["sent"] in issue for issue in report["issues"]), report
        async with house.http.get("/metrics") as response:
            text = await response.text()
        assert f'replayforge_loop_blocked_total{{handler="{handler}"}} 1.0' in text
        assert f'replayforge_loop_blocked_seconds_total{{handler="{handler}"}}' in text
        (late,) = re.findall(r"^replayforge_loop_lag_seconds_sum (.*)$", text, re.MULTILINE)
        assert float(late) > LIMIT_SECONDS / 2 or event_type == "holds.interpreter"  # where the thread stood still, too
        async with house.http.get("/runtime") as response:
            assert function in await response.text()

    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(blocked(tmp_path, event_type, look))


@pytest.mark.usefixtures("every_stall_is_told")
@pytest.mark.parametrize("loop", list(LOOPS))
@pytest.mark.parametrize("event_type", ["holds.child", "holds.callback"])
def test_what_a_handler_left_on_the_loop_is_named_by_its_place(tmp_path: Path, loop: str, event_type: str) -> None:
    """A child task that holds the loop is named as its attempt is, a callback by file, line and function at least."""

    async def look(house: House, fields: dict[str, Any]) -> None:
        assert event_type.replace(".", "_") + "_" in fields["stack"]
        if (event_type, loop) != ("holds.callback", "uvloop"):  # whose callbacks do not tell who made them
            assert (fields["event_id"], fields["event_type"]) == (fields["sent"], event_type)
        report = await house.get("/api/convergence")
        assert any("test_loop_watch.py:" in issue for issue in report["issues"]), report

    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(blocked(tmp_path, event_type, look))


async def test_a_process_that_stood_still_as_a_whole_accuses_nobody() -> None:
    """After SIGSTOP, or on a machine that had no time for us, an idle loop is late, and nobody held it."""
    clock, telemetry = FakeClock(), Telemetry()
    probe = Probe(telemetry)
    watch = LoopWatch(Handlers(), telemetry, clock=clock.monotonic)
    watch.loop, watch.thread_id, watch.turned_at = asyncio.get_running_loop(), threading.get_ident(), clock.monotonic()
    clock.advance(5)

    def look_once_the_loop_waits() -> None:
        while not is_waiting(sys._current_frames()[watch.thread_id]):
            continue
        watch.look()

    await asyncio.to_thread(look_once_the_loop_waits)
    assert probe.counts["loop.blocked"] == 0
    assert watch.issues() == []


async def test_one_handler_is_warned_about_every_ten_seconds_at_most() -> None:
    """Each time is counted, but a handler that holds the loop again and again does not fill the log."""
    clock, telemetry = FakeClock(), Telemetry()
    probe = Probe(telemetry)
    watch = LoopWatch(Handlers(), telemetry, clock=clock.monotonic)
    watch.loop, watch.thread_id, watch.turned_at = asyncio.get_running_loop(), threading.get_ident(), clock.monotonic()
    for _ in range(30):
        clock.advance(1)
        looking = threading.Thread(target=watch.look)
        looking.start()
        looking.join()  # the loop is held here
        watch.turned_at = clock.monotonic()
        watch.look()
    assert (probe.counts["loop.blocked"], probe.counts["loop.turned"]) == (3, 3)
    assert watch.count == {"none": 30}
    assert watch.seconds["none"] == pytest.approx(30)
