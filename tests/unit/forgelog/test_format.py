"""FORMAT.md: its example is what the writer writes, and a reader made from it alone reads the golden files."""

import json
import re
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from replayforge.forgelog.checksum import CRC32C
from replayforge.forgelog.options import LogOptions
from replayforge.forgelog.record import NewRecord
from tests.support.files.golden import LOG_ID, SALT
from tests.support.files.logs import DIRECTORY, open_storage
from tests.support.files.sim import SimFiles

FORMAT = Path(__file__).parents[3] / "replayforge" / "forgelog" / "FORMAT.md"
GOLDEN = Path(__file__).parents[2] / "data" / "forgelog" / "v1"
BEGINS, ENDS = "<!-- example begins -->\n", "<!-- example ends -->"


def hex_lines(data: bytes, begin: int, end: int, what: str) -> Iterator[str]:
    yield f"{what}:"
    for position in range(begin, end, 16):
        piece = data[position : min(position + 16, end)]
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in piece)
        yield f"  {position:6}  {piece.hex(' '):<47}  {text}"


def worked_example(patch: pytest.MonkeyPatch) -> str:
    patch.setattr("replayforge.forgelog.storage.secrets.token_hex", lambda size: LOG_ID)
    patch.setattr("replayforge.forgelog.writer.secrets.randbits", lambda bits: SALT)
    patch.setattr("replayforge.forgelog.writer.preferred", lambda: CRC32C)
    files = SimFiles()
    storage = open_storage(files, options=LogOptions())
    storage.writer.commit([NewRecord(b"hello", b"k", 1), NewRecord(b"wal")])
    end = storage.writer.position
    storage.finish()
    data = files.image()[f"{DIRECTORY}/{1:020d}.flog"]
    parts = [
        *hex_lines(data, 0, 128, "segment header (zeros follow up to 4096)"),
        *hex_lines(data, 4096, 4144, "batch header: 2 records from offset 1"),
        *hex_lines(data, 4144, 4168, "record 1: key k, payload hello, 2 bytes of padding"),
        *hex_lines(data, 4168, 4192, "record 2: payload wal, 5 bytes of padding"),
        *hex_lines(data, end, len(data), "batch header: CLEAN, no record, next offset 3"),
        "MANIFEST:",
        *(f"  {line}" for line in files.image()[f"{DIRECTORY}/MANIFEST"].decode().splitlines()),
    ]
    return "```\n" + "\n".join(parts) + "\n```\n"


def test_the_example_is_what_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bytes in FORMAT.md are those the writer writes today."""
    text = FORMAT.read_text()
    shown = text.partition(BEGINS)[2].partition(ENDS)[0]
    assert shown == worked_example(monkeypatch)


def test_the_rules_stand_where_it_says() -> None:
    """Every module, class and function that FORMAT.md points to exists."""
    pointers = re.findall(r"`([a-z_]+)\.([A-Za-z_.]+)`", FORMAT.read_text())
    assert len(pointers) > 15
    for module, path in pointers:
        if (module, path) in (("consumers", "json"), ("spare", "tmp")):
            continue
        if module == "Walk":
            continue
        found: object = __import__(f"replayforge.forgelog.{module}", fromlist=["x"])
        for name in path.split("."):
            found = getattr(found, name)


# A reader from FORMAT.md alone: no import from forgelog, its own checksum.


def crc32c(data: bytes) -> int:
    checksum = 0xFFFFFFFF
    for byte in data:
        checksum ^= byte
        for _ in range(8):
            checksum = checksum >> 1 ^ (0x82F63B78 if checksum & 1 else 0)
    return checksum ^ 0xFFFFFFFF


def read_segment(data: bytes, end: int) -> Iterator[tuple[int, int, bytes, bytes, int]]:
    salt, expected_chain = struct.unpack_from("<I", data, 84)[0], struct.unpack_from("<I", data, 124)[0]
    assert crc32c(data[:124]) == expected_chain
    offset, position = struct.unpack_from("<Q", data, 40)[0], 4096
    while position < end:
        fields = struct.unpack_from("<4sIQIIQIIII", data, position)
        magic, found_salt, base, count, size, time_ns, previous, body_checksum, flags, chain = fields
        body = data[position + 48 : position + 48 + size]
        assert (magic, found_salt, base, previous) == (b"FRGB", salt, offset, expected_chain)
        assert crc32c(data[position : position + 44]) == chain
        assert crc32c(body) == body_checksum
        yield from read_records(body, base, count, time_ns // 1000)
        offset = max(base + count, struct.unpack_from("<Q", body, 8)[0] + 1 if flags & 4 else 0)
        expected_chain, position = chain, position + 48 + size


def read_records(body: bytes, base: int, count: int, at_us: int) -> Iterator[tuple[int, int, bytes, bytes, int]]:
    position = 0
    for offset in range(base, base + count):
        size, checksum, kind, flags, key_size, reserved = struct.unpack_from("<IIBBHI", body, position)
        end = position + 16 + key_size + size
        assert crc32c(struct.pack("<QI", offset, size) + body[position + 8 : end]) == checksum
        assert (flags, reserved) == (0, 0)
        yield offset, kind, body[position + 16 : position + 16 + key_size], body[end - size : end], at_us
        position = (end + 7) // 8 * 8


def test_a_reader_made_from_the_document_reads_the_golden_files() -> None:
    """FORMAT.md is enough to read every record of a real log."""
    line, checksum, _ = (GOLDEN / "MANIFEST").read_bytes().split(b"\n")
    assert f"{crc32c(line):08x}".encode() == checksum
    manifest = json.loads(line)
    segments = [
        (GOLDEN / f"{number:020d}.flog").read_bytes()
        for number in range(manifest["first_segment"], manifest["last_segment"] + 1)
    ]
    ends = [struct.unpack_from("<Q", after, 64)[0] for after in segments[1:]] + [len(segments[-1])]
    found = [one for data, end in zip(segments, ends, strict=True) for one in read_segment(data, end)]
    expected = json.loads((GOLDEN / "expected.json").read_text())
    assert [
        {"offset": offset, "type": kind, "key": key.hex(), "payload": payload.hex(), "appended_at_us": at_us}
        for offset, kind, key, payload, at_us in found
    ] == expected["before_the_gap"] + expected["after_the_gap"]
