"""Subscribers as a person has them: one of them an address, replayed from the command line."""

from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import msgspec
import pytest

from replayforge.whole_lines import whole_lines
from tests.support.daemon_process import DaemonProcess, until
from tests.support.sink import QUICK

HANDLERS = Path(__file__).parents[1] / "data" / "subscriber_handlers.py"
asked: list[dict[str, str]] = []


@pytest.fixture
def partner() -> Iterator[HTTPServer]:
    """An address that refuses the first delivery for good, and takes all that follow."""

    class Partner(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(msgspec.json.decode(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(410 if len(asked) == 1 else 200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    asked.clear()
    with HTTPServer(("127.0.0.1", 0), Partner) as server:
        Thread(target=server.serve_forever).start()
        yield server
        server.shutdown()


def test_an_address_subscribes_and_is_replayed_alone(tmp_path: Path, partner: HTTPServer) -> None:
    """It has a child event of its own like any subscriber; what failed, what is named, or all of it is replayed."""
    table = {
        "match": "fan.*", "name": "partner", "url": f"http://127.0.0.1:{partner.server_port}/hook",
        "allow_private": True,
    }  # fmt: skip
    settings = {**QUICK, "handlers.http": [table]}
    with DaemonProcess(tmp_path, HANDLERS, settings=settings) as daemon:
        daemon.start()
        event_id = daemon.http.send("fan.in", {"n": 1})
        until(daemon.converged, 20, "convergence")

        def replay(whom: str, code: int = 0) -> str:
            ended = daemon.run_command(
                "events", "replay", event_id, "--subscribers", whom, "--yes", "--url", daemon.url
            )
            assert ended.code == code, ended
            until(daemon.converged, 20, "convergence")
            return ended.out + ended.err

        def states() -> dict[str, str]:
            items = daemon.http.get("/api/events?event_type=fan.in")["items"]
            return {one["subscriber"]: one["status"] for one in items if one.get("subscriber")}

        def called() -> Counter[str]:
            noted = Counter(line.split("\t")[0] for line in whole_lines(tmp_path / "notes.txt"))
            return noted + Counter(partner=len(asked))

        assert states() == {"crm": "succeeded", "mail": "succeeded", "partner": "dead_lettered"}
        replay("failed")
        assert states()["partner"] == "succeeded"
        assert called() == {"crm": 1, "mail": 1, "partner": 2}
        replay("partner,crm")
        assert called() == {"crm": 2, "mail": 1, "partner": 3}
        replay("all")
        assert called() == {"crm": 3, "mail": 2, "partner": 4}
        assert "went to crm, mail, partner, and not to nobody" in replay("nobody", code=1)
        assert len(states()) == len(daemon.http.get("/api/events?event_type=fan.in")["items"]) - 1
