"""The demo and chaos: real daemons that are crashed and killed, a proof at the end, and nobody left behind."""

import json
import os
import pty
import re
import select
import signal
import socket
import subprocess
import sys
import tempfile
import termios
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pytest

from replayforge.chaos.injury import kinds_for
from replayforge.client.bulk import Tally
from replayforge.demo import workload
from replayforge.demo.intake_proof import objections_to_children, objections_to_order
from replayforge.demo.oracle import Effect, Effects, effect_on, objections
from replayforge.demo.proof import objections_to_ledger
from replayforge.demo.simulated_work import Work, chance
from replayforge.demo.step_proof import objections_to_steps
from replayforge.engine.handlers.registry import Handlers
from replayforge.web.http.reading import decode_envelope
from tests.support.daemon_process import REPOSITORY, DaemonProcess, Ended, until
from tests.support.house import House, open_house
from tests.support.ports import free_port
from tests.support.postgres_server import require_postgres
from tests.support.slow import the_rest_slow

ENDS = [signal.SIGKILL, signal.SIGTERM, signal.SIGINT]
SAMPLE = REPOSITORY / "tests" / "data" / "checkout.ndjson"


def run(directory: Path, *arguments: str, timeout_seconds: float = 120) -> Ended:
    """Run a command to its end, with nothing of the environment of whoever runs the tests."""
    directory.mkdir(parents=True, exist_ok=True)
    return DaemonProcess(directory).run_command(*arguments, timeout_seconds=timeout_seconds)


def refuses(port: int) -> bool:
    """Tell whether nobody listens on a port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


# The workload


def test_the_same_batch_is_the_same_workload() -> None:
    """The generator gives equal events for equal batches, keys that are all different, and checkouts with an order."""
    events = list(workload.checkout_events(200, "a"))
    assert events == list(workload.checkout_events(200, "a"))
    assert len({event["idempotency_key"] for event in events}) == 200
    sizes = Counter((event["workflow_id"].partition("_")[0], event["event_type"]) for event in events)
    assert sizes["order", "order.placed"] == sizes["order", "parcel.scanned"] == 200 // 7
    assert not {event["idempotency_key"] for event in workload.checkout_events(200, "b")} & {
        event["idempotency_key"] for event in events
    }


@pytest.mark.parametrize("count", [1, 6, 7, 40, 141])
def test_no_order_waits_for_a_parcel_that_is_not_scanned(count: int) -> None:
    """Wherever a workload ends, each order that it places is scanned, and later than it was placed."""
    events = list(workload.checkout_events(count, "a"))
    placed = [event["workflow_id"] for event in events if event["event_type"] == "order.placed"]
    scanned = [event["workflow_id"] for event in events if event["event_type"] == "parcel.scanned"]
    assert (len(events), scanned) == (count, placed)
    for workflow_id in placed:
        types = [event["event_type"] for event in events if event["workflow_id"] == workflow_id]
        assert types == ["order.placed", "parcel.scanned"]


@pytest.mark.parametrize(
    ("stage", "share"), [(workload.PAYMENT, 0.15), (workload.INVENTORY, 0.10), (workload.EMAIL, 0.25)]
)
def test_stages_fail_for_their_share_of_attempts(stage: Work, share: float) -> None:
    """Over many events a stage fails as often as it is said to, within a tenth of that."""
    failed = sum(chance(f"event-{number}", "1:1") < stage.fail_share for number in range(20_000))
    assert failed / 20_000 == pytest.approx(share, rel=0.1)


def test_the_sample_is_what_the_generator_makes() -> None:
    """The sample input holds 200 events that ingest takes, each with a key of its own."""
    lines = SAMPLE.read_bytes().splitlines()
    envelopes = [decode_envelope(line, event_bytes_max=1 << 20) for line in lines]
    assert len({envelope.idempotency_key for envelope in envelopes}) == 200
    assert [json.loads(line) for line in lines] == list(workload.checkout_events(200, "sample"))


# The workload on demand


@pytest.fixture
def handlers() -> Handlers:
    return workload.handlers


@pytest.fixture
def settings() -> dict[str, Any]:
    return {"chaos.enabled": True}


async def test_a_workload_is_generated_on_demand(house: House) -> None:
    """The answer has the original's fields, and every event of the workload comes to its end."""
    status, answer = await house.post("/api/demo/generate-workload?count=4")
    assert (status, answer) == (200, {"workflows": 4, "events_sent": 28, "errors": 0})
    ledger = await house.converges()
    assert ledger["accepted"] == ledger["succeeded"] + ledger["dead_lettered"] == 28


