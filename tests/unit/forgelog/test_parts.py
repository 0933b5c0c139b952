"""The small parts: records, headers, small files, the operating system's own files."""

import errno
import fcntl
import os
import random
from dataclasses import replace
from pathlib import Path

import pytest

from replayforge.config import load_config
from replayforge.forgelog.atomic import INTERRUPTIONS_MAX, NotWhole, seal, unseal, write_fully
from replayforge.forgelog.batch import decode_head
from replayforge.forgelog.checksum import CRC32C, EXTENDS, ZLIB_CRC32, preferred
from replayforge.forgelog.disk import Disk, SyncFailed
from replayforge.forgelog.errors import CorruptRecord, LogRefused, lost_in_words
from replayforge.forgelog.files import OsFiles, is_network, kind_of_mount
from replayforge.forgelog.header import BadHeader, decode_header, mend_header
from replayforge.forgelog.log import ForgeLog
from replayforge.forgelog.manifest import Manifest
from replayforge.forgelog.reader import Handles
from replayforge.forgelog.record import DamagedRecord, NewRecord, decode_records, encode_records, record_bytes
from replayforge.forgelog.scan import ScanWindow, Walk, later_batches, merge_gaps, written_end
from replayforge.forgelog.segment import PLACES_APART_BYTES, Segment
from replayforge.forgelog.stats import percentile
from replayforge.forgelog.writer import as_unavailable
from replayforge.opening import log_options
from tests.support.clock import FakeClock
from tests.support.files.around import FaultFiles
from tests.support.files.logs import DIRECTORY, TINY, open_storage, read_all, write_log
from tests.support.files.sim import SimFiles

extend = EXTENDS[CRC32C]


@pytest.mark.parametrize("algorithm", [CRC32C, ZLIB_CRC32])
def test_records_go_both_ways(algorithm: int) -> None:
    """What is encoded is decoded, under either checksum, and takes the room it was said to take."""
    rng = random.Random(1)
    records = [
        NewRecord(rng.randbytes(rng.randint(0, 40)), rng.randbytes(rng.randint(0, 255)), rng.randint(0, 255))
        for _ in range(50)
    ]
    body = encode_records(records, 5, EXTENDS[algorithm])
    assert len(body) == sum(record_bytes(record) for record in records)
    decoded = decode_records(body, 5, 50, 7, EXTENDS[algorithm])
    assert [(one.payload, one.key, one.type) for one in decoded] == [
        (one.payload, one.key, one.type) for one in records
    ]
    assert [one.offset for one in decode_records(body, 5, 50, 7, EXTENDS[algorithm], skip=48)] == [53, 54]


def test_a_body_that_ends_early_is_damage() -> None:
    """A record that would reach beyond its batch is refused."""
    body = encode_records([NewRecord(b"payload")], 1, extend)
    for size in (0, 10, 20):
        with pytest.raises(DamagedRecord) as damage:
            decode_records(body[:size], 1, 1, 0, extend)
        assert (damage.value.offset, damage.value.position) == (1, 0)


def test_checksums() -> None:
    """The known check values come out, and the hardware's algorithm is preferred where it runs in hardware."""
    assert extend(0, b"123456789") == 0xE3069283
    assert EXTENDS[ZLIB_CRC32](0, b"123456789") == 0xCBF43926
    assert extend(extend(0, b"1234"), b"56789") == extend(0, b"123456789")
    assert (preferred("c"), preferred("python")) == (CRC32C, ZLIB_CRC32)


def test_sealed_text_is_whole_or_refused() -> None:
    """Every single flipped bit of a sealed file is noticed."""
    data = seal({"b": 1, "a": [2]})
    assert unseal(data) == {"a": [2], "b": 1}
    for bit in range(len(data) * 8):
        damaged = bytearray(data)
        damaged[bit >> 3] ^= 1 << (bit & 7)
        with pytest.raises(NotWhole):
            unseal(bytes(damaged))


