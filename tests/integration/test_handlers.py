"""What handlers can do to the daemon, and what becomes of their events."""

import asyncio
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from replayforge import Context, Event, Handlers, Permanent, Retry
from replayforge.testing import Forge
from tests.support.house import House, open_house
from tests.support.polling import persist


class Rude(BaseException):
    """An error that `except Exception` does not see."""


class Unprintable(Exception):
    """An error whose own words raise."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


async def test_blocking_the_loop_longer_than_the_lease(tmp_path: Path) -> None:
    """A handler that blocks the event loop beyond its lease neither loses nor doubles an outcome."""
    handlers, starts = Handlers(), Counter[str]()

    @handlers.on("*")
    async def block(event: Event, context: Context) -> None:
        starts[event.id] += 1
        time.sleep(0.5 if event.payload.get("block") else 0)  # noqa: ASYNC251

    settings = {"workers.lease_seconds": 0.2, "workers.heartbeat_seconds": 0.05, "janitor.sweep_seconds": 0.05}
    async with open_house(tmp_path, handlers, settings) as house:
        ids = [await house.send("t", {"block": number % 3 == 0}) for number in range(9)]
        ledger = await house.converges()
        assert (ledger["succeeded"], ledger["lost"]) == (9, 0)
        assert starts == dict.fromkeys(ids, 1)
        assert house.probe.counts["attempt.fenced"] == house.probe.counts["attempt.reclaimed"] == 0
        for event_id in ids:
            assert len((await house.event(event_id))["attempts"]) == 1


@pytest.mark.parametrize("kind", ["coroutine", "thread"])
async def test_hanging_handler_is_timed_out_and_retried(tmp_path: Path, kind: str) -> None:
    """A handler that hangs past its time-out is `timed_out`, spends an attempt, and runs again."""
    handlers = Handlers()

    async def hang(event: Event, context: Context) -> str:
        await asyncio.sleep(60 if event.attempt == 1 else 0)
        return "done"

    def hang_thread(event: Event, context: Context) -> str:
        time.sleep(0.6 if event.attempt == 1 else 0)
        return "done"

    handlers.on("*", timeout_seconds=0.2)(hang if kind == "coroutine" else hang_thread)
    async with open_house(tmp_path, handlers) as house:
        event = await house.reaches(await house.send(), "succeeded")
        last, *before = [attempt["outcome"] for attempt in event["attempts"]]
        assert (last, {*before}, event["attempt_count"]) == ("succeeded", {"timed_out"}, len(before))
        assert "0.2 s" in event["attempts"][-1]["error"]


async def test_hanging_for_ever_is_a_dead_letter() -> None:
    """A handler that hangs each time ends as a dead letter after its attempts."""
    handlers = Handlers()

    @handlers.on("*", timeout_seconds=0.05, max_attempts=3)
    async def hang(event: Event, context: Context) -> None:
        await asyncio.Event().wait()

    async with Forge(handlers) as forge:
        event = await forge.send("test")
        await forge.advance(hours=1)
        assert event.reason == "attempts_exhausted"
        assert [attempt.outcome for attempt in event.attempts] == ["timed_out"] * 3


async def test_unknown_type_succeeds_after_the_handler_is_added(tmp_path: Path) -> None:
    """An unknown type is a `no_handler` dead letter, which succeeds after a restart with the handler and a replay."""
    async with Forge(Handlers(), directory=tmp_path) as forge:
        event = await (await forge.send("new.type", {"x": 1})).ended()
        assert (event.reason, event.attempt_count) == ("no_handler", 0)
        assert "new.type" in (event.last_error or "")
    handlers = Handlers()

    @handlers.on("new.*")
    async def new(event: Event, context: Context) -> Any:
        return event.payload

    async with Forge(handlers, directory=tmp_path) as forge:
        event = forge.event(event.id)
        await forge.settled()
        assert event.status == "dead_lettered"
        await forge.replay(event)
        await event.ended()
        assert (event.status, event.run, event.result) == ("succeeded", 2, {"x": 1})


async def die_by_exit(event: Event, context: Context) -> None:
    sys.exit(3)


def die_in_a_thread(event: Event, context: Context) -> None:
    sys.exit(3)


async def die_by_interrupt(event: Event, context: Context) -> None:
    raise KeyboardInterrupt


async def die_by_cancelling_itself(event: Event, context: Context) -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(0)


async def die_rudely(event: Event, context: Context) -> None:
    raise Rude("rude")


DEATHS = [die_by_exit, die_in_a_thread, die_by_interrupt, die_by_cancelling_itself, die_rudely]


@pytest.mark.parametrize("die", DEATHS, ids=lambda die: die.__name__)
async def test_worker_that_dies_is_replaced(tmp_path: Path, die: Any) -> None:
    """A handler that takes its worker along is charged with it: reclaimed at once, poison after three times."""
    handlers = Handlers()
    handlers.on("deadly")(die)

    @handlers.on("fine")
    async def fine(event: Event, context: Context) -> None:
        return None

    async with open_house(tmp_path, handlers, {"workers.count": 1, "supervisor.restarts_max": 0}) as house:
        deadly = await house.send("deadly")
        event = await house.reaches(deadly, "dead_lettered", timeout_seconds=5)
        assert (event["reason"], event["attempt_count"]) == ("poison", 0)
        assert [attempt["outcome"] for attempt in event["attempts"]] == ["crashed"] * 3
        assert (await house.reaches(await house.send("fine"), "succeeded"))["starts"] == 1
        assert not house.daemon.supervisor.failed.done(), "a crash charged to an event must not end the daemon"


async def test_forced_crash_is_reclaimed_at_once(tmp_path: Path) -> None:
    """`_force_crash` kills the worker coroutine; the event runs again at once and is poison after the third time."""
    async with open_house(tmp_path, echo(), {"chaos.enabled": True, "workers.lease_seconds": 600}) as house:
        event_id = await house.send("t", {"_force_crash": True})
        event = await house.reaches(event_id, "dead_lettered", timeout_seconds=5)
        assert (event["reason"], event["starts"]) == ("poison", 3)
        assert house.probe.counts["worker.crashed"] == 3
        workers = (await house.get("/api/workers"))["items"]
        assert {worker["status"] for worker in workers} == {"idle"}


def echo() -> Handlers:
    handlers = Handlers()

    @handlers.on("*")
    async def give_back(event: Event, context: Context) -> Any:
        return event.payload

    return handlers


async def test_flags_are_plain_data_without_simulation(tmp_path: Path) -> None:
    """Without simulated crashes the flags are payload like any other."""
    payload = {"_force_crash": True, "_force_exit": True, "_force_fail": True, "_force_hang": 60}
    async with open_house(tmp_path, echo()) as house:
        event = await house.reaches(await house.send("t", payload), "succeeded")
        assert event["result"] == payload


async def test_forced_failures_are_counted() -> None:
    """`_force_fail` = 2 fails the first two attempts."""
    async with Forge(echo(), settings={"chaos.enabled": True}) as forge:
        event = await forge.send("t", {"_force_fail": 2})
        await forge.advance(hours=1)
        assert (event.status, event.attempt_count, event.starts) == ("succeeded", 2, 3)


async def fail_often(event: Event, context: Context) -> None:
    raise RuntimeError(f"order {event.id} failed 17 times")


async def fail_for_good(event: Event, context: Context) -> None:
    raise Permanent("never again")


async def cancelled_inside(event: Event, context: Context) -> None:
    raise asyncio.CancelledError


async def no_json(event: Event, context: Context) -> object:
    return object()


async def unprintable(event: Event, context: Context) -> None:
    raise Unprintable


async def surrogate_error(event: Event, context: Context) -> None:
    raise RuntimeError("half a pair: \ud800")


async def retry_at_infinity(event: Event, context: Context) -> None:
    raise Retry(after=float("nan") if event.attempt == 1 else -5)


FAILURES = {
    "fail_often": (fail_often, "attempts_exhausted", ["failed"] * 3),
    "fail_for_good": (fail_for_good, "permanent", ["failed"]),
    "cancelled_inside": (cancelled_inside, "attempts_exhausted", ["failed"] * 3),
    "no_json": (no_json, "permanent", ["failed"]),
    "unprintable": (unprintable, "attempts_exhausted", ["failed"] * 3),
    "surrogate_error": (surrogate_error, "attempts_exhausted", ["failed"] * 3),
    "retry_at_infinity": (retry_at_infinity, "attempts_exhausted", ["failed"] * 3),
}


@pytest.mark.parametrize(("function", "reason", "outcomes"), FAILURES.values(), ids=FAILURES.keys())
async def test_failures(function: Any, reason: str, outcomes: list[str]) -> None:
    """A failing handler, however oddly it fails, spends attempts and ends as a dead letter with its error."""
    handlers = Handlers()
    handlers.on("*", max_attempts=3)(function)
    async with Forge(handlers) as forge:
        event = await forge.send("test")
        await forge.advance(hours=1)
        assert (event.status, event.reason) == ("dead_lettered", reason)
        assert [attempt.outcome for attempt in event.attempts] == outcomes
        assert event.last_error
        assert forge.daemon.telemetry.counts["worker.crashed"] == 0


async def test_retry_after_is_obeyed() -> None:
    """`Retry(after=…)` waits that long, not the backoff."""
    handlers = Handlers()

    @handlers.on("*")
    async def later(event: Event, context: Context) -> None:
        if event.attempt == 1:
            raise Retry(after=3600)

    async with Forge(handlers) as forge:
        event = await forge.send("test")
        await forge.advance(seconds=3599)
        assert (event.status, event.starts) == ("retrying", 1)
        await forge.advance(seconds=1)
        assert (event.status, event.attempt_count) == ("succeeded", 1)


@pytest.mark.parametrize("workers", [1, 16, 200])
async def test_so_many_workers(tmp_path: Path, workers: int) -> None:
    """With N workers N handlers run at once, never more, and never fewer while events wait."""
    handlers, running, seen = Handlers(), Counter[str](), set[int]()
    gate = asyncio.Event()

    @handlers.on("*")
    async def hold(event: Event, context: Context) -> None:
        running["now"] += 1
        seen.add(running["now"])
        if running["now"] == workers:
            gate.set()
        await gate.wait()
        await asyncio.sleep(0)
        running["now"] -= 1

    async with open_house(tmp_path, handlers, {"workers.count": workers}) as house:
        await house.send_many(workers * 2 + 5)
        assert (await house.converges())["succeeded"] == workers * 2 + 5
        assert max(seen) == workers


async def test_slow_handler_delays_nobody(tmp_path: Path) -> None:
    """While one handler takes long, everything else passes it by on the other worker."""
    handlers, gate = Handlers(), asyncio.Event()

    @handlers.on("slow")
    async def slow(event: Event, context: Context) -> None:
        await gate.wait()

    @handlers.on("quick")
    async def quick(event: Event, context: Context) -> None:
        return None

    async with open_house(tmp_path, handlers, {"workers.count": 2}) as house:
        slow_id = await house.send("slow")
        await house.reaches(slow_id, "processing")
        await house.send_many(500, "quick")
        await house.probe.saw("attempt.settled", 500)
        assert (await house.event(slow_id))["status"] == "processing"
        gate.set()
        await house.reaches(slow_id, "succeeded")


async def test_handlers_that_never_wait_leave_the_loop_its_turns(tmp_path: Path) -> None:
    """However many events lie ready for a worker, requests and timers have their turn after each of them."""
    handlers, began, turn = Handlers(), Counter[int](), 0

    @handlers.on("test")
    async def note(event: Event, context: Context) -> None:
        began[turn] += 1

    async def count_turns() -> None:
        nonlocal turn
        while began.total() < 300:
            turn += 1
            await asyncio.sleep(0)

    async with open_house(tmp_path, handlers, {"workers.count": 1}) as house:
        buffer = house.daemon.buffer
        buffer.room = lambda: 300  # type: ignore[method-assign]  # as after a while of many quick events
        async with asyncio.TaskGroup() as group:
            group.create_task(count_turns())
            await house.send_many(300)
    assert max(began.values()) <= 1


async def test_backlog_stays_in_the_store(tmp_path: Path) -> None:
    """A backlog of 2,000 never puts more than `entries_max` on the stream, nor in memory, and all of it ends."""
    handlers, gate, depths = Handlers(), asyncio.Event(), list[int]()

    @handlers.on("*")
    async def hold(event: Event, context: Context) -> None:
        await gate.wait()
        depths.append(await house.daemon.stream.depth())

    settings = {"stream.entries_max": 50, "workers.count": 20}
    async with open_house(tmp_path, handlers, settings) as house:
        for _ in range(2):
            await house.send_many(1000)
        await house.probe.saw("event.dispatched", 2_000)

        async def full() -> bool:
            return await house.daemon.stream.depth() >= 30

        await persist(full)
        assert len(house.daemon.buffer.leases.held) <= 20 + 256
        assert len(house.daemon.publisher.offered) <= 50
        assert len(house.daemon.intake.window) == 0
        gate.set()
        ledger = await house.converges(60)
        assert (ledger["succeeded"], ledger["lost"]) == (2_000, 0)
        assert max(depths) <= 50
        assert house.probe.counts["attempt.started"] == 2_000


async def test_held_after_a_crash() -> None:
    """An event whose handler says on_crash="hold" waits for a person after its worker died."""
    handlers = Handlers()

    @handlers.on("*", on_crash="hold")
    async def careful(event: Event, context: Context) -> None:
        sys.exit(1)

    async with Forge(handlers) as forge:
        event = await forge.send("test")
        await forge.settled()
        assert (event.status, event.starts) == ("held", 1)
        assert "held" in " ".join((await forge.do(forge.daemon.convergence.read())).issues)


@pytest.mark.parametrize("name", ["dispatcher", "publisher", "janitor", "reader", *(f"worker-{n}" for n in (1, 2, 3))])
@pytest.mark.parametrize("moment", ["idle", "under load"])
async def test_each_service_killed_once(tmp_path: Path, name: str, moment: str) -> None:
    """A service that is killed from inside is restarted, nothing is lost, and nothing ends twice."""
    handlers = Handlers()

    @handlers.on("*")
    async def brief(event: Event, context: Context) -> None:
        await asyncio.sleep(0.002)

    settings = {"workers.count": 3, "janitor.stream_idle_seconds": 0.5, "janitor.stream_reclaim_seconds": 0.2}
    async with open_house(tmp_path, handlers, settings) as house:
        if moment == "under load":
            await house.send_many(300)
            await house.probe.saw("attempt.settled", 10)
        house.daemon.supervisor.crash(name)
        await house.probe.saw("service.crashed")
        await house.send_many(100)
        ledger = await house.converges()
        total = 400 if moment == "under load" else 100
        assert (ledger["succeeded"], ledger["lost"], ledger["open"]) == (total, 0, 0)
        services = {one["name"]: one for one in (await house.get("/api/supervisor"))["services"]}
        assert services[name]["state"] == "running"
        assert services[name]["restarts"] == 1
        assert name in services[name]["last_error"]
        await no_run_ended_twice(house)


async def no_run_ended_twice(house: House) -> None:
    """See in the store that no run has two outcomes."""
    _, attempts = await house.daemon.store.timeline("workflow", 5000)
    ends = Counter((attempt.event_id, attempt.run) for attempt in attempts if attempt.ended_run)
    assert set(ends.values()) == {1}


async def test_a_service_that_always_crashes_ends_the_daemon(tmp_path: Path) -> None:
    """More crashes than allowed in the window end the daemon with the error, and the rest keeps running until then."""
    async with open_house(tmp_path, echo(), {"supervisor.restarts_max": 2}) as house:
        for count in range(1, 4):
            house.daemon.supervisor.crash("janitor")
            await house.probe.saw("service.crashed", count)
            if count < 3:
                await house.probe.saw("service.restarted", count)
        async with asyncio.timeout(5):
            error = await house.daemon.supervisor.failed
        assert "janitor" in str(error)
        await house.reaches(await house.send(), "succeeded")