async def test_two_workloads_are_different_events(house: House) -> None:
    """Asking twice gives twice as many events."""
    for _ in range(2):
        await house.post("/api/demo/generate-workload?count=1")
    assert (await house.converges())["accepted"] == 14


@pytest.mark.parametrize("count", ["0", "501", "many"])
async def test_a_workload_has_bounds(house: House, count: str) -> None:
    """A count out of bounds is refused and leaves nothing behind."""
    status, problem = await house.post(f"/api/demo/generate-workload?count={count}")
    assert (status, problem["type"]) == (422, "urn:replayforge:bad-parameter")
    assert (await house.converges())["accepted"] == 0


async def test_no_workload_without_simulated_crashes(tmp_path: Path) -> None:
    """A daemon without simulated crashes refuses to make up events."""
    async with open_house(tmp_path / "data", workload.handlers) as house:
        status, problem = await house.post("/api/demo/generate-workload?count=1")
        assert (status, problem["type"]) == (403, "urn:replayforge:chaos-disabled")


# What must add up


LEDGER = {"accepted": 10, "succeeded": 8, "dead_lettered": 2, "discarded": 0, "cancelled": 0, "retired": 0, "open": 0}


@pytest.mark.parametrize(
    ("changed", "tally", "words"),
    [
        ({}, Tally(accepted=10), []),
        ({}, Tally(accepted=9, duplicates=1), []),
        ({"lost": 1}, Tally(accepted=10), ["lost"]),
        ({"succeeded": 7, "open": 1}, Tally(accepted=10), ["open"]),
        ({"succeeded": 7}, Tally(accepted=10), ["have ended"]),
        ({}, Tally(accepted=11), ["the sender knows"]),
        ({}, Tally(accepted=8), ["the sender knows"]),
    ],
)
def test_the_ledger_is_held_against_the_sender(changed: dict[str, int], tally: Tally, words: list[str]) -> None:
    """Whatever does not add up between ledger and sender is said, and nothing else."""
    found = list(objections_to_ledger({"lost": 0, **LEDGER, **changed}, 0, tally))
    assert len(found) == len(words)
    assert all(word in objection for word, objection in zip(words, found, strict=True))


GOOD = [
    {"id": "a", "status": "succeeded", "event_type": "order.placed"},
    {"id": "b", "status": "dead_lettered", "event_type": "order.placed"},
]


@pytest.mark.parametrize(
    ("acknowledged", "effects", "events", "words"),
    [
        ("ab", "a", GOOD, []),
        ("ab", "aa", GOOD, []),
        ("abc", "a", GOOD, ["acknowledged but not there"]),
        ("ab", "", GOOD, ["succeeded without an effect"]),
        ("ab", "ab", GOOD, ["not succeeded"]),
        ("ab", "ax", GOOD, ["with an effect but not there"]),
        ("ab", "a", [GOOD[0], GOOD[1] | {"status": "processing"}], ["not ended"]),
        ("ab", "a", [GOOD[0], GOOD[1] | {"status": "kept", "event_type": "parcel.scanned"}], ["not ended"]),
        ("ab", "a", [GOOD[0], GOOD[1] | {"status": "succeeded", "event_type": "parcel.scanned"}], []),
    ],
)
def test_the_oracle_sees_what_is_missing(
    acknowledged: str, effects: str, events: list[dict[str, str]], words: list[str]
) -> None:
    """An event that is lost, unfinished, or whose effect does not fit is named."""
    found = list(objections(set(acknowledged), Effects(tuple(map(Effect, effects))), events))
    assert len(found) == len(words)
    assert all(word in objection for word, objection in zip(words, found, strict=True))


