"""What keeps a daemon from starting: one clear sentence, a code that says so, and nothing else."""

import os
import shutil
import socket
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.daemon_process import DaemonProcess, Ended, until
from tests.support.sink import QUICK, SINK_HANDLERS, started


def sentence(ended: Ended) -> str:
    """Return the one line an end without a traceback leaves on stderr."""
    lines = [line for line in ended.err.splitlines() if line and not line.startswith("{")]
    assert ended.code not in (0, -9), ended
    assert "Traceback" not in ended.err + ended.out, ended.err
    assert len(lines) == 1, ended.err
    assert lines[0].endswith("."), lines
    return lines[0]


def send(daemon: DaemonProcess, count: int, name: str = "key") -> None:
    for number in range(count):
        body = {"workflow_id": "w", "event_type": "quick.one", "idempotency_key": f"{name}-{number}"}
        assert daemon.http.post("/api/events", body).status == 201
    until(daemon.converged)


def remove_store(daemon: DaemonProcess) -> None:
    for path in daemon.data_dir.glob("store.db*"):
        path.unlink()


@pytest.mark.parametrize("end", ["clean", "kill"])
def test_fresh_store_under_an_old_log(tmp_path: Path, end: str) -> None:
    """A new store beside an old log is refused with the range; with --adopt-store the range runs again."""
    with DaemonProcess(tmp_path, SINK_HANDLERS, settings=QUICK | {"janitor.mirror_seconds": 0.05}) as daemon:
        daemon.start()
        send(daemon, 7)
        log = daemon.http.get("/forgelog/stats")
        until(lambda: daemon.http.get("/forgelog/stats")["projected_offset"] == 7, what="the mirror")
        if end == "clean":
            daemon.terminate()
        else:
            daemon.kill()
        remove_store(daemon)
        said = sentence(daemon.run_refused())
        assert "offsets 1 to 7" in said
        assert log["log_id"] in said
        assert "--adopt-store" in said
        assert sentence(daemon.run_refused()), "a refusal must not heal the next start"
        daemon.start("--adopt-store")
        ledger = until(daemon.converged)["ledger"]
        assert (ledger["succeeded"], ledger["lost"]) == (7, 0)
        assert set(started(tmp_path).values()) == {2}
        daemon.terminate()
        daemon.start()
        assert until(daemon.converged)["ledger"]["succeeded"] == 7


def test_restored_store_under_a_newer_log(tmp_path: Path) -> None:
    """A store restored from a backup is refused with the range that it does not know."""
    with DaemonProcess(tmp_path, SINK_HANDLERS, settings=QUICK) as daemon:
        daemon.start()
        send(daemon, 3)
        daemon.terminate()
        shutil.copy(daemon.store_path, tmp_path / "backup.db")
        daemon.start()
        send(daemon, 5, "later")
        daemon.terminate()
        remove_store(daemon)
        shutil.copy(tmp_path / "backup.db", daemon.store_path)
        said = sentence(daemon.run_refused())
        assert "offsets 4 to 8" in said
        assert "up to 3" in said


def test_store_replaced_under_a_running_daemon(tmp_path: Path) -> None:
    """It is noticed without any event: the daemon ends with a sentence, and leaves what lies there now as it is."""
    with DaemonProcess(tmp_path, SINK_HANDLERS, settings=QUICK | {"janitor.refill_seconds": 0.1}) as daemon:
        daemon.start()
        send(daemon, 3)
        for name in ("store.db", "store.db-wal", "store.db-shm"):
            shutil.copy(daemon.data_dir / name, tmp_path / name)
        send(daemon, 2, "later")
        remove_store(daemon)
        shutil.copy(tmp_path / "store.db-wal", daemon.data_dir)
        shutil.copy(tmp_path / "store.db", daemon.data_dir)
        assert daemon.wait() == 70
        said = daemon.stderr.read_text()
        assert f"{daemon.data_dir}/store.db" in said
        assert "was removed, renamed or replaced" in said
        assert (daemon.data_dir / "store.db-wal").read_bytes() == (tmp_path / "store.db-wal").read_bytes()
        assert "offsets 4 to 5" in sentence(daemon.run_refused())
        daemon.start("--adopt-store")
        assert until(daemon.converged)["ledger"]["succeeded"] == 5


def test_store_of_another_daemon(tmp_path: Path) -> None:
    """A store that belongs to another log is refused, named by both ids."""
    with DaemonProcess(tmp_path / "a", SINK_HANDLERS) as one, DaemonProcess(tmp_path / "b", SINK_HANDLERS) as two:
        for daemon in (one, two):
            daemon.start()
            send(daemon, 2)
            daemon.terminate()
        remove_store(one)
        shutil.copy(two.store_path, one.store_path)
        assert "offsets 1 to 2" in sentence(one.run_refused())


def test_lost_log_under_an_old_store(tmp_path: Path) -> None:
    """A store whose log is gone is refused, for what the log had accepted beyond it would be lost silently."""
    with DaemonProcess(tmp_path, SINK_HANDLERS) as daemon:
        daemon.start()
        send(daemon, 3)
        daemon.terminate()
        shutil.rmtree(daemon.data_dir / "log")
        said = sentence(daemon.run_refused())
        assert "up to offset 3" in said
        assert not list(daemon.data_dir.glob("log/*.seg*")), "a refused start must not begin a new log"


def test_truncated_log_under_an_old_store(tmp_path: Path) -> None:
    """A log that ends before what the store knows is refused with the range, for acknowledged events are missing."""
    with DaemonProcess(tmp_path, SINK_HANDLERS) as daemon:
        daemon.start()
        empty = tmp_path / "empty"
        until(lambda: daemon.http.get("/health/ready")["status"] == "ok")
        daemon.terminate()
        shutil.copytree(daemon.data_dir / "log", empty)
        daemon.start()
        send(daemon, 3)
        daemon.terminate()
        shutil.rmtree(daemon.data_dir / "log")
        shutil.copytree(empty, daemon.data_dir / "log")
        said = sentence(daemon.run_refused())
        assert "1 to 3" in said


