"""Commands that need no daemon: config and serve."""

import asyncio
import json
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from replayforge.config import LoadedConfig
from replayforge.stores import trial
from replayforge.stores.store import Store
from tests.unit.cli.conftest import Cli


def test_config_show(cli: Cli) -> None:
    """Each setting is a line that could stand in a file, with its origin when asked."""
    Path("replayforge.toml").write_text("[server]\nport = 9000")
    assert "server.port = 9000\n" in cli("config", "show").out
    lines = cli("config", "show", "--origin").out.splitlines()
    assert [line.split("# ")[1] for line in lines if line.startswith("server.port ")] == ["replayforge.toml"]
    assert [line.split("# ")[1] for line in lines if line.startswith("server.host ")] == ["default"]
    entries = json.loads(cli("config", "show", "--origin", "--json").out)
    assert entries["server.port"] == {"value": 9000, "origin": "replayforge.toml"}


def test_config_show_hides_secrets(cli: Cli) -> None:
    """Keys, secrets and passwords are never shown."""
    Path("replayforge.toml").write_text(
        "[server]\napi_keys = ['canary']\n[store]\nurl = 'postgresql://me:canary@h/d'\n[redis]\nurl = 'redis://:canary@h'\n"
        "[[handlers.http]]\nmatch = 'a'\nurl = 'http://h'\nsecret = 'canary'\n"
    )
    for form in ([], ["--json"]):
        out = cli("config", "show", *form).out
        assert "canary" not in out
        assert "postgresql://me:" in out


def test_config_check(cli: Cli) -> None:
    """A right configuration is exit code 0; a wrong one names every mistake and is exit code 78."""
    assert cli("config", "check").code == 0
    Path("replayforge.toml").write_text("[server]\nprot = 9000\nport = -1")
    ended = cli("config", "check")
    assert ended.code == 78
    assert ended.err.count("replayforge.toml: ") == 2


async def new_store(path: Path) -> None:
    """Make a store as a daemon does."""
    await (await Store.open(f"sqlite:///{path}", node="node", owner="owner")).close()


def test_config_check_refuses_the_store_that_serve_would(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that no daemon would open is exit code 78 with the reason; nothing is made, and what is ours is right."""
    asyncio.run(new_store(Path("ours.db").absolute()))
    asyncio.run(new_store(Path("newer.db").absolute()))
    for name, statement in (("newer", "INSERT INTO migrations VALUES (99, '')"), ("foreign", "CREATE TABLE t (a)")):
        with closing(sqlite3.connect(f"{name}.db")) as raw:
            raw.execute(statement)
            raw.commit()
    monkeypatch.setattr(trial, "WAIT_SECONDS", 0)
    before = sorted(Path().iterdir())

    def said(url: str) -> str:
        monkeypatch.setenv("REPLAYFORGE__STORE__URL", url)
        ended = cli("config", "check")
        return ended.err if ended.code == 78 else f"{ended.code}: {ended.err}"

    assert said("sqlite:///{data_dir}/store.db") == said(f"sqlite:///{Path('ours.db').absolute()}") == "0: "
    assert "another application (tables such as t)" in said(f"sqlite:///{Path('foreign.db').absolute()}")
    assert "has schema version 99" in said(f"sqlite:///{Path('newer.db').absolute()}")
    assert "there is no directory /nowhere" in said("sqlite:////nowhere/store.db")
    assert "is not a regular file" in said(f"sqlite:///{Path().absolute()}")
    assert "PostgreSQL at 127.0.0.1:1/shop" in said("postgresql://127.0.0.1:1/shop")
    assert sorted(Path().iterdir()) == before


def test_config_check_refuses_the_code_that_serve_would(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """A handler that cannot be one, or what the daemon would not listen with, is exit code 78 with the same words."""
    monkeypatch.setattr("sys.path", [*sys.path])
    handler = "@handlers.on('a')\nasync def pay(event, ctx): pass\n"
    Path("shop_handlers.py").write_text(f"from replayforge import Handlers\nhandlers = Handlers()\n\n{handler}")
    Path("replayforge.toml").write_text("[handlers]\nmodules = ['shop_handlers.py']\n")
    assert cli("config", "check").out.endswith("; handlers: 1.\n")
    assert cli("config", "check", "--handlers", "shop_handlers.py").out.endswith("; handlers: 1.\n")
    Path("late_handlers.py").write_text(Path("shop_handlers.py").read_text().replace("event, ctx", "event"))
    Path("replayforge.toml").write_text("[handlers]\nmodules = ['late_handlers.py']\n")
    ended = cli("config", "check")
    assert ended.code == 78
    assert f"late_handlers.pay ({Path('late_handlers.py').absolute()}, line 4) is called with two" in ended.err
    Path("replayforge.toml").write_text("[server]\nhost = '0.0.0.0'\n")
    assert cli("config", "check").code == 78


def test_serve_hands_over_its_settings(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Flags become settings with their origins, and the daemon's exit code is the command's."""
    calls: list[Any] = []

    def daemon(loaded: LoadedConfig, adopt_store: bool, *, reload: bool) -> int:
        assert not reload
        calls.append((loaded, adopt_store))
        return 70

    monkeypatch.setattr("replayforge.cli.serve_command.run", daemon)
    flags = ["--port", "0", "--handlers", "a.py", "--handlers", "b", "--simulate-crashes", "--crash-at", "claim:2"]
    assert cli("serve", *flags, "--adopt-store").code == 70
    loaded, adopt_store = calls[0]
    assert adopt_store is True
    assert (loaded.config.server.port, loaded.origins["server.port"]) == (0, "flag --port")
    assert loaded.config.handlers.modules == (str(Path("a.py").absolute()), "b")
    assert (loaded.config.chaos.enabled, loaded.config.chaos.crash_at) == (True, ("claim:2",))
    assert loaded.origins["chaos.fail_rate"] == "default"
    cli("serve")
    assert calls[1][0].origins["chaos.enabled"] == "default"


def test_serve_with_a_wrong_setting(cli: Cli) -> None:
    """A wrong flag is one sentence and exit code 78; nothing starts."""
    ended = cli("serve", "--port", "70000")
    assert ended.code == 78
    assert (
        ended.err
        == "replayforge: flag --port: server.port = 70000 is wrong; accepted: a whole number from 0 to 65535.\n"
    )


def test_check_of_a_directory_that_no_daemon_has_used(cli: Cli, tmp_path: Path) -> None:
    """It is refused by name, and nothing is made in it: a log that was just made would be clean, whatever was lost."""
    wrong = tmp_path / "wrong"
    wrong.mkdir()
    ended = cli("check", "--data-dir", str(wrong))
    assert ended.code not in (0, 1)
    assert str(wrong) in ended.err
    assert list(wrong.iterdir()) == []
