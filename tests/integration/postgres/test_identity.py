"""A daemon finds its own log again, or does not start: on a shared store nothing else would tell that it is gone."""

import shutil
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from replayforge import assembly
from replayforge.assembly import opened
from replayforge.domain.errors import Refused
from replayforge.engine.handlers.registry import Handlers
from replayforge.telemetry import Telemetry
from tests.support.house import House, configuration, open_house


@pytest.fixture(autouse=True)
def stops_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Daemons that are stopped with something left that nobody dispatches do not wait for it."""
    monkeypatch.setattr(assembly, "DRAIN_SECONDS", 0.2)


def settings(url: str, **more: Any) -> dict[str, Any]:
    return {"store.url": url, "workers.lease_seconds": 3, "workers.heartbeat_seconds": 0.5, **more}


def house(directory: Path, url: str, handlers: Handlers, **more: Any) -> AbstractAsyncContextManager[House]:
    return open_house(directory, handlers, settings(url, **more))


async def accept_unstored(directory: Path, url: str, handlers: Handlers, **more: Any) -> None:
    """Have a daemon store three events and accept five further ones that it cannot dispatch any more."""
    async with house(directory, url, handlers, **more) as one:
        await one.send_many(3)
        await one.converges()
        await one.daemon.supervisor.stop(["dispatcher"], 5)
        await one.send_many(5)


async def refused(directory: Path, url: str, handlers: Handlers, **more: Any) -> str:
    with pytest.raises(Refused) as refusal:
        async with opened(configuration(directory, settings(url, **more)), handlers=handlers):
            pass
    return str(refusal.value)


@asynccontextmanager
async def adopting(directory: Path, url: str, handlers: Handlers, **more: Any) -> AsyncIterator[list[str]]:
    """Open the daemon with --adopt-store and pass on what it says is given up."""
    telemetry, said = Telemetry(), list[str]()
    telemetry.listen(lambda name, _, fields: said.append(fields["accepted"]) if "adopted" in name else None)
    config = configuration(directory, settings(url, **more))
    async with opened(config, handlers=handlers, telemetry=telemetry, adopt_store=True):
        yield said


@pytest.mark.parametrize("loss", ["directory", "contents", "moved in the configuration"])
async def test_missing_log_is_refused(tmp_path: Path, url: str, handlers: Handlers, loss: str) -> None:
    """Without the log it had, a daemon does not begin another: the refusal names log, place and what would be lost."""
    data, log = tmp_path / "data", tmp_path / "volume"
    await accept_unstored(data, url, handlers, **{"log.dir": str(log)})
    if loss == "moved in the configuration":
        log = tmp_path / "elsewhere"
    else:
        shutil.rmtree(log)
    if loss == "contents":
        log.mkdir(mode=0o700)
    said = await refused(data, url, handlers, **{"log.dir": str(log)})
    assert "offsets 4 to 8 (5 records)" in said
    assert str(log) in said
    assert "--adopt-store" in said
    assert not list(log.glob("*")), "a refused start must not begin a new log"
    assert await refused(data, url, handlers, **{"log.dir": str(log)}), "a refusal must not heal the next start"


async def test_lost_log_can_be_given_up(tmp_path: Path, url: str, handlers: Handlers) -> None:
    """--adopt-store says what it gives up, begins a new log, and what waits in the old one stays named."""
    data = tmp_path / "data"
    await accept_unstored(data, url, handlers)
    shutil.rmtree(data / "log")
    async with adopting(data, url, handlers) as said:
        assert "offsets 4 to 8 (5 records)" in said[0]
    async with house(data, url, handlers) as one:
        report = await one.get("/api/convergence")
        (gone,) = report["unreachable_nodes"]
        assert (gone["given_up"], gone["waiting"]) == (True, 5)
        assert [issue for issue in report["issues"] if "gave up its log" in issue and "4 to 8" in issue]
        assert report["ledger"]["lost"] == 0
        event_id = await one.send()
        assert (await one.reaches(event_id, "succeeded"))["log_id"] == one.daemon.log.log_id


async def test_log_that_came_back_goes_on(tmp_path: Path, url: str, handlers: Handlers) -> None:
    """A log that was given up and found again can be adopted again, and its events are stored then."""
    data = tmp_path / "data"
    await accept_unstored(data, url, handlers)
    (data / "log").rename(tmp_path / "unmounted")
    async with adopting(data, url, handlers):
        pass
    (data / "log").rename(tmp_path / "the-new-one")
    (tmp_path / "unmounted").rename(data / "log")
    assert "but node" in await refused(data, url, handlers)
    async with adopting(data, url, handlers):
        pass
    async with house(data, url, handlers) as one:
        assert (await one.converges())["succeeded"] == 8


async def test_log_of_another_node_is_refused(tmp_path: Path, url: str, handlers: Handlers) -> None:
    """A log that a symbolic link, a setting or a copy puts into another node's hands is refused by both names."""
    for name in ("one", "two"):
        async with house(tmp_path / name, url, handlers) as daemon:
            await daemon.send()
            await daemon.converges()
    (tmp_path / "two" / "log").rename(tmp_path / "two-log")
    (tmp_path / "two" / "log").symlink_to(tmp_path / "one" / "log")
    assert "but node" in await refused(tmp_path / "two", url, handlers)
    (tmp_path / "two" / "log_id").unlink()
    assert "but node" in await refused(tmp_path / "two", url, handlers), "the store remembers as well"


