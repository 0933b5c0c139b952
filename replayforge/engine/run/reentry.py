"""Re-entry order: new steps are held back until recorded answers have taken effect and the handler is quiet."""

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

# So many turns of the loop in a row in which no task of the handler could run. An answer needs some to get from the
# task that hears it to those that it concerns: through a group that cancels its other tasks, through nested gathers.
QUIET_TURNS = 12


class Reentry:
    """Holds steps without a record back while recorded answers are still at work in the handler's tasks.

    A recorded failure in a task group must cancel its siblings before one of them has its effect again. `unheard` are
    the records that the code has not asked for; it may never do so, since code changes. So a task that waits for
    something outside the journal counts as quiet, and a failure that it has yet to ask for holds nobody back.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, tasks: Callable[[], Iterable["asyncio.Task[Any]"]]) -> None:
        self.loop = loop
        self.tasks = tasks
        self.unheard: set[Any] = set()
        self.over = True
        self.held: list[asyncio.Future[None]] = []
        self.quiet_turns = 0

    def begin(self, records: Iterable[Any]) -> None:
        """Take it that these are recorded, and that the code has heard of none."""
        self.unheard.update(records)
        self.over = not self.unheard

    def heard(self, record: Any) -> None:
        """Note that the code has asked for one."""
        self.unheard.discard(record)

    async def wait(self) -> None:
        """Return when every recorded answer that was asked for has had its consequences."""
        if self.over:
            return
        future: asyncio.Future[None] = self.loop.create_future()
        self.held.append(future)
        if len(self.held) == 1:
            self.quiet_turns = 0
            self.loop.call_soon(self.look)
        await future

    def look(self) -> None:
        """Let those go that are held back once nothing of the handler has run for some turns of the loop."""
        self.quiet_turns = self.quiet_turns + 1 if all(is_blocked(task) for task in self.tasks()) else 0
        if self.quiet_turns < QUIET_TURNS:
            self.loop.call_soon(self.look)
            return
        self.over = not self.unheard
        held, self.held = self.held, []
        for future in held:
            if not future.done():
                future.set_result(None)


def is_blocked(task: "asyncio.Task[Any]") -> bool:
    """Tell whether a task has ended, or waits for something that has not come."""
    waiter = waiter_of(task)
    return task.done() or (waiter is not None and not waiter.done())


def waiter_of(task: "asyncio.Task[Any]") -> "asyncio.Future[Any] | None":
    """Return what a task waits for, None for one that can run; nothing else says it."""
    waiter: asyncio.Future[Any] | None = task._fut_waiter  # type: ignore[attr-defined]  # noqa: SLF001
    return waiter
