"""The Forge that users test their handlers with: a daemon in the test's process, moved through time and killed."""

import asyncio
import logging
import os
import re
import signal
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import aiohttp
import pytest

import replayforge
from replayforge import Context, Event, Handlers, Permanent, crashpoints
from replayforge.domain.errors import NotFound, Refused, Rejected
from replayforge.testing import Crashed, Forge, NotCrashed, NotEnded
from replayforge.threads import own_threads
from tests.support.polling import persist

Seen = list[Any]


def handlers_of(function: Callable[..., Any], pattern: str = "*", **rules: Any) -> Handlers:
    """Return handlers that are this function."""
    handlers = Handlers()
    handlers.on(pattern, **rules)(function)
    return handlers


async def until(condition: Callable[[], bool]) -> None:
    """Return once something is so that handlers bring about."""

    async def look() -> bool:
        return condition()

    await persist(look)


async def give_back(event: Event, context: Context) -> Any:
    return event.payload


async def test_what_was_sent_is_shown_as_it_stands() -> None:
    """An event is received, then it has ended, with what its handler returned and one attempt."""
    async with Forge(handlers_of(give_back)) as forge:
        event = await forge.send("order.placed", {"total": 12}, workflow_id="w-1", idempotency_key="k-1")
        assert event.status in ("received", "processing")
        assert await event.ended() is event
        assert (event.status, event.result, event.last_error, event.reason) == ("succeeded", {"total": 12}, None, None)
        assert [(one.outcome, one.run, one.number) for one in event.attempts] == [("succeeded", 1, 1)]
        again = await forge.send("order.placed", {"total": 12}, workflow_id="w-1", idempotency_key="k-1")
        assert (again.id, again.duplicate, event.duplicate) == (event.id, True, False)
        assert [one.id for one in await forge.events("order.*", workflow_id="w-1")] == [event.id]
        assert forge.event(event.id).workflow_id == "w-1"
        with pytest.raises(NotFound):
            forge.event("nobody")
        with pytest.raises(Rejected):
            await forge.send("")


async def test_a_plain_function_runs_too() -> None:
    """What a handler that is no coroutine returns is its result, also when that has to be awaited."""

    def plain(event: Event, context: Context) -> Any:
        return give_back(event, context) if event.payload else threading.current_thread() is threading.main_thread()

    async with Forge(handlers_of(plain)) as forge:
        now, later = await forge.send("now"), await forge.send("later", [1])
        await forge.settled()
        assert (now.result, later.result) == (False, [1])


async def test_each_retry_runs_at_its_own_time() -> None:
    """Time that is let pass goes from one retry to the next: each attempt finds the time it was due at."""
    times: list[datetime] = []

    async def fails_thrice(event: Event, context: Context) -> str:
        times.append(forge.now)
        if event.attempt <= 3:
            raise RuntimeError(f"no {event.attempt}")
        return "at last"

    async with Forge(handlers_of(fails_thrice), settings={"retry.jitter": 1}) as forge:
        began = forge.now
        event = await forge.send("flaky")
        with pytest.raises(NotEnded, match="is retrying until"):
            await event.ended()
        assert (event.attempt_count, len(times)) == (1, 1)
        assert "no 1" in (event.last_error or "")
        await forge.advance(days=3)
        assert (event.status, event.result, len(event.attempts)) == ("succeeded", "at last", 4)
        assert forge.now == began + timedelta(days=3)
    assert [(after - before).total_seconds() for before, after in pairwise(times)] == [2, 4, 8]


async def test_a_dead_letter_is_replayed() -> None:
    """What fails for good is a dead letter with its reason, and a replay of it is another run."""
    mended = False

    async def broken(event: Event, context: Context) -> int:
        if mended:
            return event.run
        raise Permanent("never")

    async with Forge(handlers_of(broken)) as forge:
        event = await forge.send("broken")
        assert (await event.ended()).reason == "permanent"
        assert event.status == "dead_lettered"
        mended = True
        await forge.replay(event)
        assert ((await event.ended()).result, event.run) == (2, 2)


async def test_what_is_scheduled_runs_at_its_time_and_not_before() -> None:
    """An event for a later day is scheduled until that day."""
    async with Forge(handlers_of(give_back)) as forge:
        event = await forge.send("reminder", run_at=forge.now + timedelta(days=3))
        await forge.advance(days=2, hours=23, minutes=59, seconds=59)
        assert event.status == "scheduled"
        await forge.advance(seconds=1)
        assert event.status == "succeeded"


