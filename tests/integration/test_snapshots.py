"""How often the ledger is read for what people and programs look at."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from replayforge.domain.errors import Unavailable
from replayforge.engine.report.convergence import Convergence
from replayforge.stores.driver import Steps, Transaction
from tests.support.house import House
from tests.support.polling import persist

PAGES = ("/", "/events", "/dead-letters", "/runtime", "/workflows", "/handlers", "/replays", "/send")
FIGURES = ("/api/convergence", "/api/metrics", "/metrics")
HTML = {"Accept": "text/html"}


@dataclass
class CountedReads:
    """Lets reads of the ledger through to the store as long as `opened` is set, and counts them."""

    read: Callable[[Any], Awaitable[Any]]
    opened: asyncio.Event = field(default_factory=asyncio.Event)
    count: int = 0
    error: Exception | None = None
    meanwhile: Callable[[], Awaitable[object]] | None = None  # is done once, after a read of the ledger

    async def __call__(self, transaction: Any) -> Any:
        if "Store.standing" not in transaction.__qualname__:
            return await self.read(transaction)
        self.count += 1
        await self.opened.wait()
        if self.error is not None:
            raise self.error
        found = await self.read(transaction)
        if self.meanwhile is not None:
            meanwhile, self.meanwhile = self.meanwhile, None
            await meanwhile()
        return found


@pytest.fixture
def ledger_reads(house: House, monkeypatch: pytest.MonkeyPatch) -> CountedReads:
    """Count what the daemon asks its store's driver for."""
    reads = CountedReads(house.daemon.store.driver.read)
    monkeypatch.setattr(house.daemon.store.driver, "read", reads)
    reads.opened.set()
    return reads


async def status_of(house: House, path: str, **headers: str) -> int:
    async with house.http.get(path, headers=HTML | headers) as response:
        await response.read()
        return response.status


async def test_an_answer_reads_the_ledger_once(house: House, ledger_reads: CountedReads) -> None:
    """Whatever of a page tells of the ledger, tells of the same one: head, health, tiles, lists, and live regions.

    That holds while the store is away as well: the page that says so has not asked a second time.
    """
    event_id = await house.send()
    await house.send("fails")
    await house.converges()
    for path in (*PAGES, *FIGURES, f"/events/{event_id}"):
        ledger_reads.count = 0
        assert await status_of(house, path) == 200
        assert ledger_reads.count == 1, path
    ledger_reads.count = 0
    assert await status_of(house, "/", **{"X-Live-Regions": "health,tiles,ledger"}) == 200
    assert ledger_reads.count == 1
    ledger_reads.count, ledger_reads.error = 0, Unavailable("The store is away.")
    assert await status_of(house, "/events") == 503
    assert ledger_reads.count == 1


async def test_open_pages_share_what_they_read(
    house: House, ledger_reads: CountedReads, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hint makes every open page ask at once: while the ledger is read for one, all others wait for one reading more,
    which begins after they have asked, so that none is shown less than what it was told of."""
    waiting, read = [0], house.daemon.convergence.read

    async def counted() -> Convergence:
        waiting[0] += 1
        return await read()

    async def all_wait() -> bool:
        return waiting[0] == len(asked)

    monkeypatch.setattr(house.daemon.convergence, "read", counted)
    ledger_reads.opened.clear()
    asked = [asyncio.ensure_future(status_of(house, "/workflows", **{"X-Live-Regions": "health"})) for _ in range(20)]
    assert await persist(all_wait)
    ledger_reads.opened.set()
    assert await asyncio.gather(*asked) == [200] * len(asked)
    assert ledger_reads.count <= 2


async def test_what_is_due_is_counted_at_the_moment_of_the_ledger(house: House, ledger_reads: CountedReads) -> None:
    """An event that moves on just after it was counted is still one that had not ended, whatever became of it."""
    event_id = await house.send("postponed", {"seconds": 5})
    await house.reaches(event_id, "retrying")
    ledger_reads.count, ledger_reads.meanwhile = 0, lambda: house.daemon.replayer.cancel(event_id, "no more")
    assert not (await house.daemon.convergence.read()).converged
    assert (await house.daemon.convergence.read()).converged


async def test_what_every_page_shows_is_one_transaction(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each further one is a way to the database and back, or to another thread, while events arrive."""
    asked: list[list[str]] = []
    read = house.daemon.store.driver.read

    def written_down(transaction: Transaction[Any], names: list[str]) -> Steps[Any]:
        steps = transaction()
        try:
            statement = next(steps)
            while True:
                names.append(getattr(statement, "name", ""))
                statement = steps.send((yield statement))
        except StopIteration as end:
            return end.value

    async def noted(transaction: Transaction[Any]) -> Any:
        names: list[str] = []
        asked.append(names)
        return await read(lambda: written_down(transaction, names))

    monkeypatch.setattr(house.daemon.store.driver, "read", noted)
    await house.daemon.convergence.read()
    assert ["cursors", "tallies", "due_soon", "oldest_queued", "blocked_behind"] in asked
