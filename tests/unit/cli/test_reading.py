"""Looking and acting: events, dead letters, workflows, status."""

import io
import json
import re
from pathlib import Path

import pytest
from aiohttp import web

from replayforge.domain.clock import SystemClock, parse_time, to_us
from tests.unit.cli.conftest import Cli
from tests.unit.cli.fake_api import LEDGER, FakeApi, hang_up, refusing


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


def test_a_search_says_that_it_stopped_at_its_bound(ask: Cli, api: FakeApi) -> None:
    """Where nothing was found among the newest, older ones may match: how to go on is named."""

    async def stopped(_: web.Request) -> web.Response:
        page = {"items": [], "next_cursor": "7", "has_more": True, "searched": 5000, "search_complete": False}
        return web.json_response(page)

    api.faults.append(stopped)
    ended = ask("events", "ls", "--contains", "ada@example.com")
    assert ended.err == "No events match.\nLooked at 5000 events, not at older ones: --cursor 7\n"
    assert api.requests[0][2] == {"contains": "ada@example.com", "limit": "20"}


def test_json_is_the_answer_itself(ask: Cli, api: FakeApi) -> None:
    """--json prints what the daemon sent, for every reading command."""
    api.add("id-1")
    for arguments in (["events", "ls"], ["events", "show", "id-1"], ["dead", "ls"], ["dead", "groups"], ["status"]):
        json.loads(ask(*arguments, "--json").out)
    assert json.loads(ask("workflows", "show", "w", "--json").out)["workflow"]["total_events"] == 3


def test_events_show(ask: Cli, api: FakeApi) -> None:
    """One event is shown with its payload, its attempts, and what was done to it, and with which key."""
    api.add("id-1", last_error="no answer\nTraceback \x1b[2J:\n  line 1", payload={"deep": [1, 2]})
    done = {"at": "2026-11-28T05:00:00Z", "run": 2, "action": "replayed", "detail": "mended", "by": "night-shift"}
    api.events["id-1"]["actions"] = [done]
    out = ask("events", "show", "id-1").out
    assert ["replayed", "2", done["at"], "night-shift", "mended"] in [line.split() for line in out.splitlines()]
    assert "✕ dead-lettered" in out
    assert '{"deep": [1, 2]}' in out
    assert "worker-3" in out
    assert "timed out" in out
    assert out.endswith("LAST ERROR\nno answer\nTraceback \\x1b[2J:\n  line 1\n")


def test_events_show_result(ask: Cli, api: FakeApi) -> None:
    """What the handler returned is shown as it was, and nothing where it returned nothing."""
    api.add("id-1")
    assert "\nresult" not in ask("events", "show", "id-1").out
    api.events["id-1"]["result"] = {"captured": 12.0}
    line = next(line for line in ask("events", "show", "id-1").out.splitlines() if line.startswith("result"))
    assert line.split(maxsplit=1)[1] == '{"captured": 12.0}'


def test_events_show_steps(ask: Cli, api: FakeApi) -> None:
    """Steps come as a table; what an event waits for, its parent and its children are named."""
    step = {"name": "charge", "kind": "step", "state": "failed", "tries": 3, "duration_ms": 1200.0, "event_id": None}
    step |= {"error": {"type": "ValueError", "message": "card declined", "trace": ""}, "due_at": None}
    api.add(
        "id-1", "waiting", steps=[step], cancel_requested=True,
        awaits=[{"name": "scan", "kind": "wait_for", "event_type": "parcel.scanned", "until": "2999-01-01T00:00:00Z"}],
        parent={"id": "id-0", "event_type": "order", "status": None},
        children=[{"id": "id-2", "event_type": "mail", "status": "succeeded"}],
    )  # fmt: skip
    lines = ask("events", "show", "id-1").out.splitlines()
    charge = next(one for one in lines if "charge" in one)
    assert charge.split()[:7] == ["✕", "failed", "charge", "step", "3", "1.200", "s"]
    assert charge.endswith("ValueError: card declined")
    assert any(one.startswith("waits for") and "parcel.scanned (wait_for), until 2999-01-01" in one for one in lines)
    assert any(one.startswith("parent") and one.endswith("gone") for one in lines)
    assert any(one.startswith("child") and one.endswith("✓ succeeded") for one in lines)
    assert "◌ waiting" in lines[0]


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
    assert ended.err == "gone: The state has changed meanwhile: gone is not a dead letter.\n"
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


