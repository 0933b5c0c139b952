"""Repair: a plan first, with its price in offsets; carried out only when the operator accepts exactly that price.

Evidence is never destroyed: what a plan sets aside is copied to quarantine/ and synced before anything else changes.
"""

from dataclasses import dataclass
from pathlib import Path
from time import time_ns

from msgspec.structs import replace

from replayforge.domain.clock import SystemClock
from replayforge.forgelog.atomic import read_whole, replace_file, write_fully
from replayforge.forgelog.check import CheckReport, read_header, verify
from replayforge.forgelog.directory import take_lock
from replayforge.forgelog.disk import Disk
from replayforge.forgelog.errors import NEWER, LogRefused
from replayforge.forgelog.files import Files
from replayforge.forgelog.findings import Finding, LogVerdict
from replayforge.forgelog.header import BadHeader, SegmentHeader, mend_header, segment_name
from replayforge.forgelog.log_recovery import refused_header, segment_ids, walk_segment
from replayforge.forgelog.manifest import MANIFEST_NAME, Manifest, load_manifest, save_manifest
from replayforge.forgelog.options import LogOptions
from replayforge.forgelog.scan import merge_gaps
from replayforge.forgelog.storage import Storage

QUARANTINE = "quarantine"
GAP_SEGMENT_BYTES = 65_536  # a repair reserves little: the disk may be what is wrong


@dataclass(frozen=True, slots=True)
class RepairStep:
    """One step of a plan: what is done about which finding."""

    kind: str  # mend_header | give_up_segment | accept_gap | set_aside | rebuild_manifest | nothing
    what: str
    segment: str | None = None
    segment_id: int | None = None
    first_lost: int | None = None
    last_lost: int | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """What would bring the log back to life, and the offsets that are lost by it."""

    actions: tuple[RepairStep, ...]
    lost: tuple[tuple[int, int], ...]
    blocked: str | None = None

    @property
    def lost_records(self) -> int:
        """Return how many offsets the plan gives up."""
        return sum(last - first + 1 for first, last in self.lost)


class NotAccepted(Exception):
    """The losses that were accepted are not those of the plan; nothing was changed."""


def make_plan(files: Files, directory: Path) -> tuple[CheckReport, Plan]:
    """Check the log deeply and say what could be done; changes nothing."""
    report = verify(files, directory, deep=True)
    blocked = reason_against(files, directory, report)
    if blocked is not None:
        return report, Plan((), (), blocked)
    if any(finding.segment == MANIFEST_NAME for finding in report.findings):
        action = RepairStep("rebuild_manifest", "make the manifest anew from the segments: `--rebuild-manifest`.")
        return report, Plan((action,), ())
    actions = [action_for(files, directory, finding, report) for finding in report.findings]
    lost = [
        (action.first_lost, action.last_lost)
        for action in actions
        if action.first_lost is not None and action.last_lost is not None
    ]
    return report, Plan(tuple(actions), merge_gaps(lost))


def reason_against(files: Files, directory: Path, report: CheckReport) -> str | None:
    """Return why nothing may be repaired, or cannot be; None when a plan can be made."""
    if report.verdict is LogVerdict.IO_ERROR:
        return "The disk answers with errors. Copy the directory to a sound disk first."
    for finding in report.findings:
        if finding.code == "E_VERSION" and not is_mendable(files, directory, finding):
            return f"{finding.segment} was written by a later version. {NEWER}"
        if finding.code == "E_NOT_A_FILE":
            return f"{finding.segment} is not a regular file. Move it away by hand, then plan again."
        if finding.code == "E_ORDER" and finding.first_lost is None:
            return (
                f"{finding.in_words()} Files of several copies of the log may be mixed, and no repair can tell which "
                "are right: put all of them back from one copy."
            )
    return None


