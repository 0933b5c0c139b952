"""Commands wait a little for a daemon that starts or refuses for now, and do nothing twice."""

from collections.abc import Iterator
from contextlib import ExitStack

import click
import pytest
from aiohttp import web

from replayforge.cli import options
from replayforge.cli.main import COMMANDS, load
from replayforge.client import retry_budget
from replayforge.client.http import Problem, Unreachable
from replayforge.client.patience import TOO_SLOW, PatientConnection
from replayforge.client.retry_budget import RetryBudget
from tests.support.ports import free_port
from tests.unit.cli.conftest import Cli
from tests.unit.cli.fake_api import FakeApi, problem

# What each command is called with. Those that are left out have ways of their own to wait, or shall not.
CALLS = {
    "events ls": "",
    "events show": "event-1",
    "events replay": "event-1",
    "events cancel": "event-1",
    "events retry": "event-1",
    "events resolve": "event-1 --as succeeded --reason why",
    "dead ls": "",
    "dead groups": "",
    "dead replay": "event-1",
    "dead discard": "event-1 --reason why",
    "indoubt ls": "",
    "indoubt confirm": "event-1",
    "indoubt dead-letter": "event-1",
    "indoubt rerun": "event-1",
    "replays ls": "",
    "replays show": "replay-1",
    "replays watch": "replay-1",
    "replays pause": "replay-1",
    "replays resume": "replay-1",
    "replays cancel": "replay-1",
    "schedules ls": "",
    "schedules run": "daily",
    "schedules pause": "daily --reason why",
    "schedules resume": "daily",
    "alerts ls": "",
    "alerts test": "dead",
    "lanes ls": "",
    "handlers ls": "",
    "handlers pause": "mail --reason why",
    "handlers resume": "mail",
    "sources ls": "",
    "sources pause": "shop --reason why",
    "sources resume": "shop",
    "sources verify": "shop",
    "workflows ls": "",
    "workflows show": "order-1",
}
# The last three do more than to ask the daemon: a request of its own making, a daemon's history, somebody else's port.
OTHERWISE = {"send", "forward", "status", "sources test", "shadow", "endpoint check"}


def asking(command: click.Command, path: str) -> Iterator[str]:
    """Yield the subcommands that speak with a daemon."""
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            yield from asking(found, f"{path} {name}")
    elif any(parameter.name == "url" for parameter in command.params):
        yield path


def test_no_command_is_forgotten() -> None:
    assert {path for name, place in COMMANDS.items() for path in asking(load(place), name)} == CALLS.keys() | OTHERWISE


@pytest.mark.parametrize("command", CALLS)
def test_every_command_waits_for_a_daemon_that_starts(
    ask: Cli, api: FakeApi, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    """A request that was refused for now is sent again, as it was."""
    monkeypatch.setattr(options, "RETRY_SECONDS", 5.0)
    monkeypatch.setattr(retry_budget, "FIRST_WAIT_SECONDS", 0.0)
    bodies: list[bytes] = []

    async def starting(request: web.Request) -> web.Response:
        bodies.append(await request.read())
        return problem(503, "Not available now", "The daemon starts.", "0")

    api.faults = [starting] * 2
    ended = ask(*command.split(), *CALLS[command].split())
    assert "Not available now" not in ended.err
    assert api.requests[0] == api.requests[1] == api.requests[2]
    assert api.bodies[2:3] in ([bodies[0]], [])


def test_a_port_that_is_taken_a_moment_later(tmp_path: object) -> None:
    """Nobody listens yet, and then somebody does."""
    with ExitStack() as stack:
        api, port = FakeApi(), free_port()
        api.port = port

        def start(_: float) -> None:
            if not api.url:
                stack.enter_context(api)

        with PatientConnection(f"http://127.0.0.1:{port}", None, RetryBudget(5, start)) as client:
            assert client.get("api", "events").document()["items"] == []


def test_what_may_have_been_carried_out_is_not_sent_again(api: FakeApi) -> None:
    """Nor what breaks off, takes too long to answer, or will not pass; a question to a proxy is asked again."""

    async def broken(request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.close()
        return web.Response()

    async def without_daemon(request: web.Request) -> web.Response:
        return problem(502, "Bad gateway")

    async def too_slow(request: web.Request) -> web.Response:
        return problem(503, "The answer took too long", type=TOO_SLOW)

    async def conflict(request: web.Request) -> web.Response:
        return problem(409, "Replayed already")

    with PatientConnection(api.url, None, RetryBudget(5, lambda _: None)) as client:
        api.faults = [without_daemon, without_daemon]
        assert client.get("api", "events").document()["items"] == []
        for fault, kind, method in (
            (without_daemon, Problem, "POST"),
            (broken, Unreachable, "GET"),
            (broken, Unreachable, "POST"),
            (too_slow, Problem, "GET"),
            (conflict, Problem, "POST"),
        ):
            api.faults, before = [fault], len(api.requests)
            with pytest.raises(kind):
                client.request(method, "/api/events/one/replay", b"{}")
            assert len(api.requests) == before + 1


def test_patience_ends(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options, "RETRY_SECONDS", 0.1)
    ended = cli("dead", "ls", "--url", "http://127.0.0.1:1")
    assert (ended.code, "No daemon answers at" in ended.err) == (2, True)
