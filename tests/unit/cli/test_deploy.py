"""The files that `deploy` prints: they are of the form that their readers want, and fit the settings."""

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from replayforge.config import load_config
from replayforge.deployment import Place, doubts_about_unit
from tests.unit.cli.conftest import Cli

SETTINGS = """
data_dir = "{data_dir}"
[server]
port = 9000
base_path = "/rf"
allowed_hosts = ["events.example.com"]
[supervisor]
grace_seconds = 100
[redis]
url = "redis://10.0.0.5"
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with settings of its own."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "replayforge.toml").write_text(SETTINGS.format(data_dir=tmp_path / "data"))
    return tmp_path


def test_systemd(cli: Cli, place: Path) -> None:
    """The unit passes systemd's own check, names the settings' file, may write there, and waits long enough."""
    unit = cli("deploy", "systemd").out
    assert f"--config {place}/replayforge.toml\n" in unit
    assert f"ReadWritePaths={place}/data\n" in unit
    assert int(re.findall(r"TimeoutStopSec=(\d+)", unit)[0]) > 145, "grace, and what comes after it"
    (place / "replayforge.service").write_text(unit)
    if analyze := shutil.which("systemd-analyze"):
        checked = subprocess.run(
            [analyze, "verify", str(place / "replayforge.service")], capture_output=True, text=True, check=False
        )
        assert "replayforge.service" not in checked.stderr, checked.stderr
    (place / "replayforge.toml").write_text('data_dir = "data"')
    unit = cli("deploy", "systemd").out
    assert f"ReadWritePaths={place}/data\n" in unit
    assert f"install -d -o replayforge -g replayforge -m 0700 {place}/data\n" in unit, "or systemd fails, status 226"
    (place / "replayforge.toml").unlink()
    assert "--data-dir /var/lib/replayforge\n" in cli("deploy", "systemd").out


def test_what_a_unit_would_miss_is_said(cli: Cli, place: Path) -> None:
    """Without handlers, or with files below /tmp or in a home, stderr says so, and nothing where all is well."""
    with (place / "replayforge.toml").open("a") as settings:
        settings.write('[handlers]\nmodules = ["handlers.py"]\n')
    assert "[handlers] modules" not in cli("deploy", "systemd").err
    (place / "replayforge.toml").unlink()
    assert "[handlers] modules" in cli("deploy", "systemd").err
    loaded = load_config(None, {}, {"handlers": ("app.handlers",)})
    good = Place("/opt/replayforge/venv/bin/python", Path("/opt/replayforge"), loaded, "1")
    assert doubts_about_unit(good) == []
    (hidden,) = doubts_about_unit(replace(good, directory=Path("/tmp/here")))
    (closed,) = doubts_about_unit(replace(good, python="/home/ada/venv/bin/python"))
    assert ("PrivateTmp" in hidden, "ProtectHome" in closed) == (True, True)


def test_containers(cli: Cli, place: Path) -> None:
    """Image and manifest ask below the base path for a host that is answered; the compose file has what is used."""
    image, compose, manifest = (cli("deploy", name).out for name in ("docker", "compose", "kubernetes"))
    assert 'http://127.0.0.1:9000/rf/health/live\', headers={\\"Host\\": \\"events.example.com\\"}' in image
    assert ("image: redis" in compose, "image: postgres" in compose) == (True, False)
    assert "image: postgres" in cli("deploy", "compose", "--postgres").out
    assert re.findall(r"path: (\S+)", manifest) == ["/rf/health/live", "/rf/health/live", "/rf/health/ready"]
    assert manifest.count('httpHeaders: [{name: Host, value: "events.example.com"}]') == 3
    assert "terminationGracePeriodSeconds: 150\n" in manifest
    for text in (compose, manifest):
        assert not [line for line in text.splitlines() if "\t" in line or (len(line) - len(line.lstrip())) % 2]
