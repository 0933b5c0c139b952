"""Join the open batch: callers hand in work and wait, one flush serves all who came while the last one ran."""

import asyncio
from asyncio import create_task, get_running_loop, shield, sleep, wait
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Generic, TypeVar

from replayforge.domain.errors import Unavailable

Item = TypeVar("Item")
Result = TypeVar("Result")


TURNS_MAX = 16
QUIET_TURNS = 2


async def gathered(items: Sequence[object], enough: int) -> None:
    """Let the loop turn while that brings more items, so that what arrives together is handled together.

    Two turns that bring nothing end the wait (a request needs one from the socket to its handler), and so do
    `enough` items, or `TURNS_MAX` turns. A turn of a loop that has nothing to do costs microseconds.
    """
    quiet = 0
    for _ in range(TURNS_MAX):
        count = len(items)
        if count >= enough or quiet == QUIET_TURNS:
            return
        await sleep(0)
        quiet = quiet + 1 if len(items) == count else 0


class Batcher(Generic[Item, Result]):
    """Collects items from many callers and flushes them in batches, one batch at a time, with no timer.

    An item waits while an earlier flush is running, and for a few turns of the loop if these bring it company. `flush`
    gets the items in the order they came and returns one result for each, in that order. When it raises, every caller
    of that batch gets the error. `items_max` bounds one flush, `pending_max` what may wait: beyond it `add` raises
    Unavailable at once.
    """

    def __init__(
        self,
        flush: Callable[[list[Item]], Awaitable[Sequence[Result]]],
        *,
        items_max: int = 500,
        pending_max: int = 100_000,
    ) -> None:
        self.flush = flush
        self.items_max = items_max
        self.pending_max = pending_max
        self.pending: list[tuple[Item, asyncio.Future[Result]]] = []
        self.runner: asyncio.Task[None] | None = None

    async def add(self, item: Item) -> Result:
        """Return the result for `item` after the flush that carried it.

        A caller that is cancelled abandons its wait, never the item: what was handed in is flushed all the same.
        """
        return await shield(self.submit(item))

    def submit(self, item: Item) -> asyncio.Future[Result]:
        """Hand in `item` now; the future resolves after the flush that carries it."""
        if len(self.pending) >= self.pending_max:
            raise Unavailable(f"{self.pending_max:,} requests are waiting already; try again in a moment.")
        future: asyncio.Future[Result] = get_running_loop().create_future()
        self.pending.append((item, future))
        if self.runner is None:
            self.runner = create_task(self.run(), name="batcher")
        return future

    async def drain(self) -> None:
        """Return when everything handed in so far has been flushed."""
        while (runner := self.runner) is not None:
            await wait([runner])
            if self.runner is runner:  # it was cancelled before it began, so nothing of it has run
                self.give_up(asyncio.CancelledError())

    async def run(self) -> None:
        """Flush until nothing waits. Whatever ends that before, nobody waits in vain, and the next item begins anew."""
        try:
            while self.pending:
                await gathered(self.pending, self.items_max)
                batch = self.pending[: self.items_max]
                del self.pending[: self.items_max]
                await self.flush_batch(batch)
        except BaseException as error:
            self.give_up(error)
            raise
        finally:
            self.runner = None

    def give_up(self, error: BaseException) -> None:
        """Let nobody wait any more for what was not flushed; the next item begins anew."""
        self.runner = None
        refuse(self.pending, error)
        self.pending.clear()

    async def flush_batch(self, batch: list[tuple[Item, asyncio.Future[Result]]]) -> None:
        """Flush one batch and hand each caller its result, or all of them the error."""
        try:
            results = await self.flush([item for item, _ in batch])
            for (_, future), result in zip(batch, results, strict=True):
                if not future.done():
                    future.set_result(result)
        except Exception as error:
            refuse(batch, error)
        except BaseException as error:
            refuse(batch, error)
            raise


def refuse(batch: Iterable[tuple[object, asyncio.Future[Any]]], error: BaseException) -> None:
    """Hand the error to every caller that still waits; one that would end whoever awaits it is only named."""
    if not isinstance(error, (Exception, asyncio.CancelledError)):
        error = RuntimeError(f"the flush ended with {type(error).__name__}")
    for _, future in batch:
        if future.done():
            continue
        if isinstance(error, asyncio.CancelledError):
            future.cancel()
        else:
            future.set_exception(error)
            # A caller that was cancelled meanwhile will not look; the error is not lost, others carry it.
            future.exception()
