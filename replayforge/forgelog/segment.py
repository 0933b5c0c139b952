"""Segments as a reader sees them: where batches begin, found out once and only as far as needed."""

from pathlib import Path

from replayforge.forgelog.batch import decode_head
from replayforge.forgelog.errors import CorruptRecord
from replayforge.forgelog.files import Files
from replayforge.forgelog.header import SegmentHeader
from replayforge.forgelog.limits import BATCH_HEAD_BYTES
from replayforge.forgelog.manifest import Manifest
from replayforge.forgelog.scan import Index, ScanWindow, Walk

# The active segment knows the place of every batch. Where events come one by one these are 300,000, and a log is kept
# for days, so the others know one in so many bytes.
PLACES_APART_BYTES = 32 << 10


class Segment:
    """One live segment: `end` is where its valid data ends; only the active one still grows."""

    def __init__(self, header: SegmentHeader, path: Path, *, end: int, last_offset: int, index: Index | None) -> None:
        self.header = header
        self.path = path
        self.end = end
        self.last_offset = last_offset
        self.complete = index is not None
        self.index = index or Index(apart_bytes=PLACES_APART_BYTES)
        self.walk: Walk | None = None
        self.removed = False  # by retention

    def locate(self, offset: int, files: Files, handle: int, manifest: Manifest) -> int:
        """Return the position of the batch that holds `offset`; raises CorruptRecord when damage hides it."""
        if not self.complete:
            self.explore(offset, files, handle, manifest)
        index = self.index  # one and the same, though the writer may be sealing the segment
        position = index.position_of(offset)
        if position is None:
            raise CorruptRecord(offset, self.path.name, self.end)
        return self.walk_on(position, offset, files, handle, manifest) if index.apart_bytes else position

    def seal(self) -> None:
        """Keep only some of the places: the segment has ended, is read seldom from now on, and stays for long."""
        self.index = self.index.sparse(PLACES_APART_BYTES)

    def walk_on(self, position: int, offset: int, files: Files, handle: int, manifest: Manifest) -> int:
        """Return the position of the batch that holds `offset`, from that of a batch at or before it."""
        window = ScanWindow(files, handle, self.end, PLACES_APART_BYTES)
        walk = Walk(window, self.header, stop=self.end, with_bodies=False)
        head = decode_head(window.at(position, BATCH_HEAD_BYTES), 0, self.header.salt, walk.extend)
        if head is None or head.base_offset > offset:
            raise CorruptRecord(offset, self.path.name, position)
        walk.resume(position, head)
        self.walk_to(walk, offset, manifest)
        found = walk.index.position_of(offset)
        assert found is not None  # that of this head, if of no later one
        return found

    def explore(self, offset: int, files: Files, handle: int, manifest: Manifest) -> None:
        """Walk on over the batch headers until the one that holds `offset` is known."""
        walk = self.walk
        if walk is None:
            window = ScanWindow(files, handle, self.end)
            walk = self.walk = Walk(window, self.header, stop=self.end, with_bodies=False, index=self.index)
        walk.window.reopen(handle)
        self.walk_to(walk, offset, manifest)

    def walk_to(self, walk: Walk, offset: int, manifest: Manifest) -> None:
        """Step until the batch that holds `offset` is known; raises CorruptRecord when damage hides it."""
        while walk.next_offset <= offset:
            if walk.step() is None and not walk.pass_damage(manifest.gap_at(walk.next_offset)):
                raise CorruptRecord(offset, self.path.name, walk.position)
