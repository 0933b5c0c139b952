"""The log under way: idle, full, slow, forked, damaged, and how it says so."""

import asyncio
import errno
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from replayforge.domain.errors import Rejected
from replayforge.forgelog.committer import split
from replayforge.forgelog.consumers import CONSUMERS_MAX
from replayforge.forgelog.disk import SyncFailed
from replayforge.forgelog.errors import (
    CorruptRecord,
    GapError,
    LogBusy,
    LogClosed,
    LogFull,
    LogPoisoned,
    LogRefused,
    LogStalled,
    LogUnreadable,
)
from replayforge.forgelog.files import OsFiles
from replayforge.forgelog.limits import Limits
from replayforge.forgelog.log import ForgeLog, LogOptions, NewRecord
from replayforge.telemetry import Telemetry
from tests.support.clock import FakeClock
from tests.support.files.around import FaultFiles, TraceFiles
from tests.support.probe import Probe

QUICK = LogOptions(segment_bytes=16_384, marker_idle_seconds=0.001, space_retry_seconds=0.001)


class Rig:
    """A log on files that can be made to fail, with a clock and a probe."""

    def __init__(self, directory: Path, options: LogOptions = QUICK, clock: FakeClock | None = None) -> None:
        self.files = FaultFiles(OsFiles(), at=0)
        self.clock = clock or FakeClock()
        self.telemetry = Telemetry()
        self.probe = Probe(self.telemetry)
        self.log = ForgeLog.open(
            directory, options=options, files=self.files.files, clock=self.clock, telemetry=self.telemetry
        )

    def fail(self, *names: str, code: int = errno.ENOSPC) -> None:
        """From now on these calls fail."""
        self.files.only, self.files.code, self.files.sticky = frozenset(names), code, True
        self.files.at = self.files.calls + 1

    def heal(self) -> None:
        self.files.at = 0


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    rig = Rig(tmp_path / "log")
    yield rig
    rig.heal()
    await rig.log.close()


async def until(happened: Callable[[], bool]) -> None:
    """Let the event loop turn until something is so."""
    async with asyncio.timeout(20):
        while not happened():  # noqa: ASYNC110 - what is awaited is a state, and states have no event
            await asyncio.sleep(0)


async def append_many(rig: Rig) -> None:
    for _ in range(20):
        await rig.log.append([NewRecord(bytes(1000))])


async def test_an_idle_log_proves_its_last_batch(tmp_path: Path) -> None:
    """After some idle time one marker is written, and no second one."""
    files = TraceFiles(OsFiles())
    log = ForgeLog.open(tmp_path, options=QUICK, files=files.files)
    await log.append([NewRecord(b"x")])
    await until(lambda: log.committer.marked)
    position = log.storage.writer.position
    await log.append([NewRecord(b"y")])
    assert log.storage.writer.position > position
    await until(lambda: log.committer.marked)
    assert log.stats().sync_count == 4
    assert sum(log.sync_durations().counts) == 5  # the opening has synced as well
    await log.close()


async def test_a_full_disk_is_reported_once_and_ends_by_itself(rig: Rig) -> None:
    """While the disk is full appends are refused and the log is not writable; it finds the space again unasked."""
    rig.fail("pwrite", "allocate")
    for _ in range(3):
        with pytest.raises(LogFull) as full:
            await rig.log.append([NewRecord(b"x")])
        assert full.value.accepted == 0
    await rig.probe.saw("log.filled")
    assert rig.probe.counts["log.filled"] == 1
    assert rig.log.reason == "the disk of the log is full"
    with pytest.raises(LogFull):
        await rig.log.commit("reader", 0)
    writes = rig.files.counts["pwrite"]
    await until(lambda: rig.files.counts["pwrite"] > writes + 2)
    assert not rig.log.writable
    rig.heal()
    await until(lambda: rig.log.writable)
    assert await rig.log.append([NewRecord(b"y")]) == 1


