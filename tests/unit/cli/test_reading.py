"""Looking and acting: events, dead letters, workflows, status."""

import io
import json
from pathlib import Path

import pytest

from replayforge.domain.clock import SystemClock, parse_time, to_us
from tests.unit.cli.conftest import Cli
from tests.unit.cli.fake_api import LEDGER, FakeApi, refusing


def test_events_ls(ask: Cli, api: FakeApi) -> None:
    """A row has the state as glyph and word, the whole id, and when it happens next."""
    api.add("id-1", "retrying", next_run_at="2999-01-01T00:00:00Z", last_error="evil \x1b[31m\ntraceback")
    api.add("id-2", "succeeded")
    ended = ask("events", "ls", "--limit", "1")
    assert ended.code == 0
    assert ended.out.splitlines()[0].split() == [
        "STATE",
        "ID",
        "TYPE",
        "WORKFLOW",
        "FAILED",
        "CREATED",
        "LAST",
        "ERROR",
    ]
    assert "↻ retrying (in " in ended.out
    assert "2/10" in ended.out
    assert "\x1b" not in ended.out
    assert "traceback" not in ended.out
    assert "--cursor 1" in ended.err
    assert "id-2" in ask("events", "ls", "--limit", "1", "--cursor", "1").out


def test_events_ls_filters(ask: Cli, api: FakeApi) -> None:
    """Filters become the query; a distance becomes a time; what was not given is left out."""
    ended = ask(
        "events", "ls", "--status", "queued", "--type", "a.*", "--since", "1h", "--search", "x", "--workflow", "w"
    )
    assert (ended.out, ended.err) == ("", "No events match.\n")
    query = api.requests[0][2]
    age_us = SystemClock().now_us() - parse_time(query.pop("since"))
    assert to_us(3600) <= age_us < to_us(3660)
    assert query == {"status": "queued", "event_type": "a.*", "q": "x", "workflow_id": "w", "limit": "20"}


def test_json_is_the_answer_itself(ask: Cli, api: FakeApi) -> None:
    """--json prints what the daemon sent, for every reading command."""
    api.add("id-1")
    for arguments in (["events", "ls"], ["events", "show", "id-1"], ["dead", "ls"], ["dead", "groups"], ["status"]):
        json.loads(ask(*arguments, "--json").out)
    assert json.loads(ask("workflows", "show", "w", "--json").out)["workflow"]["total_events"] == 3


def test_events_show(ask: Cli, api: FakeApi) -> None:
    """One event is shown with its payload and its attempts."""
    api.add("id-1", last_error="no answer\nTraceback \x1b[2J:\n  line 1", payload={"deep": [1, 2]})
    out = ask("events", "show", "id-1").out
    assert "✕ dead-lettered" in out
    assert '{"deep": [1, 2]}' in out
    assert "worker-3" in out
    assert "timed-out" in out
    assert out.endswith("LAST ERROR\nno answer\nTraceback \\x1b[2J:\n  line 1\n")


def test_long_payload_is_cut(ask: Cli, api: FakeApi) -> None:
    """A long payload is cut, and it says how to see the rest."""
    api.add("id-1", payload="x" * 50_000)
    out = ask("events", "show", "id-1").out
    assert len(out) < 20_000
    assert "50,002 characters; all of it with --json" in out


def test_unknown_event(ask: Cli) -> None:
    """An id that names nothing is one sentence and exit code 1."""
    ended = ask("events", "show", "nope")
    assert (ended.code, ended.err) == (1, "replayforge: There is nothing of this name: No event nope.\n")


@pytest.mark.parametrize("action", ["replay", "retry", "cancel"])
def test_actions(ask: Cli, api: FakeApi, action: str) -> None:
    """Each id is acted on; one that refuses is named and makes the exit code 1."""
    api.add("id-1")
    ended = ask("events", action, "id-1", "gone", "id-1")
    assert ended.code == 1
    assert ended.out.endswith(" 2 of 3\n")
    assert ended.err == "gone: The state has moved on: gone is no dead letter.\n"
    assert api.events["id-1"]["status"] == f"after {action}"
    assert ask("events", action, "id-1").code == 0


def test_dry_run_of_actions(ask: Cli, api: FakeApi) -> None:
    """--dry-run shows the events and sends nothing."""
    api.add("id-1")
    ended = ask("events", "cancel", "id-1", "--dry-run")
    assert ended.code == 0
    assert "nothing was done" in ended.err
    assert {method for method, _, _ in api.requests} == {"GET"}


