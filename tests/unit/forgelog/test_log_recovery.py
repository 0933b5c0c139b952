"""The rules of recovery, one by one, and what a check from outside says about the same log."""

import base64
import json
import random
from pathlib import Path

import pytest
from msgspec.structs import replace

from replayforge.forgelog.atomic import replace_file, seal
from replayforge.forgelog.batch import encode_batch
from replayforge.forgelog.check import CheckReport, verify
from replayforge.forgelog.checksum import EXTENDS
from replayforge.forgelog.consumers import load_consumers
from replayforge.forgelog.disk import Disk
from replayforge.forgelog.dump import dump
from replayforge.forgelog.errors import CorruptRecord, LogRefused
from replayforge.forgelog.findings import LogVerdict
from replayforge.forgelog.header import HEADER_BYTES, decode_header, encode_header
from replayforge.forgelog.manifest import Manifest, encode_manifest, load_manifest, save_manifest
from replayforge.forgelog.options import LogOptions
from replayforge.forgelog.record import NewRecord
from replayforge.forgelog.repair import apply_plan, make_plan, rebuild_manifest
from replayforge.forgelog.scrubber import Scrubber
from replayforge.forgelog.storage import read_identity
from replayforge.forgelog.transfer import copy_log
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
    return {**image, MANIFEST: encode_manifest(replace(manifest, **changes))}


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
    assert (report.verdict, report.torn_bytes) == (LogVerdict.TORN, 80)


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


def repaired(image: Image) -> SimFiles:
    """The image after the repair that its plan proposes, all losses accepted."""
    files = SimFiles(image)
    _, plan = make_plan(files, DIRECTORY)
    assert plan.blocked is None
    apply_plan(files, DIRECTORY, plan, list(plan.lost))
    return files


def first_segment_end(written: Written) -> tuple[int, int, int]:
    """Where the last batch of the first segment begins and ends, and its last offset."""
    return next(one[1:] for one in reversed(written.batches) if path_of(1).endswith(one[0]))


@pytest.mark.parametrize("poisoned", [False, True])
def test_a_short_segment_can_be_repaired(written: Written, poisoned: bool) -> None:
    """Once the loss of a sealed segment's end is accepted the log opens, and all other records are read."""
    begin, end, last = first_segment_end(written)
    image = {**written.image, path_of(1): written.image[path_of(1)][: end - 1]}
    if poisoned:
        image[f"{DIRECTORY}/POISONED"] = b"EIO\n"
    files = repaired(image)
    storage = open_storage(files)
    assert "accepted" in storage.report.warnings[0]
    assert read_all(storage, last) == written.payloads[last:]
    assert begin < end


def test_after_a_poison_what_was_accepted_is_passed(written: Written) -> None:
    """With word of a poison the start passes accepted losses and damaged markers as any other start does."""
    poison = {f"{DIRECTORY}/POISONED": b"EIO\n"}
    begin, end, last = first_segment_end(written)
    for at, content in ((HEADER_BYTES + 50, b"\xff" * 8), (begin, bytes(end - begin))):
        image = over({**written.image, **poison}, path_of(1), at, content)
        assert refusal_of(image).code == "E_CORRUPT"
        files = repaired(image)
        assert f"{DIRECTORY}/POISONED" not in files.names
        assert read_all(open_storage(files), last) == written.payloads[last:]
    missing = {name: data for name, data in written.image.items() if name != path_of(2)}
    missing[path_of(1)] = missing[path_of(1)].ljust(12_288, b"\0")
    last_lost = decode_header(written.image[path_of(3)]).previous_last_offset
    assert read_all(open_storage(repaired({**missing, **poison})), last_lost) == written.payloads[last_lost:]


def test_a_damaged_marker_at_the_end_of_a_sealed_segment(written: Written) -> None:
    """A damaged marker before the end that a successor states costs no record, not even after a poison."""
    files = SimFiles(written.image)
    storage = open_storage(files)
    storage.writer.commit(records(2))
    marker = storage.writer.position
    storage.writer.mark()
    storage.writer.roll()
    image = over(files.image(), path_of(4), marker, bytes(48))
    (finding,) = check(image).findings
    assert (finding.code, finding.first_lost) == ("E_CORRUPT", None)
    _, plan = make_plan(SimFiles(image), DIRECTORY)
    assert [action.kind for action in plan.actions] == ["nothing"]
    again = open_storage(SimFiles({**image, f"{DIRECTORY}/POISONED": b"EIO\n"}))
    assert len(read_all(again)) == len(written.payloads) + 2


