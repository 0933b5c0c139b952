"""The end: nothing of a user's holds it up, no signal kills that should not, and a 2xx is a 2xx to the last."""

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from replayforge.engine.dispatch.incarnation import read_former
from tests.crash.test_forks import FORKING_HANDLERS, Forking
from tests.support.daemon_process import Ended, HttpClient, until
from tests.support.sink import QUICK
from tests.support.slow import the_rest_slow

GRACE_SECONDS = 1.0
LEFT_BEHIND = ("thread", "to_thread", "executor", "atexit", "subprocess")


@pytest.fixture(params=the_rest_slow(["uvloop", "asyncio"]))
def daemon(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Forking]:
    daemon = Forking(tmp_path, FORKING_HANDLERS, settings=QUICK | {"supervisor.grace_seconds": GRACE_SECONDS})
    daemon.loop = request.param
    with daemon:
        yield daemon


def test_nothing_left_behind_holds_up_the_end(daemon: Forking) -> None:
    """Threads, executors, children and exit handlers that hang do not keep a daemon alive; its end is a clean one."""
    daemon.start()
    for kind in LEFT_BEHIND:
        event_id = daemon.send(f"leave.{kind}")
        assert until(lambda event_id=event_id: daemon.ended(event_id)) == "succeeded"  # type: ignore[misc]
    assert daemon.terminate(30) == 0
    daemon.start()
    assert until(lambda: [line for line in daemon.announced if "clean stop" in line and "unclean" not in line])


@pytest.mark.parametrize("kind", ["sleep", "spin"])
def test_a_blocked_loop_ends_after_the_grace_period(daemon: Forking, kind: str) -> None:
    """With a loop that never turns again the first signal ends the process after the grace period, and says why; what
    ran is known as interrupted by the stop."""
    daemon.start()
    event_id = daemon.send(f"block.{kind}")
    block(daemon)
    assert daemon.terminate(30) == 70
    assert "event loop has not turned" in daemon.stderr.read_text()
    assert read_former(daemon.data_dir).draining, event_id


@pytest.mark.parametrize("kind", ["sleep", "spin"])
def test_a_second_signal_ends_a_blocked_loop_at_once(daemon: Forking, kind: str) -> None:
    """Nobody waits for a blocked loop who does not want to."""
    daemon.settings["supervisor.grace_seconds"] = 600
    daemon.start()
    daemon.send(f"block.{kind}")
    block(daemon)
    daemon.signal(signal.SIGTERM)
    until(lambda: read_former(daemon.data_dir).draining, what="the first signal to be heard")
    daemon.signal(signal.SIGTERM)
    assert daemon.wait(20) == 130


def block(daemon: Forking) -> None:
    """Return once the loop does not answer any more."""

    def unanswered() -> bool:
        client = HttpClient(daemon.url, timeout_seconds=1)
        try:
            client.request("GET", "/health/live")
        except OSError:
            return True
        finally:
            client.close()
        return False

    until(unanswered, what="the handler to block the loop")


def test_signals_that_end_other_programs(daemon: Forking) -> None:
    """SIGHUP, SIGUSR1, SIGUSR2 and SIGPIPE end nothing; what was ignored stands in the log, and what was read again."""
    former = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup the daemon would rightly leave it alone
    try:
        daemon.start()
    finally:
        signal.signal(signal.SIGHUP, former)
    for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGPIPE):
        daemon.signal(number)
    for name in ("config.reread", "SIGUSR1", "SIGUSR2"):
        until(lambda name=name: name in daemon.stderr.read_text(), what=name)  # type: ignore[misc]
    plain = daemon.send("plain")
    assert until(lambda: daemon.ended(plain)) == "succeeded"
    assert daemon.terminate() == 0


def test_events_are_accepted_until_the_last_handler_has_ended(daemon: Forking) -> None:
    """From the signal on readiness is 503, but every POST is a 201 whose row is written and that the next start runs,
    until the handler has ended; whatever comes later is refused as not accepted."""
    daemon.settings["supervisor.grace_seconds"] = 60
    daemon.start()
    answer = daemon.http.post("/api/events", {"workflow_id": "w", "event_type": "slow"})
    slow = answer.json()["id"]
    until(lambda: daemon.http.get(f"/api/events/{slow}")["status"] == "processing")
    daemon.signal(signal.SIGTERM)
    until(lambda: daemon.http.request("GET", "/health/ready").status == 503, what="readiness to fall")
    accepted = [daemon.send("plain") for _ in range(20)]
    assert until(lambda: daemon.http.get(f"/api/events/{accepted[-1]}")["status"]) in ("received", "queued")
    (daemon.directory / "enough.txt").touch()
    assert daemon.wait() == 0
    daemon.start()
    assert until(daemon.converged, 40)["ledger"]["succeeded"] == 21


def test_a_signal_during_the_start(tmp_path: Path) -> None:
    """SIGTERM while the daemon waits for its database ends it without a traceback; SIGHUP does not."""
    daemon = Forking(tmp_path, settings={"store.url": "postgresql://nobody@127.0.0.1:1/nowhere"}, forked=False)
    daemon.directory.mkdir(exist_ok=True)
    ended: list[Ended] = []
    thread = threading.Thread(target=lambda: ended.append(daemon.run_refused(timeout_seconds=60)))
    thread.start()
    process = until(lambda: started(daemon), what="the process")
    for number in (signal.SIGHUP, signal.SIGTERM):
        os.kill(process, number)
    thread.join(30)
    (end,) = ended
    assert end.code == 0, end
    assert "Traceback" not in end.err


def started(daemon: Forking) -> int | None:
    """Return the process once it has made its data directory: by then it waits for its database."""
    if not (daemon.data_dir / "node").exists():
        return None
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if str(daemon.data_dir).encode() in path.read_bytes() and b"serve" in path.read_bytes():
                return int(path.parent.name)
        except OSError:
            continue
    return None
