"""The scrubber: reads sealed segments back from the disk, a little at a time, to find damage before a reader does."""

from dataclasses import dataclass
from pathlib import Path

from replayforge.forgelog.files import Files
from replayforge.forgelog.manifest import Manifest
from replayforge.forgelog.scan import ScanWindow, Walk
from replayforge.forgelog.segment import Segment
from replayforge.forgelog.writer import OUT_OF_HANDLES

STEP_BYTES_MAX = 1 << 20


@dataclass(frozen=True, slots=True)
class ScrubStep:
    """What one step did: what it read, the damage it met, and whether it ended a pass."""

    bytes: int
    damaged_segment: str | None
    damaged_position: int | None
    pass_finished: bool


class Scrubber:
    """Goes round over the sealed segments, a bounded number of bytes a step; keeps no file open between steps."""

    def __init__(self, files: Files) -> None:
        self.files = files
        self.segment_id = 0
        self.walk: Walk | None = None
        self.scrubbed_bytes = self.errors = self.passes = 0

    def step(self, segments: list[Segment], manifest: Manifest) -> ScrubStep:
        """Verify the next batches, a bounded number of bytes; `segments` are the sealed ones that are live now.

        Damage whose loss the operator accepted is passed and not reported again.
        """
        segment = next((one for one in segments if one.header.segment_id >= self.segment_id), None)
        if segment is None:
            self.segment_id, self.walk = 0, None
            self.passes += 1
            return ScrubStep(0, None, None, True)
        try:
            walk, before = self.read_some(segment, manifest)
        except OSError as error:
            return self.pass_unreadable(segment, error)
        read = walk.position - before
        self.scrubbed_bytes += read
        damaged = walk.fault is not None and manifest.gap_at(walk.next_offset) is None
        self.errors += damaged
        if walk.fault is not None or walk.position >= segment.end:
            self.segment_id, self.walk = segment.header.segment_id + 1, None
        return ScrubStep(read, segment.path.name if damaged else None, walk.position if damaged else None, False)

    def pass_unreadable(self, segment: Segment, error: OSError) -> ScrubStep:
        """Go on behind a segment that gives no bytes: damage, unless retention took it or no handle was to be had."""
        if error.errno in OUT_OF_HANDLES:
            return ScrubStep(0, None, None, False)
        position = self.walk.position if self.walk is not None and self.walk.header == segment.header else 0
        self.segment_id, self.walk = segment.header.segment_id + 1, None
        if segment.removed:
            return ScrubStep(0, None, None, False)
        self.errors += 1
        return ScrubStep(0, segment.path.name, position, False)

    def read_some(self, segment: Segment, manifest: Manifest) -> tuple[Walk, int]:
        """Go on with the walk over a segment from the disk, not from the cache; pass it and where it began."""
        handle = self.files.open(Path(segment.path))
        try:
            self.files.drop_cache(handle)
            if self.walk is None or self.walk.header != segment.header:
                self.walk = Walk(ScanWindow(self.files, handle, segment.end), segment.header, stop=segment.end)
            walk, before = self.walk, self.walk.position
            walk.window.reopen(handle)
            while walk.position - before < STEP_BYTES_MAX:
                if walk.step() is None and not (walk.fault and walk.pass_damage(manifest.gap_at(walk.next_offset))):
                    break
            return walk, before
        finally:
            self.files.close(handle)