def test_a_check_names_the_marker_of_a_poison(written: Written) -> None:
    """A sound log that carries POISONED is not passed over in silence."""
    assert check({**written.image, f"{DIRECTORY}/POISONED": b"EIO\n"}).poisoned
    assert not check(written.image).poisoned


def test_what_no_repair_can_help(written: Written) -> None:
    """Segments that do not follow one another, a later version, and what is not a file are refused, not repaired."""
    header = decode_header(written.image[path_of(3)])
    mixed = over(written.image, path_of(3), 0, encode_header(replace(header, previous_segment=1)))
    assert "one copy" in (make_plan(SimFiles(mixed), DIRECTORY)[1].blocked or "")
    newer = over(written.image, path_of(2), 8, b"\x07\0")
    assert "newer ReplayForge" in (make_plan(SimFiles(newer), DIRECTORY)[1].blocked or "")
    assert "newer ReplayForge" in str(refusal_of(newer))
    manifest = {**written.image, MANIFEST: seal({"format": 2})}
    assert "newer ReplayForge" in (make_plan(SimFiles(manifest), DIRECTORY)[1].blocked or "")
    with pytest.raises(LogRefused, match="newer ReplayForge"):
        rebuild_manifest(SimFiles(manifest), DIRECTORY, apply=True)
    files = SimFiles(written.image)
    files.names[path_of(2)] = SimFile(directory=True)
    assert "by hand" in (make_plan(files, DIRECTORY)[1].blocked or "")


def test_one_flipped_bit_in_a_version_is_mended(written: Written) -> None:
    """A header that names a later version by a single wrong bit is put right, as its checksum proves it to be ours."""
    files = repaired(over(written.image, path_of(2), 8, b"\x03"))
    assert read_all(open_storage(files)) == written.payloads


def test_a_damaged_consumers_file_is_set_aside(written: Written) -> None:
    """Other damage is named beside it, and after the repair the log opens without named consumers."""
    name = f"{DIRECTORY}/consumers.json"
    image = over({**written.image, name: b"junk"}, path_of(1), HEADER_BYTES + 50, b"\xff" * 8)
    assert codes(image) == ["E_CONSUMERS", "E_CORRUPT"]
    files = repaired(image)
    assert open_storage(files).consumers == {}
    assert any("quarantine/consumers.json." in one for one in files.names)


def test_the_price_of_the_first_segment(written: Written) -> None:
    """With no segment before a missing one, all offsets up to the next are the price; with none behind, all known."""
    _, _, last = first_segment_end(written)
    for number, lost in ((1, (1, last)), (3, None)):
        image = {name: data for name, data in written.image.items() if name != path_of(number)}
        _, plan = make_plan(SimFiles(image), DIRECTORY)
        assert lost is None or plan.lost == (lost,)
    retained = with_manifest(written.image, first_segment=2)
    del retained[path_of(1)], retained[path_of(2)]
    _, plan = make_plan(SimFiles(retained), DIRECTORY)
    assert plan.lost[0][0] == 1
    assert "retention had removed" in plan.actions[0].what
    assert len(read_all(open_storage(repaired(retained)))) == len(written.payloads) - plan.lost[0][1]
    newborn = {MANIFEST: encode_manifest(Manifest("00" * 16, last_segment=1))}
    _, plan = make_plan(SimFiles(newborn), DIRECTORY)
    assert plan.lost == ((1, 1),)
    assert "may have held more" in plan.actions[0].what


def test_a_given_up_segment_is_never_given_out_again(written: Written) -> None:
    """After the last segment was lost, unknown to the manifest, and given up, its number is not used for another."""
    image = {name: data for name, data in written.image.items() if name != path_of(3)}
    storage = open_storage(SimFiles(with_manifest(image, last_segment=2, lost_segments=(3,), last_offset=0)))
    assert storage.segments[-1].header.segment_id == 4


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
    assert check({}).verdict is LogVerdict.CLEAN
    assert check(with_only_a_manifest()).verdict is LogVerdict.CLEAN
    assert outcome(with_only_a_manifest()) == []


def with_only_a_manifest() -> Image:
    return {MANIFEST: encode_manifest(Manifest("00" * 16))}


