"""What `serve --reload` takes for a change."""

import os
import sys
from pathlib import Path
from types import ModuleType

import pytest

from replayforge.code_watch import CodeWatch, CommandLine, own_files
from replayforge.telemetry import Telemetry
from tests.support.probe import Probe


def load(monkeypatch: pytest.MonkeyPatch, name: str, file: Path) -> Path:
    """Have a module be loaded that stands in a file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("")
    module = ModuleType(name)
    module.__file__ = str(file)
    monkeypatch.setitem(sys.modules, name, module)
    return file


def write(path: Path, at: int) -> None:
    os.utime(path, ns=(at, at))


async def test_a_file_that_was_written_is_a_change_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Users' files count, of packages and of ours none; what is loaded later is no change, nor is what is away."""
    monkeypatch.chdir(tmp_path)
    shop = load(monkeypatch, "shop", tmp_path / "shop.py")
    package = load(monkeypatch, "bought", tmp_path / "site-packages" / "bought.py")
    watch = CodeWatch(CommandLine(), Telemetry())
    assert watch.look() == ""
    write(shop, 1)
    write(package, 1)
    load(monkeypatch, "late", tmp_path / "late.py")
    assert (watch.look(), watch.look()) == ("shop.py", "")
    shop.unlink()
    assert watch.look() == ""
    assert not [file for file in own_files() if "/replayforge/engine/" in file or file == os.__file__]


async def test_after_code_that_does_not_load_a_new_file_is_a_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was missing may come beside it; until then the old code goes on, and that is said."""
    monkeypatch.chdir(tmp_path)
    shop, telemetry, line = load(monkeypatch, "shop", tmp_path / "shop.py"), Telemetry(), CommandLine()
    probe, watch = Probe(telemetry), CodeWatch(line, telemetry)
    line.arguments = [sys.executable, "-c", "raise SystemExit('no module named missing')"]
    write(shop, 1)
    assert not await watch.loads(watch.look())
    assert probe.counts["code.refused"] == 1
    assert watch.look() == ""
    (tmp_path / "missing.py").write_text("")
    write(tmp_path, 1)
    line.arguments = [sys.executable, "-c", "pass"]
    assert await watch.loads(watch.look())
    assert probe.counts["code.changed"] == 1
