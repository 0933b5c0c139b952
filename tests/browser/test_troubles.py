"""Pages of a daemon that has nothing to show, or whose Redis or PostgreSQL is away."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import HANDLERS, QUICK, reaches, send
from tests.browser.tabs import Look
from tests.support.daemon_process import DaemonProcess
from tests.support.postgres_server import PostgresServer, require_postgres
from tests.support.redis_server import MISSING, RedisServer, redis_binaries

SLOWLY_MS = 30_000
Server = RedisServer | PostgresServer


@pytest.fixture
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server | None]:
    """The server that the daemon leans on, if the test names one."""
    match getattr(request, "param", None):
        case "redis":
            if not redis_binaries():
                pytest.skip(MISSING)
            with RedisServer(next(iter(redis_binaries().values())), tmp_path) as redis:
                yield redis
        case "store":
            require_postgres()
            with PostgresServer() as postgres:
                yield postgres
        case _:
            yield None


@pytest.fixture
def daemon(request: pytest.FixtureRequest, tmp_path: Path, server: Server | None) -> Iterator[DaemonProcess]:
    """A daemon on that server."""
    place = {f"{request.node.callspec.params['server']}.url": server.url} if server else {}
    with DaemonProcess(tmp_path / "daemon", HANDLERS, [], QUICK | place) as process:
        yield process.start()


def test_an_empty_daemon_says_what_to_do_next(daemon: DaemonProcess, look: Look) -> None:
    """Every list that is empty says so, the daemon is healthy all the same, and there is a way on."""
    tab = look("/").live()
    expect(tab.page.locator("#health-word")).to_have_text("Healthy")
    for path, words in (
        ("/", "No events yet"),
        ("/events", "No events yet. Send one"),
        ("/workflows", "No workflows yet"),
        ("/dead-letters", "No dead letters"),
        ("/replays", "No bulk replays"),
    ):
        expect(tab.open(path).live().page.locator("main")).to_contain_text(words)
    assert tab.complaints == []


@pytest.mark.parametrize(("server", "part"), [("redis", "the stream"), ("store", "the store")], indirect=["server"])
def test_a_part_that_is_away_is_named_until_it_is_back(
    server: Server, part: str, daemon: DaemonProcess, look: Look
) -> None:
    """The page says what is missing, stays usable, events are accepted; the word is good again by itself."""
    tab = look("/runtime").live()
    expect(tab.page.locator("#health-word")).to_have_text("Healthy")
    server.kill()
    expect(tab.page.locator("#health")).to_contain_text(part, timeout=SLOWLY_MS)
    event_id = send(daemon, "shop.step")
    fresh = look("/events")
    expect(fresh.page.locator("#health")).to_contain_text(part)
    expect(fresh.page.locator("nav.main")).to_be_visible()
    server.start()
    expect(tab.page.locator("#health")).not_to_contain_text(part, timeout=SLOWLY_MS)
    reaches(daemon, event_id, "succeeded")
    expect(fresh.open("/events").page.locator("#main tbody tr")).to_have_count(1)
