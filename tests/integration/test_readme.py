"""The README's own commands, run as they stand there."""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from replayforge import Context, Event, Handlers
from replayforge.config import load_config
from replayforge.testing import Forge
from tests.support import guide
from tests.support.daemon_process import REPOSITORY, DaemonProcess

README = (REPOSITORY / "README.md").read_text()
PROGRAM = ".venv/bin/replayforge"
EVENT_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def blocks(language: str) -> list[str]:
    """Return the README's code blocks of a language."""
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    return [block for named, block in fenced if named == language]


def lines_with(program: str) -> list[str]:
    """Return the shell lines that begin with a program."""
    return [line for block in blocks("sh") for line in block.splitlines() if line.startswith(program)]


def run(arguments: list[str], url: str) -> subprocess.CompletedProcess[str]:
    """Run `replayforge` with the daemon at `url`."""
    command = [sys.executable, "-m", "replayforge", *arguments]
    environment = os.environ | {"REPLAYFORGE_URL": url, "PYTHONPATH": str(REPOSITORY)}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, check=False)


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    """A daemon with the README's handlers."""
    folder = tmp_path_factory.mktemp("readme")
    handlers = folder / "handlers.py"
    handlers.write_text(next(block for block in blocks("python") if "handlers = Handlers()" in block))
    running = DaemonProcess(folder, handlers)
    running.start()
    yield running
    running.kill()


@pytest.mark.slow
def test_the_demo_command_ends_with_the_ledger_it_shows() -> None:
    """The first command's last part exits 0 and prints the lines that the README quotes."""
    (line,) = [line for line in blocks("sh") if "demo --file" in line]
    arguments = shlex.split(line.rpartition("&&")[2])
    assert arguments[0] == PROGRAM
    command = [sys.executable, "-m", "replayforge", *arguments[1:], "--port", "0"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (quoted,) = [block for block in blocks("") if block.startswith("accepted")]
    for expected in quoted.splitlines():
        assert expected in done.stdout


def test_the_commands_beside_the_handlers_work_as_written(daemon: DaemonProcess) -> None:
    """serve, send, events ls and status do with the README's handlers what the README says."""
    serve, send, listing, status = lines_with(PROGRAM)
    assert shlex.split(serve)[1:] == ["serve", "--handlers", "handlers.py"]
    sent = run(shlex.split(send)[1:], daemon.url)
    assert sent.returncode == 0, sent.stderr
    assert EVENT_ID.search(sent.stdout)
    settled = run([*shlex.split(status)[1:], "--wait", "20"], daemon.url)
    assert settled.returncode == 0, settled.stdout
    listed = run(shlex.split(listing)[1:], daemon.url)
    assert "succeeded" in listed.stdout
    assert "payment.authorized" in listed.stdout


def workflow() -> dict[str, Any]:
    """The README's workflow, as a module, with handlers for the two events that it sends."""
    (block,) = [block for block in blocks("python") if "ctx.step" in block]
    names: dict[str, Any] = {}
    exec(block, names)
    handlers: Handlers = names["handlers"]

    @handlers.on("email.wanted")
    async def mail(event: Event, ctx: Context) -> None:
        pass

    @handlers.on("invoice.make")
    async def bill(event: Event, ctx: Context) -> str:
        return f"invoice of {event.payload['order']}"

    return names


async def test_the_workflow_runs_as_written() -> None:
    """The README's order waits for its parcel and through its grace, though the daemon dies, and sends its children."""
    async with Forge(workflow()["handlers"]) as forge:
        payload = {"items": [{"sku": "a"}, {"sku": "b"}], "total": 12}
        event = await forge.send("order.placed", payload, workflow_id="order-17")
        await forge.settled()
        assert (event.status, len(event.steps)) == ("waiting", 5)
        await forge.restart()
        await forge.send("parcel.scanned", {"number": "p-1"}, workflow_id="order-17")
        await forge.advance(days=13)
        assert event.status == "waiting"
        await forge.advance(days=1)
        assert event.result["parcel"] == "p-1"
        assert (event.result["paid"]["total"], event.result["bill"]) == (12, f"invoice of {event.id}")
        assert [child.status for child in await forge.events("email.wanted")] == ["succeeded"]


async def test_the_workflow_that_is_not_paid_is_undone() -> None:
    """The README's compensation runs when the charge has failed for the last time."""
    names, tried = workflow(), []

    async def charge(ctx: Context, total: int) -> None:
        tried.append(ctx.step_key)
        raise RuntimeError("the bank is away")

    names["charge"] = charge
    async with Forge(names["handlers"]) as forge:
        event = await forge.send("order.placed", {"items": [], "total": 12})
        await forge.advance(days=1)
        assert event.result == {"ended": "not paid"}
    assert (len(tried), len(set(tried))) == (5, 1)


def test_the_curl_line_sends_the_same_event(daemon: DaemonProcess) -> None:
    """The curl command is accepted as it stands, but for the port."""
    (block,) = [block for block in blocks("sh") if block.startswith("curl ")]
    command = shlex.split(block.replace("http://127.0.0.1:8787", daemon.url))
    done = subprocess.run([*command, "-sS"], capture_output=True, text=True, timeout=30, check=False)
    answer = json.loads(done.stdout)
    assert (answer["workflow_id"], answer["payload"]) == ("order-17", {"amount": 12}), done.stderr


def test_the_client_gets_what_the_handler_returned(daemon: DaemonProcess, capsys: pytest.CaptureFixture[str]) -> None:
    """The lines for Python send the event that the commands send, and print its result."""
    (block,) = [block for block in blocks("python") if "import Client" in block]
    exec(block.replace("http://127.0.0.1:8787", daemon.url), {})
    assert capsys.readouterr().out == "{'captured': 12, 'reference': 'order-17:pay'}\n"


def test_every_command_that_the_readme_names_exists(tmp_path: Path) -> None:
    """Each `replayforge WORD` in the text is a command with a help of its own."""
    words = set(re.findall(r"`(?:\.venv/bin/)?replayforge ([a-z]+)", README))
    assert {"demo", "status", "check", "log", "chaos"} <= words
    for word in sorted(words):
        assert DaemonProcess(tmp_path).run_command(word, "--help").code == 0, word


def test_every_file_that_the_readme_links_exists() -> None:
    """No link of the README leads nowhere."""
    targets = [target for target in re.findall(r"\]\(([^)]+)\)", README) if "://" not in target]
    assert targets
    assert [target for target in targets if not Path(REPOSITORY, target.partition("#")[0]).exists()] == []


def test_the_lines_of_settings_are_a_valid_configuration(tmp_path: Path) -> None:
    """The lines for webhooks, schedules, lanes and several machines are accepted as they stand, and go together."""
    (several,) = (block.text for block in guide.blocks("several_daemons") if block.language == "toml")
    path = tmp_path / "replayforge.toml"
    path.write_text("\n".join([several, *blocks("toml")]))
    config = load_config(path, {}, {}).config
    assert [source.name for source in config.sources] == ["github"]
    assert [schedule.name for schedule in config.schedules] == ["nightly-report"]
    assert [lane.match for lane in config.lanes] == ["order.*"]
    assert (config.redis.url[:8], config.store.url[:13]) == ("redis://", "postgresql://"[:13])
