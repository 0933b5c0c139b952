"""The word an incarnation leaves for the next one: who it was, whether it drained, who ran alone and for how long."""

import os
import signal
from pathlib import Path

import msgspec
import pytest

from replayforge.domain.clock import SystemClock
from replayforge.domain.event import Lease
from replayforge.domain.reclaim import FormerIncarnation
from replayforge.engine.dispatch import incarnation
from replayforge.engine.dispatch.incarnation import FILE_NAME, IncarnationFile, read_former
from tests.support.clock import FakeClock

OWNER = "node/one"


def test_nothing_was_left(tmp_path: Path) -> None:
    """Without a file, or with one that cannot be read, nothing is known, and a start goes on."""
    assert read_former(tmp_path) == FormerIncarnation()
    (tmp_path / FILE_NAME).write_bytes(b"\0" * 4096)
    assert read_former(tmp_path) == FormerIncarnation()


def test_word_says_what_was_noted_last(tmp_path: Path) -> None:
    """The next incarnation reads who ran alone, who had run on, and that a drain had begun; the file is private."""
    clock = FakeClock()
    file = IncarnationFile.create(tmp_path, OWNER, clock)
    assert read_former(tmp_path) == FormerIncarnation(OWNER, False, None, 0.0, frozenset())
    file.begin_alone(Lease(1, 2))
    assert read_former(tmp_path).alone == (1, 2)
    file.end_alone()
    file.end_alone()
    file.begin_alone(Lease(3, 4))
    file.drain()
    assert read_former(tmp_path) == FormerIncarnation(OWNER, True, Lease(3, 4), 0.0, frozenset({Lease(1, 2)}))
    file.close()
    assert (tmp_path / FILE_NAME).stat().st_mode & 0o777 == 0o600
    IncarnationFile.create(tmp_path, "node/two", clock).close()
    assert read_former(tmp_path) == FormerIncarnation("node/two", False, None, 0.0, frozenset())


def test_time_alone_is_written_as_it_passes(tmp_path: Path) -> None:
    """A thread writes down for how long the event has run, whatever the loop does; a pause of the process is none."""
    clock = FakeClock()
    file = IncarnationFile.create(tmp_path, OWNER, clock)
    file.begin_alone(Lease(1, 2))
    for seconds, written in ((0.04, 0.04), (60, 0.14), (0.1, 0.24)):
        clock.advance(seconds)
        while read_former(tmp_path).seconds != written:
            os.sched_yield()
    file.close()


def test_time_survives_a_kill(tmp_path: Path) -> None:
    """A process that is killed has left its time to death to within a few hundredths of a second."""
    ready, tell = os.pipe()
    child = os.fork()
    if not child:
        IncarnationFile.create(tmp_path, OWNER, SystemClock()).begin_alone(Lease(1, 2))
        os.write(tell, b"x")
        signal.pause()
    os.read(ready, 1)
    began = read_former(tmp_path)
    while (read_former(tmp_path).seconds or 0.0) < 0.2:
        os.sched_yield()
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert (began.alone, read_former(tmp_path).alone) == ((1, 2), (1, 2))
    assert (read_former(tmp_path).seconds or 0.0) >= 0.2


def test_after_a_power_cut_nobody_knows_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who ran alone is durable, for how long is not: another start of the machine has it unknown."""
    file = IncarnationFile.create(tmp_path, OWNER, FakeClock())
    file.begin_alone(Lease(1, 2))
    boot = tmp_path / "boot_id"
    boot.write_text("another\n")
    monkeypatch.setattr(incarnation, "BOOT_ID", boot)
    assert (read_former(tmp_path).alone, read_former(tmp_path).seconds) == ((1, 2), None)
    file.close()


def test_drain_in_a_signal_is_not_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal that asks for the drain while the file is being written is not lost to that write."""
    file = IncarnationFile.create(tmp_path, OWNER, FakeClock())
    pwrite = os.pwrite

    def interrupted(handle: int, content: bytes, offset: int) -> int:
        monkeypatch.setattr(os, "pwrite", pwrite)
        file.drain()
        return pwrite(handle, content, offset)

    monkeypatch.setattr(os, "pwrite", interrupted)
    file.begin_alone(Lease(1, 2))
    file.close()
    assert msgspec.json.decode((tmp_path / FILE_NAME).read_bytes())["draining"] is True