def test_second_daemon_on_the_data_directory(tmp_path: Path) -> None:
    """A second serve on the data directory is refused with the pid of the first, which goes on undisturbed."""
    with DaemonProcess(tmp_path, SINK_HANDLERS) as daemon:
        daemon.start()
        said = sentence(daemon.run_refused())
        assert str(daemon.pid) in said
        assert "in use" in said
        send(daemon, 1)
        daemon.kill()
        daemon.start()  # a lock does not outlive its process
        assert daemon.terminate() == 0


def test_busy_port(tmp_path: Path) -> None:
    """A busy port is named, and nothing is made in the data directory."""
    with closing(socket.socket()) as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        daemon = DaemonProcess(tmp_path)
        said = sentence(daemon.run_refused("--port", str(port)))
    assert str(port) in said
    assert "--port" in said
    assert not daemon.data_dir.exists()


def test_data_directory_that_is_a_file(tmp_path: Path) -> None:
    """A data directory that cannot be one is named with the reason."""
    daemon = DaemonProcess(tmp_path)
    daemon.data_dir.write_text("a file")
    said = sentence(daemon.run_refused())
    assert str(daemon.data_dir) in said


def test_data_directory_that_cannot_be_written(tmp_path: Path) -> None:
    """A data directory on a file system that takes no files is named with the reason."""
    said = sentence(DaemonProcess(tmp_path).run_refused("--data-dir", "/proc/replayforge"))
    assert "/proc/replayforge" in said


def test_store_that_is_no_database(tmp_path: Path) -> None:
    """A store file full of something else is named, and left as it is."""
    daemon = DaemonProcess(tmp_path)
    daemon.data_dir.mkdir()
    garbage = os.urandom(8192)
    daemon.store_path.write_bytes(garbage)
    assert str(daemon.store_path) in sentence(daemon.run_refused())
    assert daemon.store_path.read_bytes() == garbage


def test_store_of_a_newer_version(tmp_path: Path) -> None:
    """A store with a schema from the future is refused with both versions."""
    with DaemonProcess(tmp_path, SINK_HANDLERS) as daemon:
        daemon.start()
        daemon.terminate()
        with closing(sqlite3.connect(daemon.store_path)) as store:
            store.execute("INSERT INTO migrations (version, checksum) VALUES (99, 'x')")
            store.commit()
        assert "99" in sentence(daemon.run_refused())


TWICE = """
from replayforge import Handlers
handlers = Handlers()
@handlers.on('a')
async def one(event, ctx): ...
@handlers.on('a')
async def two(event, ctx): ...
"""

BROKEN_HANDLERS = {
    "syntax error": ("def (:\n", "SyntaxError"),
    "import that is not there": ("import nonexistent_module_of_nobody\n", "nonexistent_module_of_nobody"),
    "error while loading": ("1 / 0\n", "ZeroDivisionError"),
    "exit while loading": ("import sys\nsys.exit(3)\n", "SystemExit"),
    "no Handlers": ("x = 1\n", "Handlers()"),
    "one pattern twice": (TWICE, "'a'"),
    "no UTF-8": ("# é\nx = 1\n", "Handlers()"),
}


@pytest.mark.parametrize(("source", "expected"), BROKEN_HANDLERS.values(), ids=BROKEN_HANDLERS.keys())
def test_broken_handlers(tmp_path: Path, source: str, expected: str) -> None:
    """A handler module that cannot be used is named with its file and what is wrong with it."""
    path = tmp_path / "broken.py"
    path.write_text(source)
    said = sentence(DaemonProcess(tmp_path, path).run_refused())
    assert "broken.py" in said
    assert expected in said


def test_handlers_that_are_not_there(tmp_path: Path) -> None:
    """A handler file or module that does not exist is named."""
    assert "nowhere.py" in sentence(DaemonProcess(tmp_path, tmp_path / "nowhere.py").run_refused())
    assert "nowhere.at.all" in sentence(DaemonProcess(tmp_path).run_refused("--handlers", "nowhere.at.all"))


SETTINGS = {
    "unknown key": ("[server]\nprot = 1\n", "server.port"),
    "wrong type": ('[workers]\ncount = "many"\n', "workers.count"),
    "out of range": ("[workers]\ncount = 0\n", "workers.count"),
    "no TOML": ("[server\n", "TOML"),
}


@pytest.mark.parametrize(("text", "expected"), SETTINGS.values(), ids=SETTINGS.keys())
def test_wrong_settings(tmp_path: Path, text: str, expected: str) -> None:
    """A wrong setting is named with the file, and the daemon makes nothing."""
    path = tmp_path / "wrong.toml"
    path.write_text(text)
    daemon = DaemonProcess(tmp_path)
    ended = daemon.run_refused("--config", str(path))
    assert ended.code == 78
    assert expected in ended.err
    assert "wrong.toml" in ended.err
    assert "Traceback" not in ended.err
    assert not daemon.data_dir.exists()


def test_open_to_the_network_without_keys(tmp_path: Path) -> None:
    """Listening beyond loopback without keys is refused."""
    assert "api_keys" in sentence(DaemonProcess(tmp_path).run_refused("--host", "0.0.0.0"))


def test_unknown_crash_point(tmp_path: Path) -> None:
    """A crash point that does not exist is refused with the points that do."""
    said = sentence(DaemonProcess(tmp_path).run_refused("--simulate-crashes", "--crash-at", "nowhere"))
    assert "log.appended" in said