@pytest.mark.parametrize(
    ("point", "status", "calls"),
    [
        ("dispatch.read", "received", 1),
        ("dispatch.committed", "queued processing", 1),  # by whether the daemon has looked for suspects
        ("attempt.started", "processing", 1),
        ("attempt.finished", "processing", 2),
        ("settle.committed", "succeeded", 1),
    ],
)
async def test_a_daemon_dies_at_a_crash_point(point: str, status: str, calls: int) -> None:
    """What was durable when the daemon died is all that there is, and the next one goes on from it."""
    seen: Seen = []

    async def note(event: Event, context: Context) -> None:
        seen.append(event.attempt)

    async with Forge(handlers_of(note)) as forge:
        forge.crash_at(point)
        event = await forge.send("test")
        await forge.crashed()
        assert event.status in status.split()
        with pytest.raises(Crashed, match=point):
            await forge.settled()
        await forge.restart()
        assert not forge.daemon.log.recovery.clean
        await forge.settled()
        assert (event.status, len(seen)) == ("succeeded", calls)


@pytest.mark.parametrize(("point", "calls"), [("step.started", 1), ("step.returned", 2), ("step.committed", 1)])
async def test_a_daemon_dies_within_a_step(point: str, calls: int) -> None:
    """What user code has called comes to its point, and nothing of it goes on; what was recorded is not done again."""
    seen: Seen = []

    async def effect() -> str:
        seen.append("effect")
        return "done"

    async def workflow(event: Event, context: Context) -> str:
        try:
            answer: str = await context.step("effect", effect)
            await context.sleep("night", 8 * 3600)
        except BaseException as error:
            seen.append(type(error).__name__)
            raise
        return answer

    async with Forge(handlers_of(workflow)) as forge:
        forge.crash_at(point)
        event = await forge.send("test")
        await forge.crashed()
        assert set(seen) <= {"effect"}
        await forge.restart()
        await forge.settled()
        assert (event.status, [(one.step, one.state) for one in event.steps]) == (
            "waiting",
            [("effect", "done"), ("night", "pending")],
        )
        await forge.advance(hours=8)
        assert (event.status, event.result, seen.count("effect")) == ("succeeded", "done", calls)


# What this workflow does not come to, or a daemon inside a test: it neither drains nor rolls its log.
ELSEWHERE = (
    "takeover.",
    "replay.",
    "recall.",
    "schedule.",
    "lane.",
    "alert.",
    "fanout.",
    "segment.",
    "retention.",
    "shutdown.",
    "recovery.",
)


@pytest.mark.parametrize("point", [one for one in crashpoints.POINTS if not one.startswith(ELSEWHERE)])
async def test_a_workflow_outlives_a_death_at_each_point(point: str) -> None:
    """With a step, a sleep, a signal and a child, a workflow comes to the same end wherever its daemon has died once.

    The child exists once, and the effect happens twice only when the death comes between its return and its record.
    """
    effects: Seen = []
    handlers = Handlers()
    handlers.signal("go")

    async def effect() -> int:
        effects.append(1)
        return 1

    @handlers.on("workflow")
    async def workflow(event: Event, context: Context) -> Any:
        first = await context.step("effect", effect)
        await context.sleep("nap", 3600)
        signal_taken = await context.wait_for("go")
        return [first, signal_taken.payload, await context.call("child", {"x": 3})]

    @handlers.on("child")
    async def child(event: Event, context: Context) -> Any:
        return event.payload["x"]

    async with Forge(handlers) as forge:
        deaths = 0

        async def again(act: Callable[[], Awaitable[Any]]) -> Any:
            nonlocal deaths
            try:
                return await act()
            except Crashed:
                deaths += 1
                await forge.restart()
                return await act()

        forge.crash_at(point)
        event = await again(lambda: forge.send("workflow", workflow_id="w", idempotency_key="workflow"))
        await again(lambda: forge.advance(hours=2))
        go = await again(lambda: forge.send("go", 2, workflow_id="w", idempotency_key="go"))
        await again(forge.settled)
        assert (event.status, event.result, go.status) == ("succeeded", [1, 2, 3], "succeeded")
        assert (deaths, len(effects), len(await forge.events("child"))) == (1, 1 + (point == "step.returned"), 1)