@pytest.mark.parametrize(
    ("effects", "words"),
    [
        (["a 1 1 ship"], []),
        (["a 1 1 ship", "a 1 3 ship"], []),
        (["a 1 1 ship", "a 2 4 ship"], []),
        ([], ["1 step recorded without an effect: ship of a"]),
        (["a 1 1 ship", "a 1 1 refund"], ["1 step with an effect but not recorded: refund of a"]),
        (["a 1 2 ship", "a 1 3 ship"], ["1 step done twice though nobody died inside: ship of a"]),
        (["a 1 1 ship", "a 1 1 ship", "a 1 2 ship", "a 1 3 ship"], ["done twice though nobody died"]),
    ],
)
def test_steps_are_held_against_their_effects(effects: list[str], words: list[str]) -> None:
    """A step that was done twice is named, but where the attempt (here the one with token 1) had been cut short."""
    had = Effects(tuple(map(effect_on, effects)))
    found = list(objections_to_steps(had, {"a": {"ship"}}, {("a", 1)}))
    assert len(found) == len(words)
    assert all(word in objection for word, objection in zip(words, found, strict=True))


@pytest.mark.parametrize(
    ("effects", "objections"),
    [
        (["a 1 1", "b 1 1", "x 1 1", "c 1 1"], 0),
        (["a 1 1", "a 1 2", "b 1 3"], 0),
        (["a 1 1", "b 1 1", "a 2 2"], 0),
        (["x 1 1", "a 1 1", "c 1 1"], 0),
        (["b 1 1", "a 1 1"], 1),
        (["a 1 1", "b 1 1", "a 1 2", "c 1 1"], 1),
    ],
)
def test_a_strict_lane_is_held_against_its_effects(effects: list[str], objections: int) -> None:
    """Whoever has an effect after one that came later in its lane is named; a replay goes to the end."""
    events = [{"id": name, "lane": "l" if name in "abc" else "m"} for name in "cbxa"]
    assert len(list(objections_to_order(events, Effects(tuple(map(effect_on, effects)))))) == objections


def test_webhooks_are_held_against_their_children() -> None:
    """A subscriber without an event of its own is named, and one that has two."""
    parent = {"id": "p", "subscribers": ["build", "chat"], "subscriber": None, "origin": "source:github"}
    build, chat = ({"id": name, "subscribers": None, "subscriber": name, "origin": "p"} for name in ("build", "chat"))
    assert list(objections_to_children([chat, build, parent])) == []
    assert list(objections_to_children([chat, parent])) == ["1 subscriber without an event of their own: build of p"]
    assert list(objections_to_children([chat, chat, build, parent])) == ["1 subscriber with one too many: chat of p"]


# The demo itself


def test_a_demo_crashes_and_is_killed_and_adds_up(tmp_path: Path) -> None:
    """A demo tells of worker crashes, a real kill and what was recovered, and ends with ledger and clean check."""
    data = tmp_path / "data"
    ended = run(
        tmp_path, "demo", "--events", "200", "--exit-when-done", "--worker-crashes", "2", "--kills", "1",
        "--rate", "200", "--port", "0", "--data-dir", str(data),
    )  # fmt: skip
    assert ended.code == 0, ended.out + ended.err
    story = ended.out
    assert story.count("  crashing worker-") == 2
    assert story.count("  kill -9 of the whole process") == 1
    assert "started again, it listens after" in story
    assert "unclean stop" in story
    assert "accepted 212 = " in story
    assert re.search(r"2\d receipts of 1\d customers went out in their order", story)
    assert "3 signed webhooks reached each of their subscribers once" in story
    assert "open 0 · lost 0" in story
    assert re.search(r"\d\d+ steps of 28 orders are recorded[,;] ", story)
    assert "✓ clean" in story
    check = run(tmp_path, "check", "--data-dir", str(data), "--json")
    ledger = json.loads(check.out)["ledger"]
    assert (check.code, ledger["accepted"], ledger["lost"]) == (0, 212, 0)


def test_a_demo_sends_a_file(tmp_path: Path) -> None:
    """The events of a file are sent, those without a key get one, and a line that is not an event is named."""
    file = tmp_path / "events.ndjson"
    lines = SAMPLE.read_text().splitlines()[:40]
    assert sum('"order.placed"' in line for line in lines) == 6
    file.write_text("\n".join([*lines, '{"workflow_id":"w","event_type":"else.where"}', "no event"]) + "\n")
    data = tmp_path / "data"
    ended = run(
        tmp_path, "demo", "--file", str(file), "--exit-when-done", "--kills", "0", "--worker-crashes", "0",
        "--port", "0", "--data-dir", str(data),
    )  # fmt: skip
    assert ended.code == 0, ended.out + ended.err
    assert "line 42: The body is not valid JSON" in ended.out
    assert "accepted 53 = " in ended.out
    assert "still parked, for want of what it waits for: 6 events" in ended.out


