"""S1 to S4: a log that was cut, flipped, overwritten or half written never answers with less than it was given."""

import random
from collections.abc import Iterator

import pytest

from replayforge.forgelog.consumers import save_consumers
from replayforge.forgelog.disk import Disk
from replayforge.forgelog.header import HEADER_BYTES
from replayforge.forgelog.limits import Limits
from replayforge.forgelog.options import LogOptions
from replayforge.forgelog.record import NewRecord
from replayforge.forgelog.scrubber import Scrubber
from tests.crash.forgelog.conftest import Tally
from tests.support.clock import FakeClock
from tests.support.files.logs import DIRECTORY, Opened, Written, open_storage, outcome, read_all, write_log
from tests.support.files.sim import Image, SimFiles
from tests.support.slow import the_rest_slow

SEGMENTS = [f"{DIRECTORY}/{number:020d}.flog" for number in (1, 2)]
MANIFEST = f"{DIRECTORY}/MANIFEST"
CONSUMERS = f"{DIRECTORY}/consumers.json"
LARGE = LogOptions(segment_bytes=11_264, limits=Limits(batch_bytes_max=4096, payload_bytes_max=2048))
PARTS = 4
SMALL = LogOptions(segment_bytes=8_192, limits=Limits(batch_bytes_max=2048, payload_bytes_max=1024))


def whole_batches(written: Written, segment: str, size: int) -> int:
    """The last offset whose batch lies wholly inside the first `size` bytes of a segment."""
    inside = [last for name, _, end, last in written.batches if segment.endswith(name) and end <= size]
    before = [last for name, _, _, last in written.batches if name < segment.rpartition("/")[2]]
    return max(inside + before, default=0)


def share(whole: range, part: int) -> range:
    """Return one of PARTS equal parts, which two workers can share."""
    assert len(whole) % PARTS == 0
    size = len(whole) // PARTS
    return whole[part * size : (part + 1) * size]


@pytest.mark.parametrize("part", the_rest_slow(range(PARTS)))
@pytest.mark.parametrize("segment", SEGMENTS, ids=["sealed", "tail"])
def test_s1_truncation_at_every_byte(tally: Tally, segment: str, part: int) -> None:
    """A log cut at any byte opens with exactly the whole batches, or refuses; with a floor it refuses every loss."""
    tally.sow("s1_truncation_at_every_byte")  # every part cuts the same log
    written = write_log(tally.rng, segments=2, options=LARGE, payload_bytes=400)
    image, total = written.image, len(written.payloads)
    end = max(last for name, _, last, _ in written.batches if segment.endswith(name))
    for size in share(range(len(image[segment])), part):
        cut = {**image, segment: image[segment][:size]}
        kept = whole_batches(written, segment, size)
        found = outcome(cut, options=LARGE)
        with_floor = outcome(cut, options=LARGE, floor=total)
        if segment == SEGMENTS[0]:
            allowed = written.payloads if size >= end else "E_SHORT"
        else:
            allowed = written.payloads[:kept]
        if size < HEADER_BYTES:
            allowed = "E_HEADER"
        assert found == allowed, (segment, size)
        assert with_floor == (found if found == written.payloads or isinstance(found, str) else "E_ACKED_LOSS")
        tally.add("opens", 2)
        tally.add("refused", isinstance(found, str) + isinstance(with_floor, str))
    assert tally.counts["opens"] * PARTS * len(SEGMENTS) >= 40_000


def flip(tally: Tally, name: str, part: int) -> None:
    """Flip each bit of a part of a file; every part of every file flips the same log."""
    tally.sow("s2_every_single_bit_flip")
    written = write_log(tally.rng, segments=2, options=SMALL, payload_bytes=900)
    image, payloads = with_consumer(written).image(), written.payloads
    assert sum(len(image[file]) * 8 for file in [*SEGMENTS, MANIFEST, CONSUMERS]) >= 130_000
    last_begin, last_end = written.batches[-1][1], written.batches[-1][2]
    without_last = payloads[: written.batches[-2][3]]
    end = max((end for segment, _, end, _ in written.batches if name.endswith(segment)), default=len(image[name]))
    opened = Opened(image, options=SMALL)
    for bit in share(range(len(image[name]) * 8), part):
        byte, damaged = bit >> 3, {**image, name: flipped(image[name], bit)}
        found = opened.outcome(damaged)
        tally.add("flips")
        if isinstance(found, str):
            tally.add("refused")
        elif found == payloads:
            tally.add("without effect on any record")
            assert byte >= end or scrubber_finds(damaged), (name, bit)
        else:
            tally.add("last batch dropped as torn")
            assert found == without_last, (name, bit)
            assert name == SEGMENTS[1], (name, bit)
            assert last_begin <= byte < last_end, (name, bit)


@pytest.mark.parametrize("part", the_rest_slow(range(PARTS)))
@pytest.mark.parametrize("segment", SEGMENTS, ids=["sealed", "tail"])
def test_s2_every_single_bit_flip(tally: Tally, segment: str, part: int) -> None:
    """One flipped bit is refused, or it is the last batch with no floor, or it touched nothing that was written."""
    flip(tally, segment, part)


def test_s2_every_single_bit_flip_of_the_small_files(tally: Tally) -> None:
    """The same for the manifest and the file of committed offsets."""
    for name in (MANIFEST, CONSUMERS):
        for part in range(PARTS):
            flip(tally, name, part)


