"""Traces: the context that a request came with goes to handlers and endpoints, and spans of it to a collector."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from replayforge import Context, Event, Handlers
from tests.support.daemon_process import DaemonProcess, until
from tests.support.house import open_house
from tests.support.sink import QUICK

TRACE, CLIENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
HEADERS = {"traceparent": f"00-{TRACE}-{CLIENT}-01", "tracestate": "vendor=1"}
JSON = {"Content-Type": "application/json"}
OTHERS = {"traceparent": f"00-{TRACE[::-1]}-{CLIENT}-01"}
EVENT = {"workflow_id": "w", "event_type": "order.placed", "idempotency_key": "k"}
TRACED = Path(__file__).parents[1] / "data" / "traced_handlers.py"


class Collector(ThreadingHTTPServer):
    """Takes spans by OTLP, and events as an endpoint does; keeps both."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Taker)
        self.spans: list[bytes] = []
        self.headers: list[dict[str, str]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Taker(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        assert isinstance(self.server, Collector)
        if self.path == "/v1/traces":
            self.server.spans.append(body)
        else:
            self.server.headers.append({name.lower(): value for name, value in self.headers.items()})
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


async def test_the_trace_of_a_request_is_handed_on(tmp_path: Path, collector: Collector) -> None:
    """Without anything that makes spans, handlers and endpoints get the headers as they came, children too."""
    handlers = Handlers()

    @handlers.on("order.placed")
    async def place(event: Event, ctx: Context) -> dict[str, str]:
        await ctx.send("order.shipped")
        return ctx.trace_headers

    @handlers.on("shop")
    def receive(event: Event, ctx: Context) -> dict[str, str]:
        return ctx.trace_headers

    settings = {
        "handlers.http": [{"match": "order.shipped", "url": collector.url, "allow_private": True}],
        "sources": [{"name": "shop", "preset": "none"}],
    }
    async with open_house(tmp_path, handlers, settings) as house:
        status, sent = await house.post("/api/events", EVENT, headers=HEADERS)
        assert status == 201
        done = await house.reaches(sent["id"], "succeeded")
        assert (done["result"], done["trace_id"]) == (HEADERS, TRACE)
        async with house.http.get(f"/events/{sent['id']}") as page:
            assert TRACE in await page.text()
        status, again = await house.post("/api/events", EVENT, headers=OTHERS)
        assert (status, again["id"]) == (200, sent["id"])
        lines = b'{"workflow_id": "b", "event_type": "order.shipped"}\n'
        kind = {"Content-Type": "application/x-ndjson"}
        await house.http.post("/api/events/bulk", data=lines, headers=HEADERS | kind)
        async with house.http.post("/in/shop", json={}, headers=HEADERS) as response:
            delivered = response.headers["ReplayForge-Event-Id"]
        assert (await house.reaches(delivered, "succeeded"))["result"] == HEADERS
        assert (await house.reaches(await house.send("shop"), "succeeded"))["result"] == {}
        await house.converges()
    assert [{name: one.get(name) for name in HEADERS} for one in collector.headers] == [HEADERS] * 2


def test_one_trace_from_the_client_to_the_endpoint(tmp_path: Path, collector: Collector) -> None:
    """Request, attempts, steps, what a handler's code begins itself, and the child's attempt are spans of one trace."""
    pytest.importorskip("opentelemetry.sdk", reason="replayforge[otel] is not installed: no span was looked at")
    daemon = DaemonProcess(tmp_path, TRACED, settings=QUICK)
    daemon.settings["handlers.http"] = [{"match": "order.shipped", "url": collector.url, "allow_private": True}]
    daemon.variables |= {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "100"}
    with daemon:
        daemon.start()
        assert (
            daemon.http.request("POST", "/api/events", json.dumps(EVENT).encode(), headers=HEADERS | JSON).status == 201
        )
        until(lambda: collector.headers, 20, "the endpoint to be asked")
        daemon.terminate()
    assert "opentelemetry" not in daemon.stderr.read_text()
    spans = spans_of(collector)
    by_name = {span.name: span for span in spans}
    failed, fine = sorted(
        (one for one in spans if one.name == "attempt order.placed"), key=lambda one: one.start_time_unix_nano
    )
    parents = {span.name: span.parent_span_id.hex() for span in spans} | {"first": failed.parent_span_id.hex()}
    request = by_name["POST /api/events"].span_id.hex()
    assert {span.trace_id.hex() for span in spans} == {TRACE}
    assert parents == {
        "POST /api/events": CLIENT,
        "first": request,
        "attempt order.placed": request,
        "step charge": fine.span_id.hex(),
        "bank": by_name["step charge"].span_id.hex(),
        "attempt order.shipped": fine.span_id.hex(),
    }
    assert (failed.status.message, fine.status.code) == ("ConnectionError: the bank is closed", 0)
    (asked,) = collector.headers
    assert asked["traceparent"] == f"00-{TRACE}-{by_name['attempt order.shipped'].span_id.hex()}-01"
    assert asked["tracestate"] == HEADERS["tracestate"]


def spans_of(collector: Collector) -> list[Any]:
    """Return the spans that were sent."""
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    sent = [ExportTraceServiceRequest.FromString(body) for body in collector.spans]
    return [
        span
        for one in sent
        for resource in one.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]