async def test_copied_node_name_is_refused(tmp_path: Path, url: str, handlers: Handlers) -> None:
    """A data directory that only bears the name of a known node does not begin a log under that name."""
    async with house(tmp_path / "one", url, handlers) as daemon:
        await daemon.send()
        await daemon.converges()
        log_id = daemon.daemon.log.log_id
    (tmp_path / "clone").mkdir()
    shutil.copy(tmp_path / "one" / "node", tmp_path / "clone" / "node")
    assert log_id in await refused(tmp_path / "clone", url, handlers)


async def test_data_directory_of_another_node_is_refused(tmp_path: Path, url: str, handlers: Handlers) -> None:
    """A log whose data directory was lost and made anew is refused under its new name, by the name it had."""
    log = {"log.dir": str(tmp_path / "log")}
    async with house(tmp_path / "one", url, handlers, **log) as daemon:
        name = daemon.daemon.store.node
        await daemon.send()
        await daemon.converges()
    assert f"node {name}" in await refused(tmp_path / "fresh", url, handlers, **log)


async def test_refusal_names_all_that_another_store_does_not_know(tmp_path: Path, url: str, handlers: Handlers) -> None:
    """A log whose store was exchanged is refused with its whole range, however little of it had been mirrored."""
    data, mirror = tmp_path / "data", {"janitor.mirror_seconds": 3600}
    async with house(data, url, handlers, **mirror) as daemon:
        await daemon.send_many(2)
        await daemon.converges()
        daemon.daemon.log.bind_store(daemon.daemon.store.store_id, 2)
        await daemon.send_many(3)
        await daemon.converges()
        shutil.copytree(data, tmp_path / "killed")
    other = f"sqlite:///{tmp_path}/fresh.db"
    assert "offsets 1 to 5" in await refused(tmp_path / "killed", other, handlers)


async def test_copies_of_one_log_that_went_on_apart(tmp_path: Path, url: str, handlers: Handlers) -> None:
    """A data directory that was copied while it ran, and both daemons went on: who comes late is refused, not passed
    over, and --adopt-store says up to where its own events are given up."""
    data, copy = tmp_path / "data", tmp_path / "copy"
    async with house(data, url, handlers) as daemon:
        await daemon.send_many(4)
        await daemon.converges()
        await daemon.daemon.supervisor.stop(["dispatcher"], 5)
        shutil.copytree(data, copy)
        await daemon.send_many(8)
    async with house(copy, url, handlers) as daemon:
        await daemon.send_many(6)
        assert (await daemon.converges())["succeeded"] == 10
    said = await refused(data, url, handlers)
    assert "at offset 10 the store has event" in said
    assert "up to offset 10, has no rows" in said
    async with adopting(data, url, handlers) as given_up:
        assert "up to offset 10, has no rows" in given_up[0]


async def test_draining_is_noted_for_whoever_takes_over(tmp_path: Path, url: str, handlers: Handlers) -> None:
    """An incarnation that was told to stop is known as one, until its successor has taken its events back."""
    async with house(tmp_path, url, handlers) as first:
        owner = first.daemon.store.owner
    async with opened(configuration(tmp_path / "other", settings(url)), handlers=handlers) as onlooker:
        assert await onlooker.store.draining() == {owner}
        async with house(tmp_path, url, handlers):
            assert await onlooker.store.draining() == set()
