"""`serve --reload`: handlers that change while the daemon runs."""

import json
from pathlib import Path
from typing import Any

from replayforge.whole_lines import whole_lines
from tests.support.daemon_process import DaemonProcess, until
from tests.support.ports import free_port

HANDLERS = """
from replayforge import Handlers
handlers = Handlers()


@handlers.on("*")
async def say({parameters}):
    return "{word}"
"""


def test_other_code_runs_once_it_loads_and_until_then_the_old_one(tmp_path: Path) -> None:
    """What does not load is named and changes nothing; what does is run by the same process, at the same address."""
    handlers = tmp_path / "said.py"
    handlers.write_text(HANDLERS.format(parameters="event, ctx", word="old"))
    flags = ["--reload", "--port", str(free_port())]
    with DaemonProcess(tmp_path, handlers, flags, {"logging.format": "json"}, forked=False) as daemon:
        daemon.start()

        def told(name: str) -> dict[str, Any] | None:
            lines = [json.loads(line) for line in whole_lines(daemon.stderr) if line.startswith("{")]
            return next((line for line in lines if line["event"] == name), None)

        def said(number: int) -> Any:
            body = {"workflow_id": "w", "event_type": "say", "idempotency_key": str(number)}
            http = daemon.client()  # the connections of the daemon before are gone
            event_id = http.post("/api/events", body).json()["id"]
            result = http.get(f"/api/events/{event_id}?wait=15")["result"]
            http.close()
            return result

        handlers.write_text(HANDLERS.format(parameters="event", word="wrong"))
        refused = until(lambda: told("code.refused"), what="the code to be refused")
        assert refused["files"] == "said.py"
        assert "said.say" in refused["error"]
        assert said(1) == "old"
        handlers.write_text(HANDLERS.format(parameters="event, ctx", word="new"))
        until(lambda: len([line for line in daemon.announced if "listens on" in line]) == 2, what="another beginning")
        assert said(2) == "new"
        assert daemon.terminate() == 0