@pytest.mark.parametrize("command", ["events", "dead"])
def test_what_a_replay_could_not_give_back_is_named(ask: Cli, api: FakeApi, command: str) -> None:
    """A wait that is done again may wait in vain: who asked for it hears of it."""
    api.add("id-1")
    api.gone = ["scan-1", "scan-2"]
    ended = ask(command, "replay", "id-1", "--from", "start", "--yes")
    assert (ended.code, ended.out) == (0, "replayed 1 of 1\n")
    assert ended.err == "id-1: its waits had taken signals that retention has removed: scan-1, scan-2\n"


def test_dead_groups(ask: Cli, api: FakeApi) -> None:
    """Groups show how many and what they have in common."""
    out = ask("dead", "groups", "--by", "type").out
    assert out.splitlines()[0].split() == ["COUNT", "FIRST", "LAST", "TYPE"]
    assert "28" in out
    assert "TimeoutError: N s" in out
    assert api.requests[0][2] == {"group_by": "type"}


def test_dead_replay_of_named_ones(ask: Cli, api: FakeApi) -> None:
    """Named dead letters are replayed one by one, and take no options of a bulk replay."""
    api.add("id-1")
    ended = ask("dead", "replay", "id-1", "--reason", "mended")
    assert (ended.code, ended.out) == (0, "replayed 1 of 1\n")
    assert (api.requests[-1][1], api.bodies[-1]) == ("/api/deadletters/id-1/replay", b'{"reason":"mended"}')
    assert ask("dead", "replay", "id-1", "--rate", "5").code == 64


