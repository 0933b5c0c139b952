"""The rules of recovery, one by one, and what a check from outside says about the same log."""

import random
from dataclasses import replace
from pathlib import Path

import pytest

from replayforge.forgelog.atomic import replace_file, seal
from replayforge.forgelog.batch import encode_batch
from replayforge.forgelog.check import verify
from replayforge.forgelog.checksum import EXTENDS
from replayforge.forgelog.disk import Disk
from replayforge.forgelog.errors import CorruptRecord, LogRefused
from replayforge.forgelog.findings import CheckReport, Verdict
from replayforge.forgelog.header import HEADER_BYTES, decode_header, encode_header
from replayforge.forgelog.manifest import Manifest, encode_manifest, load_manifest, save_manifest
from replayforge.forgelog.options import LogOptions
from replayforge.forgelog.record import NewRecord
from replayforge.forgelog.repair import make_plan
from tests.support.clock import FakeClock
from tests.support.files.around import FaultFiles
from tests.support.files.logs import DIRECTORY, TINY, Written, open_storage, outcome, read_all, write_log
from tests.support.files.sim import Image, SimFile, SimFiles

MANIFEST = f"{DIRECTORY}/MANIFEST"
LARGE_FILE = LogOptions(segment_bytes=65_536, limits=TINY.limits)


def path_of(number: int) -> str:
    return f"{DIRECTORY}/{number:020d}.flog"


def refusal_of(image: Image, *, floor: int = 0) -> LogRefused:
    with pytest.raises(LogRefused) as refusal:
        open_storage(SimFiles(image), floor=floor)
    return refusal.value


def check(image: Image) -> CheckReport:
    return verify(SimFiles(image), DIRECTORY, deep=True)


def codes(image: Image) -> list[str]:
    return [finding.code for finding in check(image).findings]


def over(image: Image, name: str, position: int, content: bytes) -> Image:
    data = image[name]
    return {**image, name: data[:position] + content + data[position + len(content) :]}


def with_manifest(image: Image, **changes: object) -> Image:
    manifest = load_manifest(SimFiles(image), DIRECTORY)
    return {**image, MANIFEST: encode_manifest(replace(manifest, **changes))}  # type: ignore[arg-type]


@pytest.fixture
def written() -> Written:
    """Three segments; the last has three batches."""
    return write_log(random.Random(11), segments=3, last_segment_batches=3)


def test_rule_1_zeros_are_a_clean_end(written: Written) -> None:
    """Preallocated zeros behind the last batch are no tear, and the space is given back."""
    files = SimFiles(written.image)
    storage = open_storage(files)
    assert storage.report.torn_bytes == 0
    assert len(files.names[path_of(3)].data) == written.batches[-1][2]
    assert len(files.names[path_of(2)].data) == len(written.image[path_of(2)])


def test_rule_3_names_the_hole(written: Written) -> None:
    """Damage with a valid batch behind it is refused with place and offsets, also where it is zeros."""
    _, begin, end, last = written.batches[-2]
    for content in (b"\xff" * 8, bytes(end - begin)):
        refusal = refusal_of(over(written.image, path_of(3), begin, content))
        first = written.batches[-3][3] + 1
        assert (refusal.code, refusal.segment, refusal.position) == ("E_CORRUPT", Path(path_of(3)).name, begin)
        assert (refusal.first_lost, refusal.last_lost) == (first, last)
        report = check(over(written.image, path_of(3), begin, content))
        assert [(finding.first_lost, finding.last_lost) for finding in report.findings] == [(first, last)]


def test_rule_4_a_torn_tail_starts(written: Written) -> None:
    """Garbage within one batch behind the end is reported, left in place, and left out."""
    image = over(written.image, path_of(3), written.batches[-1][2], b"torn" * 20)
    files = SimFiles(image)
    storage = open_storage(files)
    assert storage.report.torn_bytes == 80
    assert files.image()[path_of(3)] == image[path_of(3)]
    assert read_all(storage) == written.payloads
    report = check(image)
    assert (report.verdict, report.torn_bytes) == (Verdict.TORN, 80)


def test_rule_5_too_much_garbage_is_refused() -> None:
    """More bytes behind the end than one batch can explain are refused."""
    written = write_log(random.Random(12), segments=1, last_segment_batches=2, options=LARGE_FILE)
    image = over(written.image, path_of(1), written.batches[-1][2], random.Random(1).randbytes(30_000))
    refusal = refusal_of(image)
    assert (refusal.code, refusal.first_lost) == ("E_EXTENT", len(written.payloads) + 1)
    assert codes(image) == ["E_EXTENT"]
    _, plan = make_plan(SimFiles(image), DIRECTORY)
    assert plan.lost == ((len(written.payloads) + 1, len(written.payloads) + 1),)


def test_data_behind_a_damaged_batch_is_no_tear(written: Written) -> None:
    """When the header of a damaged batch stands, nothing may follow the end it names."""
    _, begin, end, _ = written.batches[-1]
    image = over(over(written.image, path_of(3), begin + 60, b"\xff" * 8), path_of(3), end + 1000, b"later")
    assert refusal_of(image).code == "E_CORRUPT"
    assert codes(image) == ["E_CORRUPT"]


