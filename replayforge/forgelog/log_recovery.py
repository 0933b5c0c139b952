"""Recovery: what may be believed of a log found on disk. The comments carry the rule numbers of FORMAT.md."""

from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from msgspec.structs import replace

from replayforge.forgelog.batch import CLEAN
from replayforge.forgelog.consumers import load_consumers
from replayforge.forgelog.disk import Disk
from replayforge.forgelog.errors import NEWER, REMEDY, LogRefused
from replayforge.forgelog.header import HEADER_BYTES, BadHeader, SegmentHeader, decode_header, segment_name
from replayforge.forgelog.manifest import MANIFEST_NAME, REBUILD, Manifest, load_manifest
from replayforge.forgelog.scan import ScanFault, ScanWindow, Walk, later_batches, merge_gaps, written_end

SEGMENT_SUFFIX = ".flog"
POISON_NAME = "POISONED"
SECTOR_BYTES = 512


@dataclass(frozen=True, slots=True)
class RecoveryReport:
    """What was found at open, in figures."""

    segments: int
    first_offset: int
    last_offset: int
    torn_bytes: int
    clean: bool
    seconds: float
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FoundSegment:
    """A live segment: its header, where its valid data ends, and the last offset it holds."""

    header: SegmentHeader
    size: int
    end: int
    last_offset: int


@dataclass(slots=True)
class Found:
    """Everything recovery learned; `tail` is the walk over the last segment (None for a log without segments)."""

    manifest: Manifest
    consumers: dict[str, int] = field(default_factory=dict)
    segments: list[FoundSegment] = field(default_factory=list)
    tail: Walk | None = None
    torn_bytes: int = 0
    warnings: list[str] = field(default_factory=list)

    @property
    def last_offset(self) -> int:
        """Return the highest offset the log holds, 0 when it is empty."""
        return self.tail.next_offset - 1 if self.tail else 0

    @property
    def clean(self) -> bool:
        """Tell whether the log was closed, not left behind."""
        return self.tail is None or (self.torn_bytes == 0 and bool(self.tail.flags & CLEAN))


def recover(disk: Disk, directory: Path, *, floor: int = 0) -> Found | None:
    """Read a log directory and return what it holds; None when there is no log yet. Writes nothing.

    It does sync the directory and the last segment, so that it judges only what is on the disk.
    `floor` is the highest offset the store knows. Raises LogRefused when going on could hide the loss of acknowledged
    records.
    """
    try:
        return recover_found(disk, directory, floor)
    except OSError as error:  # rule 15
        raise LogRefused("E_IO", f"the log cannot be read ({error}); this is not the end of the log.") from error


def recover_found(disk: Disk, directory: Path, floor: int) -> Found | None:
    """Apply the rules in their order."""
    consumers = load_consumers(disk.files, directory)
    committed = {f"consumer {name!r}": offset for name, offset in consumers.items()}
    names = disk.files.list_directory(directory)
    ids = segment_ids(names)
    if MANIFEST_NAME not in names:
        refuse_headless(ids, {**committed, "the store": floor})
        return None
    found = Found(load_manifest(disk.files, directory), consumers)
    readers = {**committed, "the log's mirror of its store": found.manifest.projected_offset}
    ids = [number for number in ids if number >= found.manifest.first_segment]
    disk.sync_directory(directory)
    headers = [read_header(disk, directory, number, found.manifest) for number in ids]
    refuse_missing(disk, directory, headers, found.manifest)
    found.segments = chain_segments(disk, directory, headers, found, min(readers.values()))
    if headers:
        read_tail(disk, directory, headers[-1], found)
    refuse_acked_loss(found, {**readers, "the store": floor, "the manifest": found.manifest.last_offset})
    return found


def segment_ids(names: list[str]) -> list[int]:
    """Return the ids of the segments among file names, in order."""
    stems = [name.removesuffix(SEGMENT_SUFFIX) for name in names if name.endswith(SEGMENT_SUFFIX)]
    return sorted(int(stem) for stem in stems if len(stem) == 20 and stem.isdecimal())


def refuse_headless(ids: list[int], floors: dict[str, int]) -> None:
    """Refuse a directory without a manifest unless it is truly new."""
    if ids:  # rule 13
        raise LogRefused("E_MANIFEST", "it is missing, and there are segments.", segment=MANIFEST_NAME, remedy=REBUILD)
    name, floor = highest(floors)
    if floor:
        raise acked_loss(0, name, floor)


