"""The process dies at every crash point, on every kind of store; what was acknowledged ends as it would have."""

import http.client
import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from replayforge.crashpoints import EXIT_CODE, POINTS
from replayforge.whole_lines import whole_lines
from tests.support.daemon_process import DaemonProcess, until
from tests.support.fleet import Fleet
from tests.support.postgres_server import require_postgres, shared_server
from tests.support.redis_server import MISSING, RedisServer, redis_binaries
from tests.support.sink import QUICK, SINK_HANDLERS
from tests.support.storm import PLACES, selected

HANDLERS = Path(__file__).parents[1] / "data" / "point_handlers.py"
OF_WORKFLOWS = ("step.", "child.", "park.", "signal.", "wake.")  # of test_step_crashes.py as well
SETTINGS = QUICK | {
    "lanes": [{"match": "narrow.*", "concurrency": 5}],
    "schedules": [{"name": "tick", "every_seconds": 1, "event_type": "plain.tick", "workflow": "ticks"}],
    "alerts": [{"name": "dead", "when": "dead_letters", "command": ["true"]}],
    "server.event_bytes_max": 8 << 20,
    "log.segment_bytes": 16 << 20,
}
# Two rounds of large events fill a segment; what has ended leaves at once.
LARGE = {"text": "x" * (6 << 20)}
BRIEF = {
    "log.retention_seconds": 0.05,
    "retention.succeeded_seconds": 0.05,
    "janitor.retention_seconds": 0.1,
    "janitor.mirror_seconds": 0.05,
}
ROUNDS_MAX = 400
FAST = {
    "embedded": {"ingest.received", "segment.sealed", "claim.committed", "step.started", "park.committed"},
    "shared": {"settle.committed"},
}
OF_SEVERAL = {"takeover.committed"}  # daemons on one store, which one on SQLite is not
CALLED = "SELECT id, event_type, state, origin, subscriber FROM {}.events"
ENDS = (
    "SELECT e.id, a.run FROM {}.attempts a JOIN {}.events e ON e.seq = a.event_seq"
    " WHERE a.ended_run = 1 OR a.outcome = 'succeeded'"
)


def kind_of(point: str) -> str:
    return point.partition(".")[0]


def matrix() -> Iterator[Any]:
    """Yield every point on every store; some of each part of the daemon run in the test command."""
    for place in PLACES:
        for point in POINTS if place == "shared" else [one for one in POINTS if one not in OF_SEVERAL]:
            fast = point in FAST[place]
            yield pytest.param(place, point, id=f"{place}-{point}", marks=[] if fast else [pytest.mark.slow])


class Client:
    """Sends events, each under a key of its own, and knows what was acknowledged and what it has to send again."""

    def __init__(self, daemon: DaemonProcess) -> None:
        self.daemon = daemon
        self.sent: list[dict[str, Any]] = []
        self.acknowledged: dict[str, str] = {}

    def send(self, event_type: str, workflow_id: str, payload: Any = None) -> None:
        body = {"workflow_id": workflow_id, "event_type": event_type, "payload": payload or {}}
        body["idempotency_key"] = f"{event_type} {len(self.sent)}"
        self.sent.append(body)
        self.post(body)

    def post(self, body: dict[str, Any]) -> None:
        answer = self.daemon.http.post("/api/events", body)
        assert answer.status in (200, 201), answer
        self.acknowledged[answer.json()["id"]] = body["event_type"]

    def play(self, number: int, *, large: bool) -> None:
        """Send one event of every kind, and replay what has failed, by itself and in bulk."""
        if large:
            self.send("plain.large", "large", LARGE)
        for event_type in ("plain.one", "flaky.one", "doomed.one", "fan.one", *["narrow.one"] * 4, "flow.one"):
            self.send(event_type, f"workflow {number}")
        if number:
            self.send("go", f"workflow {number - 1}")  # whose handler is parked by now
        letters = [one["id"] for one in self.daemon.http.get("/api/deadletters?limit=2")["items"]]
        for letter in letters[:1]:
            self.daemon.http.post(f"/api/deadletters/{letter}/replay")
        if letters[1:]:
            self.daemon.http.post("/api/replays", {"ids": letters[1:], "reason": "a test"})

    def send_again(self) -> None:
        """Send everything again, as clients do that saw no answer, and the signals that are wanting."""
        wanting = Counter(body["workflow_id"] for body in self.sent if body["event_type"] == "flow.one")
        wanting.subtract(body["workflow_id"] for body in self.sent if body["event_type"] == "go")
        for body in self.sent:
            self.post(body)
        for workflow_id in wanting.elements():
            self.send("go", workflow_id)


@contextmanager
def daemon_at(
    place: str, directory: Path, settings: dict[str, Any]
) -> Iterator[tuple[DaemonProcess, Callable[[str], list[tuple[Any, ...]]]]]:
    """Have one daemon, not started, and what reads its store past it."""
    if place == "embedded":
        with DaemonProcess(directory, HANDLERS, settings=settings) as daemon:
            yield daemon, lambda sql: selected(daemon, sql)
        return
    require_postgres()
    if not redis_binaries():
        pytest.skip(MISSING)
    with (
        RedisServer(next(iter(redis_binaries().values())), directory) as redis,
        Fleet(directory, shared_server(), redis, **settings) as fleet,
    ):
        fleet.daemons["only"] = DaemonProcess(directory, HANDLERS, settings=fleet.settings)
        yield fleet.daemons["only"], lambda sql: [tuple(row.values()) for row in fleet.select(sql)]


