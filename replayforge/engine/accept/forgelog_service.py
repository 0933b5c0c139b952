"""ForgeLog as other services may use it over HTTP: append anything, read on, commit how far one has read."""

import asyncio
import contextlib
from asyncio import shield, timeout
from collections.abc import Callable
from dataclasses import dataclass

from replayforge.domain.errors import Rejected, Unavailable
from replayforge.forgelog.errors import GapError
from replayforge.forgelog.log import ForgeLog
from replayforge.forgelog.record import NewRecord
from replayforge.forgelog.stats import LogStats

FOREIGN_RECORD_TYPE = 0
WAIT_SECONDS_MAX = 30.0
READ_BYTES_MAX = 4 << 20


class Gone(Rejected):
    """The records asked for were removed by retention or given up by an operator; go on after them."""

    def __init__(self, first: int, last: int) -> None:
        super().__init__(f"The records {first} to {last} are gone; go on reading after offset {last}.")
        self.first = first
        self.last = last


@dataclass(frozen=True, slots=True)
class RecordPage:
    """(offset, microseconds when appended, payload) of some records, and the offset to read on after."""

    records: list[tuple[int, int, bytes]]
    next_offset: int


class ForgeLogService:
    """Hands requests on to the log and gives its values plain names.

    `check_room` raises Unavailable while ingest is closed for events, and so for any record.
    """

    def __init__(self, log: ForgeLog, check_room: Callable[[int], None]) -> None:
        self.log = log
        self.check_room = check_room
        self.waits: set[asyncio.Timeout] = set()
        self.closed = False

    async def append(self, payload: bytes) -> int:
        """Append a record that is not an event; returns its offset once it is durable. Raises Unavailable."""
        self.check_room(0)
        return await shield(self.log.append([NewRecord(payload, b"", FOREIGN_RECORD_TYPE)]))

    async def read(self, after: int, limit: int, wait_seconds: float) -> RecordPage:
        """Return records after an offset, waiting up to `wait_seconds` for the first one."""
        if self.log.durable_offset <= after and wait_seconds > 0 and not self.closed:
            await self.wait(after, min(wait_seconds, WAIT_SECONDS_MAX))
        if self.log.durable_offset <= after:
            return RecordPage([], after)
        try:
            records = self.log.read(after, records_max=limit, bytes_max=READ_BYTES_MAX)
        except GapError as gap:
            raise Gone(gap.first, gap.last) from gap
        rows = [(record.offset, record.appended_at_us, record.payload) for record in records]
        return RecordPage(rows, rows[-1][0] if rows else after)

    async def wait(self, after: int, seconds: float) -> None:
        """Return when there is a record after `after`, when the time is over, or when there will be none any more."""
        with contextlib.suppress(TimeoutError, Unavailable):
            async with timeout(seconds) as wait:
                self.waits.add(wait)
                try:
                    await self.log.wait_beyond(after)
                finally:
                    self.waits.discard(wait)

    def close(self) -> None:
        """Let nobody wait any longer: whoever does gets what there is; safe twice."""
        self.closed = True
        for wait in self.waits:
            if not wait.expired():
                wait.reschedule(0)

    async def commit(self, consumer: str, offset: int) -> None:
        """Note durably how far a named consumer has read."""
        await self.log.commit(consumer, offset)

    def stats(self) -> LogStats:
        """Return the figures of the log."""
        return self.log.stats()
