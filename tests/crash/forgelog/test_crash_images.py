"""S5 and S6: whatever a crash leaves of the unsynced, recovery gives back all that was acknowledged, no more."""

import random
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, field

import pytest

from replayforge.forgelog.consumers import save_consumers
from replayforge.forgelog.errors import GapError, LogFull, LogRefused
from replayforge.forgelog.header import HEADER_BYTES
from replayforge.forgelog.limits import BATCH_HEAD_BYTES
from replayforge.forgelog.record import RECORD_HEAD_BYTES, NewRecord
from replayforge.forgelog.repair import apply_plan, make_plan
from replayforge.forgelog.storage import Storage
from tests.crash.forgelog.conftest import Tally
from tests.support.files.logs import DIRECTORY, Written, known_to_readers, open_storage, read_all, write_log
from tests.support.files.sim import SECTOR, Image, SimFiles
from tests.support.slow import the_rest_slow


@dataclass
class History:
    """The oracle: what was handed in, how much of it was acknowledged, and what retention was allowed to remove.

    What equals in every byte something judged before, with as much acknowledged, is not judged again.
    """

    submitted: list[bytes] = field(default_factory=list)
    acked: int = 0
    removable: int = 0
    consumer: int = 0
    judged: set[int] = field(default_factory=set)

    def check(self, image: Image) -> bool:
        """Acknowledged is part of recovered is part of submitted, each at its own offset, and again after a reopen.

        Returns whether the image was another one than before.
        """
        if not self.is_new(image):
            return False
        files = SimFiles(image)
        storage = open_storage(files, floor=self.acked)
        recovered, report = files.image(), storage.report
        if self.is_new(recovered, known_to_readers(storage), report.last_offset, report.warnings):
            self.judge(storage)
            again = open_storage(SimFiles(recovered), floor=self.acked)
            assert (again.first_offset, again.report.last_offset) == (storage.first_offset, report.last_offset)
            self.judge(again)
        return True

    def is_new(self, image: Image, *known: object) -> bool:
        before = len(self.judged)
        self.judged.add(hash((frozenset(image.items()), self.acked, self.removable, self.consumer, known)))
        return len(self.judged) > before

    def judge(self, storage: Storage) -> None:
        first, last = storage.first_offset, storage.report.last_offset
        assert self.acked <= last <= len(self.submitted)
        assert not storage.report.warnings
        assert first <= self.removable + 1
        assert read_all(storage) == self.submitted[first - 1 : last]
        assert storage.consumers.get("reader", 0) >= self.consumer


class Workload:
    """Appends, rolls, marks, commits, binds, retains, closes and opens, in an order that a seed gives."""

    def __init__(self, files: SimFiles, history: History, rng: random.Random) -> None:
        self.files = files
        self.history = history
        self.rng = rng
        self.storage = open_storage(files)

    def append(self) -> None:
        records = [NewRecord(self.rng.randbytes(self.rng.randint(1, 700))) for _ in range(self.rng.randint(1, 4))]
        self.history.submitted += [record.payload for record in records]
        self.storage.writer.commit(records)
        self.history.acked = len(self.history.submitted)

    def fill(self) -> None:
        """The disk is full in the middle of a batch, and later it is not; the log may look for space before it writes.

        So much is missing of the batch that no crash can leave it whole.
        """
        self.files.space = self.rng.randrange(1600)
        with pytest.raises(LogFull):
            self.storage.writer.commit([NewRecord(self.rng.randbytes(2000))])
        self.files.space = None
        if self.rng.random() < 0.5:
            assert self.storage.writer.has_space()

    def mark(self) -> None:
        self.storage.writer.mark()

    def bind(self) -> None:
        self.storage.bind_store("store", self.history.acked)

    def commit(self) -> None:
        save_consumers(self.storage.disk, DIRECTORY, {"reader": self.history.acked})
        self.history.consumer = self.history.acked

    def retain(self) -> None:
        gone = self.storage.segments[:-2]
        if gone:
            self.history.removable = gone[-1].last_offset
            self.storage.delete_segments(gone)

    def reopen(self) -> None:
        if self.rng.random() < 0.5:
            self.storage.finish()
        else:
            self.files.handles.clear()
            for file in self.files.names.values():
                file.locked = False
        self.storage = open_storage(self.files, floor=self.history.acked)

    def step(self) -> None:
        choices: list[Callable[[], None]] = [self.append] * 14 + [
            self.mark, self.mark, self.fill, self.bind, self.commit, self.retain, self.reopen,
        ]  # fmt: skip
        self.rng.choice(choices)()


