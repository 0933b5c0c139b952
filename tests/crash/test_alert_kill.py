"""kill -9 of a daemon between the beginning of an alert and its end."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from replayforge.whole_lines import whole_lines
from tests.support.daemon_process import DaemonProcess, until
from tests.support.sink import QUICK, SINK_HANDLERS

COMMAND = "import sys; open(sys.argv[1], 'a').write(sys.stdin.read() + chr(10))"


@pytest.mark.slow
def test_an_alert_that_stands_over_a_death_is_said_once_and_ends_once(tmp_path: Path) -> None:
    """Its receiver hears one beginning and one end of the same alert, however often the daemon was killed between."""
    heard = tmp_path / "heard.ndjson"
    alert = {"name": "dead", "when": "dead_letters", "command": [sys.executable, "-c", COMMAND, str(heard)]}

    def messages() -> list[dict[str, Any]]:
        return [json.loads(line) for line in whole_lines(heard)]

    def said() -> list[str]:
        """Return how much of each of its subjects the daemon knows to have been said."""
        return [one["said"] for one in daemon.http.get("/api/alerts")["items"][0]["subjects"]]

    with DaemonProcess(tmp_path, SINK_HANDLERS, settings={**QUICK, "alerts": [alert]}) as daemon:
        daemon.start()
        event_id = daemon.http.send("doomed.one")
        until(lambda: said() == ["began"], 30, "the beginning to be said")
        for _ in range(2):
            daemon.kill()
            daemon.start()
            looked = daemon.http.get("/api/supervisor")
            assert any(one["name"] == "alerter" for one in looked["services"])
        daemon.http.post(f"/api/deadletters/{event_id}/discard", {"reason": "enough"})
        until(lambda: said() == ["ended"], 30, "the end to be said")
        daemon.kill()
        daemon.start()
        assert [one["state"] for one in messages()] == ["began", "ended"]
        assert len({one["id"].partition(".")[0] for one in messages()}) == 1