@pytest.mark.slow
def test_an_event_that_kills_the_process_is_buried(tmp_path: Path) -> None:
    """A process that dies of an event is started again until the event is a dead letter, and everything else ends."""
    file = tmp_path / "events.ndjson"
    poison = {"workflow_id": "w", "event_type": "poison", "payload": {"_force_exit": True}}
    file.write_text("\n".join([*SAMPLE.read_text().splitlines()[:20], json.dumps(poison)]) + "\n")
    data = tmp_path / "data"
    ended = run(
        tmp_path, "demo", "--file", str(file), "--exit-when-done", "--kills", "0", "--worker-crashes", "0",
        "--port", "0", "--data-dir", str(data),
    )  # fmt: skip
    assert ended.code == 0, ended.out + ended.err
    assert ended.out.count("the process ended by itself with exit code 137") >= 3
    assert "accepted 33 = cancelled 0 + dead_lettered 1 + " in ended.out


def test_a_taken_port_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A demo on a port that somebody has refuses with one sentence, and leaves no directory behind."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ended = run(tmp_path, "demo", "--exit-when-done", "--port", str(port))
    assert ended.code == 78
    assert ended.err == f"replayforge: Port {port} is in use; choose another one with --port.\n"
    assert list(tmp_path.glob("replayforge-demo-*")) == []


def read_until(pipe: IO[str], text: str) -> str:
    """Read lines up to the one that holds the text."""
    read = ""
    for line in pipe:
        read += line
        if text in line:
            return read
    raise AssertionError(f"no line holds {text!r}: {read}")


def demo_command(port: int, *more: str) -> list[str]:
    options = ["--events", "100", "--rate", "100", "--kills", "0", "--worker-crashes", "0", "--port", str(port)]
    return [sys.executable, "-m", "replayforge", "demo", *options, *more]


@pytest.mark.parametrize("number", the_rest_slow(ENDS), ids=lambda number: number.name)
def test_no_daemon_outlives_its_demo(tmp_path: Path, number: signal.Signals) -> None:
    """However the demo is ended, its daemon ends too; told in time, it checks the ledger first."""
    port = free_port()
    with subprocess.Popen(
        demo_command(port, "--data-dir", str(tmp_path / "data")), stdout=subprocess.PIPE, text=True, cwd=tmp_path,
        env=DaemonProcess(tmp_path).environment(),
    ) as parent:  # fmt: skip
        assert parent.stdout is not None
        story = read_until(parent.stdout, "  accepted ")
        assert not refuses(port)
        parent.send_signal(number)
        rest = parent.stdout.read()
        code = parent.wait(30)
    until(lambda: refuses(port), 10, "the daemon to be gone")
    assert code == (-signal.SIGKILL if number is signal.SIGKILL else 0), story + rest
    assert ("✓ clean" in rest) is (number is not signal.SIGKILL)


class Terminal:
    """A demo on a terminal of its own."""

    def __init__(self, command: list[str], directory: Path) -> None:
        self.screen, inner = pty.openpty()
        self.before = termios.tcgetattr(inner)
        self.inner = inner
        self.process = subprocess.Popen(
            command, stdin=inner, stdout=inner, stderr=subprocess.DEVNULL, cwd=directory,
            env=DaemonProcess(directory).environment() | {"TERM": "dumb"},
        )  # fmt: skip
        self.seen = ""

    def press(self, key: str) -> None:
        os.write(self.screen, key.encode())

    def see(self, text: str, timeout_seconds: float = 30) -> None:
        """Return once the text stands on the screen, after what was seen before."""
        deadline = time.monotonic() + timeout_seconds
        while text not in self.seen:
            ready, _, _ = select.select([self.screen], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"waited for {text!r}, saw {self.seen}"
            self.seen += os.read(self.screen, 4096).decode()
        self.seen = self.seen.partition(text)[2]

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.screen)
        os.close(self.inner)


