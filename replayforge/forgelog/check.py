"""Checking a log from outside: everything that is wrong with it, not only the first thing. Changes nothing.

It reads what is in the files, through the cache of the system: the end of a log that a process has open, or left behind
without a sync, may not be durable yet.
"""

from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

from replayforge.forgelog.batch import CLEAN
from replayforge.forgelog.checksum import EXTENDS
from replayforge.forgelog.consumers import load_consumers
from replayforge.forgelog.directory import is_live
from replayforge.forgelog.errors import LogRefused
from replayforge.forgelog.files import Files
from replayforge.forgelog.findings import Finding, LogVerdict
from replayforge.forgelog.header import HEADER_BYTES, BadHeader, SegmentHeader, decode_header, segment_name
from replayforge.forgelog.log_recovery import POISON_NAME, check_succession, judge_end, segment_ids
from replayforge.forgelog.manifest import MANIFEST_NAME, Manifest, load_manifest
from replayforge.forgelog.record import DamagedRecord, decode_records
from replayforge.forgelog.scan import ScanWindow, Walk, later_batches

LIVE_CHECKS_MAX = 3
NO_LOSS = "a marker is damaged here; no record is lost."


@dataclass(slots=True)
class CheckReport:
    """What a check saw."""

    directory: str
    deep: bool
    live: bool = False
    poisoned: bool = False  # the marker of a log that gave up stands; the next start reads every live byte back
    log_id: str | None = None
    store_id: str | None = None
    projected_offset: int = 0
    consumers: dict[str, int] = field(default_factory=dict)
    segments: int = 0
    first_offset: int = 1
    last_offset: int = 0
    records_checked: int = 0
    bytes_checked: int = 0
    torn_bytes: int = 0
    clean_end: bool = False
    gaps: list[tuple[int, int]] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    @property
    def verdict(self) -> LogVerdict:
        """Return the gravest of the findings."""
        return max((finding.verdict for finding in self.findings), default=LogVerdict.CLEAN)