async def test_who_waits_for_a_daemon_that_dies_hears_of_it() -> None:
    """What a dead daemon would have had to do is not waited for: else a test would hang for good."""
    async with Forge(handlers_of(give_back)) as forge:
        forge.crash_at("attempt.finished")
        waiting = asyncio.create_task(forge.do(asyncio.Event().wait()))
        await forge.send("test")
        with pytest.raises(Crashed):
            await asyncio.wait_for(waiting, 5)


@pytest.mark.parametrize(("point", "accepted"), [("ingest.received", 0), ("log.appended", 1)])
async def test_a_daemon_dies_before_it_answers(point: str, accepted: int) -> None:
    """Whoever sends an event to a daemon that dies before its answer hears of that; the event may be durable."""
    async with Forge(handlers_of(give_back)) as forge:
        forge.crash_at(point)
        with pytest.raises(Crashed):
            await forge.send("test")
        await forge.restart()
        await forge.settled()
        assert [event.status for event in await forge.events()] == ["succeeded"] * accepted


async def test_a_crash_point_on_the_way_of_a_retry() -> None:
    """A point is passed as often as was said; what had been queued by then is found by the next daemon."""

    async def fails_twice(event: Event, context: Context) -> None:
        if event.attempt <= 2:
            raise RuntimeError

    async with Forge(handlers_of(fails_twice)) as forge:
        forge.crash_at("promote.committed:2")
        event = await forge.send("test")
        with pytest.raises(Crashed):
            await forge.advance(hours=1)
        assert (event.status, event.attempt_count) == ("queued", 2)
        await forge.restart()
        await forge.settled()
        assert event.status == "succeeded"
        with pytest.raises(NotCrashed):
            await forge.crashed()
        with pytest.raises(Refused):
            forge.crash_at("nowhere")


async def test_a_point_that_is_armed_after_a_death_is_where_the_next_daemon_dies() -> None:
    """However soon that one comes to it, in its start too."""
    async with Forge(handlers_of(give_back)) as forge:
        forge.crash_at("dispatch.committed")
        event = await forge.send("test", 17)
        await forge.crashed()
        forge.crash_at("attempt.started")

        async def go_on() -> None:
            await forge.restart()
            await forge.advance(minutes=1)

        with pytest.raises(Crashed, match=r"attempt\.started"):
            await go_on()
        await go_on()
        assert (event.status, event.result) == ("succeeded", 17)


async def test_in_flight_work_resumes_at_once() -> None:
    """What was in flight at a kill is started again by the next daemon, long before a lease of the first would end."""
    starts: Seen = []
    hold = asyncio.Event()

    async def slow(event: Event, context: Context) -> None:
        starts.append((event.id, forge.now))
        await hold.wait()

    async with Forge(handlers_of(slow), settings={"workers.lease_seconds": 600, "workers.solo_seconds": 0.01}) as forge:
        events = [await forge.send("test") for _ in range(8)]
        await until(lambda: len(starts) == 8)
        killed_at = forge.now
        await forge.restart()
        await until(lambda: len(starts) == 16)
        hold.set()
        await forge.settled()
        assert {event_id for event_id, _ in starts[8:]} == {event.id for event in events}
        assert {at - killed_at for _, at in starts[8:]} <= {timedelta(0), timedelta(seconds=1)}
        assert {(event.status, event.starts) for event in events} == {("succeeded", 2)}


async def test_code_of_a_killed_handler_does_not_go_on() -> None:
    """A kill runs no `finally` and no `except`, of the handler or of its tasks; an end in order does."""
    seen: Seen = []
    begun = asyncio.Event()

    async def child() -> None:
        try:
            begun.set()
            await asyncio.Event().wait()
        finally:
            seen.append("child")

    async def clean_up(event: Event, context: Context) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(child())
        except BaseException:
            seen.append("handler")
            raise

    async with Forge(handlers_of(clean_up)) as forge:
        await forge.send("test")
        await begun.wait()
        begun.clear()
        await forge.restart()
        await begun.wait()
        assert seen == []
    assert seen == ["child", "handler"]


async def test_forges_side_by_side_do_not_meet() -> None:
    """Each Forge has its own events, its own time and its own crash points, and the other lives on when it dies."""
    async with Forge(handlers_of(give_back)) as one, Forge(handlers_of(give_back)) as other:
        one.crash_at("settle.committed")
        before = other.now
        elsewhere = await other.send("test")
        await other.settled()
        event = await one.send("test")
        await one.crashed()
        await other.advance(days=1)
        assert (elsewhere.status, event.status) == ("succeeded", "succeeded")
        assert other.now - before == timedelta(days=1)
        assert one.now < other.now
        assert [found.id for found in await other.events()] == [elsewhere.id]


