"""Join the open batch: callers hand in work and wait, one flush serves all who came while the last one ran."""

import asyncio
from asyncio import create_task, get_running_loop, sleep, wait
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Generic, TypeVar

from replayforge.domain.errors import Unavailable

Item = TypeVar("Item")
Result = TypeVar("Result")


TURNS_MAX = 16
QUIET_TURNS = 2


class Company:
    """What arrives together is handled together: says how long the first items of a batch wait for further ones.

    Where one item came alone, the next one that is alone waits for nobody: there is nothing to be gained.
    """

    def __init__(self, enough: int) -> None:
        self.enough = enough
        self.expected = True

    async def come(self, items: Sequence[object]) -> None:
        """Let the loop turn while that brings more items.

        Two turns that bring nothing end the wait (a request needs one from the socket to its handler), and so do
        `enough` items, or `TURNS_MAX` turns. A turn of a loop that has nothing to do costs microseconds.
        """
        if self.expected or len(items) > 1:
            await self.gather(items)
        self.expected = len(items) > 1

    async def gather(self, items: Sequence[object]) -> None:
        """Let the loop turn while that brings more items."""
        quiet = 0
        for _ in range(TURNS_MAX):
            count = len(items)
            if count >= self.enough or quiet == QUIET_TURNS:
                return
            await sleep(0)
            quiet = quiet + 1 if len(items) == count else 0


class BatchQueue(Generic[Item]):
    """Collects items and flushes them in batches, one batch at a time, with no timer; nobody waits for a single one.

    An item waits while an earlier batch is flushed, and for a few turns of the loop if these bring it company; where
    the last item went alone, one that is alone does not wait for it. `flush` gets the items in the order they came,
    `items_max` at most, and answers for each of them, whatever happens. `forsake` gets those that will never be
    flushed, with the error that has ended it all.
    """

    def __init__(
        self,
        flush: Callable[[list[Item]], Awaitable[None]],
        forsake: Callable[[list[Item], BaseException], None],
        *,
        items_max: int = 500,
    ) -> None:
        self.flush = flush
        self.forsake = forsake
        self.items_max = items_max
        self.pending: list[Item] = []
        self.company = Company(items_max)
        self.runner: asyncio.Task[None] | None = None

    def hand_in(self, item: Item) -> None:
        """Have an item flushed."""
        self.pending.append(item)
        if self.runner is None:
            self.runner = create_task(self.run(), name="batcher")

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
                await self.company.come(self.pending)
                batch = self.pending[: self.items_max]
                del self.pending[: self.items_max]
                await self.flush(batch)
        except BaseException as error:
            self.give_up(error)
            raise
        finally:
            self.runner = None

    def give_up(self, error: BaseException) -> None:
        """Forsake what was not flushed; the next item begins anew."""
        self.runner = None
        left, self.pending[:] = self.pending.copy(), []
        self.forsake(left, error)


class Batcher(Generic[Item, Result]):
    """Collects items from many callers and flushes them in batches, each caller with its own result.

    `flush` gets the items in the order they came and returns one result for each, in that order. When it raises, every
    caller of that batch gets the error. `items_max` bounds one batch, `pending_max` what may wait: beyond it `add`
    raises Unavailable at once.
    """

    def __init__(
        self,
        flush: Callable[[list[Item]], Awaitable[Sequence[Result]]],
        *,
        items_max: int = 500,
        pending_max: int = 100_000,
    ) -> None:
        self.flush = flush
        self.pending_max = pending_max
        self.queue: BatchQueue[tuple[Item, asyncio.Future[Result]]] = BatchQueue(
            self.flush_batch, refuse, items_max=items_max
        )

    @property
    def runner(self) -> "asyncio.Task[None] | None":
        """The task that flushes, while there is something to flush."""
        return self.queue.runner

    async def add(self, item: Item) -> Result:
        """Return the result for `item` after the flush that carried it.

        A caller that is cancelled abandons its wait, never the item: what was handed in is flushed all the same.
        """
        return await self.submit(item)

    def submit(self, item: Item) -> asyncio.Future[Result]:
        """Hand in `item` now; the future resolves after the flush that carries it."""
        if len(self.queue.pending) >= self.pending_max:
            raise Unavailable(f"{self.pending_max:,} requests are waiting already; try again in a moment.")
        future: asyncio.Future[Result] = get_running_loop().create_future()
        self.queue.hand_in((item, future))
        return future

    async def drain(self) -> None:
        """Return when everything handed in so far has been flushed."""
        await self.queue.drain()

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
