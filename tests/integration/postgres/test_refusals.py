"""A PostgreSQL that answers, but with a refusal: work waits and comes again, and no event pays with an attempt."""

import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest

from replayforge.domain.errors import Unavailable
from replayforge.engine.care import database_transactions
from replayforge.engine.handlers.registry import Handlers
from replayforge.stores.driver import Fetch, Steps
from tests.integration.postgres.conftest import CALL_SECONDS, OpenHouse
from tests.support.house import House, open_house
from tests.support.polling import persist
from tests.support.postgres_server import PostgresServer

# What a trigger does instead of letting a statement through, and what the server says then.
REFUSALS = {
    "statement time-out": (f"PERFORM pg_sleep({CALL_SECONDS * 20})", "statement timeout"),
    "serialization failure": ("RAISE SQLSTATE '40001' USING MESSAGE = 'not serializable'", "not serializable"),
    "deadlock": ("RAISE SQLSTATE '40P01' USING MESSAGE = 'deadlock detected'", "deadlock detected"),
    "disk full": ("RAISE SQLSTATE '53100' USING MESSAGE = 'No space left on device'", "No space left"),
    "too many connections": ("RAISE SQLSTATE '53300' USING MESSAGE = 'too many clients'", "too many clients"),
}
MOMENTS = {"dispatch": "INSERT ON events", "claim": "UPDATE ON events", "outcome": "INSERT ON attempts"}