def test_writes_go_on_until_all_is_written() -> None:
    """Short and interrupted writes are taken up again; one that takes nothing, or is interrupted for ever, ends."""
    sim = SimFiles()
    handle = sim.open(Path("/log/file"), create=True)
    short = FaultFiles(sim, at=1, sticky=True, short=True)
    write_fully(short.files, handle, b"0123456789", 0)
    assert sim.pread(handle, 10, 0) == b"0123456789"
    write_fully(FaultFiles(sim, at=1, code=errno.EINTR).files, handle, b"abc", 0)
    assert sim.pread(handle, 3, 0) == b"abc"
    forever = FaultFiles(sim, at=1, code=errno.EINTR, sticky=True)
    with pytest.raises(InterruptedError):
        write_fully(forever.files, handle, b"abc", 0)
    assert forever.calls == INTERRUPTIONS_MAX
    sim.pwrite = lambda handle, data, position: 0  # type: ignore[method-assign]
    with pytest.raises(OSError, match="took no byte"):
        write_fully(sim, handle, b"abc", 0)


def test_mending_a_header() -> None:
    """Any single flipped bit in the fields is found by the checksum; two are too many."""
    image = write_log(random.Random(2), segments=1, last_segment_batches=1).image
    header = image[f"{DIRECTORY}/{1:020d}.flog"][:4096]
    for bit in range(0, 128 * 8, 37):
        damaged = bytearray(header)
        damaged[bit >> 3] ^= 1 << (bit & 7)
        assert mend_header(bytes(damaged)) == header
    with pytest.raises(BadHeader):
        mend_header(b"\xff" * 4096)
    with pytest.raises(BadHeader, match="100 of 4,096"):
        decode_header(header[:100])
    with pytest.raises(BadHeader, match="not a ForgeLog"):
        decode_header(bytes(4096))


def test_a_walk_can_start_in_the_middle_of_nothing() -> None:
    """Searching and measuring end where a file was cut meanwhile."""
    files = SimFiles({"/log/file": b"x" * 100})
    window = ScanWindow(files, files.open(Path("/log/file")), 5_000)
    header = decode_header(write_log(random.Random(2), segments=1).image[f"{DIRECTORY}/{1:020d}.flog"])
    assert list(later_batches(window, header, 200, 1)) == []
    assert written_end(window, 50) == 100
    long = SimFiles({"/log/file": b"\1" + bytes(3 << 20)})
    assert written_end(ScanWindow(long, long.open(Path("/log/file")), (3 << 20) + 1), 0) == 1
    walk = Walk(window, header)
    assert walk.step() is None
    assert not walk.pass_damage((5, 9))


def test_half_a_header_is_none() -> None:
    """Fewer bytes than a batch header takes are no header."""
    assert decode_head(b"FRGB", 0, 0, extend) is None


async def test_a_failed_sync_is_never_tried_again() -> None:
    """After the first failed sync every other one is refused without asking the disk."""
    sim = SimFiles()
    handle = sim.open(Path("/log/file"), create=True)
    faulty = FaultFiles(sim, at=1, only=frozenset({"fsync"}))
    disk = Disk(faulty.files, FakeClock())
    for act in (lambda: disk.sync_file(handle), lambda: disk.sync_data(handle), lambda: disk.sync_directory(DIRECTORY)):
        with pytest.raises(SyncFailed):
            act()
    assert faulty.syncs_after_failed_sync == 0
    assert isinstance(as_unavailable(SyncFailed(errno.ENOSPC, "x")), SyncFailed)


def test_a_sync_that_hangs_is_seen_past_one_that_ends() -> None:
    """While one sync hangs, others that begin and end do not hide it."""
    clock = FakeClock()
    disk = Disk(SimFiles(), clock)
    seen: list[float] = []

    def hang() -> None:
        clock.advance(seconds=5)
        disk.sync(lambda: clock.advance(seconds=1))
        seen.append(disk.stalled_seconds())

    disk.sync(hang)
    assert seen == [6.0]
    assert disk.stalled_seconds() == 0


def test_an_exact_limit_of_bytes() -> None:
    """Records that just fit the bytes asked for are all returned."""
    files = SimFiles()
    storage = open_storage(files)
    storage.writer.commit([NewRecord(bytes(101)), NewRecord(bytes(101))])
    for room, count in ((234, 2), (233, 1), (400, 2)):
        assert len(storage.reader.read(0, 2, records_max=10, bytes_max=room)) == count


def test_gaps_merge() -> None:
    """Losses that touch become one; a gap knows its offsets."""
    assert merge_gaps([(7, 9), (1, 2), (3, 3), (8, 12)]) == ((1, 3), (7, 12))
    manifest = Manifest("00", gaps=((1, 3), (7, 12)))
    assert (manifest.gap_at(2), manifest.gap_at(5), manifest.gap_at(12)) == ((1, 3), None, (7, 12))