def test_rule_15_a_disk_error_is_no_end(written: Written) -> None:
    """An error of the disk at any read of a start is refused as such."""
    for at in range(1, 60):
        faulty = FaultFiles(SimFiles(written.image), at=at, only=frozenset({"pread"}))
        try:
            open_storage(faulty.files)
            code = None
        except LogRefused as refusal:
            code = refusal.code
        assert code == ("E_IO" if faulty.failed else None)
    faulty = FaultFiles(SimFiles(written.image), at=1, only=frozenset({"pread"}))
    report = verify(faulty.files, DIRECTORY, deep=True)
    assert report.verdict is LogVerdict.IO_ERROR
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
    assert verify(files, DIRECTORY, deep=True).verdict is LogVerdict.CORRUPT


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
    assert ("E_RECORD", header.base_offset) in [(finding.code, finding.first_lost) for finding in report.findings]
    assert dump_of(image, "ndjson") == dump_of(written.image, "ndjson", last=header.base_offset - 1)


def dump_of(image: Image, form: str, last: int | None = None) -> list[str]:
    return list(dump(SimFiles(image), DIRECTORY, first=1, last=last, form=form))


def test_a_dump_shows_every_kind_of_byte(written: Written) -> None:
    """Payloads that are not text are dumped as base64; what retention let go of is not shown."""
    first = json.loads(dump_of(written.image, "ndjson")[0])
    assert base64.b64decode(first["payload_base64"]) == written.payloads[0]
    files = SimFiles(written.image)
    assert [json.loads(line)["offset"] for line in dump(files, DIRECTORY, first=2, last=3, form="ndjson")] == [2, 3]
    image = with_manifest(written.image, first_segment=2)
    last_retired = next(last for name, _, _, last in reversed(written.batches) if path_of(1).endswith(name))
    assert len(dump_of(image, "ndjson")) == len(written.payloads) - last_retired


def test_a_lost_end_that_was_accepted(written: Written) -> None:
    """After the operator accepted the loss of the end, with bytes left there, the log starts behind it and is clean."""
    _, begin, end, _ = written.batches[-1]
    first, last = written.batches[-2][3] + 1, len(written.payloads)
    damaged = over(written.image, path_of(3), begin, b"\xff" * (end - begin))
    image = with_manifest(damaged, gaps=((first, last),), last_offset=last)
    assert check(image).verdict is LogVerdict.CLEAN
    files = SimFiles(image)
    storage = open_storage(files)
    assert storage.writer.next_offset == last + 1
    assert files.image()[path_of(3)] == damaged[path_of(3)]
    short = {**image, path_of(2): image[path_of(2)][:4096]}
    assert "E_SHORT" in codes(short)
    assert "E_SHORT" not in codes(with_manifest(short, gaps=((1, last),)))


def test_scrubbing_passes_what_was_accepted(written: Written) -> None:
    """The scrubber does not report again what the operator accepted, and goes on behind it."""
    name, begin, end, last = next(one for one in written.batches if path_of(2).endswith(one[0]))
    first = decode_header(written.image[path_of(2)]).base_offset
    for accepted in (((first, last),), ()):
        image = with_manifest(over(written.image, path_of(2), begin + 50, b"\xff" * 8), gaps=accepted)
        storage = open_storage(SimFiles(image))
        scrubber = Scrubber(storage.disk.files)
        steps = [scrubber.step(storage.segments[:-1], storage.manifest) for _ in range(4)]
        assert [step.damaged_segment for step in steps if step.damaged_segment] == ([] if accepted else [name])
        assert steps[-1].pass_finished
    assert end


