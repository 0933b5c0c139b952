"""Real input through the command line and through single requests, byte for byte, and everything again."""

import json
from pathlib import Path

import msgspec
import pytest

from tests.support.daemon_process import DaemonProcess, until
from tests.support.sink import QUICK, SINK_HANDLERS, lines_of

SAMPLE = Path(__file__).parents[1] / "data" / "webhooks.ndjson"
REAL = Path(__file__).parents[3] / "shared" / "data" / "github-webhooks.ndjson"
INPUTS = [path for path in (SAMPLE, REAL) if path.exists()]


class Line(msgspec.Struct):
    idempotency_key: str
    payload: msgspec.Raw


def expected(path: Path) -> dict[str, bytes]:
    """Return key -> payload bytes as they stand in the file, read by a parser that keeps them raw."""
    lines = [msgspec.json.decode(line, type=Line) for line in path.read_bytes().splitlines()]
    return {line.idempotency_key: bytes(line.payload) for line in lines}


def shown(daemon: DaemonProcess) -> dict[str, bytes]:
    """Return key -> payload bytes as the API shows them, page after page."""

    class Item(msgspec.Struct):
        idempotency_key: str
        status: str
        payload: msgspec.Raw

    class Page(msgspec.Struct):
        items: list[Item]
        next_cursor: str | None

    found: dict[str, bytes] = {}
    cursor: str | None = "0"
    while cursor is not None:
        answer = daemon.http.request("GET", f"/api/events?limit=37&cursor={cursor}")
        page = msgspec.json.decode(answer.body, type=Page)
        assert {item.status for item in page.items} <= {"succeeded"}
        found |= {item.idempotency_key: bytes(item.payload) for item in page.items}
        cursor = page.next_cursor
    return found


@pytest.mark.parametrize("path", INPUTS, ids=lambda path: path.stem)
@pytest.mark.parametrize("way", ["bulk", "single"])
def test_every_payload_byte_for_byte(tmp_path: Path, path: Path, way: str) -> None:
    """Every payload reaches handler and API in its own bytes; all of it again is duplicates; other content is 422."""
    wanted = expected(path)
    with DaemonProcess(tmp_path, SINK_HANDLERS, settings=QUICK) as daemon:
        daemon.start()
        send = send_bulk if way == "bulk" else send_single
        assert send(daemon, path) == (len(wanted), 0)
        until(daemon.converged)
        keys = {event["id"]: event["idempotency_key"] for event in all_events(daemon)}
        handled = {keys[line.event_id]: line.payload for line in lines_of(tmp_path) if line.word == "started"}
        assert handled == wanted
        assert shown(daemon) == wanted
        assert send(daemon, path) == (0, len(wanted))
        assert send(daemon, path) == (0, len(wanted))
        until(daemon.converged)
        assert len(lines_of(tmp_path)) == 2 * len(wanted)
        assert daemon.http.get("/api/convergence")["ledger"]["accepted"] == len(wanted)
        refuse_other_content(daemon, path)
        assert daemon.terminate() == 0
        assert daemon.run_command("check", "--data-dir", str(daemon.data_dir)).code == 0


def send_bulk(daemon: DaemonProcess, path: Path) -> tuple[int, int]:
    """Send the file with the command line; return accepted and duplicates."""
    ended = daemon.run_command("send", "--bulk", str(path), "--json", "--url", daemon.url)
    assert ended.code == 0, ended
    tally = json.loads(ended.out)
    assert tally["rejected"] == 0
    return tally["accepted"], tally["duplicates"]


def send_single(daemon: DaemonProcess, path: Path) -> tuple[int, int]:
    """Send each line as a request of its own; return accepted and duplicates."""
    statuses = [daemon.http.request("POST", "/api/events", line).status for line in path.read_bytes().splitlines()]
    assert set(statuses) <= {200, 201}
    return statuses.count(201), statuses.count(200)


def all_events(daemon: DaemonProcess) -> list[dict[str, str]]:
    items: list[dict[str, str]] = []
    cursor = "0"
    while cursor:
        page = daemon.http.get(f"/api/events?limit=200&cursor={cursor}")
        items += page["items"]
        cursor = page["next_cursor"]
    return items


def refuse_other_content(daemon: DaemonProcess, path: Path) -> None:
    """Each key with other content is 422, single and in bulk."""
    lines = [json.loads(line) | {"payload": {"other": True}} for line in path.read_bytes().splitlines()]
    assert daemon.http.post("/api/events", lines[0]).status == 422
    answer = daemon.http.post("/api/events/bulk", lines).json()
    assert (answer["accepted"], answer["duplicates"], answer["rejected"]) == (0, 0, len(lines))
    assert {item["problem"]["type"] for item in answer["items"]} == {"urn:replayforge:idempotency-key-reused"}


def test_the_sample_is_what_its_maker_makes() -> None:
    """The synthetic sample is made by the script beside it, and holds what real input has: depth, Unicode, nulls."""
    from tests.data.make_webhooks import lines

    text = SAMPLE.read_text(encoding="utf-8")
    assert text == "".join(f"{line}\n" for line in lines())
    assert "null" in text
    assert "日本語" in text
    assert "12345678901234567890123" in text
