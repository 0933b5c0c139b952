"""The tools of the log: what they say, what they change, and how they end."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from replayforge.cli.log_commands import log as log_group
from replayforge.forgelog.consumers import load_consumers
from replayforge.forgelog.errors import GapError, LogRefused
from replayforge.forgelog.files import OsFiles
from replayforge.forgelog.live_copy import HeldLog
from replayforge.forgelog.log import ForgeLog, LogOptions, NewRecord

SMALL = LogOptions(segment_bytes=16_384)
TOTAL = 60


def run(data: Path, command: str, *arguments: str) -> Result:
    result = CliRunner().invoke(log_group, [command, "--data-dir", str(data), *arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def run_json(data: Path, command: str, *arguments: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(run(data, command, "--json", *arguments).stdout)
    return document


@pytest.fixture
async def data(tmp_path: Path) -> Path:
    """A data directory with a log of several segments that was left behind as after a crash."""
    log = ForgeLog.open(tmp_path / "live" / "log", options=SMALL)
    for number in range(TOTAL):
        await log.append([NewRecord((b"record %d " % (number + 1)).ljust(1000, b"x"), b"key%d" % number)])
    await log.commit("reader", 7)
    log.bind_store("store-1", 20)
    shutil.copytree(tmp_path / "live", tmp_path / "data")
    await log.close()
    return tmp_path / "data"


def segment(data: Path, number: int) -> Path:
    return data / "log" / f"{number:020d}.flog"


def last_segment(data: Path) -> Path:
    return max((data / "log").glob("*.flog"))


def damage(path: Path, position: int, content: bytes = b"\xff" * 8) -> None:
    with path.open("r+b") as file:
        file.seek(position)
        file.write(content)


def position_of(data: Path, offset: int) -> tuple[Path, int]:
    """Where the payload of a record stands."""
    needle = b"record %d " % offset
    for path in sorted((data / "log").glob("*.flog")):
        found = path.read_bytes().find(needle)
        if found >= 0:
            return path, found
    raise AssertionError(offset)


def offsets(log: ForgeLog) -> list[int]:
    found: list[int] = []
    after = 0
    while after < log.durable_offset:
        try:
            records = log.read(after)
        except GapError as gap:
            after = gap.last
            continue
        assert all(record.payload.startswith(b"record %d " % record.offset) for record in records)
        found += [record.offset for record in records]
        after = found[-1]
    return found


def test_a_sound_log_verifies(data: Path) -> None:
    """A log without damage is clean, deeply and quickly, and the tool says how much it read."""
    assert run(data, "verify").exit_code == 0
    report = run_json(data, "verify", "--deep")
    assert (report["verdict"], report["records_checked"], report["last_offset"]) == ("clean", TOTAL, TOTAL)
    assert "sound" in run(data, "verify", "--deep").stdout


def test_a_torn_tail_is_code_1(data: Path) -> None:
    """A torn tail is told apart from damage and needs no repair."""
    name = last_segment(data)
    end = run_json(data, "verify", "--deep")["bytes_checked"]
    position = name.read_bytes().rstrip(b"\0")
    damage(name, (len(position) + 7) // 8 * 8, b"torn write")
    result = run(data, "verify")
    assert result.exit_code == 1
    assert "torn" in result.stdout
    assert "next start takes care" in run(data, "repair").stdout
    assert end > 0


def test_damage_in_the_middle_is_code_2(data: Path) -> None:
    """A damaged record in a sealed segment is found by a deep look and named by offset."""
    damage(*position_of(data, 5))
    assert run(data, "verify").exit_code == 0
    result = run(data, "verify", "--deep")
    assert result.exit_code == 2
    assert "offset 5" in result.stdout
    assert "replayforge log repair" in result.stdout


async def test_repair_gives_up_exactly_what_was_accepted(data: Path) -> None:
    """Damage in a sealed segment and in the tail: after the repair all other records are read, the gaps are named."""
    damage(*position_of(data, 5))
    damage(*position_of(data, TOTAL - 1))
    with pytest.raises(LogRefused, match="59"):
        ForgeLog.open(data / "log", options=SMALL)
    plan = run(data, "repair")
    assert plan.exit_code == 2
    assert "2 records, offsets 5, 59" in plan.stdout
    refused = run(data, "repair", "--apply", "--accept-loss", "5-5")
    assert refused.exit_code == 3
    assert "Nothing was changed" in refused.stderr
    done = run(data, "repair", "--apply", "--accept-loss", "5", "--accept-loss", "59-59")
    assert done.exit_code == 0, done.output
    assert len(list((data / "log" / "quarantine").iterdir())) == 2
    log = ForgeLog.open(data / "log", options=SMALL)
    assert offsets(log) == [offset for offset in range(1, TOTAL + 1) if offset not in (5, 59)]
    assert await log.append([NewRecord(b"record 61 ")]) == TOTAL + 1
    await log.close()
    assert run(data, "verify", "--deep").exit_code == 0


async def test_repair_of_a_log_that_lost_its_end(data: Path) -> None:
    """When consumers know of more than the log holds, the repair gives up exactly the missing offsets."""
    path, position = position_of(data, TOTAL - 3)
    path.write_bytes(path.read_bytes()[: position - len(b"key56") - 16 - 48])
    for later in (data / "log").glob("*.flog"):
        if later > path:
            later.unlink()
    assert "Offsets 57 to 60" in run(data, "verify").stdout
    assert run_json(data, "repair")["plan"]["lost"] == [[57, 60]]
    assert run(data, "repair", "--apply", "--accept-loss", "57-60").exit_code == 0
    log = ForgeLog.open(data / "log", options=SMALL)
    assert offsets(log) == list(range(1, 57))
    with pytest.raises(GapError):
        log.read(56)
    assert await log.append([NewRecord(b"record 61 ")]) == 61
    await log.close()


async def test_a_missing_segment(data: Path) -> None:
    """A segment that is gone is named with its offsets; once accepted, everything around it is read."""
    held = [offset for offset in range(1, TOTAL + 1) if position_of(data, offset)[0] == segment(data, 2)]
    segment(data, 2).unlink()
    with pytest.raises(LogRefused, match="E_MISSING"):
        ForgeLog.open(data / "log")
    result = run(data, "verify")
    assert result.exit_code == 2
    assert f"{held[0]} to {held[-1]}" in result.stdout
    assert run(data, "repair", "--apply", "--accept-loss", f"{held[0]}-{held[-1]}").exit_code == 0
    log = ForgeLog.open(data / "log", options=SMALL)
    assert offsets(log) == [offset for offset in range(1, TOTAL + 1) if offset not in held]
    await log.close()
    assert run(data, "verify", "--deep").exit_code == 0


@pytest.mark.parametrize("position", [20, 84, 125, 3000])
async def test_a_flipped_bit_in_a_header_costs_nothing(data: Path, position: int) -> None:
    """One wrong bit in a segment header is put right without losing a record."""
    content = segment(data, 2).read_bytes()
    damage(segment(data, 2), position, bytes([content[position] ^ 4]))
    assert run(data, "verify").exit_code == 2
    assert "It costs no record" in run(data, "repair").stdout
    assert run(data, "repair", "--apply").exit_code == 0
    log = ForgeLog.open(data / "log", options=SMALL)
    assert offsets(log) == list(range(1, TOTAL + 1))
    await log.close()


async def test_a_destroyed_header_sets_the_segment_aside(data: Path) -> None:
    """A header beyond mending costs its segment, which is kept in quarantine."""
    damage(segment(data, 3), 0, os.urandom(4096))
    plan = run_json(data, "repair")["plan"]
    ((first, last),) = plan["lost"]
    assert run(data, "repair", "--apply", "--accept-loss", f"{first}-{last}").exit_code == 0
    assert not segment(data, 3).exists()
    assert len(list((data / "log" / "quarantine").iterdir())) == 1
    log = ForgeLog.open(data / "log", options=SMALL)
    assert offsets(log) == [offset for offset in range(1, TOTAL + 1) if not first <= offset <= last]
    await log.close()


@pytest.mark.parametrize("harm", [lambda path: path.unlink(), lambda path: path.write_bytes(b"{}\n00000000\n")])
async def test_the_manifest_can_be_rebuilt(data: Path, harm: Callable[[Path], object]) -> None:
    """A lost or damaged manifest is refused, and made anew from the segments without losing a record."""
    harm(data / "log" / "MANIFEST")
    with pytest.raises(LogRefused, match="--rebuild-manifest"):
        ForgeLog.open(data / "log")
    assert run(data, "verify").exit_code == 2
    assert "--rebuild-manifest --apply" in run(data, "repair").stdout
    assert "can be made anew" in run(data, "repair", "--rebuild-manifest").stdout
    assert run(data, "repair", "--rebuild-manifest", "--apply").exit_code == 0
    log = ForgeLog.open(data / "log", options=SMALL)
    assert offsets(log) == list(range(1, TOTAL + 1))
    await log.close()


async def test_tools_beside_a_running_daemon(data: Path) -> None:
    """verify, dump and stat read a live log and change nothing; repair is refused with code 4."""
    log = ForgeLog.open(data / "log", options=SMALL)
    before = {path.name: path.read_bytes() for path in (data / "log").iterdir()}
    assert run(data, "verify", "--deep").exit_code == 0
    assert "running process" in run(data, "stat").stdout
    assert run(data, "dump", "--from", "3", "--to", "3").stdout.count("\n") == 1
    refused = run(data, "repair")
    assert refused.exit_code == 4
    assert {path.name: path.read_bytes() for path in (data / "log").iterdir()} == before
    await log.close()


def test_stat_says_who_has_read_how_far(data: Path) -> None:
    """stat shows offsets, store and consumers."""
    text = run(data, "stat").stdout
    assert "1 to 60" in text
    assert "store-1, projected up to 20" in text
    assert "reader at 7" in text
    assert run_json(data, "stat")["consumers"] == {"reader": 7}


def test_dump_writes_records(data: Path) -> None:
    """Every form shows the records asked for; none shows the salt, which would let a client forge a frame."""
    lines = [json.loads(line) for line in run(data, "dump", "--from", "10", "--to", "12").stdout.splitlines()]
    assert [line["offset"] for line in lines] == [10, 11, 12]
    assert lines[0]["payload"].startswith("record 10 ")
    assert "record 10 " in run(data, "dump", "--format", "hex", "--from", "10", "--to", "10").stdout
    frames = run(data, "dump", "--format", "frames").stdout
    assert frames.count("offsets") == TOTAL
    salt = segment(data, 1).read_bytes()[84:88]
    assert salt.hex() not in frames
    damage(segment(data, 1), 4096 + 60)
    assert "DAMAGED" in run(data, "dump", "--format", "frames").stdout
    assert len(run(data, "dump").stdout.splitlines()) == TOTAL - 1


async def test_export_and_import(data: Path, tmp_path: Path) -> None:
    """An exported log imports elsewhere with every record and its consumers; a damaged one is not copied."""
    assert run(data, "export", str(tmp_path / "out")).exit_code == 0
    assert run(tmp_path / "new", "import", str(tmp_path / "out")).exit_code == 0
    log = ForgeLog.open(tmp_path / "new" / "log", options=SMALL)
    assert offsets(log) == list(range(1, TOTAL + 1))
    assert log.consumers == {"reader": 7}
    await log.close()
    assert run(tmp_path / "new", "import", str(tmp_path / "out")).exit_code == 2
    damage(*position_of(data, 5))
    assert run(data, "export", str(tmp_path / "out2")).exit_code == 2
    assert not (tmp_path / "out2").exists()


async def test_a_held_log_outlives_retention(tmp_path: Path) -> None:
    """What retention removes while a log is held is in its copy all the same, and so is what was begun meanwhile."""
    log = ForgeLog.open(tmp_path / "log", options=LogOptions(segment_bytes=16_384, retention_bytes_max=1))
    for _ in range(TOTAL):
        await log.append([NewRecord(b"x" * 1000, b"key")])
    held = HeldLog(OsFiles(), tmp_path / "log")
    held.look()
    assert log.retain(TOTAL).first_offset > 1
    for _ in range(TOTAL):
        await log.append([NewRecord(b"x" * 1000, b"key")])
    held.look()
    report = held.copy(tmp_path / "copy", projected_offset=7)
    held.close()
    assert (report.first_offset, report.last_offset, report.projected_offset) == (1, 2 * TOTAL, 7)
    held = HeldLog(OsFiles(), tmp_path / "log")
    held.look()
    for _ in range(TOTAL):
        await log.append([NewRecord(b"x" * 1000, b"key")])
    log.retain(3 * TOTAL)
    held.look()
    with pytest.raises(LogRefused, match="segment is missing"):
        held.copy(tmp_path / "too late")
    held.close()
    await log.close()


class Vanishing(OsFiles):
    """Files that somebody removes between the look at their directory and their opening."""

    def open(self, path: Path, *, write: bool = False, create: bool = False) -> int:
        if path.suffix == ".flog":
            raise FileNotFoundError(path)
        return super().open(path, write=write, create=create)


def test_a_log_that_is_removed_faster_than_held_is_refused(data: Path) -> None:
    """After some looks that come too late each time it is said why there is no copy."""
    with pytest.raises(LogRefused, match="faster than they can be held"):
        HeldLog(Vanishing(), data / "log").look()


def test_a_copy_knows_who_has_read_how_far(data: Path, tmp_path: Path) -> None:
    """The offsets of consumers are in the copy of a held log."""
    held = HeldLog(OsFiles(), data / "log")
    held.look()
    held.copy(tmp_path / "copy")
    held.close()
    assert load_consumers(OsFiles(), tmp_path / "copy") == {"reader": 7}


def test_wrong_usage_is_code_3(data: Path, tmp_path: Path) -> None:
    """Unknown options, bad ranges and a directory without a log end with code 3."""
    assert run(data, "verify", "--nonsense").exit_code == 3
    assert run(data, "repair", "--accept-loss", "five").exit_code == 3
    assert run(data, "repair", "--accept-loss", "9-5").exit_code == 3
    assert run(tmp_path / "nowhere", "verify").exit_code == 3


def test_bench_fsync_measures(data: Path) -> None:
    """bench-fsync prints figures for both ways of writing and leaves no file behind."""
    before = sorted(data.iterdir())
    figures = run_json(data, "bench-fsync", "--syncs", "5")["syncs"]
    assert [one["syncs"] for one in figures] == [5, 5]
    assert "p99" in run(data, "bench-fsync", "--syncs", "5").stdout
    assert sorted(data.iterdir()) == before


def test_verify_and_stat_name_the_marker_of_a_poison(data: Path) -> None:
    """Where the log gave up, the tools say so, although nothing is damaged."""
    (data / "log" / "POISONED").write_text("EIO\n")
    assert "POISONED stands" in run(data, "verify").stdout
    assert "POISONED" in run(data, "stat").stdout
    assert run_json(data, "verify")["poisoned"] is True


def test_repair_of_the_consumers_file(data: Path) -> None:
    """The plan says what a damaged consumers.json costs; carried out, it keeps the file and lets the log open."""
    (data / "log" / "consumers.json").write_bytes(b"junk")
    assert "starts again from the first offset" in run(data, "repair").stdout
    done = run(data, "repair", "--apply")
    assert "moved consumers.json to quarantine/" in done.stdout
    assert run(data, "verify").exit_code == 0


def test_repair_refuses_a_later_version(data: Path) -> None:
    """Neither a plan nor a new manifest is offered for what a later version wrote."""
    damage(segment(data, 2), 8, b"\x07\0")
    for arguments in ((), ("--apply",), ("--rebuild-manifest", "--apply")):
        result = run(data, "repair", *arguments)
        assert result.exit_code == 2
        assert "Use the newer ReplayForge" in result.output
    assert not (data / "log" / "quarantine").exists()