async def test_a_directory_that_was_given_stays(tmp_path: Path) -> None:
    """A second Forge on a directory goes on where the first one ended."""
    async with Forge(handlers_of(give_back), directory=tmp_path) as forge:
        event = await forge.send("test", 1, run_at=forge.now + timedelta(hours=1))
        await forge.settled()
    async with Forge(handlers_of(give_back), directory=tmp_path) as forge:
        await forge.advance(hours=2)
        assert forge.event(event.id).result == 1


async def test_who_waits_in_vain_is_told_what_for() -> None:
    """A handler that does not come to its end is named by its state when the patience is over."""
    hold = asyncio.Event()

    async def hang(event: Event, context: Context) -> None:
        await hold.wait()

    async with Forge(handlers_of(hang), patience_seconds=0.2) as forge:
        event = await forge.send("test")
        with pytest.raises(TimeoutError, match="1 processing"):
            await forge.settled()
        assert event.status == "processing"
        hold.set()
        assert (await event.ended()).status == "succeeded"


async def test_a_port_where_it_is_asked_for() -> None:
    """With `serve` the API answers, and what it is sent is seen by the test."""
    async with Forge(handlers_of(give_back), serve=True) as forge, aiohttp.ClientSession(forge.url) as client:
        body = {"workflow_id": "w", "event_type": "test", "payload": 7}
        async with client.post("/api/events", json=body) as response:
            event_id = (await response.json())["id"]
        await forge.settled()
        assert forge.event(event_id).result == 7


def process_state(loop: asyncio.AbstractEventLoop) -> dict[str, Any]:
    """Return what a Forge could have changed for everybody."""
    return {
        "threads": set(threading.enumerate()),
        "tasks": asyncio.all_tasks(loop),
        "task factory": loop.get_task_factory(),
        "exception handler": loop.get_exception_handler(),
        "executor": getattr(loop, "_default_executor", None),
        "signals": [signal.getsignal(number) for number in signal.valid_signals()],
        "logging": (list(logging.root.handlers), logging.root.level),
        "files": set(os.listdir("/proc/self/fd")),
        "crash points": dict(crashpoints.armed),
    }


def run(check: Callable[[], Any]) -> None:
    """Run as a script does that knows nothing of pytest."""
    asyncio.run(check())


def test_nothing_is_left_behind() -> None:
    """After a Forge, one that was killed too, loop and process are as they were, tasks and threads and files too."""

    async def check() -> None:
        loop = asyncio.get_running_loop()
        own_threads.dismiss()
        before = process_state(loop)
        for crash in (False, True):
            async with Forge(handlers_of(give_back), serve=True) as forge:
                forge.crash_at("settle.committed" if crash else "promote.committed")
                await forge.send("test")
                with suppress(Crashed):
                    await forge.settled()
                assert forge.directory.is_dir()
            assert not forge.directory.exists()
        await asyncio.sleep(0)
        assert process_state(loop) == before

    run(check)


def test_the_task_factory_of_the_test_is_kept() -> None:
    """Tasks of the test are made as it has them made, tasks of handlers by the Forge, and in the end all as before."""
    made: Seen = []

    def factory(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
        made.append(coroutine.__name__)
        return asyncio.Task(coroutine, loop=loop, **options)

    async def own_task() -> str:
        return "done"

    async def check() -> None:
        loop = asyncio.get_running_loop()
        loop.set_task_factory(factory)
        async with Forge(handlers_of(give_back)) as forge:
            assert await asyncio.create_task(own_task()) == "done"
            await (await forge.send("test")).ended()
        assert loop.get_task_factory() is factory
        assert "own_task" in made
        assert "tick" not in made

    run(check)


async def test_the_examples_of_the_document() -> None:
    """The tests that the document shows pass as they stand there."""
    document = (Path(replayforge.__file__).parent / "docs" / "testing.md").read_text()
    names: dict[str, Any] = {}
    for example in re.findall(r"^```python\n(.*?)^```$", document, re.MULTILINE | re.DOTALL):
        exec(example, names)
    tests = [test for name, test in names.items() if name.startswith("test_")]
    assert len(tests) == 3
    for test in tests:
        await test()
