"""Showing what is in a log, past any damage, in forms for people and for programs. Never shows a salt.

Of a log that a process has open it may show records whose sync has not returned: what it shows is in the file, which is
not yet to say that it is durable.
"""

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from replayforge.domain.clock import format_time
from replayforge.forgelog.batch import CLEAN, GAP, MARKER, BatchHead, gap_of
from replayforge.forgelog.check import read_header
from replayforge.forgelog.checksum import Extend
from replayforge.forgelog.files import Files
from replayforge.forgelog.header import segment_name
from replayforge.forgelog.log_recovery import segment_ids
from replayforge.forgelog.manifest import load_manifest
from replayforge.forgelog.record import DamagedRecord, Record, decode_records
from replayforge.forgelog.scan import ScanWindow, Walk, later_batches

FLAG_NAMES = {MARKER: "marker", CLEAN: "clean", GAP: "gap"}
HEX_BYTES = 16


@dataclass(frozen=True, slots=True)
class Frame:
    """One batch as it stands in its segment, or a damaged place (then `head` is None)."""

    segment: str
    position: int
    head: BatchHead | None
    body: bytes
    extend: Extend
    resumes_at: int | None = None

    def records(self) -> list[Record]:
        """Return the records of the batch; those behind a damaged one are left out."""
        assert self.head is not None
        head = self.head
        try:
            return decode_records(self.body, head.base_offset, head.count, head.time_ns // 1000, self.extend)
        except DamagedRecord as error:
            count = error.offset - head.base_offset
            return decode_records(self.body, head.base_offset, count, head.time_ns // 1000, self.extend)


def frames(files: Files, directory: Path) -> Iterator[Frame]:
    """Yield every batch of the live segments in order, and a frame without a head for each damaged place."""
    manifest = load_manifest(files, directory)
    for number in segment_ids(files.list_directory(directory)):
        if number >= manifest.first_segment:
            yield from segment_frames(files, directory / segment_name(number))


def segment_frames(files: Files, path: Path) -> Iterator[Frame]:
    """Yield the batches of one segment; what follows the last valid one is not shown."""
    header, size = read_header(files, path)
    handle = files.open(path)
    try:
        walk = Walk(ScanWindow(files, handle, size), header)
        while True:
            position = walk.position
            batch = walk.step()
            if batch is not None:
                yield Frame(path.name, position, *batch, walk.extend)
                continue
            later = next(later_batches(walk.window, header, position + 8, walk.next_offset), None)
            if walk.fault is None or later is None:
                return
            yield Frame(path.name, position, None, b"", walk.extend, later[0])
            walk.resume(*later)
    finally:
        files.close(handle)


def dump(files: Files, directory: Path, *, first: int, last: int | None, form: str) -> Iterator[str]:
    """Yield the lines of a dump of the offsets `first` to `last`, as `ndjson`, `hex` or `frames`."""
    for frame in frames(files, directory):
        if frame.head is not None and last is not None and frame.head.base_offset > last:
            return
        if form == "frames":
            yield frame_line(frame)
        elif frame.head is None:
            continue
        elif frame.head.base_offset + frame.head.count > first:
            for record in frame.records():
                if record.offset >= first and (last is None or record.offset <= last):
                    yield from record_lines(record, form)


def frame_line(frame: Frame) -> str:
    """Describe a batch in one line."""
    place = f"{frame.segment} {frame.position:>12,}"
    head = frame.head
    if head is None:
        return f"{place}  DAMAGED up to byte {frame.resumes_at:,}"
    kinds = [name for flag, name in FLAG_NAMES.items() if head.flags & flag]
    gap = "{}-{}".format(*gap_of(frame.body)) if head.flags & GAP else ""
    offsets = f"{head.base_offset}-{head.base_offset + head.count - 1}" if head.count else gap or "-"
    moment = format_time(head.time_ns // 1000)
    return f"{place}  offsets {offsets}  {head.body_bytes:,} bytes  {moment}  {' '.join(kinds)}".rstrip()


def record_lines(record: Record, form: str) -> Iterator[str]:
    """Write one record."""
    if form == "ndjson":
        yield record_json(record)
        return
    yield f"offset {record.offset}  type {record.type}  key {record.key!r}  {len(record.payload):,} bytes"
    for begin in range(0, len(record.payload), HEX_BYTES):
        piece = record.payload[begin : begin + HEX_BYTES]
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in piece)
        yield f"  {begin:08x}  {piece.hex(' '):<47}  {text}"


def record_json(record: Record) -> str:
    """Write one record as a line of JSON; bytes that are not UTF-8 go as base64 under another name."""
    content: dict[str, Any] = {
        "offset": record.offset,
        "appended_at": format_time(record.appended_at_us),
        "type": record.type,
        **text_or_base64("key", record.key),
        **text_or_base64("payload", record.payload),
    }
    return json_line(content)


def text_or_base64(name: str, data: bytes) -> dict[str, str]:
    """Return bytes under their name as text, or as base64 when they are none."""
    try:
        return {name: data.decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": base64.b64encode(data).decode()}


def json_line(content: dict[str, Any]) -> str:
    """Write JSON in one line, also when it holds line separators."""
    return json.dumps(content)
