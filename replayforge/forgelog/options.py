"""The settings of one log, with their defaults."""

from dataclasses import dataclass, field

from replayforge.forgelog.limits import MEBIBYTE, Limits


@dataclass(frozen=True, slots=True)
class LogOptions:
    """How a log is kept. None for a retention limit means: for ever."""

    segment_bytes: int = 64 * MEBIBYTE
    retention_seconds: float | None = None
    retention_bytes_max: int | None = None
    append_queue_bytes_max: int = 32 * MEBIBYTE
    append_queue_records_max: int = 65_536
    allow_network_fs: bool = False
    marker_idle_seconds: float = 0.2
    space_retry_seconds: float = 1.0
    sync_warning_seconds: float = 1.0
    sync_stalled_seconds: float = 5.0
    limits: Limits = field(default_factory=Limits)