def die_at(daemon: DaemonProcess, point: str, client: Client) -> None:
    """Let the daemon die at a point: at its start after a crash, told to end, while it works, or after another has."""
    armed = ("--simulate-crashes", "--crash-at", point)
    if point in OF_SEVERAL:
        leave_work(DaemonProcess(daemon.directory / "gone", HANDLERS, settings=daemon.settings), client)
        daemon.start(*armed)
        assert daemon.wait() == EXIT_CODE
        return
    if kind_of(point) == "recovery":
        daemon.start()
        client.send("slow.one", "workflow", {"seconds": 60 if point == "recovery.reclaimed" else 0})
        client.play(0, large=False)
        until(lambda: daemon.http.get("/api/events?status=processing")["items"] or point != "recovery.reclaimed")
        daemon.kill()
        assert daemon.run_refused(*armed).code == EXIT_CODE
        return
    try:
        daemon.start(*armed)
    except AssertionError:  # an event of the schedule may come to the point before it is said where the daemon listens
        assert daemon.wait() == EXIT_CODE
        return
    try:
        if kind_of(point) == "shutdown":
            client.play(0, large=False)
            client.send("slow.one", "workflow", {"seconds": 0.5})
            assert daemon.terminate() == EXIT_CODE
            return
        for number in range(ROUNDS_MAX):
            client.play(number, large=kind_of(point) in ("segment", "retention"))
    except (OSError, http.client.HTTPException, json.JSONDecodeError):
        assert daemon.wait() == EXIT_CODE
        return
    raise AssertionError("the daemon does not die")


def leave_work(gone: DaemonProcess, client: Client) -> None:
    """Have another daemon on the same store die while it holds events, and never come back."""
    here = client.daemon
    with gone:
        client.daemon = gone.start()
        for _ in range(3):
            client.send("slow.one", "workflow", {"seconds": 60})
        until(lambda: len(gone.http.get("/api/events?status=processing")["items"]) == 3)
        gone.kill()
    client.daemon = here


@pytest.mark.parametrize(("place", "point"), list(matrix()))
def test_death_at_a_point(place: str, point: str, tmp_path: Path) -> None:
    """A daemon that dies at the point, started again without it, brings everything acknowledged to one end."""
    brief = kind_of(point) == "retention"
    with daemon_at(place, tmp_path, SETTINGS | (BRIEF if brief else {})) as (daemon, select):
        client = Client(daemon)
        die_at(daemon, point, client)
        daemon.start()
        client.send_again()
        daemon.http.post("/api/schedules/tick/pause", {"reason": "enough"})
        report = until(daemon.converged, 40, "convergence")
        assert report["ledger"]["lost"] == 0
        judge(client, tmp_path / "effects.txt", select, kept=not brief)
        assert daemon.terminate() == 0
        checked = daemon.run_command("check", "--data-dir", str(daemon.data_dir))
        assert checked.code == 0, checked


def judge(client: Client, sink: Path, select: Callable[[str], list[tuple[Any, ...]]], *, kept: bool) -> None:
    """Hold acknowledgements, effects outside and the store against each other; unless it was `kept`, rows are gone."""
    effects = Counter(tuple(line.split("\t")) for line in whole_lines(sink))
    rows = {row[0]: row[1:] for row in select(CALLED)}
    lost = client.acknowledged.keys() - rows.keys()
    assert not lost or not kept, "acknowledged and lost"
    wrong = {
        event_id: row for event_id, row in rows.items()
        if row[1] != ("dead_lettered" if row[0] == "doomed.one" else "succeeded")
    }  # fmt: skip
    assert wrong == {}
    assert [end for end, count in Counter(select(ENDS)).items() if count > 1] == []
    has_effect = {one for one, kind in client.acknowledged.items() if not kind.startswith(("doomed", "fan", "go"))}
    done = {event_id for event_id, name in effects if name == "done"}
    assert has_effect - done == set(), "said to have succeeded without its effect"
    assert max(effects.values()) <= 2, "more often than there were starts"
    if kept:
        family = Counter((row[2], row[3]) for row in rows.values() if row[2] in client.acknowledged)
        children: dict[str, tuple[str | None, ...]] = {"flow.one": (None,), "fan.one": ("crm", "mail")}
        ids = client.acknowledged.items()
        wanted = {(one, name): 1 for one, kind in ids for name in children.get(kind, ())}
        assert family == wanted, "a child is missing, or is there twice"


def test_points_are_plain_names_while_simulation_is_off(tmp_path: Path) -> None:
    """Without --simulate-crashes an armed point does nothing."""
    with DaemonProcess(tmp_path, SINK_HANDLERS, settings=QUICK) as daemon:
        daemon.start("--crash-at", "log.appended")
        assert daemon.http.post("/api/events", {"workflow_id": "w", "event_type": "quick.one"}).status == 201
        until(daemon.converged)
        assert daemon.terminate() == 0
