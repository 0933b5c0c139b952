"""What a service manager sees of a daemon, and what SIGHUP changes in it."""

import os
import signal
import socket
import threading
from contextlib import suppress
from http.client import IncompleteRead
from pathlib import Path

from replayforge.domain.api_keys import Role, new_key
from replayforge.service_manager import ServiceManager
from tests.support.daemon_process import DaemonProcess, until

HANDLERS = """
import os
from replayforge import Handlers

handlers = Handlers()


@handlers.on("*")
async def look(event, context):
    context.log.debug("looked")
    return [name for name in os.environ if name.startswith(("NOTIFY", "WATCHDOG"))]
"""
SETTINGS = '[server]\napi_keys = ["{key}"]\n[logging]\nlevel = "{level}"\nformat = "json"\n'


def test_a_daemon_under_a_service_manager(tmp_path: Path) -> None:
    """It says that it is ready, that its loop turns, and that it stops, and keeps that from its children; SIGHUP takes
    over keys and levels, and a wrong file changes nothing."""
    (tmp_path / "handlers.py").write_text(HANDLERS)
    file = tmp_path / "replayforge.toml"
    file.write_text(SETTINGS.format(key="first", level="warning"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"\0replayforge-test-{os.getpid()}")
        said: list[bytes] = []
        threading.Thread(target=hear, args=(manager, said), daemon=True).start()
        variables = {"NOTIFY_SOCKET": f"@replayforge-test-{os.getpid()}", "WATCHDOG_USEC": "100000"}
        with DaemonProcess(tmp_path, tmp_path / "handlers.py", variables=variables).start() as daemon:
            until(lambda: len(said) > 3, what="the watchdog to be answered")
            assert said[0].decode().splitlines() == ["READY=1", f"STATUS=Listens on {daemon.url}, 16 workers."]
            assert said[1:4] == [b"WATCHDOG=1"] * 3
            event = {"workflow_id": "w", "event_type": "t", "payload": {}}
            made = daemon.http.post("/api/events", event, {"X-API-Key": "first"}).json()
            assert "config.reread" not in daemon.stderr.read_text()

            form = {"Content-Type": "application/x-www-form-urlencoded"}
            signed_in = daemon.http.request("POST", "/login", b"key=first", form)
            session = {"Cookie": signed_in.headers["set-cookie"].partition(";")[0]}
            second, key = new_key("second", Role.ADMIN)
            file.write_text(SETTINGS.format(key=f'first", "{key.entry()}', level="warning"))
            daemon.signal(signal.SIGHUP)
            until(lambda: status(daemon, second) == 200)
            assert status(daemon, "first") == daemon.http.request("GET", "/api/events", headers=session).status == 200

            stream = daemon.client()
            stream.request("GET", "/health/live")
            assert stream.connection is not None
            stream.connection.request("GET", "/api/stream", headers=session)
            hints = stream.connection.getresponse()
            assert hints.readline() == b"retry: 1000\n"
            file.write_text(SETTINGS.format(key=key.entry(), level="debug") + "[workers]\ncount = 3\n")
            daemon.signal(signal.SIGHUP)
            with suppress(IncompleteRead):
                hints.read()  # until it ends, or the client's patience does
            until(lambda: status(daemon, "first") == 401 and status(daemon, second) == 200)
            assert daemon.http.request("GET", "/api/events", headers=session).status == 401
            until(lambda: '"needs_restart": ["workers.count"]' in daemon.stderr.read_text())
            daemon.http.post("/api/events", event, {"X-API-Key": second})
            until(lambda: '"looked"' in daemon.stderr.read_text())
            until(lambda: begun(daemon) > 0, what="what is told in detail")

            reread = daemon.stderr.read_text().count("config.reread")
            file.write_text(SETTINGS.format(key=key.entry(), level="info"))
            daemon.signal(signal.SIGHUP)
            until(lambda: daemon.stderr.read_text().count("config.reread") > reread, what="the next level")
            told = begun(daemon)
            quiet = daemon.http.post("/api/events", event, {"X-API-Key": second}).json()
            daemon.http.request("GET", f"/api/events/{quiet['id']}?wait=20", headers={"X-API-Key": second})
            assert begun(daemon) == told

            for wrong in ("[server\n", SETTINGS.format(key="third", level="loud")):
                file.write_text(wrong)
                before = daemon.stderr.read_text().count("config.refused")
                daemon.signal(signal.SIGHUP)
                until(lambda before=before: daemon.stderr.read_text().count("config.refused") > before)  # type: ignore[misc]
                assert status(daemon, second) == 200
            answer = daemon.http.request("GET", f"/api/events/{made['id']}", headers={"X-API-Key": second})
            assert answer.json()["result"] == []
            daemon.signal(signal.SIGTERM)
            until(lambda: any(one.startswith(b"STOPPING=1\n") for one in said), what="the word that it stops")
            assert daemon.wait() == 0


def begun(daemon: DaemonProcess) -> int:
    """Return of how many attempts the log tells that they have begun, which it does where it tells all."""
    return daemon.stderr.read_text().count('"attempt.started"')


def hear(manager: socket.socket, said: list[bytes]) -> None:
    """Note what comes, until the socket is closed or nothing has come for long."""
    manager.settimeout(20)
    with suppress(OSError):
        while True:
            said.append(manager.recv(1000))


def status(daemon: DaemonProcess, key: str) -> int:
    """Return how a request with a key is answered."""
    return daemon.http.request("GET", "/api/events", headers={"X-API-Key": key}).status


async def test_who_is_told(tmp_path: Path) -> None:
    """Without NOTIFY_SOCKET nothing is opened; a watchdog meant for another process is not answered; a manager that is
    gone is no error."""
    assert ServiceManager({}).socket is None
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(address)
        manager.setblocking(False)
        environment = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "20000000", "WATCHDOG_PID": "1", "HOME": "/"}
        told = ServiceManager(environment)
        assert environment == {"HOME": "/"}
        told.ready("It runs.")
        assert (manager.recv(1000), told.beat_seconds) == (b"READY=1\nSTATUS=It runs.", 0)
    own = ServiceManager({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "20000000", "WATCHDOG_PID": str(os.getpid())})
    assert own.beat_seconds == 10
    own.stopping()
    for one in (told, own):
        assert one.socket is not None
        assert not os.get_inheritable(one.socket.fileno())
        one.socket.close()