def action_for(files: Files, directory: Path, finding: Finding, report: CheckReport) -> RepairStep:
    """Return what can be done about one finding."""
    if finding.verdict is LogVerdict.TORN:
        return RepairStep(
            "nothing", "the next start leaves the torn bytes out; they stay where they are.", finding.segment
        )
    if finding.code == "E_CONSUMERS":
        what = "it is set aside in quarantine/; every named consumer starts again from the first offset."
        return RepairStep("set_aside", what, finding.segment)
    if finding.code in ("E_HEADER", "E_FOREIGN", "E_VERSION", "E_MISSING"):
        return action_for_segment(files, directory, finding, report)
    if finding.first_lost is None:  # a damaged marker: everything else without offsets is dealt with above
        return RepairStep("nothing", "no record is lost; the next start passes it.", finding.segment)
    last = finding.last_lost if finding.last_lost is not None else highest_known(report, finding.first_lost)
    what = "the damaged bytes are copied to quarantine/, and readers are told of the gap."
    return RepairStep("accept_gap", what, finding.segment, finding.segment_id, finding.first_lost, last)


def action_for_segment(files: Files, directory: Path, finding: Finding, report: CheckReport) -> RepairStep:
    """Mend the header of a segment where the damage is small enough, else give the segment up."""
    if is_mendable(files, directory, finding):
        what = "a few bits of the header are wrong and can be put right; no record is lost."
        return RepairStep("mend_header", what, finding.segment, finding.segment_id)
    what = "the segment is set aside in quarantine/, and readers are told of the gap."
    first, last = finding.first_lost, finding.last_lost
    assert first is not None
    if last is None:
        last = highest_known(report, first)
        what += " Nobody knows where it ended: it may have held more offsets than are named here."
    if last < first:
        first = last = None
    elif first == 1 and finding.segment_id != 1:
        what += " No segment stands before it: offsets that retention had removed are counted too."
    return RepairStep("give_up_segment", what, finding.segment, finding.segment_id, first, last)


def is_mendable(files: Files, directory: Path, finding: Finding) -> bool:
    """Tell whether the finding is a damaged header that can be put right, be it damaged in its version."""
    if finding.code not in ("E_HEADER", "E_VERSION") or finding.segment_id is None or finding.segment is None:
        return False
    return mended(files, directory / finding.segment) is not None


def highest_known(report: CheckReport, first_lost: int) -> int:
    """Return the highest offset anyone knows of, at least the first lost one."""
    floors = [report.projected_offset, *report.consumers.values(), first_lost]
    return max(floors)


def mended(files: Files, path: Path) -> bytes | None:
    """Return the bytes of a segment with its header put right, or None when that cannot be done."""
    try:
        data = read_whole(files, path)
        header = mend_header(data)
    except (OSError, BadHeader):
        return None
    return header + data[len(header) :]


# Carrying it out


def apply_plan(files: Files, directory: Path, plan: Plan, accepted: list[tuple[int, int]]) -> list[str]:
    """Carry a plan out and say what was done; raises NotAccepted unless exactly its losses were accepted.

    Takes the lock. Safe to repeat after a crash: each step leaves a log that can be planned anew.
    """
    if merge_gaps(accepted) != plan.lost:
        raise NotAccepted(f"The plan costs {ranges_in_words(plan.lost)}; accepted was {ranges_in_words(accepted)}.")
    disk = Disk(files, SystemClock())
    lock = take_lock(files, directory)
    try:
        done = [carry_out(disk, directory, action) for action in plan.actions]
        given_up = [action.segment_id for action in plan.actions if action.kind == "give_up_segment"]
        manifest = load_manifest(files, directory)
        lost_segments = sorted({*manifest.lost_segments, *(one for one in given_up if one is not None)})
        gaps = merge_gaps([*manifest.gaps, *plan.lost])
        save_manifest(disk, directory, replace(manifest, gaps=gaps, lost_segments=tuple(lost_segments)))
    finally:
        files.close(lock)
    if plan.lost:
        write_gaps(files, directory, plan.lost)
        done.append(f"wrote {ranges_in_words(plan.lost)} into the log as accepted loss")
    return [line for line in done if line]