@dataclass(frozen=True)
class Life:
    """One life of a log, and what a crash at each of its moments would leave: all of it follows from these figures."""

    seed: int
    steps: int
    randoms: int

    def live(self, tally: Tally, look: Callable[[History, Image], None], *, images: int) -> None:
        """Show each image as the life goes on, until it is over or there were enough of them after a step."""
        tally.rng.seed(self.seed)
        files, history, seen = SimFiles(), History(), 0

        def crash(operation: str) -> None:
            nonlocal seen
            tally.add("crash points")
            with tally.one_salt():
                for image in files.crash_images(tally.rng, self.randoms):
                    look(history, image)
                    seen += 1

        files.before = crash
        work = Workload(files, history, random.Random(f"{self.seed}:steps"))
        for _ in range(self.steps):
            if seen < images:
                work.step()
        tally.add("acknowledged records", history.acked)

    def image(self, tally: Tally, number: int) -> tuple[History, Image]:
        """Live it again and return the image of this number, from 1, and what was known when it was taken."""
        found: list[tuple[History, Image]] = []
        count = 0

        def look(history: History, image: Image) -> None:
            nonlocal count
            count += 1
            if count == number:
                found.append((deepcopy(history), image))

        self.live(tally, look, images=number)
        return found[0]


def crash_everywhere(tally: Tally, *, images: int, steps: int, randoms: int) -> None:
    """Live lives of so many steps, and look at what a crash in them would leave, until there were enough images."""
    seeds = random.Random(tally.rng.getrandbits(64))
    while tally.counts["images"] < images:
        life, before = Life(seeds.getrandbits(64), steps, randoms), tally.counts["images"]

        def look(history: History, image: Image, life: Life = life, before: int = before) -> None:
            tally.add("images")
            try:
                tally.add("different images", history.check(image))
            except Exception as error:
                error.add_note(f"To have this image again: {life}.image(tally, {tally.counts['images'] - before})")
                raise

        life.live(tally, look, images=images - before)


@pytest.mark.parametrize("part", the_rest_slow(range(8)))
def test_s5_crash_images(tally: Tally, part: int) -> None:
    """From every crash image of every moment all that was acknowledged is recovered, and nothing that was not sent."""
    crash_everywhere(tally, images=6_250, steps=40, randoms=4)


@pytest.mark.soak
def test_s5_crash_images_soak(tally: Tally) -> None:
    """The same, for 1.5 million images."""
    for images in range(50_000, 1_500_001, 50_000):
        crash_everywhere(tally, images=images, steps=80, randoms=6)
        tally.progress()


def test_s5_a_life_repeats_by_its_seed(tally: Tally) -> None:
    """Every image of a life comes again, byte for byte and in its place, and each alone by its number."""
    life = Life(tally.seed, steps=12, randoms=4)
    lives: list[list[Image]] = [[], []]
    for images in lives:
        life.live(tally, lambda history, image, images=images: images.append(image), images=1000)  # type: ignore[misc]
    first, second = lives
    assert first == second
    number = tally.rng.randrange(len(first)) + 1
    history, image = life.image(tally, number)
    assert image == first[number - 1]
    with tally.one_salt():
        assert history.check(image)


def fixed_batch(storage: Storage, size: int, end: bytes) -> bytes:
    """Commit one record whose batch takes so many bytes and ends like this; return its payload."""
    payload = b"x" * (size - BATCH_HEAD_BYTES - RECORD_HEAD_BYTES - len(end)) + end
    storage.writer.commit([NewRecord(payload)])
    return payload


def test_s5_zeros_that_were_synced_stand_in_every_image(tally: Tally) -> None:
    """A batch whose last sector holds nothing but zeros of its own is not lost to the write of the one behind it."""
    files = SimFiles()
    storage = open_storage(files)
    name = str(storage.segments[-1].path)
    payloads = [fixed_batch(storage, 1440, b"x" * 8), fixed_batch(storage, 2152, bytes(8))]
    end = storage.writer.position
    assert end % SECTOR == 8
    durable = files.image()[name][:end]

    def crash(operation: str) -> None:
        for image in files.crash_images(tally.rng, 4):
            assert image[name][:end] == durable
            assert read_all(open_storage(SimFiles(image), floor=2))[:2] == payloads
            tally.add("images")

    files.before = crash
    fixed_batch(storage, 1440, b"x" * 8)
    files.before = lambda operation: None
    image, lost = files.image(), end // SECTOR * SECTOR
    image[name] = image[name][:lost] + tally.rng.randbytes(SECTOR) + image[name][lost + SECTOR :]
    refusal = r"byte 5,536: the batch here is damaged, and data follows its end at byte 7,688"
    with pytest.raises(LogRefused, match=refusal):  # a disk that does lose it has lost an acknowledged record
        open_storage(SimFiles(image))


