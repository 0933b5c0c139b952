"""Daemons that a test kills at random and starts again: one on SQLite, or two on PostgreSQL and Redis."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon_process import DaemonProcess
from tests.support.fleet import Fleet
from tests.support.postgres_server import require_postgres, shared_server
from tests.support.redis_server import MISSING, RedisServer, redis_binaries
from tests.support.sink import QUICK

PLACES = ("embedded", "shared")


@dataclass
class Place:
    """Daemons that run on one store; `select` reads from it past them, with the name of its schema in place of {}."""

    daemons: list[DaemonProcess]
    select: Callable[[str], list[tuple[Any, ...]]]


@contextmanager
def daemons_at(place: str, directory: Path, handlers: Path | None = None, **settings: Any) -> Iterator[Place]:
    """Run daemons, with settings of theirs such as `**{"retry.max_attempts": 100}`."""
    if place == "embedded":
        with DaemonProcess(directory / "only", handlers, settings=QUICK | settings) as daemon:
            daemon.start()
            yield Place([daemon], lambda sql: selected(daemon, sql))
        return
    require_postgres()
    if not redis_binaries():
        pytest.skip(MISSING)
    with (
        RedisServer(next(iter(redis_binaries().values())), directory) as redis,
        Fleet(directory, shared_server(), redis, **{"workers.lease_seconds": 4.0}, **settings) as fleet,
    ):
        daemons = [fleet.start(name, handlers=handlers) for name in ("first", "second")]
        yield Place(daemons, lambda sql: [tuple(row.values()) for row in fleet.select(sql)])


def selected(daemon: DaemonProcess, sql: str) -> list[tuple[Any, ...]]:
    """Read from the file of a daemon's store."""
    with closing(sqlite3.connect(daemon.store_path)) as store:
        return store.execute(sql.replace("{}", "main")).fetchall()
