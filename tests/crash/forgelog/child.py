"""A process that appends to a log for ever and tells a pipe of each acknowledgement; it is there to be killed.

Standard output carries one line for each event: `ready <last offset>`, `ack <offset> <number>`, `full`, `busy`.
Exit code 70 after a failed sync, 75 when the log is locked, 78 when it is refused, as the daemon has it.
"""

import asyncio
import os
import random
import sys
from pathlib import Path

from replayforge.domain.errors import Refused
from replayforge.forgelog.errors import LogBusy, LogFull, LogPoisoned
from replayforge.forgelog.log import ForgeLog, LogOptions, NewRecord


def tell(line: str) -> None:
    os.write(1, line.encode() + b"\n")


def payload_of(number: int) -> bytes:
    """The payload is a function of the number, so whoever reads it can check every byte."""
    return random.Random(number).randbytes(50 + number * 7919 % 1500)


async def write(log: ForgeLog, writer: int, writers: int, first: int, count: int) -> None:
    for number in range(first + writer, first + count, writers):
        try:
            offset = await log.append([NewRecord(payload_of(number), b"%d" % number)])
        except LogFull:
            tell("full")
            await asyncio.sleep(0.01)
        except LogBusy:
            tell("busy")
            await asyncio.sleep(0.01)
        else:
            tell(f"ack {offset} {number}")


async def main(directory: Path, first: int, count: int, writers: int, segment_bytes: int) -> int:
    try:
        options = LogOptions(segment_bytes=segment_bytes, marker_idle_seconds=0.005, space_retry_seconds=0.02)
        log = ForgeLog.open(directory, options=options)
    except Refused as refusal:
        tell(f"refused {refusal}")
        return refusal.exit_code
    tell(f"ready {log.durable_offset}")
    try:
        await asyncio.gather(*(write(log, writer, writers, first, count) for writer in range(writers)))
    except LogPoisoned:
        tell("poisoned")
        return 70
    await log.close()
    tell("closed")
    return 0


if __name__ == "__main__":
    arguments = [int(argument) for argument in sys.argv[2:]]
    sys.exit(asyncio.run(main(Path(sys.argv[1]), *arguments)))
