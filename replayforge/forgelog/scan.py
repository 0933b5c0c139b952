"""Walking over the batches of a segment, believing nothing that the batch before does not vouch for."""

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from itertools import pairwise

from replayforge.forgelog.batch import BATCH_MAGIC, GAP, BatchHead, decode_head, gap_of
from replayforge.forgelog.checksum import EXTENDS
from replayforge.forgelog.files import Files
from replayforge.forgelog.header import HEADER_BYTES, SegmentHeader
from replayforge.forgelog.limits import BATCH_HEAD_BYTES

WINDOW_BYTES = 1 << 20
ZERO_WINDOW = bytes(WINDOW_BYTES)


class ScanFault(Enum):
    """Why a walk stopped before the end of the file."""

    HEAD = "no valid batch header stands here"
    BODY = "the batch does not match its checksum"
    ORDER = "a valid batch of another place stands here"


class ScanWindow:
    """Reads a file in large pieces; memory stays bounded by the largest batch."""

    def __init__(self, files: Files, handle: int, size: int, window_bytes: int = WINDOW_BYTES) -> None:
        self.files = files
        self.handle = handle
        self.size = size
        self.window_bytes = window_bytes
        self.start = 0
        self.data = b""

    def reopen(self, handle: int) -> None:
        """Go on with another handle of the same file, asking the disk again."""
        self.handle = handle
        self.data = b""

    def at(self, position: int, count: int) -> bytes:
        """Return `count` bytes at `position`, fewer only at the end of the file."""
        begin = position - self.start
        if begin < 0 or begin + count > len(self.data):
            wanted = min(max(count, self.window_bytes), max(self.size - position, 0))
            self.data = self.files.pread(self.handle, wanted, position)
            self.start, begin = position, 0
        return self.data[begin : begin + count]


@dataclass(slots=True)
class Index:
    """Where the batches of one segment begin; only ever grows at its end, so a reader in another thread is safe.

    Of batches less than `apart_bytes` behind one that is noted nothing is: whoever wants them walks on from that one.
    """

    apart_bytes: int = 0
    offsets: "array[int]" = field(default_factory=lambda: array("Q"))
    positions: "array[int]" = field(default_factory=lambda: array("Q"))

    def add(self, offset: int, position: int) -> None:
        """Note a batch; the position goes first, so whoever sees the offset finds its position."""
        if self.positions and position - self.positions[-1] < self.apart_bytes:
            return
        self.positions.append(position)
        self.offsets.append(offset)

    def sparse(self, apart_bytes: int) -> "Index":
        """Return one that holds some of these places, so far apart."""
        chosen, at = Index(apart_bytes), 0
        while at < len(self.positions):
            chosen.add(self.offsets[at], self.positions[at])
            at = bisect_left(self.positions, self.positions[at] + apart_bytes, at + 1)
        return chosen

    def position_of(self, offset: int) -> int | None:
        """Return where the last batch begins, of those noted, that starts at or before `offset`."""
        found = bisect_right(self.offsets, offset) - 1
        return None if found < 0 else self.positions[found]


