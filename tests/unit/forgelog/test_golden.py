"""S16: files of every released format version read for ever, and a newer version is refused."""

import json
import shutil
from pathlib import Path

import pytest

from replayforge.forgelog.errors import GapError, LogRefused
from replayforge.forgelog.log import ForgeLog, read_identity
from replayforge.forgelog.record import Record
from tests.support.files.golden import LOG_ID, write_golden

VERSIONS = Path(__file__).parents[2] / "data" / "forgelog"


def as_json(record: Record) -> dict[str, object]:
    return {
        "offset": record.offset,
        "type": record.type,
        "key": record.key.hex(),
        "payload": record.payload.hex(),
        "appended_at_us": record.appended_at_us,
    }


def test_s16_the_writer_still_writes_version_1(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fixed recipe gives, byte for byte, the files that were kept when version 1 was released."""
    written = write_golden(monkeypatch)
    kept = {
        path.name: path.read_bytes() for path in sorted((VERSIONS / "v1").iterdir()) if path.name != "expected.json"
    }
    assert written.keys() == kept.keys()
    assert [name for name in kept if written[name] != kept[name]] == []


@pytest.mark.parametrize("version", ["v1"])
async def test_s16_golden_files_read_identically(tmp_path: Path, version: str) -> None:
    """Every record, the gap, the consumers and the mirror of the store come back as they were expected then."""
    shutil.copytree(VERSIONS / version, tmp_path / "log")
    expected = json.loads((tmp_path / "log" / "expected.json").read_text())
    identity = read_identity(tmp_path / "log")
    assert identity is not None
    assert (identity.log_id, identity.store_id, identity.projected_offset) == (LOG_ID, "store-1", 6)
    log = ForgeLog.open(tmp_path / "log")
    assert log.recovery.clean
    assert [as_json(record) for record in log.read(0)] == expected["before_the_gap"]
    with pytest.raises(GapError) as gap:
        log.read(11)
    assert (gap.value.first, gap.value.last) == (12, 14)
    assert [as_json(record) for record in log.read(14)] == expected["after_the_gap"]
    assert log.consumers == {"reader": 4}
    await log.close()


async def test_s16_a_newer_version_is_refused(tmp_path: Path) -> None:
    """A segment of a version this program does not know is refused by that name, not read by guess."""
    shutil.copytree(VERSIONS / "v1", tmp_path / "log")
    segment = max((tmp_path / "log").glob("*.flog"))
    data = bytearray(segment.read_bytes())
    data[8] = 2
    segment.write_bytes(data)
    with pytest.raises(LogRefused, match="version 2") as refusal:
        ForgeLog.open(tmp_path / "log")
    assert refusal.value.code == "E_VERSION"
