"""What could hold the event loop, and with it ingest, while nobody does anything wrong."""

from pathlib import Path

from tests.support.daemon_process import DaemonProcess, until

HANDLERS = """
import gc

from replayforge import Handlers

handlers = Handlers()


@handlers.on("*")
async def count(event, context):
    return {"seen": len(gc.get_objects()), "frozen": gc.get_freeze_count()}
"""


def test_collections_do_not_look_at_everything(tmp_path: Path) -> None:
    """A full garbage collection of a running daemon looks at little: not at what was there when it began to serve."""
    handlers = tmp_path / "counting_handlers.py"
    handlers.write_text(HANDLERS)
    with DaemonProcess(tmp_path, handlers).start() as daemon:
        sent = daemon.http.post("/api/events", {"workflow_id": "w", "event_type": "t"}).json()["id"]
        until(daemon.converged)
        counted = daemon.http.get(f"/api/events/{sent}")["result"]
    assert counted["seen"] < counted["frozen"] / 10, counted
