"""Sending one event or many: every line has its answer, refusals that pass are waited out."""

import io
import json
from pathlib import Path

import pytest
from aiohttp import web

from replayforge.client import bulk
from replayforge.domain.clock import SystemClock, parse_time, to_us
from tests.unit.cli.conftest import Cli
from tests.unit.cli.fake_api import FakeApi, breaking_off, hang_up, refusing


def event_lines(count: int, *, keys: bool = True) -> list[bytes]:
    key = ', "idempotency_key": "key-%d"' if keys else ""
    form = '{"workflow_id": "w", "event_type": "t"' + key + ', "payload": 1.00}'
    return [(form % number if keys else form).encode() for number in range(count)]


def write(lines: list[bytes]) -> str:
    Path("events.ndjson").write_bytes(b"\n".join(lines) + b"\n")
    return "events.ndjson"


def test_one_event(ask: Cli, api: FakeApi) -> None:
    """All options become fields, and the payload's bytes are not touched."""
    ended = ask("send", "a.b", '{"n": 1.50}', "--workflow", "w", "--key", "k", "--app", "shop", "--service", "s")
    assert ended.code == 0
    assert ended.out.startswith("accepted  k  a.b  workflow w  ")
    assert b'"payload":{"n": 1.50}' in api.bodies[0]
    sent = json.loads(api.bodies[0])
    del sent["payload"]
    assert sent == {
        "workflow_id": "w",
        "event_type": "a.b",
        "idempotency_key": "k",
        "application_name": "shop",
        "service_name": "s",
    }
    assert ask("send", "a.b", "--workflow", "w", "--key", "k").out.startswith("duplicate of  k  ")


def test_when_it_runs(ask: Cli, api: FakeApi) -> None:
    """--run-at takes a distance from now, or a time as the API has it."""
    before = SystemClock().now_us()
    assert [ask("send", "t", "--run-at", text).code for text in ("3d", "2030-01-01T00:00:00Z")] == [0, 0]
    first, second = (json.loads(body)["run_at"] for body in api.bodies)
    assert 0 <= parse_time(first) - before - to_us(3 * 86_400) < to_us(600)
    assert second == "2030-01-01T00:00:00Z"
    assert ask("send", "t", "--run-at", "9999999999d").code == 64


def test_payload_from_file_and_stdin(ask: Cli, api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    """@file and - read the payload as it stands there."""
    Path("p.json").write_text("[1,\n 2]")
    assert ask("send", "t", "@p.json").code == 0
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b'"\xc3\xa9"')))
    assert ask("send", "t", "-").code == 0
    assert b'"payload":[1,\n 2]' in api.bodies[0]
    assert b'"payload":"\xc3\xa9"' in api.bodies[1]
    assert json.loads(api.bodies[0])["workflow_id"] != json.loads(api.bodies[1])["workflow_id"]


def test_same_key_is_the_same_event(ask: Cli, api: FakeApi) -> None:
    """Sent twice with a key and no workflow, both times have the same content."""
    ask("send", "t", "--key", "k")
    ask("send", "t", "--key", "k")
    assert api.bodies[0] == api.bodies[1]


@pytest.mark.parametrize("payload", ["{", '1},"x":{"y":1', "@missing.json", "nope"])
def test_payload_that_is_none(ask: Cli, api: FakeApi, payload: str) -> None:
    """What is not JSON is refused before anything is sent."""
    assert ask("send", "t", payload).code == 64
    assert api.requests == []


def test_json_is_verbatim(ask: Cli) -> None:
    """--json prints the daemon's answer."""
    assert json.loads(ask("send", "t", "--key", "k", "--json").out)["id"] == "k"


def test_type_or_bulk_is_needed(ask: Cli) -> None:
    """Neither a type nor a file, or both, is wrong usage."""
    assert ask("send").code == 64
    assert ask("send", "t", "--bulk", write(event_lines(1))).code == 64


