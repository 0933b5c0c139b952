"""The limits a log is written under; each segment header records them, so a reader can bound what it believes."""

from collections.abc import Sequence

import msgspec

from replayforge.forgelog.errors import RecordRejected
from replayforge.forgelog.record import RECORD_HEAD_BYTES, NewRecord

MEBIBYTE = 1 << 20
OFFSET_MAX = (1 << 53) - 1  # offsets stay exact in JSON
BATCH_HEAD_BYTES = 48


class Limits(msgspec.Struct, frozen=True, gc=False):
    """How large one batch can be."""

    batch_records_max: int = 4096
    batch_bytes_max: int = 4 * MEBIBYTE
    payload_bytes_max: int = MEBIBYTE
    key_bytes_max: int = 255

    @property
    def extent_bytes_max(self) -> int:
        """Return the most bytes one batch can take on disk: no torn write reaches further."""
        record_bytes_max = RECORD_HEAD_BYTES + self.key_bytes_max + self.payload_bytes_max + 7
        return BATCH_HEAD_BYTES + self.batch_bytes_max + record_bytes_max

    def measure(self, records: Sequence[NewRecord]) -> int:
        """Return the bytes the records take in batches; raises RecordRejected for none, or one outside the limits."""
        if not records:
            raise RecordRejected("There is no record to append.")
        total = 0
        for record in records:
            payload_bytes, key_bytes = len(record.payload), len(record.key)
            if payload_bytes > self.payload_bytes_max or key_bytes > self.key_bytes_max or not 0 <= record.type <= 255:
                raise RecordRejected(self.objection(record))
            total += (RECORD_HEAD_BYTES + key_bytes + payload_bytes + 7) & ~7
        return total

    def objection(self, record: NewRecord) -> str:
        """Say which limit a record oversteps."""
        if len(record.payload) > self.payload_bytes_max:
            return f"A payload of {len(record.payload):,} bytes is above the limit of {self.payload_bytes_max:,}."
        if len(record.key) > self.key_bytes_max:
            return f"A key of {len(record.key)} bytes is above the limit of {self.key_bytes_max}."
        return f"A record type is a byte; {record.type} is not."