async def test_a_marker_that_finds_no_space_is_a_full_disk(rig: Rig) -> None:
    """Also the idle log notices that the disk is full."""
    rig.fail("pwrite")
    rig.files.at += 1  # the record finds space, the marker after it does not
    await rig.log.append([NewRecord(b"x")])
    await rig.probe.saw("log.filled")
    rig.heal()
    await until(lambda: rig.log.writable)


async def test_a_large_call_says_how_much_of_it_stands(tmp_path: Path) -> None:
    """When the disk fills up in the middle of a call, the error counts the records that are durable all the same."""
    rig = Rig(tmp_path, LogOptions(limits=Limits(batch_records_max=2)))
    rig.files.only, rig.files.code, rig.files.sticky = frozenset({"pwrite"}), errno.ENOSPC, True
    rig.files.calls, rig.files.at = 0, 2
    with pytest.raises(LogFull) as full:
        await rig.log.append([NewRecord(b"x")] * 5)
    assert full.value.accepted == 2
    assert rig.log.durable_offset == 2
    rig.heal()
    await rig.log.close()


async def test_a_spare_that_finds_no_space_warns_a_segment_early(rig: Rig) -> None:
    """Without space for the next segment appends go on, and the figures say that it is missing."""
    rig.fail("allocate")
    for _ in range(20):
        await rig.log.append([NewRecord(bytes(1000))])
    assert rig.log.stats().spare_missing
    rig.heal()


async def test_a_new_segment_is_reported(rig: Rig) -> None:
    """Each new segment is a telemetry event."""
    await append_many(rig)
    await rig.probe.saw("log.rolled")
    assert rig.probe.counts["log.rolled"] == rig.log.stats().segment_count - 1


async def test_no_handle_for_a_new_segment_is_busy(rig: Rig) -> None:
    """Without a free file handle the append is refused, and taken when there is one again."""
    rig.fail("allocate")
    for _ in range(16):
        await rig.log.append([NewRecord(bytes(1000))])
    rig.heal()
    rig.fail("open", code=errno.EMFILE)
    with pytest.raises(LogBusy):
        await append_many(rig)
    rig.heal()
    assert await rig.log.append([NewRecord(b"x")]) > 16