def refuse_missing(disk: Disk, directory: Path, headers: list[tuple[SegmentHeader, int]], manifest: Manifest) -> None:
    """Refuse when a segment that the manifest or its neighbours vouch for is not there (rule 10)."""
    ids = {header.segment_id for header, _ in headers}
    last = max(manifest.last_segment, *ids, 0)
    vouched_for = set(range(manifest.first_segment, last + 1)) - set(manifest.lost_segments)
    missing = sorted(vouched_for - ids)
    if missing:
        names = ", ".join(segment_name(number) for number in missing[:5])
        first_lost, last_lost = held_between(disk, directory, headers, manifest, missing)
        raise LogRefused(
            "E_MISSING",
            f"{len(missing)} segment(s) of the log are missing: {names}.",
            segment=segment_name(missing[0]),
            first_lost=first_lost,
            last_lost=last_lost,
            remedy="Put the file back from a copy, or see what `replayforge log repair` proposes.",
        )


def held_between(
    disk: Disk, directory: Path, headers: list[tuple[SegmentHeader, int]], manifest: Manifest, missing: list[int]
) -> tuple[int | None, int | None]:
    """Return the offsets that missing segments held, as far as the segments around them and the manifest tell."""
    before = [one for one in headers if one[0].segment_id < missing[0]]
    after = [header for header, _ in headers if header.segment_id > missing[-1]]
    first = walk_segment(disk, directory, *before[-1]).next_offset if before else None
    last = after[0].previous_last_offset if after else manifest.last_offset or None
    return first, last


def read_header(disk: Disk, directory: Path, number: int, manifest: Manifest) -> tuple[SegmentHeader, int]:
    """Return the header and the size of a segment; refuse one that is not this log's (rule 9)."""
    name = segment_name(number)
    if not disk.files.is_regular(directory / name):
        raise LogRefused("E_NOT_A_FILE", "it is not a regular file.", segment=name)
    handle = disk.files.open(directory / name)
    try:
        size = disk.files.size(handle)
        header = decode_header(disk.files.pread(handle, HEADER_BYTES, 0))
    except BadHeader as error:
        raise refused_header(error, name) from None
    finally:
        disk.files.close(handle)
    if header.log_id.hex() != manifest.log_id:
        raise LogRefused("E_FOREIGN", "the segment belongs to another log.", segment=name)
    if header.segment_id != number:
        raise LogRefused("E_FOREIGN", f"this is the content of {header.name}.", segment=name)
    return header, size


def refused_header(error: BadHeader, name: str) -> LogRefused:
    """Return the refusal of a segment whose header cannot be believed; one of a later version wants a later program."""
    return LogRefused(error.code, str(error), segment=name, remedy=NEWER if error.code == "E_VERSION" else REMEDY)


def chain_segments(
    disk: Disk, directory: Path, headers: list[tuple[SegmentHeader, int]], found: Found, lowest: int
) -> list[FoundSegment]:
    """Check that each segment ends where its successor says, and return all but the last."""
    sealed = []
    for (header, size), (successor, _) in pairwise(headers):
        check_succession(header, successor, found.manifest)
        if successor.previous_segment == header.segment_id:
            end, last_offset = successor.previous_end, successor.previous_last_offset
        else:  # the segments between were lost, and the operator accepted that
            end, last_offset = size, successor.base_offset - 1
        if size < end:
            report_shortened(disk, directory, header, size, successor, found, lowest)
        sealed.append(FoundSegment(header, size, end, last_offset))
    return sealed


def check_succession(header: SegmentHeader, successor: SegmentHeader, manifest: Manifest) -> None:
    """Refuse two neighbouring segments that were not written one after the other (rule 7)."""
    lost_between = all(
        number in manifest.lost_segments for number in range(header.segment_id + 1, successor.segment_id)
    )
    follows = successor.previous_segment == header.segment_id or (
        lost_between and successor.segment_id > header.segment_id + 1
    )
    grows = successor.base_offset >= header.base_offset
    seals = successor.base_offset == successor.previous_last_offset + 1 and successor.previous_end >= HEADER_BYTES
    if not (follows and grows and seals):
        raise LogRefused("E_ORDER", f"it does not follow {header.name}.", segment=successor.name)


def report_shortened(
    disk: Disk, directory: Path, header: SegmentHeader, size: int, successor: SegmentHeader, found: Found, lowest: int
) -> None:
    """Refuse a sealed segment that is too short, unless everyone has read what it lost or it was accepted (rule 8)."""
    walk = walk_segment(disk, directory, header, size)
    first, last = walk.next_offset, successor.previous_last_offset
    what = f"the segment has {size:,} of {successor.previous_end:,} bytes."
    if found.manifest.covers(first, last):
        found.warnings.append(f"{header.name}: {what} No record is lost but those whose loss was accepted.")
        return
    if last > lowest:
        raise LogRefused("E_SHORT", what, segment=header.name, position=walk.position, first_lost=first, last_lost=last)
    found.warnings.append(f"{header.name}: {what} Offsets {first} to {last} are lost; all readers had passed them.")


