"""The command line as a whole: how it loads, and how it says what went wrong."""

import subprocess
import sys

import pytest

from replayforge.cli.main import COMMANDS, load
from tests.unit.cli.conftest import Cli


@pytest.mark.parametrize("name", COMMANDS)
def test_table_of_commands(name: str) -> None:
    """Every subcommand exists under its name, and its line in the help is the first line of its own help."""
    command = load(COMMANDS[name])
    assert command.name == name
    assert command.get_short_help_str(limit=200) == COMMANDS[name].summary


def test_help_names_every_command(cli: Cli) -> None:
    """--help lists every subcommand."""
    ended = cli("--help")
    assert ended.code == 0
    assert all(place.summary in " ".join(ended.out.split()) for place in COMMANDS.values())


def test_help_loads_nothing_heavy() -> None:
    """Help and version start without the daemon and what it needs."""
    program = (
        "import sys; from replayforge.cli.main import run; run(['--help']); run(['version']); "
        "sys.exit(len(sys.modules.keys() & {'aiohttp', 'replayforge.daemon', 'replayforge.stores'}))"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, check=False).returncode == 0


def test_a_daemon_loads_no_demo() -> None:
    """The demo is no part of a daemon that is not asked for it."""
    program = "import sys; import replayforge.daemon; sys.exit(any('replayforge.demo' in name for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, check=False).returncode == 0


def test_module_runs() -> None:
    """`python -m replayforge` is the command."""
    done = subprocess.run([sys.executable, "-m", "replayforge", "version"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.split()[0]) == (0, "replayforge")


@pytest.mark.parametrize(
    "arguments", [["nonsense"], ["events", "ls", "--limit", "0"], ["events", "show"], ["dead", "replay"]]
)
def test_wrong_usage(cli: Cli, arguments: list[str]) -> None:
    """Wrong usage exits 64, so that it cannot be taken for an unreachable daemon."""
    ended = cli(*arguments)
    assert ended.code == 64
    assert "Traceback" not in ended.err
    assert ended.out == ""


def test_nobody_there(cli: Cli) -> None:
    """An address nobody listens on gives one sentence with the way out, and exit code 2."""
    ended = cli("status", "--url", "http://127.0.0.1:1")
    assert ended.code == 2
    assert ended.err == (
        "replayforge: No daemon answers at http://127.0.0.1:1 (Connection refused); "
        "start one with `replayforge serve`, or name another with --url.\n"
    )


def test_no_address(cli: Cli) -> None:
    """Something that is not an address is said to be none."""
    ended = cli("status", "--url", "localhost:8787")
    assert ended.code == 1
    assert ended.err.count("\n") == 1
    assert "should look like http://127.0.0.1:8787" in ended.err


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(cli: Cli, shell: str) -> None:
    """The script for each shell names the command and its variable."""
    ended = cli("completion", shell)
    assert ended.code == 0
    assert "_REPLAYFORGE_COMPLETE" in ended.out
