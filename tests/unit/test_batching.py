"""Join the open batch: one flush at a time, everybody served, errors told to those they concern."""

import asyncio

import pytest

from replayforge.batching import TURNS_MAX, Batcher
from replayforge.domain.errors import Unavailable


class Flushes:
    """Records batches; a flush waits at the gate while that is closed."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.begun = asyncio.Event()
        self.error: Exception | None = None
        self.running = 0

    async def flush(self, items: list[int]) -> list[int]:
        self.running += 1
        assert self.running == 1, "two flushes at once"
        self.batches.append(items)
        self.begun.set()
        await self.gate.wait()
        self.running -= 1
        if self.error is not None:
            raise self.error
        return [item * 10 for item in items]


async def test_a_lone_item_is_flushed_at_once() -> None:
    """With nothing in flight an item needs no company and no timer."""
    flushes = Flushes()
    assert await Batcher(flushes.flush).add(1) == 10
    assert flushes.batches == [[1]]


async def test_those_who_come_meanwhile_share_the_next_flush() -> None:
    """While one flush runs, later items gather and go together, in order, each with its own result."""
    flushes = Flushes()
    batcher = Batcher(flushes.flush)
    flushes.gate.clear()
    futures = [batcher.submit(0)]
    await flushes.begun.wait()
    futures += [batcher.submit(item) for item in range(1, 8)]
    flushes.gate.set()
    assert await asyncio.gather(*futures) == [item * 10 for item in range(8)]
    assert flushes.batches == [[0], list(range(1, 8))]


async def test_those_who_come_in_neighbouring_turns_share_one_flush() -> None:
    """What several requests bring in one burst takes a few turns of the loop to arrive, and is flushed together."""
    flushes = Flushes()
    batcher = Batcher(flushes.flush)

    async def arrive(turns: int) -> int:
        for _ in range(turns):
            await asyncio.sleep(0)
        return await batcher.add(turns)

    await asyncio.gather(*(arrive(turns) for turns in range(0, 2 * TURNS_MAX // 3, 2)))
    assert flushes.batches == [list(range(0, 2 * TURNS_MAX // 3, 2))]


@pytest.mark.parametrize("company", [1, 2, 3])
async def test_who_was_alone_is_not_kept_waiting_again(company: int) -> None:
    """After a lone item the next one waits for nobody; once some have come together, it waits for company again."""
    flushes = Flushes()
    batcher = Batcher(flushes.flush)
    await batcher.add(0)
    first, turns = batcher.submit(1), 0
    while not flushes.batches[1:]:
        await asyncio.sleep(0)
        turns += 1
    assert turns == 1
    flushes.gate.clear()
    together = [batcher.submit(item) for item in range(company)]
    flushes.gate.set()
    await asyncio.gather(first, *together)
    flushes.begun.clear()
    later, turns = batcher.submit(5), 0
    while not flushes.begun.is_set():
        await asyncio.sleep(0)
        turns += 1
    await later
    assert (turns == 1) is (company == 1)


async def test_a_burst_without_end_does_not_put_a_flush_off_for_ever() -> None:
    """While every turn brings one more item, a flush begins all the same."""
    flushes = Flushes()
    batcher = Batcher(flushes.flush)
    futures = [batcher.submit(0)]
    while not flushes.begun.is_set():
        await asyncio.sleep(0)
        futures.append(batcher.submit(len(futures)))
    await asyncio.gather(*futures)
    assert TURNS_MAX <= len(flushes.batches[0]) <= TURNS_MAX + 2


async def test_batches_are_bounded() -> None:
    """No flush is larger than items_max."""
    flushes = Flushes()
    batcher = Batcher(flushes.flush, items_max=3)
    await asyncio.gather(*(batcher.submit(item) for item in range(8)))
    assert [len(batch) for batch in flushes.batches] == [3, 3, 2]


async def test_waiting_is_bounded() -> None:
    """Beyond pending_max an item is refused at once, and nothing of it is flushed."""
    flushes = Flushes()
    batcher = Batcher(flushes.flush, pending_max=2)
    futures = [batcher.submit(1), batcher.submit(2)]
    with pytest.raises(Unavailable):
        batcher.submit(3)
    await asyncio.gather(*futures)
    assert flushes.batches == [[1, 2]]


async def test_an_error_reaches_everybody_of_the_batch_and_nobody_else() -> None:
    """A flush that raises tells all of its callers; the next flush is served as ever."""
    flushes = Flushes()
    batcher = Batcher(flushes.flush)
    flushes.error = Unavailable("away")
    results = await asyncio.gather(*(batcher.add(item) for item in range(3)), return_exceptions=True)
    assert [str(result) for result in results] == ["away"] * 3
    flushes.error = None
    assert await batcher.add(4) == 40


class Rude(BaseException):
    """An error that no `except Exception` sees."""


@pytest.mark.parametrize("error", [ValueError("a defect"), Rude(), asyncio.CancelledError()])
async def test_a_runner_that_dies_leaves_nobody_waiting(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Whatever ends it, before a flush or in one: those who wait are told, and the next item is flushed by another."""
    flushes = Flushes()
    batcher = Batcher(flushes.flush, items_max=1)

    async def die(*_: object) -> None:
        raise error

    places: list[tuple[object, str]] = [(batcher.queue.company, "come"), (batcher, "flush")]
    for owner, name in places:
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, die)
            futures = [batcher.submit(item) for item in range(3)]
            assert batcher.runner is not None
            async with asyncio.timeout(30):
                await asyncio.gather(batcher.runner, *futures, return_exceptions=True)
        assert all(future.done() and (future.cancelled() or future.exception()) for future in futures)
    assert await batcher.add(4) == 40


