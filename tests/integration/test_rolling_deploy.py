"""Two daemons with different code on one store: a run goes on with the code that parked it, as long as that lives."""

from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from replayforge import Context, Event, Handlers
from tests.support.house import House, open_house
from tests.support.polling import persist
from tests.support.postgres_server import require_postgres, shared_server


def code(version: str) -> Handlers:
    """Return handlers that say which code has come to the end."""
    handlers = Handlers()
    handlers.version = version
    handlers.signal("scanned")

    @handlers.on("order")
    async def order(event: Event, ctx: Context) -> Any:
        await ctx.wait_for("scanned")
        return version

    return handlers


async def knows(house: House, *labels: str) -> None:
    """Return once a daemon knows of just this other code that runs elsewhere."""

    async def look() -> bool:
        found = house.daemon.reader.desk.preference
        return (frozenset() if found is None else found.labels) == frozenset(labels)

    assert await persist(look)


async def woken_by(house: House, event_id: str, workflow: str) -> Any:
    """Return with which code a run has ended that a signal has woken, which one daemon was sent."""
    await house.send("scanned", {}, workflow_id=workflow)
    return (await house.reaches(event_id, "succeeded"))["result"]


async def test_a_run_wakes_where_the_code_runs_that_parked_it(tmp_path: Path) -> None:
    """Whoever has accepted the signal; once no daemon has that code any more, whoever is there goes on with it."""
    require_postgres()
    settings = {
        "store.url": shared_server().new_schema(),
        "janitor.sweep_seconds": 0.2,
        "workers.heartbeat_seconds": 0.2,
    }
    async with AsyncExitStack() as old_one, open_house(tmp_path / "new", code("v2"), settings) as new:
        old = await old_one.enter_async_context(open_house(tmp_path / "old", code("v1"), settings))
        first, second = [await old.send("order", workflow_id=name) for name in ("first", "second")]
        for event_id in (first, second):
            assert (await old.reaches(event_id, "waiting"))["label"] == "v1"
        await knows(new, "v1")
        await knows(old, "v2")
        assert await woken_by(new, first, "first") == "v1"
        await old_one.aclose()
        await knows(new)
        assert await woken_by(new, second, "second") == "v2"