def test_scrubbing_goes_in_bounded_steps(written: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step ends after its share of bytes, and the next one goes on there."""
    monkeypatch.setattr("replayforge.forgelog.scrubber.STEP_BYTES_MAX", 1_000)
    storage = open_storage(SimFiles(written.image))
    scrubber = Scrubber(storage.disk.files)
    steps = 0
    while not scrubber.step(storage.segments[:-1], storage.manifest).pass_finished:
        steps += 1
    assert steps > 12
    assert scrubber.errors == 0
    sealed = sum(segment.end - HEADER_BYTES for segment in storage.segments[:-1])
    assert scrubber.scrubbed_bytes == sealed


def test_an_empty_segment_that_is_lost_costs_nothing() -> None:
    """A segment without a record can be given up for nothing."""
    files = SimFiles()
    for _ in range(3):
        open_storage(files).finish()
    image = {name: data for name, data in files.image().items() if name != path_of(2)}
    _, plan = make_plan(SimFiles(image), DIRECTORY)
    assert (plan.lost, [action.kind for action in plan.actions]) == ((), ["give_up_segment"])


def test_rebuilding_a_manifest_needs_sound_headers(written: Written) -> None:
    """A manifest is not made from nothing, from a damaged header, or from the segments of two logs."""
    other = write_log(random.Random(99), segments=3).image
    for image, code in (
        ({}, "E_MISSING"),
        (over(written.image, path_of(2), 0, b"JUNK"), "E_HEADER"),
        ({**written.image, path_of(2): other[path_of(2)]}, "E_FOREIGN"),
    ):
        with pytest.raises(LogRefused) as refusal:
            rebuild_manifest(SimFiles(image), DIRECTORY, apply=True)
        assert refusal.value.code == code


def test_after_a_poison_damage_is_refused(written: Written) -> None:
    """With word of a failed sync every segment is read before the start; what did not survive is named."""
    image = {**over(written.image, path_of(1), 6_000, b"\xff" * 8), f"{DIRECTORY}/POISONED": b"EIO\n"}
    assert refusal_of(image).code == "E_CORRUPT"
    assert refusal_of({**image, f"{DIRECTORY}/consumers.json": b"junk"}).code == "E_CONSUMERS"


def test_a_needle_that_is_no_header(written: Written) -> None:
    """Magic and salt alone make no batch."""
    header = decode_header(written.image[path_of(3)])
    needle = b"FRGB" + header.salt.to_bytes(4, "little")
    image = over(written.image, path_of(3), written.batches[-1][2], b"torn" * 4 + needle + b"torn" * 20)
    assert open_storage(SimFiles(image)).report.torn_bytes == 104


def test_a_copy_that_goes_wrong_is_no_log(written: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy that does not verify is left without a manifest, so that nobody opens it."""
    files = SimFiles(written.image)
    assert copy_log(files, DIRECTORY, Path("/good")).last_offset == len(written.payloads)
    write = SimFiles.pwrite

    def rot(self: SimFiles, handle: int, data: bytes, position: int) -> int:
        return write(self, handle, data.replace(data[4200:4210], bytes(10)) if len(data) > 5_000 else data, position)

    monkeypatch.setattr(SimFiles, "pwrite", rot)
    with pytest.raises(LogRefused, match="is not what was read"):
        copy_log(files, DIRECTORY, Path("/copy"))
    assert "/copy/MANIFEST" not in files.names


def test_identity_without_a_log(written: Written) -> None:
    """A directory without a manifest has no identity."""
    assert read_identity(DIRECTORY, SimFiles({f"{DIRECTORY}/LOCK": b""})) is None


def test_a_check_of_an_unreadable_directory() -> None:
    """When the disk does not even give the names, that is what is said."""
    faulty = FaultFiles(SimFiles(), at=1, only=frozenset({"list_directory"}))
    assert verify(faulty.files, DIRECTORY, deep=False).verdict is LogVerdict.IO_ERROR
    with pytest.raises(LogRefused, match="E_IO"):
        load_consumers(FaultFiles(SimFiles(), at=1).files, DIRECTORY)


def test_a_start_that_fails_late_frees_the_lock(written: Written) -> None:
    """When the new segment cannot be made, nothing stays open and the lock is free."""
    files = SimFiles(written.image)
    for only in ("fdatasync", "truncate"):
        faulty = FaultFiles(files, at=2 if only == "truncate" else 1, only=frozenset({only}))
        with pytest.raises(OSError, match="injected"):
            open_storage(faulty.files)
        assert files.handles == {}
    assert read_all(open_storage(files)) == written.payloads


def test_a_live_log_is_not_torn(written: Written) -> None:
    """A batch that is being written looks torn; while a process has the log open that is no finding."""
    for content in (b"torn" * 20, random.Random(1).randbytes(7_000)):
        files = SimFiles(over(written.image, path_of(3), written.batches[-1][2], content))
        handle = files.open(DIRECTORY / "LOCK", create=True)
        files.lock(handle)
        report = verify(files, DIRECTORY, deep=False)
        assert report.live
        assert report.findings == []
    damaged = SimFiles(over(written.image, path_of(1), 6_000, b"\xff" * 8))
    damaged.lock(damaged.open(DIRECTORY / "LOCK", create=True))
    assert [finding.code for finding in verify(damaged, DIRECTORY, deep=True).findings] == ["E_CORRUPT"]
