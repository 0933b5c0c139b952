"""Watches the event loop from a thread of its own, and says who holds it when it does not turn."""

import asyncio
import contextlib
import math
import selectors
import sys
import threading
import traceback
from asyncio import current_task, get_running_loop
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path
from time import monotonic
from types import FrameType
from typing import Any

from replayforge.domain.clock import to_us
from replayforge.domain.durations import Durations
from replayforge.engine.handlers.registry import Handlers
from replayforge.event_loop import attempt_called_by, calls_back, run_to_the_end
from replayforge.telemetry import Telemetry

LIMIT_SECONDS = 0.25
LOOK_SECONDS = 0.1
REMEMBERED_SECONDS = 300.0
WARNED_EVERY_SECONDS = 10.0
FRAMES_MAX = 20
STACK_CHARACTERS_MAX = 8_000
NO_HANDLER = "none"
OURS = str(Path(__file__).parents[2])
ASYNCIO = str(Path(asyncio.__file__).parent)
RUNNER_CODE = run_to_the_end.__code__
LOOP_FUNCTIONS = frozenset({"run", "_run", "_run_once", "run_forever", "run_until_complete"})

Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Stall:
    """One time in which the loop did not turn. `handler` is "none" where no attempt held it; `seconds` grow until it
    turns again."""

    handler: str
    event_id: str
    event_type: str
    task: str
    place: str
    stack: str
    began: float
    seconds: float

    @property
    def ended(self) -> float:
        """The moment up to which the loop is known to have stood still."""
        return self.began + self.seconds

    def in_words(self, now: float) -> str:
        """Say who held the loop, for how long, and how long ago."""
        who = f"The handler {self.handler} (event {self.event_id})" if self.event_id else f"Not a handler ({self.task})"
        ago = max(0.0, now - self.ended)
        return f"{who} held the event loop for {self.seconds:.1f} s, {ago:.0f} s ago, at {self.place}."


class LoopWatch:
    """Warns as soon as the loop has not turned for `limit_seconds`, with the stack that holds it, while it lasts.

    `count` and `seconds` are by handler. A warning about the same handler comes every ten seconds at most. A thread
    looks ten times a second where the loop stands; only a loop that runs something is asked for a sign, so that one
    with nothing to do is not woken up. `lags` are how long the loop took to give its sign, `idle_looks` how often it
    only waited when it was looked at, which is no lag.
    """

    def __init__(
        self,
        handlers: Handlers,
        telemetry: Telemetry,
        *,
        limit_seconds: float = LIMIT_SECONDS,
        clock: Clock = monotonic,
    ) -> None:
        self.handlers = handlers
        self.telemetry = telemetry
        self.limit_seconds = limit_seconds
        self.clock = clock
        self.count: dict[str, int] = {}
        self.seconds: dict[str, float] = {}
        self.lately: dict[str, Stall] = {}  # the longest of each handler, for a while
        self.current: Stall | None = None
        self.warned: dict[str, float] = {}
        self.told = False
        self.turned_at = math.inf  # what a start does before the first turn concerns nobody yet
        self.asked = False  # and the loop has not answered yet
        self.asked_at = math.inf
        self.lags = Durations()
        self.idle_looks = 0  # by the thread; the loop counts the rest
        self.loop: asyncio.AbstractEventLoop | None = None
        self.thread_id = 0
        self.stopping = threading.Event()
        self.thread: threading.Thread | None = None

    # On the loop

    def start(self) -> None:
        """Begin to watch the running loop, whose thread this is; a second time changes nothing."""
        if self.thread is not None:
            return
        self.loop, self.thread_id = get_running_loop(), threading.get_ident()
        self.ask()
        self.thread = threading.Thread(target=self.watch, name="loop watch", daemon=True)
        self.thread.start()

    def turn(self) -> None:
        """Say that the loop turns."""
        self.turned_at, self.asked = self.clock(), False
        self.lags.note(to_us(max(0.0, self.turned_at - self.asked_at)))

    def stop(self) -> None:
        """Watch no more; harmless before the start and a second time."""
        self.stopping.set()
        if self.thread is not None:
            self.thread.join(1.0)

    # On the watching thread

    def watch(self) -> None:
        """Look again and again until told to stop."""
        while not self.stopping.wait(self.pause_seconds()):
            self.look()

    def pause_seconds(self) -> float:
        """Return when to look again: as soon as the loop could have stood still for too long."""
        left = self.turned_at + self.limit_seconds - self.clock()
        return left if 0 < left < LOOK_SECONDS and self.current is None else LOOK_SECONDS

    def look(self) -> None:
        """Take in whether the loop has turned since the last look."""
        frame = sys._current_frames().get(self.thread_id)  # noqa: SLF001 - the only way to see it
        if frame is None:
            return
        if not self.asked:
            if is_waiting(frame):
                self.turned_at = self.clock()
                self.idle_looks += 1
            else:
                self.ask()
        now, turned_at = self.clock(), self.turned_at
        if self.current is not None and turned_at > self.current.began:
            self.end(self.current, turned_at)
        if now - turned_at < self.limit_seconds:
            return
        if self.current is not None:
            self.current = replace(self.current, seconds=now - self.current.began)
        else:
            self.begin(frame, turned_at, now)

    def ask(self) -> None:
        """Have the loop give a sign at its next turn."""
        assert self.loop is not None
        self.asked, self.asked_at = True, self.clock()
        with contextlib.suppress(RuntimeError):  # it has been closed
            self.loop.call_soon_threadsafe(self.turn)

    def begin(self, frame: FrameType, began: float, now: float) -> None:
        """Note who holds the loop; nobody does when it only waits, which is a process that was stopped as a whole."""
        if is_waiting(frame) or self.turned_at > began:
            return
        task, identity = holder(self.loop, frame)
        event_type = str(identity.get("event_type", ""))
        found = self.handlers.find(event_type) if event_type else None
        handler = found.name if found is not None else NO_HANDLER
        self.current = Stall(
            handler=handler,
            event_id=str(identity.get("event_id", "")),
            event_type=event_type,
            task=task,
            place=place_of(frame),
            stack=stack_of(frame),
            began=began,
            seconds=now - began,
        )
        self.told = now >= self.warned.get(handler, now)
        if self.told:
            self.warned[handler] = now + WARNED_EVERY_SECONDS
            self.report("loop.blocked", self.current, stack=self.current.stack)

    def end(self, stall: Stall, at: float) -> None:
        """Add a stall up, now that the loop turns again."""
        stall = replace(stall, seconds=at - stall.began)
        self.count[stall.handler] = self.count.get(stall.handler, 0) + 1
        self.seconds[stall.handler] = self.seconds.get(stall.handler, 0.0) + stall.seconds
        known = self.lately.get(stall.handler)
        if known is None or stall.seconds >= known.seconds or at - known.ended > REMEMBERED_SECONDS:
            self.lately[stall.handler] = stall
        self.current = None
        if self.told:
            self.report("loop.turned", stall)

    def report(self, name: str, stall: Stall, **more: Any) -> None:
        """Tell telemetry of a stall."""
        named = {"event_id": stall.event_id, "event_type": stall.event_type, "task": stall.task}
        fields: dict[str, Any] = {key: value for key, value in named.items() if value}
        self.telemetry.emit(name, handler=stall.handler, seconds=round(stall.seconds, 3), **fields, **more)

    # For people

    def issues(self) -> list[str]:
        """Say what holds the loop, or held it within the last five minutes: the longest time of each handler."""
        now, current = self.clock(), self.current
        stalls = [*self.lately.copy().values(), *([current] if current is not None else [])]
        return [stall.in_words(now) for stall in stalls if now - stall.ended < REMEMBERED_SECONDS]


