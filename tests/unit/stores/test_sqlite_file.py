"""The SQLite file: ours alone, private, and recognised; anything else is refused and left as it is."""

import os
import sqlite3
import stat
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from replayforge.domain.errors import Fatal, Refused, Unavailable
from replayforge.stores.sqlite import SqliteDriver
from replayforge.stores.store import Store


async def open_store(path: Path) -> None:
    store = await Store.open(f"sqlite:///{path}", node="node", owner="node/first")
    await store.close()


def foreign_tables(path: Path) -> None:
    with closing(sqlite3.connect(path)) as raw:
        raw.execute("CREATE TABLE customers (name TEXT)")


def foreign_id(path: Path) -> None:
    with closing(sqlite3.connect(path)) as raw:
        raw.execute("PRAGMA application_id = 252006675")  # Fossil's


def foreign_in_wal(path: Path) -> None:
    """Leave a database whose only table stands in the WAL, as a killed application does."""
    source = path.with_name("source.db")
    with closing(sqlite3.connect(source, isolation_level=None)) as raw:
        raw.execute("PRAGMA journal_mode = WAL")
        raw.execute("CREATE TABLE customers (name TEXT)")
        path.write_bytes(source.read_bytes())
        path.with_name(f"{path.name}-wal").write_bytes(source.with_name("source.db-wal").read_bytes())


FOREIGN: dict[str, tuple[Callable[[Path], object], str]] = {
    "tables": (foreign_tables, "customers"),
    "application id": (foreign_id, "0xf055"),
    "tables in the WAL": (foreign_in_wal, "customers"),
    "directory": (lambda path: path.mkdir(), "not a regular file"),
    "pipe": (lambda path: os.mkfifo(path), "not a regular file"),
}


@pytest.mark.parametrize(("make", "word"), FOREIGN.values(), ids=FOREIGN)
async def test_what_is_not_ours_is_refused(tmp_path: Path, make: Callable[[Path], object], word: str) -> None:
    """A database of another application, or what is none at all, is refused by name and stays as it is."""
    path = tmp_path / "store.db"
    make(path)
    before = path.read_bytes() if path.is_file() else b""
    with pytest.raises(Refused, match=word) as refusal:
        await open_store(path)
    assert str(path) in str(refusal.value)
    assert "store.url" in str(refusal.value)
    assert not path.is_file() or path.read_bytes() == before
    assert not path.with_name("store.db.lock").exists()


async def test_hard_links_are_refused(tmp_path: Path) -> None:
    """A file with a second name is refused under either, for its WAL and its lock have only one."""
    await open_store(tmp_path / "store.db")
    os.link(tmp_path / "store.db", tmp_path / "second.db")
    for name in ("store.db", "second.db"):
        with pytest.raises(Refused, match="hard links"):
            await open_store(tmp_path / name)


async def test_symbolic_links_share_one_lock(tmp_path: Path) -> None:
    """A file that is open is held under every name that leads to it."""
    (tmp_path / "else").mkdir()
    store = await Store.open(f"sqlite:///{tmp_path}/store.db", node="node", owner="node/first")
    (tmp_path / "else" / "linked.db").symlink_to(tmp_path / "store.db")
    with pytest.raises(Refused, match="in use"):
        await open_store(tmp_path / "else" / "linked.db")
    await store.close()


async def test_ours_is_recognised(tmp_path: Path) -> None:
    """A file of ours opens again, as does an empty one and one that a crash left before its first table."""
    path = tmp_path / "store.db"
    path.touch()
    await open_store(path)
    await open_store(path)
    with closing(sqlite3.connect(path)) as raw:
        ((mark,),) = raw.execute("PRAGMA application_id").fetchall()
    with closing(sqlite3.connect(tmp_path / "early.db")) as raw:
        raw.execute(f"PRAGMA application_id = {mark}")
    await open_store(tmp_path / "early.db")


def modes_in(directory: Path) -> dict[str, int]:
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()}


async def test_files_are_private_whatever_the_umask(tmp_path: Path) -> None:
    """The database, its WAL, its shared memory and its lock are for this user alone."""
    before = os.umask(0)
    try:
        store = await Store.open(f"sqlite:///{tmp_path}/store.db", node="node", owner="node/first")
        await store.mark_draining(0)
        modes = modes_in(tmp_path)
        await store.close()
    finally:
        os.umask(before)
    assert modes == dict.fromkeys(("store.db", "store.db-wal", "store.db-shm", "store.db.lock"), 0o600)


@pytest.mark.parametrize("name", ["store.db", "store.db-wal", "store.db.lock"])
@pytest.mark.parametrize("loss", ["removed", "replaced", "moved with its directory"])
async def test_a_file_that_is_taken_away_is_noticed(tmp_path: Path, name: str, loss: str) -> None:
    """Whichever of its files is removed or replaced while the store is open is named."""
    directory = tmp_path / "data"
    directory.mkdir()
    store = await Store.open(f"sqlite:///{directory}/store.db", node="node", owner="node/first")
    driver = store.driver
    assert isinstance(driver, SqliteDriver)
    try:
        store.check_place()
        if loss == "moved with its directory":
            directory.rename(tmp_path / "away")
        else:
            (directory / name).unlink()
        if loss == "replaced":
            (directory / name).write_bytes(b"")
        with pytest.raises(Fatal, match=name):
            store.check_place()
    finally:
        driver.moved = False  # here it is closed all the same, for the process goes on
        await store.close()


async def test_a_descriptor_that_is_somebody_elses_by_now_is_not_written(tmp_path: Path) -> None:
    """Code of the process closes a file of the store and opens its own, which gets the number: that stays as it is."""
    store = await Store.open(f"sqlite:///{tmp_path}/store.db", node="node", owner="node/first")
    driver = store.driver
    assert isinstance(driver, SqliteDriver)
    stranger = tmp_path / "stranger"
    stranger.write_bytes(b"theirs")
    descriptors = list(driver.descriptors.known)
    assert len(descriptors) >= 3  # the database, its WAL and its shared memory
    try:
        for descriptor in descriptors:
            ours, theirs = os.dup(descriptor), os.open(stranger, os.O_RDWR)
            os.dup2(theirs, descriptor)
            with pytest.raises(Unavailable, match=f"descriptor {descriptor} was closed"):
                await store.mark_draining(0)
            with pytest.raises(Fatal, match=f"descriptor {descriptor} was closed"):
                store.check_place()
            os.dup2(ours, descriptor)
            os.close(ours)
            os.close(theirs)
        assert stranger.read_bytes() == b"theirs"
        await store.mark_draining(0)
    finally:
        driver.moved = False  # here it is closed all the same, for the process goes on
        await store.close()
