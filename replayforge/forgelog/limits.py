"""The limits a log is written under; each segment header records them, so a reader can bound what it believes."""

from collections.abc import Sequence
from dataclasses import dataclass

from replayforge.forgelog.errors import RecordRejected
from replayforge.forgelog.record import RECORD_HEAD_BYTES, NewRecord

MEBIBYTE = 1 << 20
PAYLOAD_BYTES_HARD_MAX = 16 * MEBIBYTE
OFFSET_MAX = (1 << 53) - 1  # offsets stay exact in JSON
BATCH_HEAD_BYTES = 48


@dataclass(frozen=True, slots=True)
class Limits:
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

    def check(self, records: Sequence[NewRecord]) -> None:
        """Raise RecordRejected for the first record outside the limits."""
        for record in records:
            if len(record.payload) > self.payload_bytes_max:
                raise RecordRejected(
                    f"A payload of {len(record.payload):,} bytes is above the limit of {self.payload_bytes_max:,}."
                )
            if len(record.key) > self.key_bytes_max:
                raise RecordRejected(f"A key of {len(record.key)} bytes is above the limit of {self.key_bytes_max}.")
            if not 0 <= record.type <= 255:
                raise RecordRejected(f"A record type is a byte; {record.type} is not.")
