"""The golden log of format version 1: a fixed recipe, so that today's writer can be held against the kept files."""

from pathlib import Path

import pytest

from replayforge.forgelog.checksum import CRC32C
from replayforge.forgelog.consumers import save_consumers
from replayforge.forgelog.limits import Limits
from replayforge.forgelog.options import LogOptions
from replayforge.forgelog.record import NewRecord
from replayforge.forgelog.storage import Storage
from tests.support.clock import FakeClock
from tests.support.files.logs import DIRECTORY
from tests.support.files.sim import SimFiles

OPTIONS = LogOptions(segment_bytes=8_192, limits=Limits())
LOG_ID = "00112233445566778899aabbccddeeff"
SALT = 0x5A17F00D


def write_golden(patch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """Write the golden log in memory: two calls of open, three segments, every kind of batch, closed cleanly."""
    patch.setattr("replayforge.forgelog.storage.secrets.token_hex", lambda size: LOG_ID)
    patch.setattr("replayforge.forgelog.writer.secrets.randbits", lambda bits: SALT)
    patch.setattr("replayforge.forgelog.writer.preferred", lambda: CRC32C)
    files, clock = SimFiles(), FakeClock()
    storage = Storage.open(DIRECTORY, OPTIONS, floor=0, files=files, clock=clock)
    storage.writer.commit([NewRecord(b'{"hello":"world"}', b"greeting", 1)])
    clock.advance(1)
    storage.writer.commit([NewRecord(b"", b"", 0), NewRecord(bytes(range(256)) * 12, b"\xff\x00", 255)])
    storage.writer.mark()
    storage.finish()
    clock.advance(60)
    storage = Storage.open(DIRECTORY, OPTIONS, floor=0, files=files, clock=clock)
    for number in range(8):
        clock.advance(0.001)
        storage.writer.commit([NewRecord(b"%d" % number * 700, b"key-%d" % number, number)])
    save_consumers(storage.disk, DIRECTORY, {"reader": 4})
    storage.bind_store("store-1", 6)
    storage.writer.accept_gap(12, 14)
    storage.writer.commit([NewRecord(b"after the gap")])
    storage.finish()
    image = files.image()
    return {Path(name).name: data for name, data in sorted(image.items()) if not name.endswith("LOCK")}
