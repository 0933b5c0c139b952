"""ForgeLog through its public face."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from replayforge.domain.errors import Rejected
from replayforge.forgelog.errors import (
    GapError,
    LogBusy,
    LogClosed,
    LogLocked,
    LogPoisoned,
    LogRefused,
    RecordRejected,
)
from replayforge.forgelog.log import ForgeLog, LogOptions, NewRecord, read_identity

SMALL = LogOptions(segment_bytes=16_384)


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[ForgeLog]:
    log = ForgeLog.open(tmp_path / "log", options=SMALL)
    yield log
    await log.close()


def payloads(log: ForgeLog, after: int = 0) -> list[bytes]:
    found: list[bytes] = []
    while records := log.read(after):
        found += [record.payload for record in records]
        after = records[-1].offset
    return found


async def fill(log: ForgeLog, count: int, size: int = 1000) -> None:
    for _ in range(count):
        await log.append([NewRecord(os.urandom(size))])


async def test_a_fresh_log_is_empty(log: ForgeLog) -> None:
    """A new log ends at offset 0 and its first offset will be 1."""
    assert (log.durable_offset, log.first_offset, log.read(0)) == (0, 1, [])


async def test_append_gives_consecutive_offsets(log: ForgeLog) -> None:
    """The records of one call follow each other without a hole, and the future names the first."""
    assert await log.append([NewRecord(b"a"), NewRecord(b"b")]) == 1
    assert await log.append([NewRecord(b"c")]) == 3
    assert [record.offset for record in log.read(0)] == [1, 2, 3]
    assert log.read(-5) == log.read(0)


async def test_a_record_comes_back_as_it_was(log: ForgeLog) -> None:
    """Payload, key and type are read byte for byte."""
    await log.append([NewRecord(b"\x00\xff" * 7, b"key", 200)])
    (record,) = log.read(0)
    assert (record.payload, record.key, record.type) == (b"\x00\xff" * 7, b"key", 200)
    assert record.appended_at_us > 0


async def test_reading_goes_over_segments(log: ForgeLog) -> None:
    """A log of several segments reads as one sequence, also from the middle."""
    await fill(log, 60)
    assert log.stats().segment_count > 2
    assert len(payloads(log)) == 60
    assert [record.offset for record in log.read(41, records_max=5)] == [42, 43, 44, 45, 46]


async def test_read_keeps_to_its_limits(log: ForgeLog) -> None:
    """Neither more records nor more bytes than asked for come back, but at least one record."""
    await log.append([NewRecord(bytes(100)) for _ in range(50)])
    assert len(log.read(0, records_max=7)) == 7
    assert len(log.read(0, bytes_max=1)) == 1
    assert len(log.read(10, bytes_max=116 * 3)) == 3


async def test_a_restart_keeps_everything(tmp_path: Path) -> None:
    """After a clean close the next open finds the same records and says the end was clean."""
    log = ForgeLog.open(tmp_path, options=SMALL)
    await fill(log, 40)
    before = payloads(log)
    await log.close()
    log = ForgeLog.open(tmp_path, options=SMALL)
    assert log.recovery.clean
    assert payloads(log) == before
    assert await log.append([NewRecord(b"next")]) == 41
    await log.close()


async def test_a_copy_of_an_open_log_opens(tmp_path: Path) -> None:
    """What a crash leaves behind holds every acknowledged record, and is not called clean."""
    log = ForgeLog.open(tmp_path / "log", options=SMALL)
    await fill(log, 40)
    shutil.copytree(tmp_path / "log", tmp_path / "crashed")
    copy = ForgeLog.open(tmp_path / "crashed", options=SMALL)
    assert not copy.recovery.clean
    assert payloads(copy) == payloads(log)
    await copy.close()
    await log.close()


async def test_the_originals_bug_is_gone(tmp_path: Path) -> None:
    """A torn tail, a restart, 100 acknowledged appends, a restart: 100 of 100 are there."""
    log = ForgeLog.open(tmp_path, options=SMALL)
    await fill(log, 3)
    end, segment = log.storage.writer.position, log.storage.segments[-1].path
    shutil.copytree(tmp_path, tmp_path / "torn")
    await log.close()
    with (tmp_path / "torn" / segment.name).open("r+b") as file:
        file.seek(end)
        file.write(os.urandom(700))
    log = ForgeLog.open(tmp_path / "torn", options=SMALL)
    assert (log.recovery.torn_bytes, log.recovery.last_offset) == (700, 3)
    for number in range(100):
        await log.append([NewRecord(b"acknowledged %d" % number)])
    shutil.copytree(tmp_path / "torn", tmp_path / "again")
    await log.close()
    log = ForgeLog.open(tmp_path / "again", options=SMALL)
    assert payloads(log, after=3) == [b"acknowledged %d" % number for number in range(100)]
    await log.close()


async def test_a_second_opener_is_refused(log: ForgeLog, tmp_path: Path) -> None:
    """The log is locked also against its own process, and the refusal names the pid."""
    with pytest.raises(LogLocked, match=str(os.getpid())) as refusal:
        ForgeLog.open(tmp_path / "log")
    assert refusal.value.exit_code == 75


async def test_limits_are_enforced(log: ForgeLog) -> None:
    """A record outside the limits, or none at all, is rejected before it is queued."""
    with pytest.raises(RecordRejected):
        log.append([])
    for record in (NewRecord(bytes(1 << 20) + b"x"), NewRecord(b"", bytes(256)), NewRecord(b"", b"", 256)):
        with pytest.raises(RecordRejected):
            log.append([record])
    assert log.durable_offset == 0


async def test_a_full_queue_refuses(tmp_path: Path) -> None:
    """Beyond its bounds the append queue answers LogBusy, and accepts again once it drained."""
    log = ForgeLog.open(tmp_path, options=LogOptions(append_queue_bytes_max=4096, append_queue_records_max=10))
    with pytest.raises(LogBusy):
        log.append([NewRecord(bytes(5000))])
    with pytest.raises(LogBusy):
        log.append([NewRecord(b"")] * 11)
    first = log.append([NewRecord(bytes(3000))])
    with pytest.raises(LogBusy):
        log.append([NewRecord(bytes(3000))])
    await first
    assert await log.append([NewRecord(bytes(3000))]) == 2
    await log.close()


async def test_one_call_may_span_batches(tmp_path: Path) -> None:
    """A call beyond the limits of one batch is acknowledged as a whole."""
    log = ForgeLog.open(tmp_path)
    assert await log.append([NewRecord(b"%d" % number) for number in range(10_000)]) == 1
    assert log.durable_offset == 10_000
    assert log.stats().committed_batches == 3
    assert payloads(log) == [b"%d" % number for number in range(10_000)]
    await log.close()


async def test_a_cancelled_append_stays_in_the_log(log: ForgeLog) -> None:
    """Cancelling the one who waits does not take the record back."""
    log.append([NewRecord(b"given up")]).cancel()
    await log.append([NewRecord(b"later")])
    assert payloads(log) == [b"given up", b"later"]


async def test_wait_beyond_wakes_on_append(log: ForgeLog) -> None:
    """A reader that waits is woken by the next durable record."""
    waiting = asyncio.create_task(log.wait_beyond(0))
    await asyncio.sleep(0)
    await log.append([NewRecord(b"x")])
    assert await waiting == 1


async def test_a_call_comes_with_the_next_record_and_with_the_end(log: ForgeLog) -> None:
    """Whoever asks to be called when the durable end moves is called once, however often it moves, and at the end."""
    called = asyncio.Event()
    log.call_when_moved(called.set)
    assert not log.is_beyond(0)
    await log.append([NewRecord(b"x")])
    await asyncio.wait_for(called.wait(), 10)
    assert (log.is_beyond(0), log.is_beyond(1)) == (True, False)
    called.clear()
    await log.append([NewRecord(b"y")])
    assert not called.is_set()
    log.call_when_moved(called.set)
    await log.close()
    assert called.is_set()
    with pytest.raises(LogClosed):
        log.is_beyond(2)


async def test_close_ends_waiting_and_appending(tmp_path: Path) -> None:
    """After close waits end with LogClosed, appends and commits are refused, and closing again is harmless."""
    log = ForgeLog.open(tmp_path)
    waiting = asyncio.create_task(log.wait_beyond(0))
    await asyncio.sleep(0)
    await log.close()
    with pytest.raises(LogClosed):
        await waiting
    with pytest.raises(LogClosed):
        log.append([NewRecord(b"x")])
    with pytest.raises(LogClosed):
        await log.commit("reader", 0)
    assert log.reason == "the log is closed"
    await log.close()


async def test_close_writes_what_is_queued(tmp_path: Path) -> None:
    """Appends begun before close are acknowledged by it."""
    log = ForgeLog.open(tmp_path)
    futures = [log.append([NewRecord(b"x")]) for _ in range(500)]
    await log.close()
    assert [await future for future in futures] == list(range(1, 501))


async def test_an_abandoned_log_is_found_as_after_a_crash(tmp_path: Path) -> None:
    """After abandon, closing unlocks and says nothing of the end; the next open finds what was acknowledged."""
    log = ForgeLog.open(tmp_path)
    await log.append([NewRecord(b"x")])
    log.abandon()
    await log.close()
    log = ForgeLog.open(tmp_path)
    assert not log.recovery.clean
    assert payloads(log) == [b"x"]
    await log.close()


async def test_a_floor_above_the_end_refuses(tmp_path: Path) -> None:
    """A store that knows of a later offset stops the start, and the exact range is named."""
    log = ForgeLog.open(tmp_path)
    await log.append([NewRecord(b"x")] * 5)
    await log.close()
    with pytest.raises(LogRefused, match="6 to 9") as refusal:
        ForgeLog.open(tmp_path, floor=9)
    assert (refusal.value.code, refusal.value.first_lost, refusal.value.last_lost) == ("E_ACKED_LOSS", 6, 9)


async def test_a_fresh_log_under_an_old_store_refuses(tmp_path: Path) -> None:
    """An empty directory is refused when the store remembers records."""
    with pytest.raises(LogRefused) as refusal:
        ForgeLog.open(tmp_path, floor=3)
    assert (refusal.value.code, refusal.value.first_lost, refusal.value.last_lost) == ("E_ACKED_LOSS", 1, 3)


async def test_the_log_knows_its_store(tmp_path: Path) -> None:
    """The mirror of the store survives, only grows, and can be reset by the operator."""
    assert read_identity(tmp_path / "log") is None
    log = ForgeLog.open(tmp_path / "log")
    await log.append([NewRecord(b"x")] * 9)
    log.bind_store("store-1", 7)
    log.bind_store("store-1", 5)
    identity = read_identity(tmp_path / "log")
    assert identity is not None
    assert (identity.log_id, identity.store_id, identity.projected_offset) == (log.log_id, "store-1", 7)
    log.bind_store("store-2", 1, reset=True)
    await log.close()
    identity = read_identity(tmp_path / "log")
    assert identity is not None
    assert (identity.store_id, identity.projected_offset) == ("store-2", 1)


async def test_consumers_commit(tmp_path: Path) -> None:
    """Commits are durable, only grow, and share their writes."""
    log = ForgeLog.open(tmp_path)
    await log.append([NewRecord(b"x")] * 9)
    await asyncio.gather(*(log.commit("reader", offset) for offset in (3, 8, 5)), log.commit("other", 1))
    await log.commit("reader", 2)
    await log.close()
    log = ForgeLog.open(tmp_path)
    assert log.consumers == {"reader": 8, "other": 1}
    await log.close()


@pytest.mark.parametrize(("name", "offset"), [("", 0), ("a/b", 0), ("x" * 65, 0), ("ok", 10), ("ok", -1)])
async def test_a_bad_commit_is_rejected(log: ForgeLog, name: str, offset: int) -> None:
    """A bad name, or an offset that is not in the log, commits nothing."""
    await log.append([NewRecord(b"x")] * 9)
    with pytest.raises(Rejected):
        await log.commit(name, offset)
    assert log.consumers == {}


async def test_retention_keeps_what_is_unread(tmp_path: Path) -> None:
    """A byte limit removes whole projected segments; reading before the first offset names the gap."""
    log = ForgeLog.open(tmp_path, options=LogOptions(segment_bytes=16_384, retention_bytes_max=1))
    await fill(log, 60)
    assert log.retain(0).segments == 0
    retained = log.retain(20)
    assert 1 < retained.first_offset <= 21
    with pytest.raises(GapError) as gap:
        log.read(0)
    assert (gap.value.first, gap.value.last) == (1, retained.first_offset - 1)
    assert log.read(gap.value.last)[0].offset == retained.first_offset
    await log.close()


async def test_a_failed_sync_poisons(log: ForgeLog, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a failed sync the outcome is unknown, nothing is accepted, and the state says why."""
    await log.append([NewRecord(b"safe")])

    def fail(handle: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(log.storage.disk.files, "fdatasync", fail)
    with pytest.raises(LogPoisoned):
        await log.append([NewRecord(b"lost?")])
    with pytest.raises(LogPoisoned):
        log.append([NewRecord(b"never")])
    with pytest.raises(LogPoisoned):
        await log.wait_beyond(1)
    assert not log.writable
    assert log.poisoned is not None
    assert payloads(log) == [b"safe"]
