"""Several real daemons on one Redis and one PostgreSQL, each in a process and a directory of its own."""

import json
import threading
from collections import Counter
from collections.abc import Collection
from http.client import HTTPException
from pathlib import Path
from typing import Any, Self

from tests.support.daemon_process import DaemonProcess
from tests.support.postgres_server import KeptConnection, PostgresServer
from tests.support.redis_server import RedisServer
from tests.support.sink import QUICK, SINK_HANDLERS, started

EVENTS_PER_REQUEST = 5
LEASE_SECONDS = 2.0
SWEEP_SECONDS = 0.3
SHORT = QUICK | {
    "workers.lease_seconds": LEASE_SECONDS,
    "workers.heartbeat_seconds": 0.4,
    "workers.count": 4,
    "janitor.sweep_seconds": SWEEP_SECONDS,
    "janitor.stream_reclaim_seconds": 0.5,
    "janitor.stream_idle_seconds": 1.0,
}


class Fleet:
    """Daemons by name; `settings` hold for all of them. `store_url` names their store without anything in between."""

    def __init__(self, directory: Path, postgres: PostgresServer, redis: RedisServer, **settings: Any) -> None:
        self.directory = directory
        self.postgres = postgres
        self.store_url = postgres.new_schema()
        self.connection = KeptConnection(postgres.url)
        self.settings = SHORT | {"store.url": self.store_url, "redis.url": redis.url} | settings
        self.daemons: dict[str, DaemonProcess] = {}

    def start(self, name: str, *extra: str, handlers: Path | None = SINK_HANDLERS, **settings: Any) -> DaemonProcess:
        """Start a daemon of this name, again on the same directory if it was there before."""
        if name not in self.daemons:
            self.daemons[name] = DaemonProcess(self.directory / name, handlers, settings=self.settings | settings)
        return self.daemons[name].start(*extra)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for daemon in self.daemons.values():
            daemon.close()
        self.connection.close()

    def starts(self) -> Counter[str]:
        """Count how often each event's handler was started, on whichever daemon."""
        total: Counter[str] = Counter()
        for daemon in self.daemons.values():
            total += started(daemon.directory)
        return total

    def lines(self) -> int:
        """Count the lines that all handlers have written, about two for each event."""
        sinks = [daemon.directory / "sink.txt" for daemon in self.daemons.values()]
        return sum(sink.read_bytes().count(b"\n") for sink in sinks if sink.exists())

    def rows(self) -> dict[str, tuple[str, int]]:
        """Return event id -> (state, starts), as the database has it."""
        return {row["id"]: (row["state"], row["starts"]) for row in self.table("events")}

    def held_by(self, owner_prefix: str) -> dict[str, int]:
        """Return event id -> starts of what owners whose name begins like this have under a lease."""
        rows = self.select("SELECT id, starts FROM {}.events WHERE starts_with(lease_owner, $1)", owner_prefix)
        return {row["id"]: row["starts"] for row in rows}

    def handed_out(self, ids: Collection[str]) -> dict[str, int]:
        """Return event id -> starts for these events."""
        rows = self.select("SELECT id, starts FROM {}.events WHERE id = ANY ($1)", list(ids))
        return {row["id"]: row["starts"] for row in rows}

    def attempts(self) -> dict[str, list[str]]:
        """Return event id -> the outcomes of its attempts, in order."""
        ids = {row["seq"]: row["id"] for row in self.table("events")}
        outcomes: dict[str, list[str]] = {event_id: [] for event_id in ids.values()}
        for row in sorted(self.table("attempts"), key=lambda row: int(row["token"])):
            outcomes[ids[row["event_seq"]]].append(row["outcome"])
        return outcomes

    def table(self, name: str) -> list[Any]:
        """Read a table past all daemons."""
        return self.select(f"SELECT * FROM {{}}.{name}")

    def select(self, sql: str, *parameters: Any) -> list[Any]:
        """Read from the daemons' tables, whose schema stands for {} in the statement, past all daemons."""
        return self.connection.query(sql.replace("{}", self.store_url.partition("search_path=")[2]), *parameters)


class Sender(threading.Thread):
    """Sends keyed events to one daemon after the other until each is acknowledged by one of them."""

    def __init__(self, daemons: list[DaemonProcess], events: list[dict[str, Any]]) -> None:
        super().__init__(daemon=True)
        self.clients = [daemon.client() for daemon in daemons]
        self.events = events
        self.acknowledged: list[str] = []

    def run(self) -> None:
        for start in range(0, len(self.events), EVENTS_PER_REQUEST):
            some = self.events[start : start + EVENTS_PER_REQUEST]
            for turn in range(200):
                client = self.clients[(start // EVENTS_PER_REQUEST + turn) % len(self.clients)]
                try:
                    answer = client.request("POST", "/api/events/bulk", bulk(some))
                except (OSError, HTTPException):
                    continue
                if answer.status == 200 and answer.json()["rejected"] == 0:
                    self.acknowledged += [item["id"] for item in answer.json()["items"]]
                    break
        for client in self.clients:
            client.close()


def node_of(daemon: DaemonProcess) -> str:
    """Return the name a daemon goes by among the others."""
    return (daemon.data_dir / "node").read_text().strip()


def bulk(events: list[dict[str, Any]]) -> bytes:
    """Return the body of a bulk request."""
    return json.dumps(events).encode()


def event(key: str, event_type: str = "quick", **payload: Any) -> dict[str, Any]:
    """Return an event to send."""
    return {"workflow_id": "workflow", "event_type": event_type, "idempotency_key": key, "payload": payload}