class Check:
    """One pass over a log directory; `deep` reads every record of every segment, else only the tail is read."""

    def __init__(self, files: Files, directory: Path, *, deep: bool) -> None:
        self.files = files
        self.directory = directory
        self.report = CheckReport(str(directory), deep)
        self.manifest = Manifest("")
        self.headers: list[tuple[SegmentHeader, int]] = []
        self.stated_ends: set[int] = set()

    def run(self) -> CheckReport:
        """Look at everything, in the order of trust; stop early only where nothing behind can be judged."""
        try:
            self.look()
        except LogRefused as refusal:
            self.add_refusal(refusal)
        except OSError as error:
            self.add("E_IO", f"it cannot be read ({error}).", verdict=LogVerdict.IO_ERROR)
        return self.report

    def look(self) -> None:
        """Check the small files, the headers, the succession, the contents, and the floors."""
        names = self.files.list_directory(self.directory)
        self.report.live = is_live(self.files, self.directory)
        self.report.poisoned = POISON_NAME in names
        ids = segment_ids(names)
        if MANIFEST_NAME not in names:
            if ids:
                self.add("E_MANIFEST", "it is missing, and there are segments.", segment=MANIFEST_NAME)
            return
        self.manifest = load_manifest(self.files, self.directory)
        self.report.log_id, self.report.store_id = self.manifest.log_id, self.manifest.store_id
        self.report.projected_offset = self.manifest.projected_offset
        self.report.gaps = list(self.manifest.gaps)
        try:
            self.report.consumers = load_consumers(self.files, self.directory)
        except LogRefused as refusal:  # nothing else depends on it
            self.add_refusal(refusal)
        ids = segment_ids(self.files.list_directory(self.directory))  # again: all that the manifest names stands by now
        self.read_headers([number for number in ids if number >= self.manifest.first_segment])
        self.check_missing()
        self.check_contents()
        self.check_floors()

    def add(self, code: str, what: str, *, verdict: LogVerdict = LogVerdict.CORRUPT, **place: object) -> None:
        """Note a finding."""
        self.report.findings.append(Finding(code, what, verdict, **place))  # type: ignore[arg-type]

    def add_refusal(self, refusal: LogRefused) -> None:
        """Note what recovery would refuse for."""
        self.add(
            refusal.code, refusal.what, segment=refusal.segment, position=refusal.position,
            first_lost=refusal.first_lost, last_lost=refusal.last_lost,
            verdict=LogVerdict.IO_ERROR if refusal.code == "E_IO" else LogVerdict.CORRUPT,
        )  # fmt: skip

    # Headers

    def read_headers(self, ids: list[int]) -> None:
        """Read every segment's header; one that cannot be believed is a finding, and its segment counts as missing."""
        for number in ids:
            name = segment_name(number)
            try:
                header, size = read_header(self.files, self.directory / name)
            except BadHeader as error:
                self.add(error.code, str(error), segment=name, segment_id=number)
                continue
            if header.log_id.hex() != self.manifest.log_id or header.segment_id != number:
                self.add("E_FOREIGN", "the segment is not this one of this log.", segment=name, segment_id=number)
                continue
            self.headers.append((header, size))
        self.report.segments = len(self.headers)
        self.stated_ends = {header.previous_segment for header, _ in self.headers}
        if self.headers:
            self.report.first_offset = self.headers[0][0].base_offset

    def check_missing(self) -> None:
        """Name the segments that must be there and are not, with the offsets they held."""
        present = {header.segment_id: header for header, _ in self.headers}
        judged = {finding.segment_id for finding in self.report.findings}
        last = max(self.manifest.last_segment, *present, 0)
        for number in range(self.manifest.first_segment, last + 1):
            if number in present or number in self.manifest.lost_segments:
                continue
            first_lost, last_lost = self.range_of_missing(number, present)
            if number in judged:
                self.complete_header_finding(number, first_lost, last_lost)
            else:
                self.add("E_MISSING", "the segment is missing.", segment=segment_name(number), segment_id=number,
                         first_lost=first_lost, last_lost=last_lost)  # fmt: skip

    def range_of_missing(self, number: int, present: dict[int, SegmentHeader]) -> tuple[int, int | None]:
        """Return the offsets a missing segment held, as far as its neighbours tell, rather too many than too few."""
        before = [header for header in present.values() if header.segment_id < number]
        after = [header for header in present.values() if header.segment_id > number]
        last = min(after, key=lambda header: header.segment_id).previous_last_offset if after else None
        if last is None and self.manifest.last_offset:
            last = self.manifest.last_offset
        first = self.walk_end(max(before, key=lambda header: header.segment_id)) if before else 1  # at the least
        return first, last

    def walk_end(self, header: SegmentHeader) -> int:
        """Return the offset that would come after the last valid batch of a segment."""
        handle = self.files.open(self.directory / header.name)
        try:
            walk = Walk(ScanWindow(self.files, handle, self.files.size(handle)), header)
            walk.run()
            return walk.next_offset
        finally:
            self.files.close(handle)

    def complete_header_finding(self, number: int, first_lost: int, last_lost: int | None) -> None:
        """Add to the finding about an unreadable header which offsets it hides."""
        self.report.findings = [
            replace(finding, first_lost=first_lost, last_lost=last_lost) if finding.segment_id == number else finding
            for finding in self.report.findings
        ]

    # Contents

    def check_contents(self) -> None:
        """Check the succession of the segments, and what is in them."""
        for (header, size), (successor, _) in pairwise(self.headers):
            adjacent = successor.segment_id == header.segment_id + 1
            if adjacent:
                check_succession(header, successor, self.manifest)
            end = successor.previous_end if successor.previous_segment == header.segment_id else size
            if size < end:
                self.add_short(header, size, end, successor)
            elif self.report.deep:
                self.read_segment(header, size, min(end, size), successor if adjacent else None)
        if self.headers:
            self.read_segment(*self.headers[-1], None, None)

    def add_short(self, header: SegmentHeader, size: int, end: int, successor: SegmentHeader) -> None:
        """Note a sealed segment that lost its end."""
        first, last = self.walk_end(header), successor.previous_last_offset
        if not self.manifest.covers(first, last):
            self.add("E_SHORT", f"the segment has {size:,} of {end:,} bytes.", segment=header.name, position=size,
                     segment_id=header.segment_id, first_lost=first, last_lost=last)  # fmt: skip

    def read_segment(self, header: SegmentHeader, size: int, stop: int | None, successor: SegmentHeader | None) -> None:
        """Read a segment batch by batch, past every damage; the last one may end torn."""
        handle = self.files.open(self.directory / header.name)
        try:
            walk = Walk(ScanWindow(self.files, handle, size), header, stop=stop)
            while True:
                self.read_batches(walk)
                if walk.fault is None or not self.pass_damage(walk, sealed=stop is not None):
                    break
            if stop is None:
                self.note_tail(walk)
            elif successor is not None:
                self.check_seal(walk, successor)
        finally:
            self.files.close(handle)
        self.report.bytes_checked += walk.position
        self.report.gaps += [gap for gap in walk.gaps if gap not in self.report.gaps]

    def read_batches(self, walk: Walk) -> None:
        """Step on, verifying each record of each batch, up to the end or a fault."""
        extend = EXTENDS[walk.header.algorithm]
        while (batch := walk.step()) is not None:
            head, body = batch
            if not self.report.deep:
                self.report.records_checked += head.count
                continue
            try:
                self.report.records_checked += len(decode_records(body, head.base_offset, head.count, 0, extend))
            except DamagedRecord as error:
                position = walk.position - len(body) + error.position
                self.add("E_RECORD", "the record does not match its checksum.", segment=walk.header.name,
                         position=position, first_lost=error.offset, last_lost=error.offset)  # fmt: skip

    def pass_damage(self, walk: Walk, *, sealed: bool) -> bool:
        """Note the damage a walk stopped at and go on behind it; False when nothing valid follows."""
        later = next(later_batches(walk.window, walk.header, walk.position + 8, walk.next_offset), None)
        if later is None or later[0] >= walk.stop:
            self.note_end(walk, sealed=sealed)
            return False
        first, last = walk.next_offset, later[1].base_offset - 1
        accepted = self.manifest.gap_at(first)
        if accepted is None or accepted[1] < last:
            lost = last >= first
            what = "the data is damaged here." if lost else NO_LOSS
            self.add("E_CORRUPT", what, segment=walk.header.name, segment_id=walk.header.segment_id,
                     position=walk.position, end=later[0], first_lost=first if lost else None,
                     last_lost=last if lost else None)  # fmt: skip
        walk.resume(*later)
        return True

    def note_end(self, walk: Walk, *, sealed: bool) -> None:
        """Judge a segment behind whose last valid batch nothing valid follows."""
        if self.manifest.gap_at(walk.next_offset) is not None:
            return
        if sealed and walk.header.segment_id not in self.stated_ends:  # its successor is lost, and with it the end
            return
        if sealed:
            self.note_sealed_end(walk)
            return
        try:
            self.report.torn_bytes = judge_end(walk)
        except LogRefused as refusal:
            if not self.report.live:  # a batch that is being written now looks like this
                self.add_refusal(refusal)

    def note_sealed_end(self, walk: Walk) -> None:
        """Note damage up to the end of a sealed segment; its successor states the last offset it held."""
        segment_id = walk.header.segment_id
        last = next(one.previous_last_offset for one, _ in self.headers if one.previous_segment == segment_id)
        lost = walk.next_offset <= last
        what = "the data is damaged from here to the end of the segment." if lost else NO_LOSS
        self.add("E_CORRUPT", what, segment=walk.header.name, segment_id=segment_id, position=walk.position,
                 end=walk.stop, first_lost=walk.next_offset if lost else None,
                 last_lost=last if lost else None)  # fmt: skip

    def note_tail(self, walk: Walk) -> None:
        """Note how the log ends; a torn tail is repaired by the next start."""
        accepted = self.manifest.gap_at(walk.next_offset)
        self.report.last_offset = accepted[1] if accepted else walk.next_offset - 1
        self.report.clean_end = bool(walk.flags & CLEAN) and not self.report.torn_bytes
        if self.report.torn_bytes and not self.report.live:
            what = (
                f"{self.report.torn_bytes:,} bytes of a write that was never acknowledged; the next start skips them."
            )
            self.add("TORN", what, verdict=LogVerdict.TORN, segment=walk.header.name, position=walk.position,
                     end=walk.position + self.report.torn_bytes)  # fmt: skip

    def check_seal(self, walk: Walk, successor: SegmentHeader) -> None:
        """Check that a sealed segment ends with the batch its successor names."""
        ends_right = walk.position == successor.previous_end and walk.chain == successor.previous_chain
        if walk.fault is None and not ends_right:
            what = "the segment does not end with the batch its successor names."
            self.add("E_ORDER", what, segment=walk.header.name, segment_id=walk.header.segment_id,
                     position=walk.position)  # fmt: skip

    # Floors

    def check_floors(self) -> None:
        """Name what others have seen acknowledged beyond the end of the log."""
        floors = {f"consumer {name!r}": offset for name, offset in self.report.consumers.items()}
        floors |= {"the mirror of the store": self.manifest.projected_offset, "the manifest": self.manifest.last_offset}
        name, floor = max(floors.items(), key=lambda item: item[1])
        known = [finding.last_lost or 0 for finding in self.report.findings]
        if floor > max(self.report.last_offset, *known, 0) and not self.report.live:
            what = f"the log ends at offset {self.report.last_offset}, but {name} knows offset {floor}."
            self.add("E_ACKED_LOSS", what, first_lost=self.report.last_offset + 1, last_lost=floor)


def read_header(files: Files, path: Path) -> tuple[SegmentHeader, int]:
    """Return the header and the size of a segment; raises BadHeader."""
    if not files.is_regular(path):
        raise BadHeader("E_NOT_A_FILE", "it is not a regular file.")
    handle = files.open(path)
    try:
        return decode_header(files.pread(handle, HEADER_BYTES, 0)), files.size(handle)
    finally:
        files.close(handle)


def verify(files: Files, directory: Path, *, deep: bool) -> CheckReport:
    """Check a log and report everything that is wrong with it; takes no lock and changes nothing.

    A live log is looked at again before it is said to be damaged: it may have moved on under the check.
    """
    for _ in range(LIVE_CHECKS_MAX - 1):
        report = Check(files, directory, deep=deep).run()
        if not (report.live and report.findings):
            return report
    return Check(files, directory, deep=deep).run()