async def test_a_runner_that_is_cancelled_before_it_began_holds_nobody_up() -> None:
    """Whoever waits for the end of everything is told of that end, and the next item is flushed by another."""
    batcher = Batcher(Flushes().flush)
    future = batcher.submit(1)
    assert batcher.runner is not None
    batcher.runner.cancel()
    async with asyncio.timeout(30):
        await batcher.drain()
        assert future.cancelled()
        assert await batcher.add(4) == 40


async def test_a_flush_with_too_few_results_fails_whom_it_forgot() -> None:
    """Nobody waits for a result that does not come."""

    async def forget(items: list[int]) -> list[int]:
        return items[:1]

    answers = await asyncio.gather(*[Batcher(forget).submit(1)], return_exceptions=True)
    assert answers == [1]
    batcher = Batcher(forget)
    first, second = batcher.submit(1), batcher.submit(2)
    assert await first == 1
    with pytest.raises(ValueError, match="shorter"):
        await second


async def test_what_others_put_in_the_place_of_sleep_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """A handler that replaces functions of asyncio does not stop the flushes."""
    for name in ("sleep", "wait", "shield"):
        monkeypatch.setattr(asyncio, name, None)
    assert await Batcher(Flushes().flush).add(1) == 10


async def test_a_cancelled_caller_takes_nothing_along() -> None:
    """A caller that goes away abandons its wait; its item and its neighbours are flushed."""
    flushes = Flushes()
    batcher = Batcher(flushes.flush)
    flushes.gate.clear()
    gone = asyncio.create_task(batcher.add(1))
    stays = asyncio.create_task(batcher.add(2))
    await flushes.begun.wait()
    gone.cancel()
    flushes.gate.set()
    assert await stays == 20
    with pytest.raises(asyncio.CancelledError):
        await gone
    assert [item for batch in flushes.batches for item in batch] == [1, 2]


async def test_drain_waits_for_everything() -> None:
    """Drain returns once nothing waits and nothing is in flight; without work it returns at once."""
    flushes = Flushes()
    batcher = Batcher(flushes.flush, items_max=1)
    await batcher.drain()
    futures = [batcher.submit(item) for item in range(5)]
    await batcher.drain()
    assert all(future.done() for future in futures)
