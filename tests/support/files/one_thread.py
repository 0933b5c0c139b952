"""A log in one thread: whoever waits for the writer does its work, so that a life of a log costs no switch."""

import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from replayforge.forgelog import committer, consumers, log
from replayforge.forgelog.committer import Committer
from replayforge.forgelog.log import ForgeLog


class WriterInTurn:
    """Stands in for the writer's thread; what is queued when somebody joins it is done then."""

    def __init__(self, *, target: Callable[[], None], **named: object) -> None:
        self.target = target

    def start(self) -> None:
        return

    def join(self) -> None:
        self.target()


async def at_once(function: Callable[..., Any], *arguments: Any) -> Any:
    return function(*arguments)


def call_soon(writer: Committer, function: Callable[..., None], *arguments: object) -> None:
    """As Committer.call does, without waking a loop that is this thread's own."""
    if writer.loop is None:
        function(*arguments)
    else:
        writer.loop.call_soon(function, *arguments)


def without_threads(patch: pytest.MonkeyPatch) -> None:
    """Logs that are opened from now on have no thread; give them their turn with `take_turn`."""
    patch.setattr(committer, "threading", SimpleNamespace(Thread=WriterInTurn, Event=threading.Event))
    patch.setattr(Committer, "call", call_soon)
    for module in (consumers, log):
        patch.setattr(module, "in_thread", at_once)


def take_turn(log: ForgeLog) -> None:
    """Do what the writer's thread would do now; nothing where there is one."""
    writer = log.committer
    while isinstance(writer.thread, WriterInTurn) and writer.queue and writer.work_once():
        pass


def fall_idle(log: ForgeLog) -> None:
    """Do what the writer's thread does after a while without work."""
    try:
        log.committer.idle()
    except BaseException as error:  # as its `run` does
        log.committer.poison(error)
