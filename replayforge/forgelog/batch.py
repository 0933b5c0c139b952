"""Batches: one group commit each, chained to the one before by its header's checksum."""

import struct

import msgspec

from replayforge.forgelog.checksum import Extend
from replayforge.forgelog.limits import BATCH_HEAD_BYTES

BATCH_MAGIC = b"FRGB"
HEAD = struct.Struct("<4sIQIIQIIII")
CHECKSUM = struct.Struct("<I")
GAP_BODY = struct.Struct("<QQ")

MARKER = 1  # nothing but the proof that everything before it was durable
CLEAN = 2  # the log was closed after this
GAP = 4  # the operator accepted the loss of the offsets named in the body


class BatchHead(msgspec.Struct, frozen=True, gc=False):
    """The header of one batch; `chain` is its own checksum, which the next batch repeats."""

    base_offset: int
    count: int
    body_bytes: int
    time_ns: int
    previous_chain: int
    body_checksum: int
    flags: int
    chain: int


def encode_batch(
    *,
    salt: int,
    base_offset: int,
    count: int,
    body: bytes,
    time_ns: int,
    previous_chain: int,
    flags: int,
    extend: Extend,
) -> tuple[bytes, int]:
    """Return the bytes of a batch and its chain value."""
    head = HEAD.pack(
        BATCH_MAGIC, salt, base_offset, count, len(body), time_ns, previous_chain, extend(0, body), flags, 0
    )[:-4]
    chain = extend(0, head)
    return b"".join((head, CHECKSUM.pack(chain), body)), chain


def decode_head(data: bytes, position: int, salt: int, extend: Extend) -> BatchHead | None:
    """Return the batch header at `position` of `data`, or None when no valid one stands there."""
    if position + BATCH_HEAD_BYTES > len(data):
        return None
    magic, found_salt, base, count, size, time_ns, previous, body_checksum, flags, chain = HEAD.unpack_from(
        data, position
    )
    if magic != BATCH_MAGIC or found_salt != salt:
        return None
    if extend(0, data[position : position + BATCH_HEAD_BYTES - 4]) != chain:
        return None
    return BatchHead(base, count, size, time_ns, previous, body_checksum, flags, chain)


def gap_of(body: bytes) -> tuple[int, int]:
    """Return the first and last offset whose loss a GAP batch records."""
    first, last = GAP_BODY.unpack(body)
    return first, last
