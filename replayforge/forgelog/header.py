"""The header of a segment file: who wrote it, under which limits, and where the segment before it ends."""

import struct

import msgspec
from msgspec.structs import replace

from replayforge.forgelog.checksum import EXTENDS
from replayforge.forgelog.limits import Limits

HEADER_BYTES = 4096
VERSION = 1
MAGIC = b"FRGLOG01"
FIELDS = struct.Struct("<8sHHB3s16sQQQQQQIIIIII20s")
CHECKSUM = struct.Struct("<I")
PADDING = bytes(HEADER_BYTES - FIELDS.size - CHECKSUM.size)


class BadHeader(Exception):
    """A segment header that cannot be believed; the message says why, `code` names the kind."""

    def __init__(self, code: str, why: str) -> None:
        super().__init__(why)
        self.code = code


class SegmentHeader(msgspec.Struct, frozen=True, gc=False):
    """What stands in front of every segment. The `previous_*` fields state where the segment before it ends."""

    log_id: bytes
    segment_id: int
    base_offset: int
    created_ns: int
    previous_segment: int
    previous_end: int
    previous_last_offset: int
    previous_chain: int
    salt: int
    algorithm: int
    limits: Limits
    checksum: int = 0

    @property
    def name(self) -> str:
        """Return the name of the segment's file."""
        return segment_name(self.segment_id)


def segment_name(segment_id: int) -> str:
    """Return the file name of a segment."""
    return f"{segment_id:020d}.flog"


def encode_header(header: SegmentHeader) -> bytes:
    """Return the 4096 bytes of a segment header; the `checksum` field is computed, not taken."""
    fields = encode_fields(header)
    checksum = EXTENDS[header.algorithm](0, fields)
    return (fields + CHECKSUM.pack(checksum)).ljust(HEADER_BYTES, b"\0")


def with_checksum(header: SegmentHeader) -> SegmentHeader:
    """Return the header with its checksum filled in."""
    return replace(header, checksum=EXTENDS[header.algorithm](0, encode_fields(header)))


def encode_fields(header: SegmentHeader) -> bytes:
    """Return what the checksum of a segment header covers."""
    limits = header.limits
    return FIELDS.pack(
        MAGIC, VERSION, HEADER_BYTES, header.algorithm, bytes(3), header.log_id, header.segment_id, header.base_offset,
        header.created_ns, header.previous_segment, header.previous_end, header.previous_last_offset,
        header.previous_chain, header.salt, limits.batch_records_max, limits.batch_bytes_max,
        limits.payload_bytes_max, limits.key_bytes_max, bytes(20),
    )  # fmt: skip


def decode_header(data: bytes) -> SegmentHeader:
    """Read a segment header in the order of trust: magic, version, checksum, then the rest; raises BadHeader."""
    if len(data) < HEADER_BYTES:
        raise BadHeader("E_HEADER", f"the header has {len(data):,} of {HEADER_BYTES:,} bytes.")
    magic, version, size, algorithm, flags, *fields, reserved = FIELDS.unpack_from(data)
    if magic != MAGIC:
        raise BadHeader("E_HEADER", "this is not a ForgeLog segment.")
    if version > VERSION:
        raise BadHeader("E_VERSION", f"the segment has format version {version}; this program knows {VERSION}.")
    (checksum,) = CHECKSUM.unpack_from(data, FIELDS.size)
    extend = EXTENDS.get(algorithm)
    if extend is None or extend(0, data[: FIELDS.size]) != checksum:
        raise BadHeader("E_HEADER", "the header does not match its checksum.")
    if version < VERSION or size != HEADER_BYTES or flags != bytes(3) or reserved != bytes(20):
        raise BadHeader("E_HEADER", "the header uses fields that version 1 does not have.")
    if data[FIELDS.size + 4 : HEADER_BYTES] != PADDING:
        raise BadHeader("E_HEADER", "the padding of the header is not zero.")
    log_id, segment_id, base, created, previous, end, last, chain, salt, *limits = fields
    return SegmentHeader(
        log_id=log_id, segment_id=segment_id, base_offset=base, created_ns=created, previous_segment=previous,
        previous_end=end, previous_last_offset=last, previous_chain=chain, salt=salt, algorithm=algorithm,
        limits=Limits(*limits), checksum=checksum,
    )  # fmt: skip


def mend_header(data: bytes) -> bytes:
    """Return a header that is valid again after one flipped bit or dirt in its padding, else raise BadHeader.

    The checksum tells which bit it was: only the right one makes it match.
    """
    fields = bytearray(data[: FIELDS.size + CHECKSUM.size])
    for bit in range(-1, len(fields) * 8):
        if bit >= 0:
            fields[bit >> 3] ^= 1 << (bit & 7)
        candidate = bytes(fields).ljust(HEADER_BYTES, b"\0")
        if bit >= 0:
            fields[bit >> 3] ^= 1 << (bit & 7)
        try:
            decode_header(candidate)
        except BadHeader:
            continue
        return candidate
    raise BadHeader("E_HEADER", "more than one bit of the header is damaged.")
