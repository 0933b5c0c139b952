"""A small daemon to talk to: keeps events in memory, answers in the shapes of the API, and fails on request."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from aiohttp import web

Fault = Callable[[web.Request], Awaitable[web.StreamResponse]]
LEDGER = "accepted 3 = succeeded 2 + dead_lettered 1 + open 0 · lost 0"


def problem(status: int, title: str, detail: str = "", retry_after: str | None = None, **members: Any) -> web.Response:
    """Return a problem+json answer."""
    document = {"title": title, "status": status, "detail": detail, **members}
    headers = {"Retry-After": retry_after} if retry_after else {}
    return web.Response(
        body=msgspec.json.encode(document), status=status, content_type="application/problem+json", headers=headers
    )


class FakeApi:
    """Runs in a thread of its own. `faults` are used up first, one for each request."""

    def __init__(self) -> None:
        self.events: dict[str, dict[str, Any]] = {}
        self.bodies: list[bytes] = []
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.peers: list[object] = []
        self.headers: list[dict[str, str]] = []
        self.faults: list[Fault] = []
        self.replays: dict[str, dict[str, Any]] = {}
        self.gone: list[str] = []  # signals that no replay can give back
        self.converged = True
        self.apart: dict[str, int] = {}
        self.url = ""
        self.port = 0
        self.loop = asyncio.new_event_loop()
        self.ready = threading.Event()
        self.thread = threading.Thread(target=self.serve, daemon=True)

    def __enter__(self) -> "FakeApi":
        self.thread.start()
        assert self.ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)

    def serve(self) -> None:
        asyncio.set_event_loop(self.loop)
        runner = web.AppRunner(self.app())
        self.loop.run_until_complete(runner.setup())
        site = web.TCPSite(runner, "127.0.0.1", self.port)
        self.loop.run_until_complete(site.start())
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        self.ready.set()
        self.loop.run_forever()
        self.loop.run_until_complete(runner.cleanup())
        self.loop.close()

    def app(self) -> web.Application:
        app = web.Application(middlewares=[self.record], client_max_size=1 << 26)
        app.add_routes(
            [
                web.post("/api/events", self.post_event),
                web.post("/api/events/bulk", self.post_bulk),
                web.get("/api/events", self.list_events),
                web.get("/api/events/{id}", self.show_event),
                web.get("/api/events/{id}/steps", self.list_steps),
                web.get("/api/events/{id}/why", self.show_why),
                web.post("/api/{kind:events|deadletters}/{id}/{action}", self.act),
                web.get("/api/deadletters", self.groups),
                web.post("/api/replays", self.post_replay),
                web.get("/api/replays", self.list_replays),
                web.get("/api/replays/{id}", self.show_replay),
                web.post("/api/replays/{id}/{verb:pause|resume|cancel}", self.move_replay),
                web.get("/api/convergence", self.convergence),
                web.get("/api/workflows/{id}", self.workflow),
                web.get("/api/workflows/{id}/timeline", self.timeline),
            ]
        )
        return app

    @web.middleware
    async def record(self, request: web.Request, handler: Callable[..., Awaitable[web.StreamResponse]]) -> Any:
        self.requests.append((request.method, request.path, dict(request.query)))
        self.peers.append(request.transport and request.transport.get_extra_info("peername"))
        self.headers.append(dict(request.headers))
        self.bodies.append(await request.read())
        return await (self.faults.pop(0) if self.faults else handler)(request)

    def add(self, event_id: str, status: str = "dead_lettered", **fields: Any) -> None:
        self.events[event_id] = {
            "id": event_id,
            "status": status,
            "event_type": "payment.authorized",
            "workflow_id": "order-1",
            "attempt_count": 2,
            "max_attempts": 10,
            "run": 1,
            "created_at": "2026-01-01T00:00:00.000000Z",
            "updated_at": "2026-01-01T00:00:00.000000Z",
            "payload": {"amount": 12},
            "metadata": {},
            **fields,
        }

    def accept(self, body: bytes) -> dict[str, Any]:
        """Keep one event, or return the problem it has."""
        try:
            event = msgspec.json.decode(body)
        except msgspec.DecodeError as error:
            return {"problem": {"title": "Malformed", "status": 400, "detail": str(error)}}
        event_id = event.get("idempotency_key") or f"event-{len(self.events)}"
        duplicate = event_id in self.events
        self.events.setdefault(event_id, {**event, "id": event_id, "status": "received"})
        return {"id": event_id, "status": "received", "duplicate": duplicate}

    async def post_event(self, request: web.Request) -> web.StreamResponse:
        answer = self.accept(await request.read())
        event = self.events[answer["id"]] | answer
        return web.json_response(event, status=200 if answer["duplicate"] else 201)

    async def post_bulk(self, request: web.Request) -> web.StreamResponse:
        lines = (await request.read()).splitlines()
        answers = [{"index": index} | self.accept(line) for index, line in enumerate(lines)]
        body = b"".join(msgspec.json.encode(answer) + b"\n" for answer in answers)
        return web.Response(body=body, content_type="application/x-ndjson")

    async def list_events(self, request: web.Request) -> web.StreamResponse:
        """Page by position, so that a cursor has a meaning."""
        status = request.query.get("status")
        found = [event for event in self.events.values() if status in (None, event["status"])]
        start, limit = int(request.query.get("cursor", 0)), int(request.query.get("limit", 50))
        more = len(found) > start + limit
        page = {"items": found[start : start + limit], "next_cursor": str(start + limit) if more else None}
        return web.json_response(page | {"has_more": more})

    async def list_steps(self, request: web.Request) -> web.StreamResponse:
        return web.json_response({"items": self.events[request.match_info["id"]]["steps"], "has_more": False})

    async def show_why(self, request: web.Request) -> web.StreamResponse:
        return web.json_response({"id": request.match_info["id"], "sentence": "It is due at noon."})

    async def show_event(self, request: web.Request) -> web.StreamResponse:
        event_id = request.match_info["id"]
        if event_id not in self.events:
            return problem(404, "There is nothing of this name", f"No event {event_id}.")
        attempt = {
            "run": 1,
            "attempt_number": 2,
            "outcome": "timed_out",
            "started_at": "2026-01-01T00:00:01.000000Z",
            "finished_at": "2026-01-01T00:00:02.000000Z",
            "worker_name": "worker-3",
            "error": "no answer",
        }
        return web.json_response(self.events[event_id] | {"attempts": [attempt]})

    async def act(self, request: web.Request) -> web.StreamResponse:
        event_id = request.match_info["id"]
        if event_id not in self.events:
            return problem(409, "The state has changed meanwhile", f"{event_id} is not a dead letter.")
        self.events[event_id]["status"] = f"after {request.match_info['action']}"
        return web.json_response({"id": event_id, "gone": self.gone}, status=202)

    async def groups(self, request: web.Request) -> web.StreamResponse:
        group = {"group": "TimeoutError: N s", "count": 28, "first_at": "2026-01-01T00:00:00Z", "last_at": None}
        return web.json_response({"group_by": request.query["group_by"], "items": [group]})

    async def post_replay(self, request: web.Request) -> web.StreamResponse:
        """Say what would be taken, or make a bulk replay that takes two events at each look."""
        asked = msgspec.json.decode(await request.read())
        found = [event["id"] for event in self.events.values() if event["status"] == "dead_lettered"]
        total = min(len(found), asked.get("max", 200_000))
        if asked.get("dry_run"):
            groups = [{"group": "TimeoutError: N s", "count": len(found)}] if found else []
            answer = {"count": len(found), "more": False, "would_replay": total, "sample": found, "groups": groups}
            answer["effects_again"] = 0
            return web.json_response(answer)
        if asked["expected_count"] != len(found):
            return problem(409, "The state has changed meanwhile", f"{len(found)} fit now.")
        figures = dict.fromkeys(("replayed", "skipped", "succeeded", "dead_lettered", "superseded", "open"), 0)
        made = {"id": f"rpl_{len(self.replays) + 1}", "status": "running", "note": "", "reason": asked["reason"]}
        times = {"created_at": "2026-01-01T00:00:00Z", "updated_at": "2026-01-01T00:00:00Z"}
        job = made | figures | times | {"total": total, "waiting": total, "rate_per_second": None}
        self.replays[job["id"]] = job
        return web.json_response(job, status=202)

    async def list_replays(self, request: web.Request) -> web.StreamResponse:
        return web.json_response({"items": list(self.replays.values()), "next_cursor": None, "has_more": False})

    async def show_replay(self, request: web.Request) -> web.StreamResponse:
        if request.match_info["id"] not in self.replays:
            return problem(404, "There is nothing of this name", "No such bulk replay.")
        job = self.replays[request.match_info["id"]]
        if job["status"] == "running":
            step = min(2, job["waiting"])
            job["waiting"] -= step
            job["replayed"] += step
            job["open"] += step
            job["status"] = "running" if job["waiting"] else "done"
        elif job["open"]:
            job["succeeded"], job["open"] = job["succeeded"] + job["open"], 0
        return web.json_response(job)

    async def move_replay(self, request: web.Request) -> web.StreamResponse:
        job = self.replays[request.match_info["id"]]
        job["status"] = {"pause": "paused", "resume": "running", "cancel": "cancelled"}[request.match_info["verb"]]
        job["note"] = f"{request.match_info['verb']} by hand"
        return web.json_response(job)

    async def convergence(self, request: web.Request) -> web.StreamResponse:
        issues = [] if self.converged else ["2 events are queued"]
        return web.json_response(
            {"converged": self.converged, "issues": issues, "ledger_in_words": LEDGER, **self.apart}
        )

    async def workflow(self, request: web.Request) -> web.StreamResponse:
        totals = {"total_events": 3, "succeeded": 2, "failed": 0, "dead_lettered": 1, "in_flight": 0}
        return web.json_response({"workflow_id": request.match_info["id"], **totals, "last_updated_at": None})

    async def timeline(self, request: web.Request) -> web.StreamResponse:
        return web.json_response({"events": list(self.events.values())})


def refusing(status: int, title: str, detail: str = "", **members: Any) -> Fault:
    """Return a fault: nothing is done, the answer is a problem."""

    async def refuse(request: web.Request) -> web.StreamResponse:
        return problem(status, title, detail, **members)

    return refuse


async def hang_up(request: web.Request) -> web.StreamResponse:
    """Close the connection without an answer."""
    assert request.transport is not None
    request.transport.close()
    return web.Response()


def breaking_off(api: FakeApi, answers: int) -> Fault:
    """Return a fault: everything is accepted, and the connection closes after so many answers."""

    async def break_off(request: web.Request) -> web.StreamResponse:
        lines = (await request.read()).splitlines()
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        for index, line in enumerate(lines):
            answer = {"index": index} | api.accept(line)
            if index < answers:
                await response.write(msgspec.json.encode(answer) + b"\n")
        await asyncio.sleep(0)
        assert request.transport is not None
        request.transport.close()
        return response

    return break_off
