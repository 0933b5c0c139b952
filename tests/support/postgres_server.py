"""A real, private PostgreSQL on a free port, started and killed by tests; each test gets a schema of its own."""

import asyncio
import atexit
import os
import shutil
import signal
import tempfile
import threading
import uuid
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, Self

import asyncpg
import pytest

from replayforge.chaos.private_postgres import MISSING, PrivatePostgres, initialise, postgres_bin
from replayforge.chaos.private_server import unprivileged
from tests.support.daemon_process import until
from tests.support.ports import free_port
from tests.support.processes import lives

SCHEMAS_IN_STOCK = 8  # a session costs more than eight schemas
MEMORY_BYTES_MIN = 4 << 30


def memory() -> Path | None:
    """Return a directory in memory that has room for a server, or None: what tests kill is a process, not a machine."""
    shared = Path("/dev/shm")
    return shared if shared.is_dir() and shutil.disk_usage(shared).free > MEMORY_BYTES_MIN else None


def binaries() -> Path:
    """Return the folder of the binaries at hand."""
    found = postgres_bin()
    assert found, MISSING
    return found


@cache
def template() -> Path:
    """Return an initialised data directory, made once per test run and copied for each server."""
    directory = Path(tempfile.mkdtemp(prefix="rf-pg-template-", dir=memory()))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    account = unprivileged()
    if account:
        os.chown(directory, account.pw_uid, account.pw_gid)
    data = directory / "data"
    initialise(data, binaries(), "--no-sync")
    return data


class PostgresServer(PrivatePostgres):
    """One server process; keeps its port and its data over restarts. `settings` go to its command line."""

    def __init__(self, directory: Path | None = None, **settings: Any) -> None:
        directory = directory or Path(tempfile.mkdtemp(prefix="rf-pg-", dir=memory()))
        super().__init__(directory, free_port(), binaries(), **settings)
        self.spare_schemas: list[str] = []

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def prepare(self) -> None:
        """Copy the template, owned by whoever runs the server, unless that is done."""
        if self.data.exists():
            return
        account = unprivileged()
        shutil.copytree(template(), self.data)
        if account:
            for path in (self.directory, self.data, *self.data.rglob("*")):
                os.chown(path, account.pw_uid, account.pw_gid)
        self.data.chmod(0o700)

    def answers(self) -> bool:
        try:
            self.query("SELECT 1")
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            return False
        return True

    def kill(self) -> None:
        """kill -9 the server and all that serves for it, and return once nobody is left of them; safe twice."""
        if self.process:
            self.process.send_signal(signal.SIGSTOP)  # it has no more children than those that are killed
            children = self.children()
            for pid in children:
                with_signal(pid, signal.SIGKILL)
            until(lambda: not any(map(lives, children)), what="the children to let go of the shared memory")
            self.process.kill()
            self.process.wait()
            self.process = None
            (self.data / "postmaster.pid").unlink(missing_ok=True)

    def stop(self) -> None:
        """End every session and stop in order (a fast shutdown)."""
        if self.process:
            self.process.send_signal(signal.SIGINT)
            self.process.wait(30)
            self.process = None

    def pause(self) -> None:
        """SIGSTOP the server and all that serves for it: the port stays open and nothing answers."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)  # first, so that nobody is added to those who serve
        for pid in self.children():
            with_signal(pid, signal.SIGSTOP)

    def resume(self) -> None:
        assert self.process is not None
        for pid in (self.process.pid, *self.children()):
            with_signal(pid, signal.SIGCONT)

    def children(self) -> list[int]:
        assert self.process is not None
        listed = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in listed.read_text().split()] if listed.exists() else []

    def query(self, sql: str, *parameters: Any) -> list[Any]:
        """Run one statement on a connection of the test's own, whether or not a loop runs in this thread."""
        rows: list[Any] = in_own_thread(lambda: self.fetch(sql, *parameters))
        return rows

    async def fetch(self, sql: str, *parameters: Any) -> list[Any]:
        """Run one statement on a connection of the test's own."""
        connection = await asyncpg.connect(self.url, timeout=5)
        try:
            rows: list[Any] = await connection.fetch(sql, *parameters)
        finally:
            connection.terminate()
        return rows

    def new_schema(self) -> str:
        """Return the URL of an empty schema, which is a store's own world; they are made in stock, by one session."""
        if not self.spare_schemas:
            self.spare_schemas = [f"test_{uuid.uuid4().hex[:12]}" for _ in range(SCHEMAS_IN_STOCK)]
            made = " ".join(f"CREATE SCHEMA {name};" for name in self.spare_schemas)
            self.query(f"DO $$ BEGIN {made} END $$")
        return f"{self.url}?search_path={self.spare_schemas.pop()}"

    async def terminate_sessions(self) -> int:
        """pg_terminate_backend for every session but our own; returns how many."""
        sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'client backend'"
        return len(await self.fetch(f"{sql} AND pid <> pg_backend_pid()"))


class KeptConnection:
    """One connection for a test that asks often, in a thread and a loop of its own; made anew once it was lost."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.connection: Any = None

    def query(self, sql: str, *parameters: Any) -> list[Any]:
        """Run one statement."""
        return asyncio.run_coroutine_threadsafe(self.fetch(sql, *parameters), self.loop).result()

    async def fetch(self, sql: str, *parameters: Any) -> list[Any]:
        """Run one statement, once more when it turns out that the connection was lost."""
        if self.connection is not None:
            with suppress(OSError, asyncpg.PostgresConnectionError, asyncpg.InterfaceError):
                return list(await self.connection.fetch(sql, *parameters))
            self.connection.terminate()
        self.connection = await asyncpg.connect(self.url, timeout=5)
        return list(await self.connection.fetch(sql, *parameters))

    def close(self) -> None:
        """End the connection, its loop and its thread."""
        if self.connection is not None:
            self.loop.call_soon_threadsafe(self.connection.terminate)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()


def with_signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def in_own_thread(call: Callable[[], Any]) -> Any:
    """Run a coroutine to its end in a thread with a loop of its own."""
    answers: list[Any] = []

    def work() -> None:
        try:
            answers.append((asyncio.run(call()), None))
        except BaseException as error:
            answers.append((None, error))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    value, error = answers[0]
    if error:
        raise error
    return value


@cache
def shared_server() -> PostgresServer:
    """Return the server that tests which do it no harm share; it dies with the test run."""
    server = PostgresServer().start()
    atexit.register(server.__exit__)
    return server


def require_postgres() -> None:
    """Skip the test, loudly, where there is no PostgreSQL."""
    if postgres_bin() is None:
        pytest.skip(MISSING)