def test_s2_flips_in_the_last_batch_with_a_floor(tally: Tally) -> None:
    """With the last offset known to the store no flip in the last batch is taken for a torn write."""
    written = write_log(tally.rng, segments=2, options=SMALL, payload_bytes=500)
    image = written.image
    for bit in range(written.batches[-1][1] * 8, written.batches[-1][2] * 8):
        damaged = {**image, SEGMENTS[1]: flipped(image[SEGMENTS[1]], bit)}
        found = outcome(damaged, options=SMALL, floor=len(written.payloads))
        assert found == "E_ACKED_LOSS", bit
        tally.add("flips refused")


def flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit >> 3] ^= 1 << (bit & 7)
    return bytes(changed)


def scrubber_finds(image: Image) -> bool:
    """The flip is in the padding between two records: reading does not see it, the scrubber does."""
    storage = open_storage(SimFiles(image), options=SMALL)
    scrubber = Scrubber(storage.disk.files)
    steps = [scrubber.step(storage.segments[:-1], storage.manifest) for _ in range(4)]
    return any(step.damaged_segment for step in steps)


def with_consumer(written: Written) -> SimFiles:
    """The same log with a file of committed offsets."""
    files = SimFiles(written.image)
    save_consumers(Disk(files, FakeClock()), DIRECTORY, {"reader": 3})
    return files


def overwritten(
    image: Image, older: Image, name: str, size: int, rng: random.Random
) -> Iterator[tuple[str, int, bytes]]:
    """Each sector replaced by zeros, ones, noise, another sector, and what stood there before."""
    data = image[name]
    old = older.get(name, b"").ljust(len(data), b"\0")
    for begin in range(0, len(data), size):
        other = rng.randrange(0, len(data) // size) * size
        for kind, content in {
            "zeros": bytes(size), "ones": b"\xff" * size, "noise": rng.randbytes(size),
            "misdirected": data[other : other + size], "lost write": old[begin : begin + size],
        }.items():  # fmt: skip
            yield kind, begin, (data[:begin] + content + data[begin + size :])[: len(data)]


def overwrite(tally: Tally, rounds: range) -> None:
    for round_number in rounds:
        rng = random.Random(f"{tally.seed}:{round_number}")
        older = write_log(rng, segments=2, last_segment_batches=2)
        written = write_log(random.Random(f"{tally.seed}:{round_number}"), segments=2)
        image, payloads = written.image, written.payloads
        for name in SEGMENTS:
            for size in (512, 4096):
                for kind, begin, data in overwritten(image, older.image, name, size, tally.rng):
                    found = outcome({**image, name: data})
                    with_floor = outcome({**image, name: data}, floor=len(payloads))
                    tally.add("sectors")
                    if found == payloads:
                        tally.add("harmless")
                        assert with_floor == payloads
                        continue
                    where = (round_number, name, size, kind, begin)
                    assert isinstance(with_floor, str), where
                    tally.add("refused" if isinstance(found, str) else "taken for torn, refused with a floor")
                    if not isinstance(found, str):
                        assert found == payloads[: len(found)]
                        assert only_headers_in(written, name, begin, begin + size, len(found)), where


def test_s3_overwritten_sectors(tally: Tally) -> None:
    """Other content in a sector or page is refused or harmless; without a floor it can hide only batches it covers."""
    overwrite(tally, range(5))


@pytest.mark.soak
def test_s3_overwritten_sectors_soak(tally: Tally) -> None:
    """The same, for a hundred logs."""
    overwrite(tally, range(100))


def only_headers_in(written: Written, name: str, begin: int, end: int, kept: int) -> bool:
    """The damage touches the first batch after `kept`, and covers the header of every later one."""
    first, *others = [batch for batch in written.batches if batch[3] > kept]
    covered = all(begin < position + 48 and position < end for _, position, _, _ in others)
    return name.endswith(first[0]) and begin < first[2] and first[1] < end and covered


def test_s4_every_subset_of_the_batch_in_flight(tally: Tally) -> None:
    """Whatever sectors of the batch in flight reached the disk: it is there whole or not at all, never a refusal."""
    options = LogOptions(segment_bytes=32_768)
    for content in ("zeros", "garbage"):
        files = SimFiles(write_log(tally.rng, segments=1, last_segment_batches=5, options=options).image)
        storage = open_storage(files, options=options)
        before = read_all(storage)
        start = storage.writer.position
        clean = files.image()
        in_flight = [tally.rng.randbytes(1200) for _ in range(4)]
        storage.writer.commit([NewRecord(payload) for payload in in_flight])
        name = str(storage.segments[-1].path)
        new = files.image()[name]
        sectors = range(start // 512, (storage.writer.position + 511) // 512)
        assert 9 <= len(sectors) <= 11
        for mask in range(1 << len(sectors)):
            data = bytearray(clean[name])
            for bit, sector in enumerate(sectors):
                begin, end = max(sector * 512, start), min(sector * 512 + 512, storage.writer.position)
                if mask >> bit & 1:
                    data[begin:end] = new[begin:end]
                elif content == "garbage":
                    data[begin:end] = tally.rng.randbytes(end - begin)
            found = outcome({**clean, name: bytes(data)}, options=options)
            assert found in (before, before + in_flight), (content, mask)
            assert (found == before + in_flight) == (bytes(data) == new), (content, mask)
            tally.add(f"subsets over {content}")