@pytest.mark.parametrize("looks_for_space", [False, True])
def test_s5_a_batch_after_a_full_disk(tally: Tally, looks_for_space: bool) -> None:
    """A batch where another found no space: of each sector any content since the last sync may be left, no more."""
    files = SimFiles()
    storage = open_storage(files)
    name = str(storage.segments[-1].path)
    before, after = fixed_batch(storage, 1440, b"x" * 8), b"short" * 120
    since_sync = [files.image()]

    def crash(operation: str) -> None:
        newest = files.image()
        images = list(files.crash_images(tally.rng, 4))
        for older in since_sync:
            for cut in range(HEADER_BYTES, len(newest[name]), SECTOR):
                images.append({**newest, name: newest[name][:cut] + older[name][cut:]})
                images.append({**newest, name: older[name][:cut] + newest[name][cut:]})
        for image in images:
            assert read_all(open_storage(SimFiles(image), floor=1)) in ([before], [before, after])
            tally.add("images")
        since_sync.append(newest)
        if operation == "fdatasync":
            since_sync[:] = [newest]

    files.before = crash
    files.space = 1_500
    with pytest.raises(LogFull):
        storage.writer.commit([NewRecord(tally.rng.randbytes(3_000))])
    files.space = None
    if looks_for_space:
        assert storage.writer.has_space()
    storage.writer.commit([NewRecord(after)])


RECOVERY_CRASHES_MIN = 2_500


def crash_in_recovery(tally: Tally, history: History, image: Image, depth: int) -> None:
    """Crash a recovery at each of its operations, and the recovery of some of those again."""
    files = SimFiles(image)

    def crash(operation: str) -> None:
        for left in files.crash_images(tally.rng, 1):
            if tally.counts["crashes in all"] >= RECOVERY_CRASHES_MIN:
                return
            with tally.one_salt():
                history.check(left)
            tally.add(f"crashes at depth {3 - depth}")
            tally.add("crashes in all")
            if depth > 1 and tally.rng.random() < 0.02:
                crash_in_recovery(tally, history, left, depth - 1)

    files.before = crash
    open_storage(files, floor=history.acked)


@pytest.mark.parametrize("part", range(2))
def test_s6_crashes_during_recovery(tally: Tally, part: int) -> None:
    """A recovery that crashes, and the recovery after it that crashes again, leave the same records."""
    while tally.counts["crashes in all"] < RECOVERY_CRASHES_MIN:
        files, history = SimFiles(), History()

        def crash(operation: str, files: SimFiles = files, history: History = history) -> None:
            if tally.rng.random() < 0.06 and tally.counts["crashes in all"] < RECOVERY_CRASHES_MIN:
                images = list(files.crash_images(tally.rng, 2))
                crash_in_recovery(tally, history, tally.rng.choice(images), 2)
                tally.add("starting images")

        files.before = crash
        work = Workload(files, history, random.Random(tally.rng.getrandbits(64)))
        for _ in range(30):
            work.step()


def in_the_middle(written: Written, segment: str, position: int, content: bytes) -> Image:
    name = f"{DIRECTORY}/{segment}"
    data = written.image[name]
    return {**written.image, name: data[:position] + content + data[position + len(content) :]}


def damages(rng: random.Random, written: Written) -> Iterator[Image]:
    """A hole in a sealed segment and one in the tail; a header that can be mended; a header that cannot."""
    sealed, tail = written.batches[3], written.batches[-2]
    both = in_the_middle(written, sealed[0], sealed[1] + 60, b"\xff" * 8)
    name = f"{DIRECTORY}/{tail[0]}"
    both[name] = both[name][: tail[1] + 60] + b"\xff" * 8 + both[name][tail[1] + 68 :]
    yield both
    second = f"{2:020d}.flog"
    yield in_the_middle(written, second, 90, bytes([written.image[f"{DIRECTORY}/{second}"][90] ^ 16]))
    yield in_the_middle(written, second, 0, rng.randbytes(4096))


def repaired(files: SimFiles) -> dict[int, bytes]:
    """Carry out whatever plan there is now, open the log, and return what can be read past the gaps."""
    _, plan = make_plan(files, DIRECTORY)
    apply_plan(files, DIRECTORY, plan, list(plan.lost))
    storage = open_storage(files)
    found: dict[int, bytes] = {}
    after, last = 0, storage.writer.next_offset - 1
    while after < last:
        try:
            records = storage.reader.read(after, last, records_max=1000, bytes_max=1 << 20)
        except GapError as gap:
            after = gap.last
            continue
        found |= {record.offset: record.payload for record in records}
        after = records[-1].offset
    return found


def test_s5_crash_images_of_a_repair(tally: Tally) -> None:
    """A repair that crashes at any moment can be planned and carried out again, and costs no more than planned."""
    for _ in range(2):
        written = write_log(tally.rng, segments=3, last_segment_batches=4, payload_bytes=900)
        for damaged in damages(tally.rng, written):
            expected = repaired(SimFiles(damaged))
            assert set(expected.items()) <= set(enumerate(written.payloads, start=1))
            files = SimFiles(damaged)

            def crash(operation: str, files: SimFiles = files, expected: dict[int, bytes] = expected) -> None:
                images = list(files.crash_images(tally.rng, 1))
                for image in tally.rng.sample(images, min(4, len(images))):
                    assert repaired(SimFiles(image)) == expected
                    tally.add("images")

            files.before = crash
            _, plan = make_plan(files, DIRECTORY)
            apply_plan(files, DIRECTORY, plan, list(plan.lost))
            files.before = lambda operation: None
            assert repaired(files) == expected
            tally.add("repairs")
            tally.add("records given up", plan.lost_records)
