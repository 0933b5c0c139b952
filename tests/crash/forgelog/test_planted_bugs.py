"""S15: bugs planted one at a time; every one of them must be caught, or the suites prove nothing.

Each bug is a patch on the running code, never a switch in it. Each is held against small versions of the suites; the
bug counts as caught when one of them fails.
"""

import asyncio
import errno
import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from msgspec.structs import replace

from replayforge.domain.errors import ReplayForgeError
from replayforge.forgelog import check, committer, header, log_recovery, record, segment, writer
from replayforge.forgelog.atomic import write_fully
from replayforge.forgelog.batch import decode_head
from replayforge.forgelog.checksum import CRC32C, EXTENDS
from replayforge.forgelog.committer import Committer
from replayforge.forgelog.consumers import save_consumers
from replayforge.forgelog.disk import Disk
from replayforge.forgelog.errors import LogLocked
from replayforge.forgelog.manifest import load_manifest, save_manifest
from replayforge.forgelog.record import DamagedRecord, NewRecord, decode_records, encode_records
from replayforge.forgelog.scan import Walk
from replayforge.forgelog.storage import Storage
from replayforge.forgelog.writer import Writer
from tests.crash.forgelog import test_garbage as garbage_suite
from tests.crash.forgelog.conftest import Tally
from tests.crash.forgelog.test_crash_images import History, Workload
from tests.crash.forgelog.test_damage import SMALL, flipped, scrubber_finds
from tests.crash.forgelog.test_faults import Run
from tests.support.clock import FakeClock
from tests.support.files.around import SYNCS, FaultFiles
from tests.support.files.logs import DIRECTORY, Opened, open_storage, outcome, write_log
from tests.support.files.sim import SimFiles

Patch = pytest.MonkeyPatch
Suite = Callable[[], Awaitable[None]]

# The suites, made small


async def small_flips() -> None:
    """S2 at every 41st bit."""
    written = write_log(random.Random(2), segments=2, options=SMALL, payload_bytes=500)
    image, payloads = written.image, written.payloads
    opened = Opened(image, options=SMALL)
    for name in [*garbage_suite.segments(image), f"{DIRECTORY}/MANIFEST"]:
        end = max((end for one, _, end, _ in written.batches if name.endswith(one)), default=len(image[name]))
        for bit in range(0, len(image[name]) * 8, 41):
            damaged = {**image, name: flipped(image[name], bit)}
            found = opened.outcome(damaged)
            if found == payloads:
                assert bit >> 3 >= end or scrubber_finds(damaged)
            elif not isinstance(found, str):
                assert found == payloads[: written.batches[-2][3]]
                assert written.batches[-1][1] <= bit >> 3 < end