def test_a_segment_without_the_offset() -> None:
    """A segment that holds nothing before an offset says so, never something else."""
    storage = open_storage(SimFiles())
    segment = storage.segments[-1]
    with pytest.raises(CorruptRecord):
        Segment.locate(segment, 1, storage.disk.files, 0, storage.manifest)


def test_only_the_active_segment_knows_the_place_of_every_batch() -> None:
    """Else what a daemon holds in memory would grow with its log. What is read is the same, from any offset on."""
    options = replace(TINY, segment_bytes=5 * PLACES_APART_BYTES)
    written, rng, payloads = open_storage(SimFiles(), options=options), random.Random(6), list[bytes]()
    while len(written.segments) < 4:
        payloads.append(rng.randbytes(rng.randint(1, 600)))
        written.writer.commit([NewRecord(payloads[-1], b"")])
    assert isinstance(written.disk.files, SimFiles)
    opened = open_storage(SimFiles(written.disk.files.image()), options=options)
    for storage in (written, opened):
        assert read_all(storage) == payloads
        for after in range(0, len(payloads), 7):
            (record,) = storage.reader.read(after, len(payloads), records_max=1, bytes_max=1 << 22)
            assert (record.offset, record.payload) == (after + 1, payloads[after])
        for sealed in storage.segments[:3]:
            assert sealed.last_offset - sealed.header.base_offset > 200
            assert len(sealed.index.positions) in (5, 6)


def test_damage_in_a_sealed_segment_takes_nothing_in_front_of_it() -> None:
    """What lies before it is read; what it may hide is refused, and so is all where the place itself is damaged."""
    written = write_log(random.Random(8), segments=2, last_segment_batches=5)
    storage = open_storage(SimFiles(written.image))
    files, batches = storage.disk.files, written.batches[-5:]
    handle, firsts = files.open(DIRECTORY / batches[0][0]), [last + 1 for *_, last in written.batches[-6:-1]]
    last = written.batches[-1][3]
    files.pwrite(handle, b"\xff", batches[2][1])
    records = storage.reader.read(firsts[0] - 1, last, records_max=1000, bytes_max=1 << 22)
    assert [record.payload for record in records] == written.payloads[firsts[0] - 1 : firsts[2] - 1]
    for first in firsts[2:]:
        with pytest.raises(CorruptRecord):
            storage.reader.read(first - 1, last, records_max=1000, bytes_max=1 << 22)
    files.pwrite(handle, b"\xff", batches[0][1])
    with pytest.raises(CorruptRecord):
        storage.reader.read(firsts[1] - 1, last, records_max=1000, bytes_max=1 << 22)


def test_damage_in_the_active_segment_is_refused() -> None:
    """There the place of every batch is known, and what stands there is still not believed."""
    storage = open_storage(SimFiles())
    storage.writer.commit([NewRecord(b"one", b"")])
    active = storage.segments[-1]
    handle = storage.disk.files.open(active.path)
    storage.disk.files.pwrite(handle, b"\xff", active.index.positions[0])
    with pytest.raises(CorruptRecord):
        storage.reader.read(0, 1, records_max=1, bytes_max=1 << 22)


def test_few_files_are_open_at_once() -> None:
    """Reading many segments keeps few of them open, the latest used."""
    files = write_log(random.Random(3), segments=6, last_segment_batches=2).files
    storage = open_storage(SimFiles(files.image()))
    storage.reader.handles = Handles(storage.disk.files, handles_max=2)
    assert len(read_all(storage)) == storage.report.last_offset
    assert len(storage.reader.handles.open) == 2
    storage.reader.handles.forget(Path("/log/unknown"))


