"""Records: bytes in, bytes out, each sealed with a checksum that covers its own offset."""

import struct
from collections.abc import Sequence

import msgspec

from replayforge.forgelog.checksum import Extend

RECORD_HEAD_BYTES = 16
HEAD = struct.Struct("<IIBBHI")  # payload_len, crc, type, flags, key_len, reserved
SIZE_AND_CHECKSUM = struct.Struct("<II")
META = struct.Struct("<BBHI")
SEALED_PREFIX = struct.Struct("<QI")
PADDING = [bytes(count) for count in range(8)]


class NewRecord(msgspec.Struct, frozen=True):
    """A record on its way into the log."""

    payload: bytes
    key: bytes = b""
    type: int = 0


class Record(msgspec.Struct, frozen=True):
    """A record as it was acknowledged; offsets start at 1 and have no holes."""

    offset: int
    type: int
    key: bytes
    payload: bytes
    appended_at_us: int


class DamagedRecord(Exception):
    """The record at `offset`, `position` bytes into the body, is not what was written."""

    def __init__(self, offset: int, position: int) -> None:
        super().__init__(f"offset {offset}, byte {position} of the body")
        self.offset = offset
        self.position = position


def record_bytes(record: NewRecord) -> int:
    """Return how many bytes the record takes in a batch."""
    return (RECORD_HEAD_BYTES + len(record.key) + len(record.payload) + 7) & ~7


def encode_records(records: Sequence[NewRecord], first_offset: int, extend: Extend) -> bytes:
    """Return the body of a batch whose first record has `first_offset`."""
    parts: list[bytes] = []
    add = parts.append
    pack_meta, pack_prefix, pack_head = META.pack, SEALED_PREFIX.pack, SIZE_AND_CHECKSUM.pack
    offset = first_offset
    for record in records:
        key, payload = record.key, record.payload
        size = len(payload)
        content = pack_meta(record.type, 0, len(key), 0) + key + payload
        add(pack_head(size, extend(extend(0, pack_prefix(offset, size)), content)))
        add(content)
        padding = -len(content) & 7
        if padding:
            add(PADDING[padding])
        offset += 1
    return b"".join(parts)


def decode_records(
    body: bytes, first_offset: int, count: int, appended_at_us: int, extend: Extend, *, skip: int = 0
) -> list[Record]:
    """Return the records of a batch body from its `skip`-th on, each verified.

    Raises DamagedRecord at the first one whose bytes are not those written at that offset.
    """
    records: list[Record] = []
    add = records.append
    unpack, pack_prefix, end = HEAD.unpack_from, SEALED_PREFIX.pack, len(body)
    position = 0
    for offset in range(first_offset, first_offset + count):
        if position + RECORD_HEAD_BYTES > end:
            raise DamagedRecord(offset, position)
        size, checksum, kind, _, key_bytes, _ = unpack(body, position)
        key_end = position + RECORD_HEAD_BYTES + key_bytes
        payload_end = key_end + size
        if payload_end > end:
            raise DamagedRecord(offset, position)
        if offset - first_offset >= skip:
            content = body[position + 8 : payload_end]
            if extend(extend(0, pack_prefix(offset, size)), content) != checksum:
                raise DamagedRecord(offset, position)
            add(Record(offset, kind, body[position + 16 : key_end], body[key_end:payload_end], appended_at_us))
        position = (payload_end + 7) & ~7
    return records
