"""A store that answers and cannot be written: readiness says so, and it is over by itself."""

from pathlib import Path

from replayforge.stores.sqlite import SqliteDriver, in_thread
from tests.integration.conftest import echo_handlers
from tests.support.house import House, open_house
from tests.support.polling import persist


async def set_pages_max(house: House, count: int) -> None:
    """Let SQLite believe that its file system has room for so many pages: it is full as on a full disk."""
    driver = house.daemon.store.driver
    assert isinstance(driver, SqliteDriver)
    await in_thread(driver.writer, lambda raw: raw.execute(f"PRAGMA max_page_count = {count}").fetchone())


async def test_a_full_disk_is_seen_by_the_last_write(tmp_path: Path) -> None:
    """While writes fail, readiness is degraded with the cause and convergence names it; then both are well again."""
    async with open_house(tmp_path / "data", echo_handlers(), {"stream.backend": "embedded"}) as house:
        await house.converges()

        async def store_check() -> dict[str, str]:
            check: dict[str, str] = (await house.get("/health/ready"))["checks"]["store"]
            return check

        # Small writes still find room now and then, so each look is taken as a whole.
        async def is_full() -> bool:
            ready = await house.get("/health/ready")
            return ready["status"] == "degraded" and "full" in ready["checks"]["store"]["detail"]

        async def is_an_issue() -> bool:
            issues = (await house.get("/api/convergence"))["issues"]
            return any("cannot be written" in issue and "full" in issue for issue in issues)

        async def is_well() -> bool:
            return (await store_check())["status"] == "ok"

        assert await is_well()
        await set_pages_max(house, 1)
        sent = [await house.send(payload={"x": "x" * 50_000}) for _ in range(3)]
        await persist(is_full)
        await persist(is_an_issue)
        await set_pages_max(house, 1_000_000)
        for one in sent:
            await house.reaches(one, "succeeded")
        await persist(is_well)
        assert not any("cannot be written" in issue for issue in (await house.get("/api/convergence"))["issues"])