def walk_segment(
    disk: Disk, directory: Path, header: SegmentHeader, size: int, manifest: Manifest | None = None
) -> Walk:
    """Walk over a whole segment, read from the disk; the walk keeps no open file.

    With a manifest it goes on behind damage that costs no record but those whose loss was accepted.
    """
    handle = disk.files.open(directory / header.name)
    try:
        disk.files.drop_cache(handle)
        walk = Walk(ScanWindow(disk.files, handle, size), header)
        if manifest is None:
            walk.run()
        else:
            run_past_damage(walk, manifest)
        return walk
    finally:
        disk.files.close(handle)


def run_past_damage(walk: Walk, manifest: Manifest) -> int:
    """Walk on to the end, or to damage that costs more than was accepted; return how many places were passed."""
    places = 0
    walk.run()
    while walk.fault is not None and walk.pass_damage(manifest.gap_at(walk.next_offset)):
        places += 1
        walk.run()
    return places


def read_tail(disk: Disk, directory: Path, last: tuple[SegmentHeader, int], found: Found) -> None:
    """Read the last segment deeply and judge how it ends (rules 1 to 5 and 7).

    It is synced first: nothing may be decided on data that was never on the disk. The sealed segments need no sync,
    since a segment is sealed only after its last batch was durable.
    """
    header, size = last
    handle = disk.files.open(directory / header.name)
    try:
        disk.sync_file(handle)
        disk.files.drop_cache(handle)
        walk = Walk(ScanWindow(disk.files, handle, size), header)
        for _ in range(run_past_damage(walk, found.manifest)):
            found.warnings.append(f"{header.name}: passed a damaged place; no record behind it is lost.")
        accepted = found.manifest.gap_at(walk.next_offset)
        if accepted is not None:  # the operator knows that the log ends early
            walk.end_behind(accepted)
            found.torn_bytes = written_end(walk.window, walk.position) - walk.position
        elif walk.fault is not None:
            found.torn_bytes = judge_end(walk)
    finally:
        disk.files.close(handle)
    found.tail = walk
    found.segments.append(FoundSegment(header, size, walk.position, walk.next_offset - 1))
    found.manifest = replace(found.manifest, gaps=merge_gaps([*found.manifest.gaps, *walk.gaps]))


def judge_end(walk: Walk) -> int:
    """Return how many torn bytes follow the valid data; refuse what no torn write explains."""
    name, position = walk.header.name, walk.position
    if walk.fault is ScanFault.ORDER:  # rule 7
        what = "a valid batch stands where it does not belong: a write was lost or misdirected, or files were mixed."
        raise LogRefused("E_ORDER", what, segment=name, position=position, first_lost=walk.next_offset)
    later = next(later_batches(walk.window, walk.header, position + 8, walk.next_offset), None)
    if later is not None:  # rule 3
        first_lost, last_lost = walk.next_offset, later[1].base_offset - 1
        what = f"the data is damaged here, and a valid batch follows at byte {later[0]:,}."
        raise LogRefused("E_CORRUPT", what, segment=name, position=position, first_lost=first_lost, last_lost=last_lost)
    extent = written_end(walk.window, position) - position
    if walk.fault_end is not None and position + extent > whole_sectors(walk.fault_end):  # rule 3, from the other side
        what = f"the batch here is damaged, and data follows its end at byte {walk.fault_end:,}."
        raise LogRefused("E_CORRUPT", what, segment=name, position=position, first_lost=walk.next_offset)
    if extent > walk.header.limits.extent_bytes_max:  # rule 5
        what = f"{extent:,} bytes follow that no batch explains; a torn write leaves less."
        raise LogRefused("E_EXTENT", what, segment=name, position=position, first_lost=walk.next_offset)
    return extent  # rules 1 and 4


def whole_sectors(position: int) -> int:
    """Return the end of the sector that `position` is in: an unsynced sector may hold anything up to its end."""
    return -(-position // SECTOR_BYTES) * SECTOR_BYTES


def refuse_acked_loss(found: Found, floors: dict[str, int]) -> None:
    """Refuse when someone knows of a higher offset than the log holds (rule 6)."""
    name, floor = highest(floors)
    if floor > found.last_offset:
        raise acked_loss(found.last_offset, name, floor)


def acked_loss(last_offset: int, name: str, floor: int) -> LogRefused:
    """Return the refusal of a log that ends before an offset somebody has seen acknowledged."""
    return LogRefused(
        "E_ACKED_LOSS",
        f"the log ends at offset {last_offset}, but {name} knows offset {floor}: acknowledged records are lost.",
        first_lost=last_offset + 1,
        last_lost=floor,
    )


def highest(floors: dict[str, int]) -> tuple[str, int]:
    """Return the highest floor and who vouches for it."""
    return max(floors.items(), key=lambda item: item[1], default=("nobody", 0))
