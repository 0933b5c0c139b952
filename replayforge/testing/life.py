"""What belongs to one daemon inside somebody else's process, so that all of it can be killed and nothing else."""

import asyncio
import ctypes
import functools
import inspect
from asyncio import current_task, get_running_loop, sleep, wait
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from contextvars import Context, copy_context
from dataclasses import replace
from typing import Any, TypeVar, cast
from weakref import WeakKeyDictionary, WeakSet

from replayforge import crashpoints, event_loop
from replayforge.engine.handlers.functions import plain_function
from replayforge.engine.handlers.registry import Handler
from replayforge.event_loop import Contained
from replayforge.telemetry import attempt_context

T = TypeVar("T")

UNANSWERED = ("ingest.received", "log.appended")
LAST_TURNS = 10  # of the loop, in which an answer that was on its way arrives
CANCELS_MAX = 20
ALLOWANCE_SECONDS = 0.5


class Crashed(Exception):
    """The daemon died at a crash point; `await forge.restart()` starts another one on its directory."""


class NotCrashed(AssertionError):
    """The daemon lives, although it was to have died by now."""


class Life:
    """One daemon, from its start to its end: the context that its tasks have in common, and those tasks.

    `over` says that it is dead, at `point` if that was a crash.
    """

    def __init__(self, abandon: Callable[[], None]) -> None:
        self.abandon = abandon
        self.over = False
        self.point = ""
        self.tasks: WeakSet[asyncio.Task[Any]] = WeakSet()
        self.ended: asyncio.Future[None] = get_running_loop().create_future()
        self.context = copy_context()
        self.context.run(crashpoints.victim.set, self)

    def arm(self, specification: str) -> None:
        """Have it die when it comes to a crash point, given as POINT or POINT:N; raises Refused for an unknown one."""
        self.context.run(crashpoints.arm, [specification])

    def die(self, point: str) -> None:
        """See crashpoints.Victim: from now on nothing is written, and no code of users goes on."""
        if not self.over:
            self.point = point
            self.end()
        if current_task() is not None:  # what a callback does after its point is the loop's business
            raise asyncio.CancelledError(f"the daemon died at {point}")

    def end(self) -> None:
        """Be over."""
        self.over = True
        if not self.ended.done():
            self.ended.set_result(None)
        self.abandon()
        crashpoints.disarm(self)

    async def do(self, work: Coroutine[Any, Any, T]) -> T:
        """Do something as part of the daemon; raises Crashed when it is dead, or dies meanwhile."""
        if self.over:
            work.close()
            raise self.crashed()
        task = get_running_loop().create_task(work, context=self.context.copy())
        try:
            await wait([task, cast("asyncio.Future[Any]", self.ended)], return_when=asyncio.FIRST_COMPLETED)
            await wait([task], timeout=ALLOWANCE_SECONDS)
        finally:  # what waits for something that a dead daemon would have to do waits for ever
            task.cancel()
            await wait([task])
        # What was on its way to the outside as the daemon died arrives, unless the point lies before the answer.
        if task.cancelled() or (self.over and (self.point in UNANSWERED or task.exception() is not None)):
            raise self.crashed()
        return task.result()

    def crashed(self) -> Crashed:
        """Return what to raise for something that is not done any more."""
        return Crashed(f"The daemon died at {self.point}." if self.point else "The daemon has ended.")

    async def bury(self) -> None:
        """Return once none of its tasks runs any more; call it when the life is over."""
        for _ in range(LAST_TURNS):
            await sleep(0)
        for _ in range(CANCELS_MAX):
            alive = [task for task in self.tasks if not task.done()]
            if not alive:
                return
            for task in alive:
                task.cancel()
            await wait(alive, timeout=ALLOWANCE_SECONDS)


class Mortal(Contained):
    """A coroutine of user code that goes on only as long as its daemon lives: then not even its `finally` runs."""

    def __init__(self, coroutine: Any, identity: Mapping[str, Any], life: Life) -> None:
        super().__init__(coroutine, identity)
        self.life = life

    def send(self, value: Any) -> Any:
        """See Contained.send."""
        self.check_life()
        return super().send(value)

    def throw(self, *error: Any) -> Any:
        """See Contained.throw."""
        self.check_life()
        return super().throw(*error)

    def check_life(self) -> None:
        """Leave the coroutine where it stands when its daemon is dead; its task ends as one that was cancelled."""
        if self.life.over:
            leave(self.coroutine)
            raise asyncio.CancelledError("the daemon died")

    def __await__(self) -> Any:
        return self

    def __iter__(self) -> Any:
        return self

    def __next__(self) -> Any:
        return self.send(None)


def leave(coroutine: Any) -> None:
    """Leave a coroutine of users, whose daemon was killed, where it stands.

    To destroy it would run its `finally` blocks, which no killed process does; so it is never destroyed, not even when
    the interpreter ends. One that has not begun has none to run.
    """
    if inspect.iscoroutine(coroutine) and inspect.getcoroutinestate(coroutine) == inspect.CORO_CREATED:
        coroutine.close()
    else:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(coroutine))


def mortal(handler: Handler, life: Callable[[], Life]) -> Handler:
    """Return the same handler, called as part of the daemon that lives at that time."""
    function = handler.function

    def begin(*arguments: Any) -> Any:
        crashpoints.victim.set(life())
        value = function(*arguments)
        if not inspect.isawaitable(value):
            return value
        coroutine = value if inspect.iscoroutine(value) else awaited(value)
        return Mortal(coroutine, attempt_context.get() or {}, life())

    @functools.wraps(plain_function(function))
    async def called(*arguments: Any) -> Any:
        return await begin(*arguments)

    wrapped = called if handler.is_async else functools.wraps(plain_function(function))(begin)
    return replace(handler, function=wrapped)


async def awaited(value: Any) -> Any:
    """Return what something comes to that can be awaited."""
    return await value


# The task factories

factories: "WeakKeyDictionary[asyncio.AbstractEventLoop, tuple[int, Any]]" = WeakKeyDictionary()


@contextmanager
def tasks_by_life(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """Have tasks made as their daemon needs them, and those of no daemon as they were made before."""
    count, former = factories.get(loop, (0, loop.get_task_factory()))
    factories[loop] = (count + 1, former)
    if count == 0:
        loop.set_task_factory(functools.partial(make_task, former))
    try:
        yield
    finally:
        count, former = factories.pop(loop)
        if count > 1:
            factories[loop] = (count - 1, former)
        elif getattr(loop.get_task_factory(), "func", None) is make_task:
            loop.set_task_factory(former)


def make_task(
    former: Any, loop: asyncio.AbstractEventLoop, coroutine: Any, *, context: Context | None = None, **options: Any
) -> "asyncio.Task[Any]":
    """Make a task: one of a daemon's own, one of user code that it runs, or one that is no concern of any daemon."""
    life: Any = crashpoints.victim.get() if context is None else context.get(crashpoints.victim)
    if not isinstance(life, Life):
        if context is not None:
            options["context"] = context
        return asyncio.Task(coroutine, loop=loop, **options) if former is None else former(loop, coroutine, **options)
    identity = attempt_context.get() if context is None else context.get(attempt_context)
    if identity is not None:
        coroutine = Mortal(coroutine, identity, life)
    task = event_loop.make_task(loop, coroutine, context=context, **options)
    life.tasks.add(task)
    return task