@pytest.fixture
async def administrator(url: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection to the store's own schema, past the daemon."""
    connection = await asyncpg.connect(url)
    yield connection
    connection.terminate()


@asynccontextmanager
async def refusing(administrator: asyncpg.Connection, moment: str, action: str) -> AsyncIterator[None]:
    """Let the server refuse what the daemon wants at a moment of an event's life."""
    await administrator.execute(
        f"CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {action}; RETURN NEW; END $$;"
        f"CREATE TRIGGER refuse BEFORE {MOMENTS[moment]} FOR EACH STATEMENT EXECUTE FUNCTION refuse()"
    )
    yield
    await administrator.execute("DROP FUNCTION refuse CASCADE")


async def accept(house: House, count: int = 10) -> list[str]:
    """Send events one by one; each is answered 201, whatever becomes of the database."""
    ids = []
    for _ in range(count):
        status, answer = await house.post("/api/events", {"workflow_id": "w", "event_type": "test", "payload": {}})
        assert status == 201, answer
        ids.append(answer["id"])
    return ids


async def failure(house: House, words: str) -> None:
    """Return when the daemon has told of a failure of the store in the server's words."""

    async def told() -> bool:
        return any(words in str(fields["error"]) for fields in house.probe.fields("store.failed"))

    await persist(told)


async def all_succeed_at_once(house: House, ids: list[str], effects: Counter[str]) -> None:
    """Every event has succeeded with its first start: nothing was lost, charged, buried or run again."""
    ledger = await house.converges(30)
    assert (ledger["accepted"], ledger["succeeded"], ledger["lost"]) == (len(ids), len(ids), 0)
    assert effects == Counter(ids)
    events = [await house.event(event_id) for event_id in ids]
    assert {(one["starts"], one["attempt_count"], len(one["attempts"])) for one in events} == {(1, 0, 1)}
    assert house.probe.counts["event.dead_lettered"] == house.probe.counts["chore.failed"] == 0
    assert house.probe.counts["service.crashed"] == house.probe.counts["worker.crashed"] == 0


@pytest.mark.parametrize(
    ("refusal", "moment"),
    [*(("statement time-out", moment) for moment in MOMENTS), *((name, "outcome") for name in list(REFUSALS)[1:])],
)
async def test_refused_statements(
    refusal: str,
    moment: str,
    request: pytest.FixtureRequest,
    administrator: asyncpg.Connection,
    open_daemon: OpenHouse,
    effects: Counter[str],
) -> None:
    """While the server refuses a step of an event's way, events are accepted; once it lets them through, all end."""
    action, words = REFUSALS[refusal]
    url = request.getfixturevalue("impatient_url" if refusal == "statement time-out" else "url")
    async with open_daemon(url) as house:
        async with refusing(administrator, moment, action):
            ids = await accept(house)
            await failure(house, words)
            ids += await accept(house)
        await all_succeed_at_once(house, ids, effects)


async def test_transactions_that_lose_now_and_then(
    url: str, administrator: asyncpg.Connection, open_daemon: OpenHouse, effects: Counter[str]
) -> None:
    """Of the commits of outcomes two in three fail as not serializable: they are made again at once, nobody notices."""
    await administrator.execute("CREATE SEQUENCE tries")
    action = "IF nextval('tries') % 3 <> 0 THEN RAISE SQLSTATE '40001'; END IF"
    async with open_daemon(url) as house:
        async with refusing(administrator, "outcome", action):
            ids = await accept(house, 30)
            await house.converges()
        assert await administrator.fetchval("SELECT last_value FROM tries") >= 3
        assert house.probe.fields("store.failed") == []
        await all_succeed_at_once(house, ids, effects)


@pytest.mark.slow
async def test_every_transaction_serializable_by_default(
    url: str,
    server: PostgresServer,
    open_daemon: OpenHouse,
    handlers: Handlers,
    effects: Counter[str],
    tmp_path: Path,
) -> None:
    """Where the database says that every transaction be serializable, two daemons still never stand in each other's
    way: ours say for themselves how strict they are."""
    async with changed(url, default_transaction_isolation="serializable"):
        settings = {"store.url": url}
        async with open_daemon(url) as house, open_house(tmp_path / "other", handlers, settings) as other:
            ids = [*await accept(house, 40), *await accept(other, 40)]
            await other.converges()
            await all_succeed_at_once(house, ids, effects)
            assert [*house.probe.fields("store.failed"), *other.probe.fields("store.failed")] == []
    assert "could not serialize access" not in server.log()


@pytest.mark.slow
async def test_read_only_database(
    url: str,
    administrator: asyncpg.Connection,
    open_daemon: OpenHouse,
    effects: Counter[str],
) -> None:
    """A database that was made read-only is not written to past that word: work waits until it may be written again."""
    async with open_daemon(url) as house:
        ids = await accept(house)
        await house.converges()
        async with changed(url, default_transaction_read_only="on"):
            ids += await accept(house)
            await failure(house, "read-only transaction")
            assert await administrator.fetchval("SELECT count(*) FROM events") == 10
            assert (await house.get("/health/ready"))["status"] in ("ok", "degraded")
            assert await house.event(ids[0])
        ids += await accept(house)
        await all_succeed_at_once(house, ids, effects)


@pytest.mark.slow
async def test_idle_transaction_is_ended_by_the_server(
    impatient_url: str, server: PostgresServer, open_daemon: OpenHouse, effects: Counter[str]
) -> None:
    """When user code blocks the event loop in the middle of a transaction, the server ends it rather than let it hold
    its locks: nothing of it has happened, and the work is done again."""
    async with open_daemon(impatient_url) as house:
        ids = await accept(house)

        def dawdle() -> Steps[None]:
            yield Fetch("claim_events", {"owner": "", "now_us": 0, "seqs": [1]})
            time.sleep(CALL_SECONDS * 1.5)
            yield Fetch("ping")

        with pytest.raises(Unavailable):
            await house.daemon.store.driver.write(dawdle)
        assert "idle-in-transaction timeout" in server.log()
        ids += await accept(house)
        await all_succeed_at_once(house, ids, effects)


SESSION = "SELECT state, wait_event FROM pg_stat_activity WHERE pid = $1"


async def test_what_a_daemon_holds_that_stands_still_in_the_middle_of_a_statement_is_freed(
    url: str, administrator: asyncpg.Connection, open_daemon: OpenHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither time-out of the server ends a session between the halves of a statement; other daemons do, if it is ours.

    What a stopped daemon had locked went on being locked for as long as it was stopped.
    """
    schema = url.partition("search_path=")[2].partition("&")[0]
    stopped = await asyncpg.connect(url.partition("?")[0], server_settings={"application_name": "replayforge"})
    process = stopped.get_server_pid()

    async def sessions() -> list[asyncpg.Record]:
        found: list[asyncpg.Record] = await administrator.fetch(SESSION, process)
        return found

    async with open_daemon(url, **{"janitor.sweep_seconds": 60}) as house:
        await stopped.execute(f"BEGIN; LOCK TABLE {schema}.pauses IN ACCESS SHARE MODE")
        await stopped.prepare(f"SELECT * FROM {schema}.pauses")  # its other half would follow
        assert [tuple(row) for row in await sessions()] == [("active", "ClientRead")]
        await house.daemon.store.end_stalled_transactions(60)
        assert await sessions() != []
    monkeypatch.setattr(database_transactions, "STALLED_SECONDS", 0.2)
    async with open_daemon(url, **{"janitor.sweep_seconds": 0.2}) as house:

        async def gone() -> bool:
            return await sessions() == []

        await persist(gone)
        await house.probe.saw("store.unlocked")
    stopped.terminate()


async def test_long_transaction_is_named_until_it_ends(
    url: str, administrator: asyncpg.Connection, open_daemon: OpenHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A transaction that somebody holds open for too long is named, with what ends it, and forgotten once it ended."""
    monkeypatch.setattr(database_transactions, "LONG_TRANSACTION_SECONDS", 0.5)
    async with open_daemon(url, **{"janitor.disk_seconds": 0.1}) as house:

        async def named() -> list[str]:
            issues = (await house.get("/api/convergence"))["issues"]
            return [issue for issue in issues if "transaction" in issue]

        assert await named() == []
        await administrator.execute("BEGIN; SELECT 'somebody went for lunch'")
        (issue,) = await persist(named)
        assert "went for lunch" in issue
        assert f"pg_terminate_backend({administrator.get_server_pid()})" in issue
        assert house.probe.fields("store.held")[0]["process"] == administrator.get_server_pid()
        async with house.http.get("/runtime") as page:
            assert "went for lunch" in await page.text()
        await administrator.execute("ROLLBACK")

        async def forgotten() -> bool:
            return await named() == []

        await persist(forgotten)


@asynccontextmanager
async def changed(url: str, **settings: str) -> AsyncIterator[None]:
    """Give the whole server another setting, which also its open sessions take over, and take it back."""
    administrator = await asyncpg.connect(url, server_settings={"default_transaction_read_only": "off"})
    try:
        for name, value in settings.items():
            await administrator.execute(f"ALTER SYSTEM SET {name} = '{value}'")
        await reload(administrator, url)
        yield
    finally:
        for name in settings:
            await administrator.execute(f"ALTER SYSTEM RESET {name}")
        await reload(administrator, url)
        await administrator.close()


async def reload(administrator: asyncpg.Connection, url: str) -> None:
    """Let every session read the settings anew before its next statement.

    The server has told all of them when it starts a session that knows the new ones.
    """
    before = await administrator.fetchval("SELECT pg_conf_load_time()")
    await administrator.execute("SELECT pg_reload_conf()")

    async def reloaded() -> bool:
        fresh = await asyncpg.connect(url)
        try:
            return bool(await fresh.fetchval("SELECT pg_conf_load_time()") > before)
        finally:
            await fresh.close()

    await persist(reloaded)


async def test_a_database_that_is_read_only_is_seen_by_the_last_write(
    open_daemon: OpenHouse, url: str, administrator: asyncpg.Connection
) -> None:
    """While reads work and no write does, readiness is degraded and events are accepted; then both are well again."""
    async with open_daemon(url) as house:
        role = await administrator.fetchval("SELECT current_user")

        async def make(read_only: str) -> None:
            await administrator.execute("SET default_transaction_read_only = off")
            await administrator.execute(f'ALTER ROLE "{role}" SET default_transaction_read_only = {read_only}')
            await administrator.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE pid <> pg_backend_pid() AND usename = current_user"
            )

        async def stands(status: str) -> bool:
            answer = await house.get("/health/ready")
            return bool(answer["checks"]["store"]["status"] == status)

        async def is_refused() -> bool:
            answer = await house.get("/health/ready")
            return "cannot be written" in str(answer["checks"]["store"]["detail"])

        await persist(lambda: stands("ok"))
        try:
            await make("on")
            sent = await house.send("counted")
            await persist(is_refused)  # before that it may be no more than its connections that were cut
            assert (await house.get("/health/ready"))["status"] == "degraded"
        finally:
            await make("off")
        await persist(lambda: stands("ok"))
        await house.reaches(sent, "succeeded", "dead_lettered", timeout_seconds=30)