def test_busy_daemon_is_waited_for(ask: Cli, api: FakeApi) -> None:
    """429 and 503 are tried again, and a connection that breaks too when the event has a key."""
    api.faults = [refusing(429, "Busy"), refusing(503, "Draining"), hang_up]
    ended = ask("send", "t", "--key", "k")
    assert ended.code == 0
    assert len(api.requests) == 4


def test_unknown_outcome_without_a_key(ask: Cli, api: FakeApi) -> None:
    """An event without a key is not sent twice when nobody knows whether it arrived."""
    api.faults = [hang_up]
    ended = ask("send", "t")
    assert ended.code == 2
    assert "not known whether the event arrived" in ended.err
    assert len(api.requests) == 1


def test_no_is_final(ask: Cli, api: FakeApi) -> None:
    """A refusal that time does not change ends with exit code 1 and one sentence."""
    api.faults = [refusing(422, "Key reused", "first event: 17")]
    ended = ask("send", "t", "--key", "k")
    assert (ended.code, ended.err) == (1, "replayforge: Key reused: first event: 17\n")


def test_bulk(ask: Cli, api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file goes in chunks, its lines byte for byte; a second time everything is a duplicate."""
    monkeypatch.setattr(bulk, "CHUNK_LINES_MAX", 4)
    lines = event_lines(10)
    path = write(lines)
    ended = ask("send", "--bulk", path)
    assert (ended.code, ended.out) == (0, "sent 10: accepted 10, duplicates 0, rejected 0\n")
    assert [len(body.splitlines()) for body in api.bodies] == [4, 4, 2]
    assert b"".join(api.bodies).splitlines() == lines
    assert ask("send", "--bulk", path).out == "sent 10: accepted 0, duplicates 10, rejected 0\n"


def test_bulk_names_each_rejected_line(ask: Cli) -> None:
    """Blank lines count as lines; a bad one is named by its number, and the exit code is 1."""
    good = event_lines(2)
    ended = ask("send", "--bulk", write([good[0], b"", b"{oops", good[1]]))
    assert ended.code == 1
    assert ended.out == "sent 3: accepted 2, duplicates 0, rejected 1\n"
    assert ended.err.startswith("line 3: Malformed: ")
    assert ended.err.count("\n") == 1


def test_bulk_from_stdin(ask: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """- is stdin, and a last line needs no newline."""
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"\r\n".join(event_lines(3)))))
    assert json.loads(ask("send", "--bulk", "-", "--json").out) == {
        "sent": 3,
        "accepted": 3,
        "duplicates": 0,
        "rejected": 0,
    }


def test_bulk_waits_out_refusals(ask: Cli, api: FakeApi) -> None:
    """A whole request refused for now, and a connection that breaks, are sent again; keys make that safe."""
    api.faults = [refusing(503, "Recovering", retry_after="0"), hang_up]
    ended = ask("send", "--bulk", write(event_lines(5)))
    assert (ended.code, ended.err) == (0, "")
    assert ended.out == "sent 5: accepted 5, duplicates 0, rejected 0\n"


def test_bulk_keeps_answers_that_came(ask: Cli, api: FakeApi) -> None:
    """When an answer breaks off, only the lines without one are sent again."""
    api.faults = [breaking_off(api, answers=3)]
    ended = ask("send", "--bulk", write(event_lines(5)))
    assert ended.out == "sent 5: accepted 3, duplicates 2, rejected 0\n"
    assert len(api.bodies[1].splitlines()) == 2


def test_bulk_is_patient_while_it_gets_on(ask: Cli, api: FakeApi) -> None:
    """The retry budget counts from the last line that was answered, not from the beginning."""
    api.faults = [breaking_off(api, answers=1)] * 6
    ended = ask("send", "--bulk", write(event_lines(7)), "--retry-seconds", "0.15")
    assert (ended.code, len(api.requests)) == (0, 7)


def test_bulk_warns_of_doubles(ask: Cli, api: FakeApi) -> None:
    """Events without a key that may have arrived are warned of, once."""
    api.faults = [hang_up, hang_up]
    ended = ask("send", "--bulk", write(event_lines(3, keys=False) + event_lines(2)))
    assert ended.code == 0
    assert ended.err.count("warning") == 1
    assert "3 events from line 1 on" in ended.err


def test_bulk_line_refused_for_now(ask: Cli, api: FakeApi) -> None:
    """A single line refused with 429 is sent again alone, and is not a rejection."""

    async def refuse_second(request: web.Request) -> web.StreamResponse:
        answer = await api.post_bulk(request)
        assert isinstance(answer, web.Response)
        assert isinstance(answer.body, bytes)
        del api.events["key-1"]
        lines = answer.body.splitlines()
        lines[1] = b'{"index":1,"problem":{"status":429,"title":"Busy"}}'
        answer.body = b"\n".join(lines)
        return answer

    api.faults = [refuse_second]
    ended = ask("send", "--bulk", write(event_lines(3)))
    assert (ended.code, ended.out) == (0, "sent 3: accepted 3, duplicates 0, rejected 0\n")
    assert api.bodies[1] == event_lines(3)[1] + b"\n"


def test_bulk_finds_the_line_that_spoils_a_request(ask: Cli, api: FakeApi) -> None:
    """When a whole request is too large because of one line, that line alone is rejected."""
    lines = event_lines(7)
    handle = api.post_bulk

    async def strict(request: web.Request) -> web.StreamResponse:
        api.faults.append(strict)
        if lines[4] in await request.read():
            return await refusing(413, "Too large")(request)
        return await handle(request)

    api.faults = [strict]
    ended = ask("send", "--bulk", write(lines))
    assert (ended.code, ended.err) == (1, "line 5: Too large\n")
    assert ended.out == "sent 7: accepted 6, duplicates 0, rejected 1\n"


def test_bulk_gives_up(ask: Cli, api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the retry budget ends, it says how far it came, sums up, and exits as the last failure wants."""
    monkeypatch.setattr(bulk, "CHUNK_LINES_MAX", 2)
    path = write(event_lines(4))
    ok = api.post_bulk
    api.faults = [ok, *[refusing(503, "Full", retry_after="9")] * 2]
    ended = ask("send", "--bulk", path, "--retry-seconds", "1")
    assert ended.code == 1
    assert ended.out == "sent 2: accepted 2, duplicates 0, rejected 0\n"
    assert "Gave up after 2 lines" in ended.err


def test_long_lines_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line beyond any limit is cut, its neighbours are whole, and every byte is counted."""
    monkeypatch.setattr(bulk, "LINE_BYTES_MAX", 10)
    text = b'{"a":1}\n' + b"x" * 95 + b'\n{"b":2}\n'
    lines = list(bulk.read_lines(io.BytesIO(text)))
    assert [(line.number, line.body) for line in lines] == [(1, b'{"a":1}'), (2, b"x" * 10), (3, b'{"b":2}')]
    assert sum(line.size for line in lines) == len(text)


def test_chunks_are_bounded_by_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A chunk holds less than its bytes, unless one line alone is larger."""
    monkeypatch.setattr(bulk, "CHUNK_BYTES_MAX", 10)
    lines = [bulk.Line(number, b"x" * size, size) for number, size in enumerate([4, 4, 4, 30, 1])]
    assert [[line.number for line in chunk] for chunk in bulk.chunks(lines)] == [[0, 1], [2], [3], [4]]


MARKED = [b"\xef\xbb\xbf[1]", '["é"]'.encode("utf-16"), "{}".encode("utf-32")]


@pytest.mark.parametrize("content", MARKED, ids=["UTF-8", "UTF-16", "UTF-32"])
@pytest.mark.parametrize("option", [[], ["{}", "--metadata"]], ids=["payload", "metadata"])
def test_a_byte_order_mark_is_named(ask: Cli, api: FakeApi, content: bytes, option: list[str]) -> None:
    """A document that an editor began with a byte order mark is refused by that name."""
    Path("p.json").write_bytes(content)
    ended = ask("send", "t", *option, "@p.json")
    assert ended.code == 64
    assert "byte order mark (BOM)" in " ".join(ended.err.split())
    assert not api.bodies