def test_rule_7_a_batch_of_another_place(written: Written) -> None:
    """A valid batch where another must stand is refused."""
    _, begin, _, _ = written.batches[-1]
    _, other, other_end, _ = written.batches[-2]
    image = over(written.image, path_of(3), begin, written.image[path_of(3)][other:other_end])
    assert refusal_of(image).code == "E_ORDER"
    assert codes(image) == ["E_ORDER"]


def test_a_damaged_marker_costs_nothing(written: Written) -> None:
    """A marker that is damaged before a valid batch loses no record: the log starts and warns."""
    files = SimFiles(written.image)
    storage = open_storage(files)
    storage.writer.commit(records(2))
    marker = storage.writer.position
    storage.writer.mark()
    storage.writer.commit(records(1))
    image = over(files.image(), str(storage.segments[-1].path), marker, bytes(48))
    again = open_storage(SimFiles(image))
    assert len(again.report.warnings) == 1
    assert len(read_all(again)) == len(written.payloads) + 3
    report = check(image)
    assert "no record is lost" in report.findings[0].in_words()
    _, plan = make_plan(SimFiles(image), DIRECTORY)
    assert (plan.lost, plan.lost_records) == ((), 0)


def records(count: int) -> list[NewRecord]:
    return [NewRecord(b"more %d" % number) for number in range(count)]


def test_rule_8_a_short_segment(written: Written) -> None:
    """A sealed segment that lost its end is refused, unless every reader had passed what it lost."""
    end = next(end for name, _, end, _ in reversed(written.batches) if path_of(1).endswith(name))
    image = {**written.image, path_of(1): written.image[path_of(1)][: end - 1]}
    refusal = refusal_of(image)
    lost = (refusal.first_lost, refusal.last_lost)
    assert refusal.code == "E_SHORT"
    assert codes(image) == ["E_SHORT"]
    degraded = open_storage(SimFiles(with_manifest(image, projected_offset=lost[1])))
    assert str(lost[0]) in degraded.report.warnings[0]
    with pytest.raises(CorruptRecord):
        read_all(degraded)
    _, plan = make_plan(SimFiles(image), DIRECTORY)
    assert plan.lost == (lost,)


def test_rule_9_headers(written: Written) -> None:
    """A header of another log, of another place, or of fields unknown to version 1 is refused."""
    header = decode_header(written.image[path_of(2)])
    foreign = encode_header(replace(header, log_id=bytes(16)))
    moved = encode_header(replace(header, segment_id=7))
    for content, code in ((foreign, "E_FOREIGN"), (moved, "E_FOREIGN"), (b"JUNK", "E_HEADER")):
        image = over(written.image, path_of(2), 0, content)
        assert refusal_of(image).code == code
        assert code in codes(image)
    flags = bytearray(written.image[path_of(2)][:124])
    flags[13] = 1
    sealed = bytes(flags) + EXTENDS[1](0, bytes(flags)).to_bytes(4, "little")
    assert refusal_of(over(written.image, path_of(2), 0, sealed)).code == "E_HEADER"


def test_neighbours_must_follow(written: Written) -> None:
    """Two segments that do not state each other are refused."""
    header = decode_header(written.image[path_of(3)])
    stranger = encode_header(replace(header, previous_segment=1))
    image = over(written.image, path_of(3), 0, stranger)
    assert refusal_of(image).code == "E_ORDER"
    assert "E_ORDER" in codes(image)
    unchained = encode_header(replace(header, previous_chain=1))
    assert "E_ORDER" in codes(over(written.image, path_of(3), 0, unchained))


def test_rule_10_missing_segments(written: Written) -> None:
    """A segment that is gone from the middle or the end is refused, and its offsets are named by a check."""
    for number in (1, 2, 3):
        image = {name: data for name, data in written.image.items() if name != path_of(number)}
        assert refusal_of(image).code == "E_MISSING"
        assert "E_MISSING" in codes(image)
    everything_gone = {MANIFEST: written.image[MANIFEST]}
    assert refusal_of(everything_gone).code == "E_MISSING"
    assert codes(everything_gone).count("E_MISSING") == 3
    _, plan = make_plan(SimFiles(everything_gone), DIRECTORY)
    assert {action.kind for action in plan.actions} == {"give_up_segment"}


def test_rule_11_leftovers_go(written: Written) -> None:
    """What an interrupted roll or retention left behind is removed at the next start."""
    image = {**with_manifest(written.image, first_segment=2), f"{DIRECTORY}/MANIFEST.tmp": b"half"}
    files = SimFiles(image)
    assert open_storage(files).first_offset > 1
    assert path_of(1) not in files.names
    assert f"{DIRECTORY}/MANIFEST.tmp" not in files.names