@contextmanager
def terminal(command: list[str], directory: Path) -> Iterator[Terminal]:
    one = Terminal(command, directory)
    try:
        yield one
    finally:
        one.close()


@pytest.mark.slow
def test_keys_crash_kill_and_quit(tmp_path: Path) -> None:
    """On a terminal c crashes a worker, k kills the process, q ends with the check; the terminal is left as it was."""
    port = free_port()
    with terminal(demo_command(port), tmp_path) as demo:
        demo.see("keys: c crashes a worker")
        demo.press("c")
        demo.see("crashing worker-")
        demo.press("k")
        demo.see("kill -9 of the whole process")
        demo.see("started again, it listens after")
        demo.see("a trickle of new events goes on")
        demo.press("q")
        demo.see("✓ clean")
        assert demo.process.wait(30) == 0
        assert termios.tcgetattr(demo.inner) == demo.before
    assert refuses(port)


@pytest.mark.slow
@pytest.mark.parametrize("servers", [[], ["--redis", "--postgres"]], ids=["embedded", "servers"])
def test_chaos_injures_everything_and_proves(tmp_path: Path, servers: list[str]) -> None:
    """One injury of each kind, and kills: chaos's own record, the ledger and the check agree; everything ran again."""
    data, page = tmp_path / "data", tmp_path / "report.html"
    kinds = kinds_for(redis=bool(servers), postgres=bool(servers))
    ended = run(
        tmp_path, "chaos", "--events", "300", "--kills", "3", "--injuries", str(len(kinds)), "--seed", "11",
        "--data-dir", str(data), "--json", "--html", str(page), *servers, timeout_seconds=400,
    )  # fmt: skip
    report = json.loads(ended.out)
    assert ended.code == 0, ended.out + ended.err
    assert (report["ok"], report["check_clean"], report["objections"]) == (True, True, [])
    assert (report["seed"], report["kills"], report["lost"], report["doubled_outcomes"]) == (11, 3, 0, 0)
    assert set(kinds) <= {one["kind"] for one in report["injuries"]}
    assert [one for one in report["injuries"] if one["ran_again_seconds"] is None] == []
    assert ended.err.count("injury ") == len(report["injuries"]) == 3 + len(kinds)
    ledger = report["ledger"]
    assert ledger["accepted"] == ledger["succeeded"] + ledger["dead_lettered"] == report["acknowledged"]
    assert report["steps"] > 2 * (300 // 7)
    assert len((data / "acknowledged.txt").read_text().split()) >= 300
    assert "Everything adds up" in page.read_text()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_chaos_that_is_told_to_end_leaves_nothing(number: int) -> None:
    """No data, and nothing of PostgreSQL either, which has its files elsewhere where root has started it."""
    require_postgres()
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        scratch.chmod(0o755)  # for whoever runs the server
        command = [sys.executable, "-m", "replayforge", "chaos", "--postgres"]
        environment = DaemonProcess(scratch).environment() | {"TMPDIR": name}
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert any("injury 1 of" in line for line in process.stdout)
            assert list(scratch.glob("*/**/postgresql.log")) != []
            process.send_signal(number)
            process.stdout.read()
        assert process.returncode == 130
        assert list(scratch.iterdir()) == []


def test_a_demo_that_cannot_end_in_time_fails(tmp_path: Path) -> None:
    """When not everything has ended in time the exit code is 1, the reason is said, and the data is left."""
    file = tmp_path / "events.ndjson"
    hanging = {"workflow_id": "w", "event_type": "slow", "payload": {"_force_fail": True}, "max_attempts": 1000}
    file.write_text(json.dumps(hanging) + "\n")
    data = tmp_path / "data"
    ended = run(
        tmp_path, "demo", "--file", str(file), "--exit-when-done", "--kills", "0", "--worker-crashes", "0",
        "--port", "0", "--data-dir", str(data), "--timeout", "1",
    )  # fmt: skip
    assert ended.code == 1
    assert "✕ Time is up and not everything has ended" in ended.out
    assert (data / "store.db").exists()


def test_chaos_wants_a_directory_of_its_own(tmp_path: Path) -> None:
    """Chaos does not touch a directory that holds something."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "precious").touch()
    ended = run(tmp_path, "chaos", "--data-dir", str(tmp_path / "data"))
    assert ended.code == 1
    assert "is not empty" in ended.err