def carry_out(disk: Disk, directory: Path, action: RepairStep) -> str:
    """Set the evidence of one action aside, and put right what can be put right."""
    if action.segment is None or action.kind == "nothing":
        return ""
    path = directory / action.segment
    if action.segment not in disk.files.list_directory(directory):
        return f"{action.segment} is missing; there is nothing to set aside"
    copy = set_aside(disk, directory, path)
    if action.kind == "mend_header":
        data = mended(disk.files, path)
        assert data is not None
        replace_file(disk, path, data)
        return f"mended the header of {path.name}; the damaged file is kept as {copy}"
    if action.kind in ("give_up_segment", "set_aside"):
        disk.files.unlink(path)
        disk.sync_directory(directory)
        return f"moved {path.name} to {copy}"
    return f"copied {path.name} to {copy}"


def set_aside(disk: Disk, directory: Path, path: Path) -> str:
    """Copy a file into quarantine/ under a name of its own, durably."""
    quarantine = directory / QUARANTINE
    disk.files.make_directory(quarantine)
    target = quarantine / f"{path.name}.{time_ns()}"
    data = read_whole(disk.files, path)
    handle = disk.files.open(target, create=True)
    try:
        write_fully(disk.files, handle, data, 0)
        disk.sync_file(handle)
    finally:
        disk.files.close(handle)
    disk.sync_directory(quarantine)
    disk.sync_directory(directory)
    return f"{QUARANTINE}/{target.name}"


def write_gaps(files: Files, directory: Path, lost: tuple[tuple[int, int], ...]) -> None:
    """Open the log, which now knows of the gaps, and write them into it as batches of their own."""
    options = LogOptions(segment_bytes=GAP_SEGMENT_BYTES, allow_network_fs=True)
    storage = Storage.open(directory, options, floor=0, files=files, clock=SystemClock())
    for first, last in lost:
        storage.writer.accept_gap(first, last)
    storage.finish()


def rebuild_manifest(files: Files, directory: Path, *, apply: bool) -> Manifest:
    """Return a manifest made from the segments alone; with `apply`, put it in place of the damaged one, kept aside.

    What only the manifest knew is lost: the store's mirror. The store itself still knows its cursor.
    """
    refuse_newer_manifest(files, directory)
    headers: list[tuple[SegmentHeader, int]] = []
    for number in segment_ids(files.list_directory(directory)):
        try:
            headers.append(read_header(files, directory / segment_name(number)))
        except BadHeader as error:
            raise refused_header(error, segment_name(number)) from None
    if not headers:
        raise LogRefused("E_MISSING", "there is no segment to make a manifest from.", remedy="Restore a copy.")
    if len({header.log_id for header, _ in headers}) > 1:
        raise LogRefused("E_FOREIGN", "the segments belong to several logs.", remedy="Move the foreign ones away.")
    disk = Disk(files, SystemClock())
    walks = [walk_segment(disk, directory, header, size) for header, size in headers]
    ids = [header.segment_id for header, _ in headers]
    manifest = Manifest(
        headers[0][0].log_id.hex(), first_segment=ids[0], last_segment=ids[-1], last_offset=walks[-1].next_offset - 1,
        gaps=merge_gaps([gap for walk in walks for gap in walk.gaps]),
    )  # fmt: skip
    if apply:
        put_manifest(disk, directory, manifest)
    return manifest


def refuse_newer_manifest(files: Files, directory: Path) -> None:
    """Refuse to replace a manifest that is whole and of a later version; one that is lost or damaged is no obstacle."""
    if MANIFEST_NAME not in files.list_directory(directory):
        return
    try:
        load_manifest(files, directory)
    except LogRefused as refusal:
        if refusal.code in ("E_VERSION", "E_IO"):
            raise


def put_manifest(disk: Disk, directory: Path, manifest: Manifest) -> None:
    """Replace the manifest under the lock; a damaged one is kept in quarantine/."""
    lock = take_lock(disk.files, directory)
    try:
        if MANIFEST_NAME in disk.files.list_directory(directory):
            set_aside(disk, directory, directory / MANIFEST_NAME)
        save_manifest(disk, directory, manifest)
    finally:
        disk.files.close(lock)


def ranges_in_words(ranges: list[tuple[int, int]] | tuple[tuple[int, int], ...]) -> str:
    """Write ranges of offsets as `--accept-loss` takes them."""
    return ", ".join(f"{first}-{last}" if last > first else str(first) for first, last in ranges) or "nothing"
