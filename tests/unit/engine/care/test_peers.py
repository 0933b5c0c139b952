"""What daemons that share a store tell each other of their workers."""

from types import SimpleNamespace
from typing import Any

import msgspec

from replayforge.domain.lifecycle import State
from replayforge.engine.care.daemon_report import decode_workers, worker_report
from replayforge.engine.care.peers import has_others
from replayforge.engine.report.daemon_status import DaemonStatus


async def test_what_a_handler_says_goes_with_the_heartbeat_of_its_daemon() -> None:
    """A report holds the details that there were when it was made, and the other daemons show them with the event."""
    event: Any = SimpleNamespace(id="event", event_type="import", state=State.PROCESSING)
    worker: Any = SimpleNamespace(name="worker-1", settled_count=3, busy_since_us=7, details={"rows": 1300})
    buffer: Any = SimpleNamespace(running={"worker-1": SimpleNamespace(event=event)})
    reports = decode_workers(msgspec.json.encode([worker_report(worker, buffer)]))

    async def list_peers() -> list[Any]:
        return [SimpleNamespace(workers=reports)]

    elsewhere: Any = SimpleNamespace(
        live_workers=[worker],
        buffer=SimpleNamespace(running={}),
        store=SimpleNamespace(shared=True),
        list_peers=list_peers,
    )
    assert await DaemonStatus.details_of(elsewhere, event) == {"rows": 1300}
    event.id = "another"
    assert await DaemonStatus.details_of(elsewhere, event) == {}


def test_who_has_stopped_and_who_asks_are_no_others() -> None:
    """Only for another daemon that runs code are events published although workers are about to be free here."""
    code = frozenset({"label"})
    assert not has_others({"own": code, "stopped": frozenset()}, "own")
    assert has_others({"own": code, "other": code}, "own")