async def test_an_unexpected_error_poisons(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the writer did not expect ends the log: its state is unknown."""
    monkeypatch.setattr(rig.log.storage.writer, "commit", lambda records: 1 // 0)
    first, second = rig.log.append([NewRecord(b"x")]), rig.log.append([NewRecord(b"y")])
    for future in (first, second):
        with pytest.raises(LogPoisoned):
            await future
    await rig.probe.saw("log.poisoned")
    assert isinstance(rig.log.poisoned, ZeroDivisionError)
    rig.log.committer.poison(OSError("later"))
    assert isinstance(rig.log.poisoned, ZeroDivisionError)
    for act in (lambda: rig.log.bind_store("s", 0), lambda: rig.log.retain(0)):
        with pytest.raises(LogPoisoned):
            act()
    with pytest.raises(LogPoisoned):
        await rig.log.commit("reader", 0)
    with pytest.raises(LogPoisoned):
        await rig.log.wait_beyond(0)


async def test_a_marker_that_cannot_be_synced_poisons(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failed sync of the idle log is as grave as any other."""

    def fail() -> None:
        raise SyncFailed(errno.EIO, "sync failed")

    monkeypatch.setattr(rig.log.storage.writer, "mark", fail)
    await rig.log.append([NewRecord(b"x")])
    await rig.probe.saw("log.poisoned")
    assert isinstance(rig.log.poisoned, SyncFailed)


async def test_no_append_slips_in_behind_a_poison(rig: Rig) -> None:
    """Whoever hears that a sync failed finds the log closed to further appends."""
    rig.fail("fdatasync", code=errno.EIO)
    with pytest.raises(LogPoisoned):
        await rig.log.append([NewRecord(b"x")])
    assert rig.log.poisoned is not None
    with pytest.raises(LogPoisoned):
        rig.log.append([NewRecord(b"y")])


async def test_poison_wakes_those_who_wait(rig: Rig) -> None:
    """A reader that waits for records learns that none will come."""
    waiting = asyncio.create_task(rig.log.wait_beyond(0))
    given_up = asyncio.create_task(rig.log.wait_beyond(0))
    await asyncio.sleep(0)
    given_up.cancel()
    rig.fail("fdatasync", code=errno.EIO)
    cancelled = rig.log.append([NewRecord(b"x")])
    cancelled.cancel()
    with pytest.raises(LogPoisoned):
        await waiting
    assert "restart" in rig.log.reason


async def test_waking_passes_over_who_gave_up(rig: Rig) -> None:
    """A waiter that was cancelled in the same moment is not woken."""
    given_up = asyncio.create_task(rig.log.wait_beyond(0))
    await asyncio.sleep(0)
    given_up.cancel()
    rig.log.committer.wake_waiters()
    with pytest.raises(asyncio.CancelledError):
        await given_up


async def test_calls_beyond_one_batch_wait_for_the_next(rig: Rig) -> None:
    """A batch takes whole calls up to its limits; the call that would overstep them begins the next batch."""
    await rig.log.close()
    committer = rig.log.committer
    futures = [asyncio.get_running_loop().create_future() for _ in range(3)]
    committer.queue.extend(([NewRecord(b"x")] * 3_000, future, 96_000) for future in futures)
    assert [len(committer.take()) for _ in range(4)] == [1, 1, 1, 0]


async def test_a_spare_that_fails_otherwise_poisons(rig: Rig) -> None:
    """An error of the disk while a segment is reserved is no want of space."""
    rig.fail("allocate", code=errno.EIO)
    with pytest.raises(LogPoisoned):
        await append_many(rig)


@pytest.mark.parametrize("name", ["fsync", "sync_directory", "rename"])
async def test_a_failed_mirror_poisons(rig: Rig, name: str) -> None:
    """A failed sync of a small file is as grave as one of the log."""
    rig.fail(name, code=errno.EIO)
    with pytest.raises(LogPoisoned):
        rig.log.bind_store("store", 0)
    assert rig.log.poisoned is not None


async def test_a_full_disk_does_not_move_the_mirror(rig: Rig) -> None:
    """Without space the mirror of the store stays where it was, and nothing is poisoned."""
    rig.fail("pwrite")
    with pytest.raises(LogFull):
        rig.log.bind_store("store", 0)
    rig.heal()
    rig.log.bind_store("store", 0)
    rig.log.bind_store("store", 0)
    assert rig.log.poisoned is None


async def test_a_manifest_without_space_waits(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A roll goes through although the manifest finds no space; the next start adopts the segment by its name."""
    change = rig.log.storage.change_manifest

    def full(**changes: Any) -> None:
        raise OSError(errno.ENOSPC, "No space")

    monkeypatch.setattr(rig.log.storage, "change_manifest", full)
    for _ in range(20):
        await rig.log.append([NewRecord(bytes(1000))])
    assert rig.log.stats().segment_count > 1
    monkeypatch.setattr(rig.log.storage, "change_manifest", change)
    monkeypatch.setattr(rig.log.storage, "change_manifest", lambda **changes: (_ for _ in ()).throw(OSError(5, "EIO")))
    with pytest.raises(LogPoisoned):
        await append_many(rig)


async def test_a_slow_sync_is_reported_and_a_stalled_one_refuses(tmp_path: Path) -> None:
    """A sync of seconds is reported; while one hangs longer than allowed, appends are refused in words."""
    clock, gate = FakeClock(), threading.Event()

    class Slow(OsFiles):
        slow = False

        def fdatasync(self, handle: int) -> None:
            if self.slow:
                clock.advance(6)
                gate.wait(20)
            super().fdatasync(handle)

    files, telemetry = Slow(), Telemetry()
    probe = Probe(telemetry)
    log = ForgeLog.open(tmp_path, files=files, clock=clock, telemetry=telemetry)
    files.slow = True
    first = log.append([NewRecord(b"x")])
    await until(lambda: log.storage.disk.stalled_seconds() > 5)
    assert "has not answered for 6 seconds" in log.reason
    with pytest.raises(LogStalled):
        log.append([NewRecord(b"y")])
    files.slow = False
    gate.set()
    assert await first == 1
    await probe.saw("log.slowed")
    assert (log.stats().slow_syncs, log.writable) == (1, True)
    await log.close()


async def test_a_forked_log_is_closed(rig: Rig) -> None:
    """In another process than its own the log neither appends nor finishes."""
    own, rig.log.pid = rig.log.pid, -1
    with pytest.raises(LogClosed, match="fork"):
        rig.log.append([NewRecord(b"x")])
    rig.log.finish()
    assert rig.log.storage.writer.handle is not None
    rig.log.pid, rig.log.committer.closing = own, False


async def test_a_failed_clean_end_leaves_word(tmp_path: Path) -> None:
    """When the last sync of a close fails, the next start reads everything back before it believes it."""
    rig = Rig(tmp_path)
    await rig.log.append([NewRecord(b"x")])
    rig.fail("fdatasync", code=errno.EIO)
    await rig.log.close()
    assert (tmp_path / "POISONED").exists()
    rig = Rig(tmp_path)
    assert rig.log.recovery.last_offset == 1
    assert not (tmp_path / "POISONED").exists()
    await rig.log.close()


async def test_a_close_on_a_full_disk_is_as_a_crash(tmp_path: Path) -> None:
    """Without space for the last word everything acknowledged is there, only not called clean."""
    rig = Rig(tmp_path)
    await rig.log.append([NewRecord(b"x")])
    rig.fail("pwrite")
    await rig.log.close()
    rig = Rig(tmp_path)
    assert (rig.log.recovery.last_offset, rig.log.recovery.clean) == (1, False)
    await rig.log.close()


async def test_word_of_a_poison_is_best_effort(tmp_path: Path) -> None:
    """A disk that takes not even the marker changes nothing for those who wait."""
    rig = Rig(tmp_path)
    rig.fail("fdatasync", "open", code=errno.EIO)
    with pytest.raises(LogPoisoned):
        await rig.log.append([NewRecord(b"x")])
    await rig.log.close()
    assert not (tmp_path / "POISONED").exists()


async def test_damage_is_reported_where_it_is_read(tmp_path: Path) -> None:
    """A damaged record is never returned: those before it are, then it is named, counted and reported."""
    rig = Rig(tmp_path, LogOptions())
    await rig.log.append([NewRecord(b"one"), NewRecord(b"two"), NewRecord(b"three")])
    path = rig.log.storage.segments[-1].path
    data = path.read_bytes()
    with path.open("r+b") as file:
        file.seek(data.find(b"two"))
        file.write(b"TWO")
    assert [record.payload for record in rig.log.read(0)] == [b"one"]
    with pytest.raises(CorruptRecord) as damage:
        rig.log.read(1)
    assert (damage.value.offset, damage.value.segment) == (2, path.name)
    assert rig.log.stats().damaged_reads == 1
    assert rig.probe.counts["log.damaged"] == 1
    rig.fail("pread", code=errno.EIO)
    with pytest.raises(LogUnreadable):
        rig.log.read(0)
    rig.heal()
    await rig.log.close()


async def test_the_scrubber_finds_damage_before_a_reader(tmp_path: Path) -> None:
    """Step by step every sealed segment is read from the disk; damage is reported, then the pass goes on."""
    rig = Rig(tmp_path)
    for _ in range(60):
        await rig.log.append([NewRecord(bytes(1000))])
    victim = rig.log.storage.segments[1].path
    with victim.open("r+b") as file:
        file.seek(9000)
        file.write(b"\xff")
    steps = [rig.log.scrub_step() for _ in range(len(rig.log.storage.segments))]
    assert [step.damaged_segment for step in steps if step.damaged_segment] == [victim.name]
    assert steps[-1].pass_finished
    stats = rig.log.stats()
    assert (stats.scrub_errors, stats.scrub_passes) == (1, 1)
    assert stats.scrubbed_bytes > 30_000
    assert rig.probe.counts["log.scrubbed"] == 1
    await rig.log.close()


async def test_retention_by_age_stops_at_a_jumping_clock(tmp_path: Path) -> None:
    """Old segments go when everyone has passed them; after a jump of the clock age removes nothing, until it
    is back."""
    rig = Rig(tmp_path, LogOptions(segment_bytes=16_384, retention_seconds=3600))
    for _ in range(60):
        await rig.log.append([NewRecord(bytes(1000))])
    assert rig.log.retain(60).segments == 0
    rig.clock.advance(4000)
    await rig.log.commit("reader", 20)
    oldest = rig.log.storage.segments[0]
    retained = rig.log.retain(60)
    assert retained.segments == 1
    assert rig.log.storage.delete_segments([oldest]) == []
    assert rig.log.first_offset == retained.first_offset
    assert rig.probe.counts["log.retained"] == 1
    rig.clock.wall_us += 10_000_000_000
    await rig.log.commit("reader", 60)
    assert [rig.log.retain(60).segments for _ in range(3)] == [0, 0, 0]
    rig.clock.wall_us -= 10_000_000_000
    assert rig.log.retain(60).segments > 0
    with pytest.raises(GapError):
        rig.log.read(0)
    await rig.log.close()


async def test_too_many_consumers(rig: Rig) -> None:
    """The number of consumers is bounded."""
    rig.log.named.offsets = {f"consumer-{number}": 0 for number in range(CONSUMERS_MAX)}
    with pytest.raises(Rejected):
        await rig.log.commit("one-more", 0)
    await rig.log.commit("consumer-1", 0)


async def test_a_log_whose_loop_is_gone_still_ends(tmp_path: Path) -> None:
    """When nobody is left to be told, the writer says nothing and goes on to its end."""
    rig = Rig(tmp_path)
    loop = asyncio.new_event_loop()
    loop.close()
    rig.log.committer.loop = loop
    rig.log.committer.call(lambda: None)
    rig.log.finish()


async def test_poison_before_any_append(tmp_path: Path) -> None:
    """A log that fails before anyone used it has nobody to tell, and is poisoned all the same."""
    rig = Rig(tmp_path)
    rig.fail("fsync", code=errno.EIO)
    with pytest.raises(LogPoisoned):
        rig.log.bind_store("store", 0)
    await rig.log.close()


def test_split_keeps_to_the_limits(tmp_path: Path) -> None:
    """Calls become batches within the limits, in order, and a record larger than a batch stands alone."""
    records = [NewRecord(bytes(size)) for size in (10, 20, 3000, 10, 10, 10)]
    batches = split([(records, asyncio.Future(loop=asyncio.new_event_loop()), 9000)], Limits(3, 200))
    assert [[len(record.payload) for record in batch] for batch in batches] == [[10, 20], [3000], [10, 10, 10]]


@pytest.mark.parametrize(("kind", "code"), [("owner", "E_OWNER"), ("kind", "E_NETWORK_FS"), ("make_directory", "E_IO")])
def test_an_unfit_directory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, code: str) -> None:
    """A directory of another user, on a network disk, or that cannot be made is refused in one sentence."""

    def refuse(*arguments: object) -> object:
        if kind == "make_directory":
            raise PermissionError(errno.EACCES, "Permission denied")
        return {"owner": 4711, "kind": "nfs4"}[kind]

    files = OsFiles()
    monkeypatch.setattr(files, kind, refuse)
    with pytest.raises(LogRefused) as refusal:
        ForgeLog.open(tmp_path, files=files)
    assert refusal.value.code == code


async def test_a_network_disk_can_be_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who knows that a network disk keeps its promises may say so."""
    files = OsFiles()
    monkeypatch.setattr(files, "kind", lambda path: "nfs4")
    log = ForgeLog.open(tmp_path, files=files, options=LogOptions(allow_network_fs=True))
    await log.close()


@pytest.mark.parametrize(("code", "error"), [(errno.ENOSPC, LogFull), (errno.EMFILE, LogBusy)])
def test_an_open_without_space_or_handles(tmp_path: Path, code: int, error: type[Exception]) -> None:
    """A start that finds no space or no handle is unavailable, not refused."""
    files = FaultFiles(OsFiles(), at=1, code=code, sticky=True, only=frozenset({"open", "pwrite"}))
    with pytest.raises(error):
        ForgeLog.open(tmp_path, files=files.files)


async def test_want_of_handles_is_no_failed_sync(rig: Rig) -> None:
    """A directory that cannot be opened was never synced: nothing is poisoned, no name has changed, and it goes on."""
    rig.fail("open_directory", code=errno.EMFILE)
    with pytest.raises(LogBusy, match="open files"):
        await append_many(rig)
    with pytest.raises(LogBusy):
        rig.log.bind_store("store", 0)
    accepted, segments = rig.log.durable_offset, list((rig.log.storage.directory).glob("*.flog"))
    assert len(segments) == 1
    rig.heal()
    await append_many(rig)
    assert rig.log.durable_offset == accepted + 20
    assert rig.log.poisoned is None


async def test_a_large_call_without_handles_says_how_much_of_it_stands(tmp_path: Path) -> None:
    """When the handles run out in the middle of a call, the error counts what is durable and does not say "nothing"."""
    rig = Rig(tmp_path, LogOptions(segment_bytes=8192, limits=Limits(batch_records_max=1)))
    rig.fail("open_directory", code=errno.EMFILE)
    with pytest.raises(LogBusy, match="only the first 3 records") as busy:
        await rig.log.append([NewRecord(bytes(1000))] * 5)
    assert busy.value.accepted == rig.log.durable_offset == 3
    await rig.log.close()


async def test_a_poison_before_the_first_append_reaches_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An append that was let in just before another thread poisoned the unused log is answered, not left to wait."""
    log = ForgeLog.open(tmp_path)
    monkeypatch.setattr(log, "refuse_append", lambda: log.committer.poison(OSError("elsewhere")))
    with pytest.raises(LogPoisoned):
        await asyncio.wait_for(log.append([NewRecord(b"x")]), 5)
    await log.close()


@pytest.mark.parametrize(("code", "damaged"), [(errno.EIO, True), (errno.EMFILE, False)])
async def test_the_scrubber_reports_what_it_cannot_read(tmp_path: Path, code: int, damaged: bool) -> None:
    """A segment that answers with an error counts as damaged and is passed; want of handles is waited for."""
    rig = Rig(tmp_path, LogOptions(segment_bytes=3_000_000))
    for _ in range(8):
        await rig.log.append([NewRecord(bytes(600_000))])
    assert rig.log.scrub_step().damaged_segment is None
    position = rig.log.scrubber.walk.position if rig.log.scrubber.walk else 0
    assert position > 0
    rig.fail("open", code=code)
    step = rig.log.scrub_step()
    found = (step.damaged_segment, step.damaged_position)
    assert found == ((rig.log.storage.segments[0].path.name, position) if damaged else (None, None))
    rig.heal()
    assert rig.log.scrub_step().pass_finished is damaged
    assert rig.log.stats().scrub_errors == int(damaged)
    await rig.log.close()


async def test_the_scrubber_passes_what_retention_took(rig: Rig) -> None:
    """A segment that retention removes under the scrubber is no damage; one that vanished otherwise is."""
    await append_many(rig)
    first, second = rig.log.storage.segments[:2]
    sealed = [first, second]
    rig.log.storage.delete_segments([first])
    second.path.unlink()
    steps = [rig.log.scrubber.step(sealed, rig.log.storage.manifest) for _ in range(3)]
    assert [step.damaged_segment for step in steps] == [None, second.path.name, None]
    assert [step.pass_finished for step in steps] == [False, False, True]