def test_replay_with_payload(ask: Cli, api: FakeApi) -> None:
    """A new payload and a reason go along, the payload's bytes untouched."""
    api.add("id-1")
    Path("p.json").write_text('{"n": 1.0}')
    assert ask("events", "replay", "id-1", "--payload", "@p.json", "--reason", "fixed", "--force").code == 0
    assert api.bodies[-1] == b'{"payload":{"n": 1.0},"reason":"fixed","force":true}'


def test_dead_groups(ask: Cli, api: FakeApi) -> None:
    """Groups show how many and what they have in common."""
    out = ask("dead", "groups", "--by", "type").out
    assert out.splitlines()[0].split() == ["COUNT", "FIRST", "LAST", "TYPE"]
    assert "28" in out
    assert "TimeoutError: N s" in out
    assert api.requests[0][2] == {"group_by": "type"}


def test_dead_replay_asks_with_the_number(ask: Cli, api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    """A filter chooses from every page, and nothing happens before a yes."""
    monkeypatch.setattr("replayforge.cli.actions.PAGE_EVENTS", 2)
    for number in range(5):
        api.add(f"id-{number}")
    api.add("fine", "succeeded")
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    ended = ask("dead", "replay", "--all")
    assert ended.code == 1
    assert "Replay 5 dead letters?" in ended.err + ended.out
    assert all(method == "GET" for method, _, _ in api.requests)
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    assert ask("dead", "replay", "--type", "payment.*").out.endswith("replayed 5 of 5\n")
    assert api.events["fine"]["status"] == "succeeded"


def test_dead_discard(ask: Cli, api: FakeApi) -> None:
    """A discard needs a reason, and sends it."""
    api.add("id-1")
    assert ask("dead", "discard", "id-1").code == 64
    ended = ask("dead", "discard", "--all", "--yes", "--reason", "test data")
    assert (ended.code, ended.out) == (0, "discarded 1 of 1\n")
    assert api.requests[-1][1] == "/api/deadletters/id-1/discard"
    assert api.bodies[-1] == b'{"reason":"test data"}'


def test_dead_dry_run(ask: Cli, api: FakeApi) -> None:
    """--dry-run lists the ids and sends nothing."""
    api.add("id-1")
    ended = ask("dead", "replay", "--all", "--dry-run")
    assert (ended.code, ended.out) == (0, "id-1\n")
    assert "Would replay 1 dead letter; nothing was done." in ended.err
    assert all(method == "GET" for method, _, _ in api.requests)


@pytest.mark.parametrize("arguments", [[], ["id-1", "--all"], ["id-1", "--type", "x"]])
def test_dead_selection_is_one_thing(ask: Cli, arguments: list[str]) -> None:
    """Ids or filters: one of the two, never neither and never both."""
    assert ask("dead", "replay", *arguments).code == 64


def test_workflow(ask: Cli, api: FakeApi) -> None:
    """A workflow is shown with its totals and its events."""
    api.add("id-1")
    out = ask("workflows", "show", "order-1").out
    assert "total events" in out
    assert "id-1" in out
    assert [path for _, path, _ in api.requests] == ["/api/workflows/order-1", "/api/workflows/order-1/timeline"]


def test_status_converged(ask: Cli) -> None:
    """Converged is exit code 0, with the ledger beside it."""
    ended = ask("status")
    assert ended.code == 0
    assert ended.out.splitlines() == ["✓ converged: all that is due has ended", LEDGER]


def test_status_not_converged(ask: Cli, api: FakeApi) -> None:
    """Not converged is exit code 1, with every reason."""
    api.converged = False
    ended = ask("status")
    assert ended.code == 1
    assert ended.out.splitlines() == ["✕ not converged", "  - 2 events are queued", LEDGER]
    assert ask("status", "--json").code == 1


def test_status_that_nobody_tells(ask: Cli, api: FakeApi) -> None:
    """A daemon that does not tell is neither converged nor not: exit code 2."""
    api.faults = [refusing(401, "Key needed")]
    ended = ask("status")
    assert (ended.code, ended.err) == (2, "Key needed\n")


def test_status_waits(ask: Cli, api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    """--wait asks again until it is converged."""
    api.converged = False

    def converge(_: float) -> None:
        api.converged = True

    monkeypatch.setattr("time.sleep", converge)
    assert ask("status", "--wait", "30").code == 0
    assert len(api.requests) == 2
