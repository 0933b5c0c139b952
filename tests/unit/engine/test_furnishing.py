"""What one handler changes for all of them is put back and named; what would end others is refused."""

import asyncio
import decimal
import gc
import socket
import sys
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from replayforge.engine.furnishing import Furnishing
from replayforge.event_loop import SelectorLoop, loop_factory
from replayforge.telemetry import attempt_context
from replayforge.threads import DaemonThreads

CHANGES: dict[str, Callable[[], object]] = {
    "recursion limit": lambda: sys.setrecursionlimit(sys.getrecursionlimit() + 7),
    "task factory": lambda: asyncio.get_running_loop().set_task_factory(None),
    "exception handler": lambda: asyncio.get_running_loop().set_exception_handler(lambda loop, found: None),
    "debug mode of the loop": lambda: asyncio.get_running_loop().set_debug(True),
    "garbage collector": gc.disable,
    "garbage collector's thresholds": lambda: gc.set_threshold(1, 1, 1),
    "switch interval": lambda: sys.setswitchinterval(1.5),
    "profile function of threads": lambda: threading.setprofile(lambda *_: None),
    "default time-out of sockets": lambda: socket.setdefaulttimeout(0.001),
    "decimal.DefaultContext": lambda: setattr(decimal.DefaultContext, "prec", 2),
    "warning filters": lambda: warnings.simplefilter("error"),
}


@pytest.fixture(params=[loop_factory(), SelectorLoop])
def runner(request: pytest.FixtureRequest) -> Any:
    with asyncio.Runner(loop_factory=request.param) as runner:
        yield runner


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_put_back_and_named(runner: asyncio.Runner, name: str) -> None:
    """Each is as it was, and nothing else is named."""

    async def change() -> tuple[list[str], list[str]]:
        furnishing = Furnishing(asyncio.get_running_loop(), DaemonThreads(1, "handlers"))
        furnishing.install()
        before = [look() for look in furnishing.looks]
        CHANGES[name]()
        restored = furnishing.restore()
        assert [look() for look in furnishing.looks] == before
        return restored, furnishing.restore()

    assert runner.run(change()) == ([name], [])


async def set_executor() -> None:
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))


REFUSED: dict[str, Callable[[], Any]] = {
    "set the loop's default executor": set_executor,
    "shut down the loop's default executor": lambda: asyncio.get_running_loop().shutdown_default_executor(),
    "close the generators": lambda: asyncio.get_running_loop().shutdown_asyncgens(),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_hits_all_others_is_refused_to_handlers(runner: asyncio.Runner, what: str) -> None:
    """The daemon's own generators live on, and so do the threads of other handlers."""

    async def ask() -> None:
        async def numbers() -> Any:
            yield 1
            yield 2

        ours = numbers()
        assert await anext(ours) == 1
        token = attempt_context.set({"event_id": "e"})
        try:
            with pytest.raises(RuntimeError, match=f"may not {what}"):
                await REFUSED[what]()
        finally:
            attempt_context.reset(token)
        assert await anext(ours) == 2
        assert await asyncio.to_thread(int, "3") == 3

    runner.run(ask())