@pytest.fixture
def letters(api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> FakeApi:
    """A daemon with five dead letters; nobody waits between two looks."""
    monkeypatch.setattr("replayforge.cli.replays_commands.LOOK_SECONDS", 0)
    for number in range(5):
        api.add(f"id-{number}")
    api.add("fine", "succeeded")
    return api


def test_dead_replay_asks_with_the_number(ask: Cli, letters: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    """What matches is counted first, and no bulk replay is made before a yes to that number."""
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    ended = ask("dead", "replay", "--all", "--reason", "mended")
    assert ended.code == 1
    assert "Replay 5 dead letters?" in ended.err + ended.out
    assert letters.replays == {}
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    ended = ask("dead", "replay", "--type", "payment.*", "--reason", "mended", "--rate", "20", "--canary", "1")
    assert (ended.code, ended.out.splitlines()[-1]) == (0, "rpl_1 is done: replayed 5 of 5 · 5 open")
    made = next(body for body in letters.bodies if b"expected_count" in body)
    assert json.loads(made) == {
        "rate_per_second": 20,
        "canary": 1,
        "filter": {"status": "dead_lettered", "event_type": "payment.*"},
        "reason": "mended",
        "expected_count": 5,
    }


def test_events_that_succeeded_are_replayed_in_bulk_by_force(ask: Cli, letters: FakeApi) -> None:
    """A state and filters instead of ids; what belongs to one of both is refused with the other."""
    ended = ask("events", "replay", "--status", "succeeded", "--force", "--yes", "--reason", "mended", "--detach")
    assert (ended.code, ended.out) == (0, "rpl_1 of 5 events; see `replays watch rpl_1`\n")
    made = next(json.loads(body) for body in letters.bodies if b"expected_count" in body)
    assert made == {"filter": {"status": "succeeded"}, "force": True, "reason": "mended", "expected_count": 5}
    assert ask("events", "replay", "--status", "succeeded", "--force").code == 64  # without a reason
    assert ask("events", "replay", "--type", "a", "--reason", "why").code == 64
    assert ask("events", "replay", "id-1", "--status", "succeeded").code == 64
    assert ask("events", "replay", "--status", "succeeded", "--payload", "{}").code == 64


def test_failed_since_is_a_time_or_a_distance(ask: Cli, letters: FakeApi) -> None:
    """Lists and bulk replays take it as they take --since."""
    ask("dead", "ls", "--failed-since", "1h")
    assert re.fullmatch(r"\d{4}-.*Z", letters.requests[-1][2]["failed_since"])
    ask("dead", "replay", "--failed-since", "2026-11-22T10:00:00Z", "--dry-run")
    assert json.loads(letters.bodies[-1])["filter"]["failed_since"] == "2026-11-22T10:00:00Z"


def test_dead_replay_waits_for_the_ends(ask: Cli, letters: FakeApi) -> None:
    """--wait goes on until every replayed event has ended, --detach does not wait at all, --json prints the job."""
    bulk = ("dead", "replay", "--all", "--yes", "--reason", "mended")
    assert ask(*bulk, "--wait").out == "rpl_1 is done: replayed 5 of 5 · 5 succeeded\n"
    assert ask(*bulk, "--detach").out == "rpl_2 of 5 dead letters; see `replays watch rpl_2`\n"
    assert letters.replays["rpl_2"]["replayed"] == 0
    assert json.loads(ask(*bulk, "--json", "--max", "3").out)["replayed"] == 3


def test_watching_survives_a_restart_of_the_daemon(ask: Cli, letters: FakeApi) -> None:
    """While the daemon is being restarted the command waits, and goes on where it was."""
    bulk = ("dead", "replay", "--all", "--detach", "--yes", "--reason", "mended")
    assert ask(*bulk).code == 0
    letters.faults = [letters.show_replay, refusing(503, "Draining"), hang_up]
    ended = ask("replays", "watch", "rpl_1")
    assert (ended.code, ended.out) == (0, "rpl_1 is done: replayed 5 of 5 · 5 open\n")
    assert letters.faults == []


def test_bulk_replay_that_rests(ask: Cli, letters: FakeApi) -> None:
    """A paused or cancelled bulk replay ends the watching with exit code 1 and the reason."""
    ask("dead", "replay", "--all", "--detach", "--yes", "--reason", "mended")
    assert ask("replays", "pause", "rpl_1").out == "rpl_1 is paused: replayed 0 of 5\npause by hand\n"
    ended = ask("replays", "watch", "rpl_1")
    assert (ended.code, ended.out.splitlines()[-1]) == (1, "pause by hand")
    assert "is running" in ask("replays", "resume", "rpl_1").out
    assert "is cancelled" in ask("replays", "cancel", "rpl_1").out
    assert ask("replays", "watch", "rpl_9").code == 1


def test_replays_are_listed_and_shown(ask: Cli, letters: FakeApi) -> None:
    """The list has one line for each; one is shown with all its figures; --json is the answer itself."""
    assert ask("replays", "ls").err == "There are no bulk replays.\n"
    ask("dead", "replay", "--all", "--detach", "--yes", "--reason", "evil \x1b[31m")
    out = ask("replays", "ls").out
    assert out.splitlines()[1].split()[:5] == ["rpl_1", "running", "0", "of", "5"]
    assert "\x1b" not in out
    letters.replays["rpl_1"]["skips"] = [{"count": 2, "sample": "id-1", "reason": "It was replayed."}]
    out = ask("replays", "show", "rpl_1").out
    assert "2 of 5, as fast as the workers" in out
    assert "left alone 2, such as id-1: It was replayed." in out
    assert json.loads(ask("replays", "show", "rpl_1", "--json").out)["id"] == "rpl_1"
    assert json.loads(ask("replays", "ls", "--json").out)["items"]


def test_dead_discard(ask: Cli, api: FakeApi) -> None:
    """A discard needs a reason, and sends it."""
    api.add("id-1")
    assert ask("dead", "discard", "id-1").code == 64
    ended = ask("dead", "discard", "--all", "--yes", "--reason", "test data")
    assert (ended.code, ended.out) == (0, "discarded 1 of 1\n")
    assert api.requests[-1][1] == "/api/deadletters/id-1/discard"
    assert api.bodies[-1] == b'{"reason":"test data"}'


def test_dead_dry_run(ask: Cli, letters: FakeApi) -> None:
    """--dry-run says how many of which errors would be replayed, and lists what would be discarded; nothing is done."""
    ended = ask("dead", "replay", "--all", "--dry-run", "--max", "4")
    assert ended.code == 0
    assert ended.out.splitlines()[1].split() == ["5", "TimeoutError:", "N", "s"]
    assert ended.err == "Would replay 4 dead letters of 5; nothing was done.\n"
    assert json.loads(ask("dead", "replay", "--all", "--dry-run", "--json").out)["count"] == 5
    assert ask("dead", "discard", "id-1", "--reason", "r", "--dry-run").out == "id-1\n"
    assert letters.replays == {}
    assert all(event["status"] in ("dead_lettered", "succeeded") for event in letters.events.values())


def test_dead_replay_of_nothing(ask: Cli) -> None:
    """Where nothing matches, nothing is asked and nothing made."""
    ended = ask("dead", "replay", "--all", "--reason", "mended")
    assert (ended.code, ended.err) == (0, "Would replay 0 dead letters; nothing was done.\n")


def test_bulk_replay_needs_a_reason(ask: Cli, api: FakeApi) -> None:
    """Without a reason nothing is sent."""
    assert ask("dead", "replay", "--all", "--yes").code == 64
    assert api.requests == []


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


def test_status_names_apart_what_is_not_due(ask: Cli, api: FakeApi) -> None:
    """What waits for its time or for a person is named beside the answer, and keeps nothing from converging."""
    api.apart = {"scheduled_events": 1, "retrying_later_events": 2000, "held_events": 0}
    ended = ask("status")
    assert ended.code == 0
    assert ended.out.splitlines()[1] == "  not due: 1 scheduled, 2,000 to be tried again later"


def test_status_not_converged(ask: Cli, api: FakeApi) -> None:
    """Not converged is exit code 1, with every reason."""
    api.converged = False
    ended = ask("status")
    assert ended.code == 1
    assert ended.out.splitlines() == ["✕ not converged", "  - 2 events are queued", LEDGER]
    assert ask("status", "--json").code == 1


def test_status_that_nobody_tells(ask: Cli, api: FakeApi) -> None:
    """A daemon that does not tell is neither converged nor not: exit code 2. A key's way in is named."""
    api.faults = [refusing(421, "Host not ours"), refusing(401, "Key needed"), refusing(401, "Key needed")]
    ended = ask("status")
    assert (ended.code, ended.err) == (2, "Host not ours\n")
    for command, code in ((("status",), 2), (("events", "ls"), 1)):
        ended = ask(*command)
        assert ended.code == code
        assert ended.err.endswith("Key needed A command takes its key from --api-key or REPLAYFORGE_API_KEY.\n")


def test_status_waits(ask: Cli, api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    """--wait asks again until it is converged."""
    api.converged = False

    def converge(_: float) -> None:
        api.converged = True

    monkeypatch.setattr("time.sleep", converge)
    assert ask("status", "--wait", "30").code == 0
    assert len(api.requests) == 2


LANE = {
    "match": "order.*", "subscriber": "crm", "key": "c-\x1b1", "order": "strict", "blocked": 10_000,
    "count_capped": True, "released": 0, "running": 0, "next_start_at": None, "head_event": "evt-1",
    "head_status": "dead_lettered",
}  # fmt: skip


def test_lanes_ls(ask: Cli, api: FakeApi) -> None:
    """A key has its lane, who wants it, how many wait, and behind which event; without any that is said."""
    items = [LANE, LANE | {"order": "none", "key": None, "next_start_at": "2999-01-01T00:00:00Z"}]

    async def answer(request: web.Request) -> web.Response:
        return web.json_response({"items": items if request.path == "/api/lanes" else None})

    api.faults = [answer, answer]
    heads, strict, other = ask("lanes", "ls").out.splitlines()
    assert heads.split()[:3] == ["LANE", "KEY", "BLOCKED"]
    assert "order.* for crm" in strict
    assert "\x1b" not in strict
    assert strict.split()[-5:] == ["0", "0", "evt-1", "(dead_lettered)", "–"]
    assert "10,000+" in strict
    assert other.split()[-2:] == ["–", "2999-01-01T00:00:00Z"]
    assert json.loads(ask("lanes", "ls", "--json").out)["items"] == items
    items.clear()
    api.faults = [answer]
    assert "[[lanes]]" in ask("lanes", "ls").err