class Walk:
    """Steps from batch to batch; stops at the first one that is not exactly what must stand there.

    After the last step `position` is where the valid batches end, `next_offset` and `chain` are what the next one must
    carry, and `fault` says why the walk stopped (None when it reached `stop` or the end of the file exactly). Without
    bodies only the headers are checked, which is enough to find a batch whose records are verified when they are read.
    """

    def __init__(
        self,
        window: ScanWindow,
        header: SegmentHeader,
        *,
        stop: int | None = None,
        with_bodies: bool = True,
        index: Index | None = None,
    ) -> None:
        self.window = window
        self.with_bodies = with_bodies
        self.header = header
        self.extend = EXTENDS[header.algorithm]
        self.stop = window.size if stop is None else stop
        self.position = HEADER_BYTES
        self.next_offset = header.base_offset
        self.chain = header.checksum
        self.time_ns = header.created_ns
        self.flags = 0
        self.index = Index() if index is None else index
        self.gaps: list[tuple[int, int]] = []
        self.fault: ScanFault | None = None
        self.fault_end: int | None = None  # where the damaged batch ends, if its header can be believed

    def step(self) -> tuple[BatchHead, bytes] | None:
        """Check the next batch, header and body, and pass it; None at the end or at a fault."""
        if self.position >= self.stop:
            return None
        head = decode_head(self.window.at(self.position, BATCH_HEAD_BYTES), 0, self.header.salt, self.extend)
        if head is None:
            self.fault = ScanFault.HEAD
            return None
        if head.base_offset != self.next_offset or head.previous_chain != self.chain:
            self.fault = ScanFault.ORDER
            return None
        body_start = self.position + BATCH_HEAD_BYTES
        if body_start + head.body_bytes > self.stop:
            self.stop_at_body(body_start + head.body_bytes)
            return None
        if not self.with_bodies and not head.flags & GAP:
            self.accept(head, b"")
            return head, b""
        body = self.window.at(body_start, head.body_bytes)
        if self.extend(0, body) != head.body_checksum:
            self.stop_at_body(body_start + head.body_bytes)
            return None
        self.accept(head, body)
        return head, body

    def stop_at_body(self, end: int) -> None:
        """Stop at a batch whose header is right and whose body is not."""
        self.fault, self.fault_end = ScanFault.BODY, end

    def accept(self, head: BatchHead, body: bytes) -> None:
        """Move past a batch that is right."""
        if head.count:
            self.index.add(head.base_offset, self.position)
        self.position += BATCH_HEAD_BYTES + head.body_bytes
        self.next_offset += head.count
        if head.flags & GAP:
            gap = gap_of(body)
            self.gaps.append(gap)
            self.next_offset = max(self.next_offset, gap[1] + 1)
        self.chain = head.chain
        self.time_ns = max(self.time_ns, head.time_ns)
        self.flags = head.flags

    def run(self) -> None:
        """Step to the end or to the first fault."""
        while self.step() is not None:
            pass

    def pass_damage(self, accepted: tuple[int, int] | None) -> bool:
        """Go on behind the damage where that loses no record, or only ones whose loss the operator accepted."""
        if accepted is None and self.fault is ScanFault.ORDER:
            return False
        least_offset = accepted[1] + 1 if accepted else self.next_offset
        start = self.position if self.fault is ScanFault.ORDER else self.position + 8
        found = next(later_batches(self.window, self.header, start, least_offset), None)
        if found is None or found[1].base_offset != least_offset:
            return False
        self.resume(*found)
        return True

    def end_behind(self, accepted: tuple[int, int]) -> None:
        """Let what comes next continue behind a loss that the operator accepted."""
        self.next_offset = accepted[1] + 1

    def resume(self, position: int, head: BatchHead) -> None:
        """Go on behind damage, at a batch that `later_batches` found."""
        self.position = position
        self.next_offset = head.base_offset
        self.chain = head.previous_chain
        self.fault = self.fault_end = None


def later_batches(
    window: ScanWindow, header: SegmentHeader, position: int, least_offset: int
) -> Iterator[tuple[int, BatchHead]]:
    """Yield the valid batch headers after `position` that cannot be left over from before it.

    Magic and salt are eight bytes that no client can guess, so no payload can forge a header.
    """
    needle = BATCH_MAGIC + header.salt.to_bytes(4, "little")
    extend = EXTENDS[header.algorithm]
    while position < window.size:
        piece = window.at(position, min(WINDOW_BYTES, window.size - position))
        if not piece:
            return
        found = piece.find(needle)
        if found < 0:
            position += max(len(piece) - len(needle) + 1, 1)
            continue
        head = decode_head(window.at(position + found, BATCH_HEAD_BYTES), 0, header.salt, extend)
        if head is not None and head.base_offset >= least_offset:
            yield position + found, head
        position += found + len(needle)


def written_end(window: ScanWindow, position: int) -> int:
    """Return the position behind the last byte from `position` on that is not zero; `position` when all are."""
    end = position
    while position < window.size:
        piece = window.at(position, min(WINDOW_BYTES, window.size - position))
        if not piece:
            break
        if piece != ZERO_WINDOW:
            used = len(piece.rstrip(b"\0"))
            end = position + used if used else end
        position += len(piece)
    return end


def merge_gaps(gaps: list[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Return the same losses in order, joined where they touch."""
    merged: list[tuple[int, int]] = []
    for first, last in sorted(gaps):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    assert all(left[1] < right[0] for left, right in pairwise(merged))
    return tuple(merged)