def holder(loop: asyncio.AbstractEventLoop | None, frame: FrameType) -> tuple[str, Mapping[str, Any]]:
    """Return the name of what runs on the loop, and the identity of the attempt that it is part of, if it is."""
    task = None if loop is None else current_task(loop)
    if task is not None:
        known = getattr(task, "identity", None) or getattr(task.get_coro(), "identity", None)
        return task.get_name(), known or {}
    call = next(filter(calls_back, outward(frame)), None)
    return "a callback", (attempt_called_by(call) if call is not None else None) or {}


def outward(frame: FrameType | None) -> Iterator[FrameType]:
    """Yield a frame and those that called it."""
    while frame is not None:
        yield frame
        frame = frame.f_back


def is_loop(frame: FrameType) -> bool:
    """Tell whether a frame is the loop's own rather than of what it runs; uvloop has none, so its runner's is asked."""
    code = frame.f_code
    return code is RUNNER_CODE or (code.co_filename.startswith(ASYNCIO) and code.co_name in LOOP_FUNCTIONS)


def is_waiting(frame: FrameType) -> bool:
    """Tell whether a thread at this frame waits in its loop for something to do."""
    return is_loop(frame) or frame.f_code.co_filename == selectors.__file__


def user_frames(frame: FrameType) -> list[FrameType]:
    """Return the frames that the loop runs, the innermost first: the user's, or ours where there are none of theirs."""
    running = list(takewhile(lambda one: not is_loop(one), outward(frame)))
    theirs = list(running)
    while theirs and theirs[-1].f_code.co_filename.startswith(OURS):
        theirs.pop()
    return theirs or running


def place_of(frame: FrameType) -> str:
    """Return where the user's code stands: file, line and function."""
    at = next((one for one in user_frames(frame) if "/lib/python" not in one.f_code.co_filename), frame)
    return f"{at.f_code.co_filename}:{at.f_lineno} in {at.f_code.co_name}"


def stack_of(frame: FrameType) -> str:
    """Return the stack at a frame as text, the innermost last."""
    chosen = [(one, one.f_lineno) for one in user_frames(frame)[:FRAMES_MAX]]
    lines = traceback.StackSummary.extract(iter(reversed(chosen))).format()
    return "".join(lines)[-STACK_CHARACTERS_MAX:]
