"""Handlers that do not end: settled, counted, named, kept from taking more, and forgiven when they end."""

import asyncio
import threading
from pathlib import Path

from replayforge import Context, Event, Handlers
from tests.support.house import open_house


async def test_handler_that_does_not_end_stops_nobody(tmp_path: Path) -> None:
    """Its attempts are timed out, it is named and given no more; others go on, and so does it once it has ended."""
    handlers, gate = Handlers(), threading.Event()

    @handlers.on("stuck", timeout_seconds=0.25, max_attempts=1)
    def hang(event: Event, context: Context) -> str:
        gate.wait()
        return "late"

    @handlers.on("honest")
    async def honest(event: Event, context: Context) -> str:
        return "done"

    async with open_house(tmp_path, handlers, {"workers.count": 2}) as house:
        for _ in range(2):
            event = await house.reaches(await house.send("stuck"), "dead_lettered")
            assert event["attempts"][0]["outcome"] == "timed_out"
        third = await house.send("stuck")
        assert (await house.reaches(await house.send("honest"), "succeeded"))["result"] == "done"
        await house.reaches(third, "queued")
        why = await house.get(f"/api/events/{third}/why")
        assert (why["cause"], why["handler"]) == ("stuck_handler", "stuck")
        assert why["sentence"].startswith("2 attempts of its handler stuck do not end, and it is given no more")
        (issue,) = [one for one in (await house.get("/api/convergence"))["issues"] if "does not end" in one]
        assert issue.startswith("The handler stuck does not end: 2 of its attempts")
        assert issue.endswith("It is given no more events until one of them ends.")
        ready = await house.get("/health/ready")
        assert (ready["status"], ready["checks"]["handlers"]["status"]) == ("degraded", "degraded")
        async with house.http.get("/metrics") as response:
            assert 'replayforge_handler_running_on{handler="stuck",kind="thread"} 2.0' in await response.text()
        async with house.http.get("/") as response:
            assert "does not end" in await response.text()
        gate.set()  # and nothing else: what waits goes on by itself
        assert (await house.reaches(third, "succeeded"))["result"] == "late"
        await house.probe.saw("attempt.ended_late", 2)
        assert [one for one in (await house.get("/api/convergence"))["issues"] if "does not end" in one] == []


async def test_every_failed_attempt_is_told(tmp_path: Path) -> None:
    """A failed attempt is told with id, type, attempt of how many, error, next time, and a traceback of the user's."""
    handlers = Handlers()

    @handlers.on("failing", max_attempts=2)
    async def fail(event: Event, context: Context) -> None:
        raise ValueError("no such order")

    async with open_house(tmp_path, handlers) as house:
        event = await house.reaches(event_id := await house.send("failing"), "dead_lettered")
        first, last = house.probe.fields("attempt.failed")
        assert (first["event_id"], first["event_type"], first["attempt"], first["attempts_max"]) == (
            event_id, "failing", 1, 2,
        )  # fmt: skip
        assert first["error"] == "ValueError: no such order"
        assert first["next_at"]
        assert last["next_at"] is None
        for trace in (first["exception"], event["last_error"]):
            assert trace.count("File ") == 1
            assert 'test_strays.py", line' in trace


async def test_hung_executor_calls_hold_up_nothing_of_ours(tmp_path: Path) -> None:
    """Threads that handlers share are theirs: with all those of the machine's default taken, retries go on."""
    handlers, gate = Handlers(), threading.Event()

    @handlers.on("hung", timeout_seconds=0.05, max_attempts=1)
    async def hang(event: Event, context: Context) -> None:
        await asyncio.to_thread(gate.wait)

    @handlers.on("flaky")
    async def flaky(event: Event, context: Context) -> str:
        if event.attempt == 1:
            raise ValueError("once")
        return await asyncio.to_thread(str, "done")

    async with open_house(tmp_path, handlers) as house:
        for event_id in await house.send_many(8, "hung"):
            await house.reaches(event_id, "dead_lettered")
        assert (await house.reaches(await house.send("flaky"), "succeeded"))["result"] == "done"
        assert "8 threads" in " ".join((await house.get("/api/convergence"))["issues"])
        gate.set()