def test_a_batch_larger_than_a_piece_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches longer than one reading come whole, and damage at the end of the file is not read past."""
    written = write_log(random.Random(4), segments=2, last_segment_batches=3)
    monkeypatch.setattr("replayforge.forgelog.reader.PIECE_BYTES", 64)
    assert read_all(open_storage(SimFiles(written.image))) == written.payloads
    monkeypatch.setattr("replayforge.forgelog.reader.PIECE_BYTES", 20)
    with pytest.raises(CorruptRecord):
        read_all(open_storage(SimFiles(written.image)))
    storage = open_storage(SimFiles(written.image))
    storage.segments[1].end -= 8
    monkeypatch.setattr("replayforge.forgelog.reader.PIECE_BYTES", 1 << 20)
    with pytest.raises(CorruptRecord):
        read_all(storage)


def test_percentiles() -> None:
    """The middle and the end of the latencies; nothing for none."""
    assert (percentile([], 0.5), percentile([3, 1, 2], 0.5), percentile([3, 1, 2], 0.99)) == (0.0, 2, 3)


def test_losses_in_words() -> None:
    """The end of a refusal says which offsets are in doubt."""
    assert lost_in_words(None, 3) == ""
    assert lost_in_words(3, None) == " Records from offset 3 on are in doubt."
    assert lost_in_words(3, 3) == " The record at offset 3 is in doubt."
    assert lost_in_words(3, 5) == " Offsets 3 to 5 (3 records) are in doubt."


MOUNTS = r"""
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/root rw
30 22 0:26 / /mnt rw - nfs4 server:/export rw
31 30 0:27 / /mnt/with\040space rw - fuse.sshfs host:/ rw
""".strip()


def test_the_longest_mount_wins() -> None:
    """The kind of file system is that of the mount the path is on."""
    assert kind_of_mount(MOUNTS, Path("/home/log")) == "ext4"
    assert kind_of_mount(MOUNTS, Path("/mnt/log")) == "nfs4"
    assert kind_of_mount(MOUNTS, Path("/mnt/with space/log")) == "fuse.sshfs"
    assert kind_of_mount("", Path("/mnt")) == "unknown"
    assert (is_network("nfs4"), is_network("fuse.sshfs"), is_network("ext4")) == (True, True, False)


class OnNfs(OsFiles):
    """Files that say of themselves that they lie on NFS."""

    def kind(self, path: Path) -> str:
        return "nfs4"


async def test_a_network_file_system_is_refused_until_somebody_insists(tmp_path: Path) -> None:
    """The refusal names the flag of `serve`, and with it the log opens."""
    with pytest.raises(LogRefused, match=r"E_NETWORK_FS.*--allow-network-fs"):
        ForgeLog.open(tmp_path, files=OnNfs())
    config = load_config(None, {}, {"allow_network_fs": True}).config
    await ForgeLog.open(tmp_path, files=OnNfs(), options=log_options(config)).close()


def test_os_files_on_other_systems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Linux's calls the portable ones are taken: flock, no reservation, F_FULLFSYNC where there is one."""
    files = OsFiles()
    handle = files.open(tmp_path / "file", create=True)
    for name in ("F_OFD_SETLK", "F_OFD_GETLK"):
        monkeypatch.delattr(fcntl, name)
    for name in ("posix_fallocate", "posix_fadvise"):
        monkeypatch.delattr(os, name)
    asked: list[int] = []
    monkeypatch.setattr(fcntl, "F_FULLFSYNC", 51, raising=False)
    monkeypatch.setattr(fcntl, "fcntl", lambda handle, command: asked.append(command))
    files.allocate(handle, 100)
    files.drop_cache(handle)
    files.fdatasync(handle)
    files.fsync(handle)
    assert files.size(handle) == 0
    assert asked == [51, 51]
    assert files.lock(handle)
    assert not files.is_locked(handle)
    other = files.open(tmp_path / "file")
    assert not files.lock(other)
    monkeypatch.setattr(Path, "exists", lambda path: False)
    assert files.kind(tmp_path) == "unknown"
    files.close(handle)
    files.close(other)


def test_os_files_pass_errors_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lack of support for reserving space is no error; a lack of space is, and so is a lock that cannot be asked."""
    files = OsFiles()
    handle = files.open(tmp_path / "file", create=True)
    for code, raises in ((errno.EOPNOTSUPP, False), (errno.ENOSPC, True)):

        def allocate(handle: int, position: int, size: int, code: int = code) -> None:
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr(os, "posix_fallocate", allocate)
        if raises:
            with pytest.raises(OSError, match="No space"):
                files.allocate(handle, 10)
        else:
            files.allocate(handle, 10)
    with pytest.raises(OSError, match="Bad file"):
        files.lock(9_999)
    files.close(handle)


def test_reads_go_on_after_a_short_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A read that the kernel cuts short is continued; only the end of the file ends it."""
    (tmp_path / "file").write_bytes(b"0123456789")
    files, pread = OsFiles(), os.pread
    handle = files.open(tmp_path / "file")
    monkeypatch.setattr(os, "pread", lambda handle, size, position: pread(handle, min(size, 3), position))
    assert files.pread(handle, 8, 1) == b"12345678"
    assert files.pread(handle, 80, 1) == b"123456789"
    files.close(handle)
