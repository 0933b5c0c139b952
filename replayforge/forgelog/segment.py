"""Segments as a reader sees them: where each batch begins, found out once and only as far as needed."""

from pathlib import Path

from replayforge.forgelog.errors import CorruptRecord
from replayforge.forgelog.files import Files
from replayforge.forgelog.header import SegmentHeader
from replayforge.forgelog.manifest import Manifest
from replayforge.forgelog.scan import Index, ScanWindow, Walk


class Segment:
    """One live segment: `end` is where its valid data ends; only the active one still grows."""

    def __init__(self, header: SegmentHeader, path: Path, *, end: int, last_offset: int, index: Index | None) -> None:
        self.header = header
        self.path = path
        self.end = end
        self.last_offset = last_offset
        self.complete = index is not None
        self.index = index or Index()
        self.walk: Walk | None = None
        self.removed = False  # by retention

    def locate(self, offset: int, files: Files, handle: int, manifest: Manifest) -> int:
        """Return the position of the batch that holds `offset`; raises CorruptRecord when damage hides it."""
        if not self.complete:
            self.explore(offset, files, handle, manifest)
        position = self.index.position_of(offset)
        if position is None:
            raise CorruptRecord(offset, self.path.name, self.end)
        return position

    def explore(self, offset: int, files: Files, handle: int, manifest: Manifest) -> None:
        """Walk on over the batch headers until the one that holds `offset` is known."""
        walk = self.walk
        if walk is None:
            window = ScanWindow(files, handle, self.end)
            walk = self.walk = Walk(window, self.header, stop=self.end, with_bodies=False, index=self.index)
        walk.window.reopen(handle)
        while walk.next_offset <= offset:
            if walk.step() is None and not walk.pass_damage(manifest.gap_at(walk.next_offset)):
                raise CorruptRecord(offset, self.path.name, walk.position)
