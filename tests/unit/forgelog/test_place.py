"""Where the log lies: private files, a directory that is held, and an end when its name leads elsewhere."""

import asyncio
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from replayforge.descriptors import leading_to
from replayforge.forgelog.directory import boot_id
from replayforge.forgelog.errors import LogPoisoned
from replayforge.forgelog.files import OsFiles
from replayforge.forgelog.log import ForgeLog, LogOptions, NewRecord

QUICK = LogOptions(segment_bytes=16_384, marker_idle_seconds=0.001)


async def test_a_log_goes_on_in_its_directory_wherever_the_process_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A change of the working directory moves nothing, although another log lies under the same relative name there."""
    for place in ("here", "there"):
        (tmp_path / place).mkdir()
        monkeypatch.chdir(tmp_path / place)
        await ForgeLog.open(Path("log")).close()
    before = {path.name: path.read_bytes() for path in (tmp_path / "here" / "log").iterdir()}
    log = ForgeLog.open(Path("log"), options=QUICK)
    monkeypatch.chdir(tmp_path / "here")
    for _ in range(20):
        await log.append([NewRecord(bytes(1000))])
    await asyncio.to_thread(log.bind_store, "store", 3)
    await log.close()
    assert {path.name: path.read_bytes() for path in (tmp_path / "here" / "log").iterdir()} == before
    assert log.durable_offset == 20


async def test_a_descriptor_that_is_somebody_elses_by_now_is_not_written(tmp_path: Path) -> None:
    """Code of the process closes the segment and opens files that get its number: the log ends and spares them."""
    log = ForgeLog.open(tmp_path / "log", options=LogOptions(marker_idle_seconds=3600))
    await log.append([NewRecord(b"ours")])
    stranger = tmp_path / "stranger"
    stranger.write_bytes(b"theirs")
    for descriptor in leading_to((tmp_path / "log").glob("*")).known:
        os.close(descriptor)
    opened = [os.open(stranger, os.O_RDWR) for _ in range(8)]  # one of them for each number that is free now
    with pytest.raises(LogPoisoned, match="was closed by other code"):
        await log.append([NewRecord(b"ours as well")])
    await log.close()
    assert stranger.read_bytes() == b"theirs"
    for descriptor in opened:
        os.close(descriptor)  # each is there still: the log's end has closed none of them


async def test_a_number_that_comes_twice_is_nobodys(tmp_path: Path) -> None:
    """A file of the log's own that gets the number of another one, closed by somebody, is not taken for it."""
    files = OsFiles()
    first = files.open(tmp_path / "first", create=True)
    os.close(first)
    with pytest.raises(OSError, match="was closed by other code"):
        files.open(tmp_path / "second", create=True)
    with pytest.raises(OSError, match="was closed by other code"):
        files.pwrite(first, b"first", 0)
    files.close(first)
    again = files.open(tmp_path / "second", create=True)
    assert files.pwrite(again, b"second", 0) == 6
    files.close(again)


MOVES: dict[str, Callable[[Path], object]] = {
    "removed": shutil.rmtree,
    "renamed": lambda directory: directory.rename(directory.with_name("away")),
    "replaced by a copy": lambda directory: shutil.copytree(
        directory.rename(directory.with_name("away")), directory, copy_function=shutil.copy2
    ),
    "replaced by a file": lambda directory: (
        directory.rename(directory.with_name("away")).parent.joinpath(directory.name).touch()
    ),
    "emptied": lambda directory: list(map(Path.unlink, directory.iterdir())),
    "without its lock": lambda directory: (directory / "LOCK").unlink(),
    "link to elsewhere": lambda directory: (
        directory.rename(directory.with_name("away")).parent.joinpath(directory.name).symlink_to(directory.parent)
    ),
}


@pytest.mark.parametrize("move", MOVES.values(), ids=MOVES)
async def test_a_log_that_lost_its_place_gives_up(tmp_path: Path, move: Callable[[Path], object]) -> None:
    """A directory that is removed, renamed or replaced under an idle log poisons it within a second or so."""
    log = ForgeLog.open(tmp_path / "log")
    await log.append([NewRecord(b"one")])
    move(tmp_path / "log")
    with pytest.raises(LogPoisoned, match="while the log was open"):
        await log.wait_beyond(1)
    with pytest.raises(LogPoisoned):
        log.append([NewRecord(b"two")])
    await log.close()


async def test_a_busy_log_that_lost_its_place_gives_up(tmp_path: Path) -> None:
    """The same without a moment's idleness: sooner or later an append is not acknowledged."""
    log = ForgeLog.open(tmp_path / "log")
    (tmp_path / "log").rename(tmp_path / "away")

    async def append_on() -> None:
        while True:
            await log.append([NewRecord(b"one")])

    with pytest.raises(LogPoisoned, match="while the log was open"):
        await append_on()
    await log.close()


def test_files_and_directories_are_private_whatever_the_umask(tmp_path: Path) -> None:
    """What is made is made for this user alone, under any umask; what is there stays as it is."""
    (tmp_path / "old").mkdir(mode=0o755)
    files = OsFiles()
    for umask in (0o000, 0o777):
        before = os.umask(umask)
        try:
            place = tmp_path / "old" / f"new-{umask:o}" / "log"
            files.make_directory(place)
            files.make_directory(place)
            files.close(files.open(place / "file", create=True))
        finally:
            os.umask(before)
        modes = [stat.S_IMODE(path.stat().st_mode) for path in (place.parent, place, place / "file")]
        assert modes == [0o700, 0o700, 0o600]
    assert stat.S_IMODE((tmp_path / "old").stat().st_mode) == 0o755
    with pytest.raises(NotADirectoryError):
        files.make_directory(place / "file" / "beneath")
    with pytest.raises(NotADirectoryError):
        files.make_directory(place / "file")


def test_a_held_directory_is_let_go_once(tmp_path: Path) -> None:
    """Letting go twice does no harm."""
    files = OsFiles()
    files.hold(tmp_path)
    for _ in range(2):
        files.release(tmp_path)
    assert files.held == {}


def test_the_lock_names_this_boot() -> None:
    """The id of the boot is the kernel's; whoever asked before in this process does not matter."""
    assert boot_id.__wrapped__() == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