async def small_in_flight() -> None:
    """S4 for single missing sectors of the batch in flight."""
    files = SimFiles(write_log(random.Random(3), segments=1, last_segment_batches=3).image)
    log = open_storage(files)
    log.writer.commit([NewRecord(b"before")])
    clean, start = files.image(), log.writer.position
    log.writer.commit([NewRecord(random.Random(4).randbytes(1800))])
    name = str(log.segments[-1].path)
    whole = files.image()[name]
    before, after = outcome(clean), outcome({**clean, name: whole})
    for begin in range(start // 512 * 512 + 512, log.writer.position, 512):
        torn = whole[:begin] + bytes(512) + whole[begin + 512 :]
        assert outcome({**clean, name: torn}) in (before, after)


async def small_crashes() -> None:
    """S5 along one history with all that a log does in it."""
    rng, files, history = random.Random(5), SimFiles(), History()

    def crash(operation: str) -> None:
        for image in files.crash_images(rng, 1):
            history.check(image)

    files.before = crash
    work = Workload(files, history, rng)
    for act, times in ((work.append, 10), (work.retain, 1), (work.commit, 1), (work.append, 8), (work.reopen, 1),
                       (work.append, 8), (work.bind, 1), (work.retain, 1), (work.append, 4)):  # fmt: skip
        for _ in range(times):
            act()
    assert history.removable


async def small_faults() -> None:
    """S7 for failing syncs and full disks."""
    for at in range(1, 60):
        for code, only in ((errno.EIO, SYNCS), (errno.ENOSPC, frozenset({"pwrite", "allocate", "rename"}))):
            disk = SimFiles()
            faulty = FaultFiles(disk, at=at, code=code, only=only)
            run = Run(faulty)
            await asyncio.wait_for(run.live(), 20)
            run.judge(disk)


async def small_poison() -> None:
    """S7: zero syncs after a failed one, within one life of the log."""
    for at in range(8, 40):
        faulty = FaultFiles(SimFiles(), at=at, only=SYNCS)
        run = Run(faulty)
        await run.attempt(run.open)
        for number in range(12):
            await run.attempt(lambda number=number, run=run: run.append(number, 1500))  # type: ignore[misc]
            await run.attempt(run.bind)
        await run.close()
        assert faulty.syncs_after_failed_sync == 0


async def small_garbage() -> None:
    """S11 for a thousand inputs, and a log that went another way."""
    tally = Tally("planted")
    garbage_suite.fuzz(tally, 1_000, garbage_suite.Pair(random.Random(6)))
    pair = garbage_suite.Pair(random.Random(7))
    name, begin, end, _ = pair.log.batches[-1]
    path = f"{DIRECTORY}/{name}"
    clone = garbage_suite.other_history(random.Random(8), pair)
    mixed = clone[path][:begin] + pair.image[path][begin:end]
    assert outcome({**pair.image, path: mixed.ljust(len(clone[path]), b"\0")}) == "E_ORDER"


async def small_floors() -> None:
    """A wholly lost last write looks like a clean end, unless a consumer's commit or the store's mirror is a floor."""
    written = write_log(random.Random(9), segments=1, last_segment_batches=4)
    segment_name, begin, _, _ = written.batches[-1]
    name, total = f"{DIRECTORY}/{segment_name}", len(written.payloads)
    image = written.image
    image[name] = image[name][:begin].ljust(len(image[name]), b"\0")
    assert outcome(image) == written.payloads[: written.batches[-2][3]]
    files = SimFiles(image)
    save_consumers(Disk(files, FakeClock()), DIRECTORY, {"reader": total})
    assert outcome(files.image()) == "E_ACKED_LOSS"
    files = SimFiles(image)
    manifest = replace(load_manifest(files, DIRECTORY), projected_offset=total)
    save_manifest(Disk(files, FakeClock()), DIRECTORY, manifest)
    assert outcome(files.image()) == "E_ACKED_LOSS"
    assert outcome(image, floor=total) == "E_ACKED_LOSS"


async def small_locks() -> None:
    """S12: a second opener is refused."""
    files = SimFiles()
    log = open_storage(files)
    with pytest.raises(LogLocked):
        open_storage(files)
    log.abandon()


async def small_records() -> None:
    """A record that stands at another offset than its own is refused."""
    extend = EXTENDS[CRC32C]
    body = encode_records([NewRecord(b"one"), NewRecord(b"two")], 7, extend)
    with pytest.raises(DamagedRecord):
        decode_records(body, 8, 2, 0, extend)


async def small_evidence() -> None:
    """Torn bytes stay where they are, through any number of starts."""
    written = write_log(random.Random(10), segments=1, last_segment_batches=3)
    name, end = f"{DIRECTORY}/{written.batches[-1][0]}", written.batches[-1][2]
    image = written.image
    image[name] = image[name][:end] + b"torn write" + image[name][end + 10 :]
    files = SimFiles(image)
    open_storage(files).finish()
    open_storage(files)
    assert files.image()[name] == image[name]


# The bugs


def acknowledge_before_sync(patch: Patch) -> None:
    """The writer says "durable" and syncs only every second batch."""
    sync, calls = Disk.sync_data, [0]

    def lazy(self: Disk, handle: int) -> float:
        calls[0] += 1
        if calls[0] % 2:
            self.latencies.append(0.0)
            return 0.0
        return sync(self, handle)

    patch.setattr(Disk, "sync_data", lazy)


def no_directory_sync(patch: Patch) -> None:
    """New names are never made durable."""
    patch.setattr(Disk, "sync_names", lambda self, path, handle: None)


def no_floor_check(patch: Patch) -> None:
    """Nobody asks what the store has seen."""
    patch.setattr(log_recovery, "refuse_acked_loss", lambda found, floors: None)


def consumers_are_no_floor(patch: Patch) -> None:
    """Committed offsets are read and not believed."""
    patch.setattr(log_recovery, "load_consumers", lambda files, directory: {})


def retry_a_failed_sync(patch: Patch) -> None:
    """A failed sync is tried once more; the kernel then says yes to data it has dropped."""

    def sync(self: Disk, act: Callable[[], None]) -> float:
        try:
            act()
        except OSError:
            act()
        return 0.0

    patch.setattr(Disk, "sync", sync)


def go_on_after_poison(patch: Patch) -> None:
    """A failed sync is reported to its callers, and the log accepts the next batch."""

    def sync(self: Disk, act: Callable[[], None]) -> float:
        act()
        return 0.0

    patch.setattr(Disk, "sync", sync)
    patch.setattr(Committer, "poison", lambda self, error: None)

    def commit(self: Committer, items: list[Any]) -> None:
        first = self.writer.next_offset
        try:
            for batch in committer.split(items, self.options.limits):
                self.writer.commit(batch)
            self.durable_offset = self.writer.next_offset - 1
        except OSError as error:
            self.call(self.fail, items, committer.as_poisoned(error))
        else:
            self.call(self.resolve, items, first)

    patch.setattr(Committer, "commit", commit)


def skip_the_body_checksum(patch: Patch) -> None:
    """Recovery believes a batch by its header alone."""
    plain = Walk.__init__

    def headers_only(self: Walk, *arguments: Any, **named: Any) -> None:
        plain(self, *arguments, **{**named, "with_bodies": False})

    patch.setattr(Walk, "__init__", headers_only)


def accept_a_hole(patch: Patch) -> None:
    """The first bad batch is the end of the log, as in most logs."""
    patch.setattr(log_recovery, "later_batches", lambda *arguments: iter(()))


def any_extent_is_torn(patch: Patch) -> None:
    """Whatever follows the last valid batch is taken for a torn write."""
    patch.setattr(log_recovery, "judge_end", lambda walk: 1)


def wrong_previous_end(patch: Patch) -> None:
    """A new segment states an end of the old one that is eight bytes off."""
    plain = Writer.next_header

    def off_by_eight(self: Writer) -> header.SegmentHeader:
        found = plain(self)
        return header.with_checksum(replace(found, previous_end=found.previous_end + 8))

    patch.setattr(Writer, "next_header", off_by_eight)


def no_chain(patch: Patch) -> None:
    """Batches are matched by offset only."""
    plain = Walk.accept

    def forgetful(self: Walk, head: Any, body: bytes) -> None:
        plain(self, head, body)

    def step(self: Walk, original: Any = Walk.step) -> Any:
        head = decode_head(self.window.at(self.position, 48), 0, self.header.salt, self.extend)
        if head is not None:
            self.chain = head.previous_chain
        return original(self)

    patch.setattr(Walk, "accept", forgetful)
    patch.setattr(Walk, "step", step)


def unlink_before_the_manifest(patch: Patch) -> None:
    """Retention removes the files first and tells the manifest afterwards."""

    def delete_segments(self: Storage, gone: list[segment.Segment]) -> list[segment.Segment]:
        for one in gone:
            self.disk.files.unlink(one.path)
        self.disk.sync_directory(self.directory)
        kept = self.reader.segments[len(gone) :]
        self.change_manifest(first_segment=kept[0].header.segment_id)
        self.reader.show(kept)
        return gone

    patch.setattr(Storage, "delete_segments", delete_segments)


def offset_not_in_the_record(patch: Patch) -> None:
    """The checksum of a record does not cover its offset."""

    class Blind:
        @staticmethod
        def pack(offset: int, size: int) -> bytes:
            return size.to_bytes(12, "little")

    patch.setattr(record, "SEALED_PREFIX", Blind)


def padding_unchecked(patch: Patch) -> None:
    """What follows the fields of a header may be anything."""
    plain = header.decode_header

    def lenient(data: bytes) -> header.SegmentHeader:
        return plain(data[:128].ljust(4096, b"\0") if len(data) >= 4096 else data)

    patch.setattr(log_recovery, "decode_header", lenient)
    patch.setattr(check, "decode_header", lenient)


def truncate_torn_tails(patch: Patch) -> None:
    """Recovery cuts the torn bytes off, and with them the evidence."""

    def cut(self: Storage, found: log_recovery.Found) -> None:
        if found.segments:
            handle = self.disk.files.open(self.directory / found.segments[-1].header.name, write=True)
            self.disk.files.truncate(handle, found.segments[-1].end)
            self.disk.files.close(handle)

    patch.setattr(Storage, "give_back_space", cut)


def a_full_disk_moves_on(patch: Patch) -> None:
    """After a write that found no space the next one goes behind the hole."""
    plain = Writer.write

    def skip(self: Writer, handle: int, data: bytes) -> None:
        try:
            plain(self, handle, data)
        except Exception:
            self.position += len(data)
            raise

    patch.setattr(Writer, "write", skip)


def no_lock(patch: Patch) -> None:
    """Everyone gets the lock."""
    patch.setattr(SimFiles, "lock", lambda self, handle: True)


def rename_before_sync(patch: Patch) -> None:
    """A new segment gets its name before its header is durable."""

    def seal(self: Writer) -> tuple[int, header.SegmentHeader]:
        files, found = self.disk.files, self.next_header()
        if self.spare is None:
            self.spare = files.open(self.directory / writer.SPARE_NAME, create=True)
        write_fully(files, self.spare, header.encode_header(found), 0)
        files.rename(self.directory / writer.SPARE_NAME, self.directory / found.name)
        self.disk.sync_directory(self.directory)
        handle, self.spare = self.spare, None
        return handle, found

    patch.setattr(Writer, "seal", seal)


BUGS: dict[Callable[[Patch], None], Suite] = {
    acknowledge_before_sync: small_crashes,
    no_directory_sync: small_crashes,
    rename_before_sync: small_crashes,
    unlink_before_the_manifest: small_crashes,
    wrong_previous_end: small_crashes,
    no_floor_check: small_floors,
    consumers_are_no_floor: small_floors,
    retry_a_failed_sync: small_poison,
    go_on_after_poison: small_poison,
    skip_the_body_checksum: small_in_flight,
    accept_a_hole: small_flips,
    padding_unchecked: small_flips,
    any_extent_is_torn: small_garbage,
    no_chain: small_garbage,
    offset_not_in_the_record: small_records,
    truncate_torn_tails: small_evidence,
    a_full_disk_moves_on: small_faults,
    no_lock: small_locks,
}


@pytest.mark.parametrize("suite", dict.fromkeys(BUGS.values()), ids=lambda suite: suite.__name__)
async def test_s15_the_small_suites_pass_without_a_bug(tally: Tally, suite: Suite) -> None:
    """Without a planted bug every small suite passes, so a failure below is the bug's doing."""
    await suite()
    tally.add("suites passed without a bug")


@pytest.mark.parametrize("plant", BUGS, ids=lambda bug: bug.__name__)
async def test_s15_planted_bugs_are_caught(tally: Tally, plant: Callable[[Patch], None]) -> None:
    """A log with this bug in it fails the suite that is there for it."""
    suite = BUGS[plant]
    with pytest.MonkeyPatch.context() as patch:
        plant(patch)
        with pytest.raises((AssertionError, ReplayForgeError, OSError, TimeoutError, pytest.fail.Exception)) as caught:
            await suite()
    tally.name = f"s15 {plant.__name__}, caught by {suite.__name__} ({caught.typename})"
    tally.add("planted bug caught")
