"""Which daemon a command speaks to, and with which key."""

from pathlib import Path

import pytest

from replayforge.cli.address import find_address
from tests.unit.cli.conftest import Cli
from tests.unit.cli.fake_api import FakeApi

FILE = """
[server]
host = "0.0.0.0"
port = 9999
base_path = "/forge"
api_keys = ["first-key-of-all", "second-key-of-all"]
"""
OWN = "http://127.0.0.1:9999/forge"


@pytest.mark.parametrize(
    ("url", "key", "environment", "expected"),
    [
        (None, None, {}, (OWN, "first-key-of-all")),
        (None, "mine", {}, (OWN, "mine")),
        ("http://127.0.0.1:1", None, {}, ("http://127.0.0.1:1", "first-key-of-all")),
        ("http://localhost:1", None, {}, ("http://localhost:1", "first-key-of-all")),
        ("http://[::1]:1", None, {}, ("http://[::1]:1", "first-key-of-all")),
        ("https://elsewhere.example", None, {}, ("https://elsewhere.example", None)),
        ("https://elsewhere.example", "mine", {}, ("https://elsewhere.example", "mine")),
        ("http://[", None, {}, ("http://[", None)),
        (None, None, {"REPLAYFORGE__SERVER__PORT": "7"}, ("http://127.0.0.1:7/forge", "first-key-of-all")),
        (None, None, {"REPLAYFORGE__SERVER__HOST": "::"}, ("http://[::1]:9999/forge", "first-key-of-all")),
        (None, None, {"REPLAYFORGE__SERVER__PORT": "0"}, ("http://127.0.0.1:8787/forge", "first-key-of-all")),
        (None, None, {"REPLAYFORGE_CONFIG": "other.toml"}, ("http://10.1.1.1:8787", None)),
    ],
)
def test_where_from(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    url: str | None,
    key: str | None,
    environment: dict[str, str],
    expected: tuple[str, str | None],
) -> None:
    """Flags win over the environment, that over ./replayforge.toml; its key goes to its own machine and this one."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "replayforge.toml").write_text(FILE)
    (tmp_path / "other.toml").write_text('[server]\nhost = "10.1.1.1"\n')
    address = find_address(url, key, environment)
    assert (address.url, address.api_key) == expected


def test_without_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing is said at all, the daemon is asked that a newcomer starts."""
    monkeypatch.chdir(tmp_path)
    assert find_address(None, None, {}).url == "http://127.0.0.1:8787"


def test_every_command_reads_the_file(cli: Cli, api: FakeApi) -> None:
    """A command in the daemon's directory needs neither --url nor --api-key."""
    port = api.url.rpartition(":")[2]
    Path("replayforge.toml").write_text(f'[server]\nport = {port}\napi_keys = ["the-key-of-the-file"]\n')
    for command in (["status"], ["events", "ls"], ["send", "t", "{}"], ["replays", "ls"], ["dead", "groups"]):
        assert cli(*command).code == 0
        assert api.headers[-1]["X-API-Key"] == "the-key-of-the-file"


def test_a_file_that_is_wrong(cli: Cli) -> None:
    """A mistake in the file is named; who says where to go, and with which key, does not need it."""
    Path("replayforge.toml").write_text("[server\n")
    ended = cli("status")
    assert (ended.code, "replayforge.toml is not TOML" in ended.err) == (78, True)
    assert cli("status", "--url", "http://127.0.0.1:1", "--api-key", "k").code == 2