def test_rule_12_a_segment_the_manifest_does_not_know_is_adopted(written: Written) -> None:
    """A crash between the name of a segment and the manifest loses nothing."""
    image = with_manifest(written.image, last_segment=2, last_offset=0)
    assert outcome(image) == written.payloads


def test_rule_13_no_manifest(written: Written) -> None:
    """Segments without a manifest are refused with the command that helps; an empty directory is a new log."""
    image = {name: data for name, data in written.image.items() if name != MANIFEST}
    assert "--rebuild-manifest" in str(refusal_of(image))
    assert check({}).verdict is Verdict.CLEAN
    assert check(with_only_a_manifest()).verdict is Verdict.CLEAN
    assert outcome(with_only_a_manifest()) == []


def with_only_a_manifest() -> Image:
    return {MANIFEST: encode_manifest(Manifest("00" * 16))}


def test_rule_15_a_disk_error_is_no_end(written: Written) -> None:
    """An error of the disk at any read of a start is refused as such."""
    for at in range(1, 60):
        faulty = FaultFiles(SimFiles(written.image), at=at, only=frozenset({"pread"}))
        try:
            open_storage(faulty.files)
        except LogRefused as refusal:
            assert refusal.code == "E_IO"
        else:
            assert not faulty.failed
    faulty = FaultFiles(SimFiles(written.image), at=1, only=frozenset({"pread"}))
    report = verify(faulty.files, DIRECTORY, deep=True)
    assert report.verdict is Verdict.IO_ERROR
    _, plan = make_plan(FaultFiles(SimFiles(written.image), at=1, only=frozenset({"pread"})).files, DIRECTORY)
    assert plan.blocked is not None


def test_small_files_of_a_later_format(written: Written) -> None:
    """A manifest or a consumers file of a later format is refused by that name."""
    disk = Disk(SimFiles(written.image), FakeClock())
    replace_file(disk, DIRECTORY / "consumers.json", seal({"format": 2, "consumers": {}}))
    assert refusal_of(disk.files.image()).code == "E_VERSION"  # type: ignore[attr-defined]
    replace_file(disk, DIRECTORY / "MANIFEST", seal({"format": 2}))
    with pytest.raises(LogRefused, match="later version"):
        load_manifest(disk.files, DIRECTORY)
    save_manifest(disk, DIRECTORY, Manifest("00" * 16))
    assert load_manifest(disk.files, DIRECTORY).log_id == "00" * 16


@pytest.mark.parametrize("name", ["MANIFEST", "consumers.json", f"{2:020d}.flog"])
def test_a_directory_in_place_of_a_file(written: Written, name: str) -> None:
    """A directory where a file must be is refused, by a start and by a check."""
    files = SimFiles(written.image)
    files.names[f"{DIRECTORY}/{name}"] = SimFile(directory=True)
    with pytest.raises(LogRefused) as refusal:
        open_storage(files)
    assert refusal.value.code == "E_NOT_A_FILE"
    assert verify(files, DIRECTORY, deep=True).verdict is Verdict.CORRUPT


def test_damage_at_the_end_of_a_sealed_segment(written: Written) -> None:
    """Damage from a place to the end of a sealed segment is named with the last offset its successor states."""
    name, begin, end, last = next(one for one in reversed(written.batches) if path_of(1).endswith(one[0]))
    image = over(written.image, path_of(1), begin, bytes(end - begin))
    (finding,) = check(image).findings
    assert (finding.code, finding.segment, finding.last_lost) == ("E_CORRUPT", name, last)
    storage = open_storage(SimFiles(image))
    with pytest.raises(CorruptRecord):
        read_all(storage)


def test_a_record_that_lies_within_a_sound_batch(written: Written) -> None:
    """A record whose own checksum is wrong is found although the batch around it is sound."""
    header = decode_header(written.image[path_of(3)])
    body = bytearray(written.image[path_of(3)][HEADER_BYTES + 48 : written.batches[-3][2]])
    count = written.batches[-3][3] - written.batches[-4][3]
    body[4] ^= 1
    data, _ = encode_batch(
        salt=header.salt, base_offset=header.base_offset, count=count, body=bytes(body), time_ns=header.created_ns,
        previous_chain=header.checksum, flags=0, extend=EXTENDS[header.algorithm],
    )  # fmt: skip
    image = {**written.image, path_of(3): (written.image[path_of(3)][:HEADER_BYTES] + data).ljust(12_288, b"\0")}
    report = check(image)
    assert [(finding.code, finding.first_lost) for finding in report.findings][0] == ("E_RECORD", header.base_offset)


def test_a_live_log_is_not_torn(written: Written) -> None:
    """A batch that is being written looks torn; while a process has the log open that is no finding."""
    for content in (b"torn" * 20, random.Random(1).randbytes(7_000)):
        files = SimFiles(over(written.image, path_of(3), written.batches[-1][2], content))
        handle = files.open(DIRECTORY / "LOCK", create=True)
        files.lock(handle)
        report = verify(files, DIRECTORY, deep=False)
        assert report.live
        assert report.findings == []
