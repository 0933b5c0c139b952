"""A whole daemon inside the test's process, with its HTTP port, a probe, and settings that do not make a test wait."""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import ClientResponse, web
from aiohttp.test_utils import TestClient, TestServer

from replayforge.assembly import Daemon, opened
from replayforge.config import Config, load_config
from replayforge.config.sources import environment_of
from replayforge.daemon import web_context
from replayforge.engine.handlers.registry import Handlers
from replayforge.telemetry import Telemetry
from replayforge.web.app import build_app
from replayforge.web.http.connection import ConnectionLimits, Runner, runner_of
from tests.support.polling import persist
from tests.support.probe import Probe

QUICK: dict[str, Any] = {
    "retry.base_seconds": 0.01,
    "janitor.promote_seconds": 0.02,
    "janitor.refill_seconds": 0.1,
    "workers.solo_seconds": 0.2,
    "workers.control_seconds": 0.3,
    "supervisor.grace_seconds": 2,
    "supervisor.restarts_max": 50,
}


@dataclass
class House:
    """A running daemon and what a test needs to look into it; its log ended at `logged_before` as the test began."""

    daemon: Daemon
    probe: Probe
    http: TestClient[Any, Any]
    logged_before: int = 0

    async def begin(self) -> "House":
        """Be as good as new to the next test that asks for no more than what it does itself."""
        self.logged_before += await self.logged()
        self.probe.forget()
        return self

    async def logged(self) -> int:
        """Return how many records were logged since the test began."""
        return int((await self.get("/forgelog/stats"))["last_offset"]) - self.logged_before

    async def send(self, event_type: str = "test", payload: Any = None, **fields: Any) -> str:
        """Send one event and return its id."""
        body = {"workflow_id": "workflow", "event_type": event_type, "payload": payload or {}, **fields}
        async with self.http.post("/api/events", json=body) as response:
            assert response.status in (200, 201), await response.text()
            return str((await response.json())["id"])

    async def send_many(self, count: int, event_type: str = "test", payload: Any = None) -> list[str]:
        """Send many events in as few requests as possible and return their ids."""
        ids: list[str] = []
        line = json.dumps({"workflow_id": "workflow", "event_type": event_type, "payload": payload or {}}).encode()
        body = b"\n".join([line] * count)
        async with self.http.post(
            "/api/events/bulk", data=body, headers={"Content-Type": "application/x-ndjson"}
        ) as response:
            ids.extend([json.loads(answer)["id"] async for answer in response.content])
        assert len(ids) == count
        return ids

    async def post(self, path: str, body: Any = None, **options: Any) -> tuple[int, Any]:
        """Post JSON, or nothing, and return status and answer."""
        if body is not None:
            options["json"] = body
        async with self.http.post(path, **options) as response:
            return response.status, await document(response)

    async def get(self, path: str, **options: Any) -> Any:
        """Return the JSON of a 200 answer."""
        async with self.http.get(path, **options) as response:
            assert response.status == 200, (response.status, await response.text())
            return await response.json()

    async def event(self, event_id: str) -> dict[str, Any]:
        """Return an event with its history."""
        found: dict[str, Any] = await self.get(f"/api/events/{event_id}")
        return found

    async def reaches(self, event_id: str, *states: str, timeout_seconds: float = 15) -> dict[str, Any]:
        """Return the event once it stands in one of the states."""

        async def look() -> dict[str, Any] | None:
            event = await self.event(event_id)
            return event if event["status"] in states else None

        found = await persist(look, timeout_seconds)
        assert found is not None
        return found

    async def converges(self, timeout_seconds: float = 20) -> dict[str, Any]:
        """Return the ledger once everything accepted has ended."""

        async def look() -> dict[str, Any] | None:
            async with self.http.get("/api/convergence") as response:
                if response.status == 503:  # the store is still on its way back
                    return None
                report = await document(response)
            return report["ledger"] if report["converged"] else None

        ledger = await persist(look, timeout_seconds)
        assert ledger is not None
        return ledger


async def document(response: ClientResponse) -> Any:
    """Return the JSON of an answer, which every answer of the API has."""
    return json.loads(await response.read())


def configuration(directory: Path, settings: Mapping[str, Any] | None = None) -> Config:
    """Return a configuration with quick intervals; `settings` go by keys such as "workers.count"."""
    chosen = QUICK | dict(settings or {})
    return load_config(Path("/dev/null"), environment_of(chosen), {"data_dir": str(directory)}).config


class PortServer(TestServer):
    """Serves as the daemon does, with its port before every connection."""

    def __init__(self, app: web.Application, limits: ConnectionLimits) -> None:
        super().__init__(app, host="127.0.0.1")
        self.limits = limits

    async def _make_runner(self, **_: Any) -> Runner:
        return await runner_of(self.app, limits=self.limits)


@asynccontextmanager
async def open_house(
    directory: Path,
    handlers: Handlers | None = None,
    settings: Mapping[str, Any] | None = None,
    limits: ConnectionLimits | None = None,
) -> AsyncIterator[House]:
    """Open, start and serve a daemon on a data directory; stop and close it at the end."""
    telemetry = Telemetry()
    probe = Probe(telemetry)
    config = configuration(directory, settings)
    async with opened(config, handlers=handlers or Handlers(), telemetry=telemetry) as daemon:
        app = build_app(web_context(daemon))
        async with TestClient(PortServer(app, limits or ConnectionLimits())) as client:
            daemon.callbacks.lead_to(str(client.make_url("")).rstrip("/") + config.server.base_path)
            daemon.start()
            await probe.saw("service.started", len(daemon.supervisor.guards))
            try:
                yield House(daemon, probe, client)
            finally:
                await daemon.stop()
