"""The files that `deploy` prints: they are of the form that their readers want, and fit the settings."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

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
    (place / "replayforge.toml").unlink()
    assert "--data-dir /var/lib/replayforge\n" in cli("deploy", "systemd").out


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
