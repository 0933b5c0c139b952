"""Backups: log and store of one moment, copied while the daemon works, and brought back whole or not at all."""

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from replayforge.backups import making
from replayforge.backups.making import back_up, partial
from replayforge.backups.record import read_record
from replayforge.backups.restoring import restore
from replayforge.domain.errors import Corrupt, Refused
from replayforge.threads import in_thread
from tests.integration.conftest import echo_handlers
from tests.support.house import House, configuration, open_house


async def test_store_then_log(house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is accepted and dispatched while the store is copied is in the log of the backup, and runs where it is
    restored, beside its original; the restored store has an id of its own."""
    first, loop, copy = await house.send(), asyncio.get_running_loop(), making.copy_store
    await house.converges()
    later: list[str] = []

    async def go_on() -> None:
        later.append(await house.send())
        await house.converges()
        await in_thread(house.daemon.log.bind_store, house.daemon.store.store_id, house.daemon.dispatcher.projected)

    def copy_and_go_on(*arguments: Any) -> None:
        copy(*arguments)
        asyncio.run_coroutine_threadsafe(go_on(), loop).result(20)

    monkeypatch.setattr(making, "copy_store", copy_and_go_on)
    record, findings = await back_up(house.daemon.config, tmp_path / "backup")
    assert findings is not None
    assert (findings.clean, record.last_offset - record.projected_offset) == (True, 1)
    await restore(tmp_path / "backup", configuration(tmp_path / "restored"))
    async with open_house(tmp_path / "restored", echo_handlers()) as restored:
        ledger = await restored.converges()
        assert (ledger["succeeded"], ledger["lost"]) == (2, 0)
        assert (await restored.event(first))["attempts"][0]["outcome"] == "succeeded"
        assert (await restored.event(later[0]))["status"] == "succeeded"
        assert restored.daemon.store.store_id != house.daemon.store.store_id


async def test_what_runs_is_no_suspect(house: House, tmp_path: Path) -> None:
    """An event that ran while it was backed up is known as interrupted where it is restored; no crash is counted."""
    event_id = await house.send("waits")
    await house.reaches(event_id, "processing")
    await back_up(house.daemon.config, tmp_path / "backup")
    await restore(tmp_path / "backup", configuration(tmp_path / "restored"))
    async with open_house(tmp_path / "restored", echo_handlers()) as restored:
        event = await restored.reaches(event_id, "succeeded")
    assert sorted(attempt["outcome"] for attempt in event["attempts"]) == ["interrupted", "succeeded"]


async def test_nothing_half_restored(house: House, tmp_path: Path) -> None:
    """A backup with one flipped bit, or for a place that is taken, is refused, and nothing of it is left there."""
    await house.send()
    await back_up(house.daemon.config, tmp_path / "backup")
    config = configuration(tmp_path / "restored")
    with pytest.raises(Refused, match="is not empty"):
        await restore(tmp_path / "backup", house.daemon.config)
    with pytest.raises(Refused, match="is no backup"):
        await restore(tmp_path / "data", config)
    store = tmp_path / "backup" / "store.db"
    content = bytearray(store.read_bytes())
    content[-1] ^= 1
    store.write_bytes(content)
    with pytest.raises(Corrupt, match=r"store\.db is not what was backed up"):
        await restore(tmp_path / "backup", config)
    assert not (tmp_path / "restored").exists()


async def test_with_a_database(house: House, tmp_path: Path) -> None:
    """With PostgreSQL a backup is of the log, verified, and never restored under settings that name a SQLite store."""
    await house.send()
    config = configuration(tmp_path / "data", {"store.url": "postgresql://nowhere/none"})
    record, findings = await back_up(config, tmp_path / "backup")
    assert (record.store, findings, record.last_offset) == ("postgres", None, await house.logged())
    with pytest.raises(Refused, match="postgres"):
        await restore(tmp_path / "backup", configuration(tmp_path / "restored"))
    elsewhere = configuration(tmp_path / "restored", {"store.url": "postgresql://nowhere/none"})
    assert (await restore(tmp_path / "backup", elsewhere))[0] == record == read_record(tmp_path / "backup")


def test_a_directory_appears_whole(tmp_path: Path) -> None:
    """A backup that fails leaves nothing, one that was killed is swept away by the next; two at once are refused."""
    (tmp_path / "backup.partial").mkdir()
    (tmp_path / "backup.partial" / "store.db").touch()
    with suppress(ZeroDivisionError), partial(tmp_path / "backup") as directory:
        assert not list(directory.iterdir())
        with pytest.raises(Refused, match="Another backup"), partial(tmp_path / "backup"):
            pass
        raise ZeroDivisionError
    assert not list(tmp_path.iterdir())
    with partial(tmp_path / "backup") as directory:
        (directory / "file").touch()
    assert [path.name for path in (tmp_path / "backup").iterdir()] == ["file"]
    with pytest.raises(Refused, match="is there already"), partial(tmp_path / "backup"):
        pass
