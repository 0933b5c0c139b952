"""What handlers do step by step: each step once, whatever comes between, and waits that hold no worker."""

import asyncio
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from replayforge import Cancelled, Context, Event, Handlers, Permanent, StepFailed, WaitTimedOut
from tests.support.house import House, open_house

calls: Counter[str] = Counter()
seen: list[Any] = []


@pytest.fixture(autouse=True)
def fresh() -> None:
    calls.clear()
    seen.clear()


async def effect(name: str, fails: int = 0, error: Callable[[str], BaseException] = RuntimeError) -> str:
    """An effect outside that fails so many times first."""
    calls[name] += 1
    if calls[name] <= fails:
        raise error(f"{name} fails")
    return f"{name} done"


def plain_effect(name: str) -> str:
    calls[name] += 1
    return f"{name} done in {threading.current_thread().name[:7]}"


@asynccontextmanager
async def running(tmp_path: Path, handler: Any, **options: Any) -> AsyncIterator[House]:
    settings = options.pop("settings", {})
    handlers = Handlers()
    for signal in options.pop("signals", ()):
        handlers.signal(signal)
    handlers.on("test", **options)(handler)

    @handlers.on("other")
    async def other(event: Event, ctx: Context) -> Any:
        if event.payload.get("fail"):
            raise Permanent("the child fails")
        return {"other": event.payload}

    async with open_house(tmp_path / "data", handlers, {"workers.count": 1, **settings}) as house:
        yield house


async def test_steps_are_not_taken_again_on_a_later_pass(tmp_path: Path) -> None:
    async def handler(event: Event, ctx: Context) -> Any:
        first = await ctx.step("first", effect, "first")
        second = await ctx.step("second", plain_effect, "second")
        seen.append((first, second, await ctx.now(), await ctx.random(), await ctx.uuid()))
        if event.attempt == 1 and len(seen) == 1:
            raise RuntimeError("between the steps")
        return [first, second]

    async with running(tmp_path, handler) as house:
        event = await house.reaches(await house.send(), "succeeded")
    assert event["result"] == ["first done", "second done in handler"]
    assert calls == {"first": 1, "second": 1}
    assert seen[:1] * 2 == seen


async def test_a_step_that_fails_is_tried_again_in_place_and_the_code_hears_nothing(tmp_path: Path) -> None:
    async def handler(event: Event, ctx: Context) -> Any:
        seen.append("pass")
        return await ctx.step("flaky", effect, "flaky", 2)

    async with running(tmp_path, handler) as house:
        event = await house.reaches(await house.send(), "succeeded")
    assert event["result"] == "flaky done"
    assert calls["flaky"] == 3
    assert seen == ["pass"]


async def test_a_failure_for_good_is_heard_and_can_be_compensated(tmp_path: Path) -> None:
    async def handler(event: Event, ctx: Context) -> Any:
        await ctx.step("reserve", effect, "reserve")
        try:
            await ctx.step("charge", effect, "charge", 99, attempts=2)
        except StepFailed as error:
            seen.append((error.step, error.type, error.message))
            await ctx.step("release", effect, "release")
            if len(seen) == 1:
                raise RuntimeError("once more") from None
            return {"ended": "not paid"}

    async with running(tmp_path, handler) as house:
        event = await house.reaches(await house.send(), "succeeded")
    assert event["result"] == {"ended": "not paid"}
    assert calls == {"reserve": 1, "charge": 2, "release": 1}
    assert seen == [("charge", "RuntimeError", "charge fails")] * 2


@pytest.mark.parametrize(
    ("step", "tries", "words"),
    [
        (lambda ctx: ctx.step("bad", effect, "bad", 99, attempts=3), 3, "RuntimeError: bad fails"),
        (lambda ctx: ctx.step("bad", effect, "bad", 99, Permanent), 1, "Permanent: bad fails"),
        (lambda ctx: ctx.step("bad", set_of, "bad"), 1, "bad_result: The step's result is not JSON"),
        (lambda ctx: ctx.step("bad", large, "bad"), 1, "bad_result: The step's result has 300,002 bytes"),
        (lambda ctx: ctx.step("bad", hangs, "bad", attempts=2, timeout_seconds=0.02), 2, "TimeoutError"),
    ],
)
async def test_a_failure_that_nobody_catches_is_a_dead_letter(
    tmp_path: Path, step: Any, tries: int, words: str
) -> None:
    async def handler(event: Event, ctx: Context) -> Any:
        await step(ctx)

    async with running(tmp_path, handler) as house:
        event = await house.reaches(await house.send(), "dead_lettered")
    assert event["reason"] == "step_failed"
    assert event["last_error"].startswith(f"StepFailed: The step 'bad' failed: {words}")
    assert calls["bad"] == tries


async def set_of(name: str) -> Any:
    calls[name] += 1
    return object()


async def large(name: str) -> str:
    calls[name] += 1
    return "x" * 300_000


async def hangs(name: str) -> None:
    calls[name] += 1
    await asyncio.sleep(60)


async def test_a_sleep_parks_and_holds_no_worker(tmp_path: Path) -> None:
    async def handler(event: Event, ctx: Context) -> Any:
        await ctx.step("before", effect, "before")
        try:
            await ctx.sleep("grace", 1.5)
        except Exception:
            seen.append("swallowed")
        finally:
            seen.append("finally")
        return await ctx.step("after", effect, "after")

    async with running(tmp_path, handler) as house:
        started = asyncio.get_running_loop().time()
        event_id = await house.send()
        await house.reaches(event_id, "waiting")
        assert seen == ["finally"]
        assert (await house.reaches(await house.send("other"), "succeeded"))["status"] == "succeeded"
        event = await house.reaches(event_id, "succeeded")
        assert asyncio.get_running_loop().time() - started >= 1.5
    assert event["result"] == "after done"
    assert calls == {"before": 1, "after": 1}
    assert seen == ["finally", "finally"]
    assert [attempt["outcome"] for attempt in event["attempts"]] == ["succeeded"]


async def test_a_handler_that_swallows_everything_is_parked_all_the_same(tmp_path: Path) -> None:
    async def handler(event: Event, ctx: Context) -> Any:
        try:
            await ctx.sleep("grace", 1.5)
        except BaseException as error:
            seen.append(type(error).__name__)
            try:
                await ctx.step("compensate", effect, "compensate")
            except BaseException as another:
                seen.append(type(another).__name__)
        return "done"

    async with running(tmp_path, handler) as house:
        event = await house.reaches(await house.send(), "succeeded")
    assert event["result"] == "done"
    assert seen == ["CancelledError", "Parking"]
    assert not calls


async def test_tasks_side_by_side_each_take_their_step_once(tmp_path: Path) -> None:
    async def handler(event: Event, ctx: Context) -> Any:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(ctx.step("label", effect, f"label-{n}", key=str(n))) for n in range(5)]
            group.create_task(ctx.sleep("pause", 1.1))
        return [task.result() for task in tasks]

    async with running(tmp_path, handler) as house:
        event = await house.reaches(await house.send(), "succeeded")
    assert event["result"] == [f"label-{n} done" for n in range(5)]
    assert set(calls.values()) == {1}


async def test_two_steps_of_one_name_at_once_are_refused_and_in_order_they_are_numbered(tmp_path: Path) -> None:
    async def handler(event: Event, ctx: Context) -> Any:
        in_order = [await ctx.step("one", effect, f"one-{n}") for n in range(3)]
        try:
            await asyncio.gather(ctx.step("two", effect, "two"), ctx.step("two", effect, "two"))
        except RuntimeError as error:
            seen.append(str(error))
        return in_order

    async with running(tmp_path, handler) as house:
        event = await house.reaches(await house.send(), "succeeded")
    assert event["result"] == ["one-0 done", "one-1 done", "one-2 done"]
    assert "key=" in seen[0]


async def test_a_recorded_failure_cancels_its_siblings_before_they_begin_anew(tmp_path: Path) -> None:
    async def slow(name: str) -> None:
        calls[name] += 1
        await asyncio.sleep(0.3)

    async def handler(event: Event, ctx: Context) -> Any:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(ctx.step("fails", effect, "fails", 99, attempts=1))
                group.create_task(ctx.step("slow", slow, "slow"))
        except* StepFailed:
            seen.append("failed")
        if len(seen) == 1:
            raise RuntimeError("once more")

    async with running(tmp_path, handler) as house:
        await house.reaches(await house.send(), "succeeded")
    assert calls == {"fails": 1, "slow": 1}
    assert seen == ["failed", "failed"]


async def test_plain_handlers_use_the_same_calls(tmp_path: Path) -> None:
    def handler(event: Event, ctx: Context) -> Any:
        first = ctx.step("first", effect, "first")
        try:
            ctx.sleep("grace", 1.5)
        finally:
            seen.append("finally")
        second = ctx.step("second", plain_effect, "second")
        return [first, second, ctx.random()]

    async with running(tmp_path, handler) as house:
        event_id = await house.send()
        await house.reaches(event_id, "waiting")
        event = await house.reaches(event_id, "succeeded")
    assert event["result"][:2] == ["first done", "second done in handler"]
    assert calls == {"first": 1, "second": 1}
    assert seen == ["finally", "finally"]


async def test_ctx_answers_nobody_after_its_attempt_and_no_stranger(tmp_path: Path) -> None:
    kept: list[Context] = []

    async def handler(event: Event, ctx: Context) -> Any:
        kept.append(ctx)
        await ctx.step("first", effect, "first")
        with pytest.raises(RuntimeError, match="only by its own handler"):
            await asyncio.to_thread(ctx.step, "second", effect, "second")

    async with running(tmp_path, handler) as house:
        await house.reaches(await house.send(), "succeeded")
        with pytest.raises(RuntimeError, match="has ended"):
            kept[0].step("late", effect, "late")
    assert calls == {"first": 1}


async def test_a_step_that_runs_once_and_was_cut_short_is_held_in_doubt(tmp_path: Path) -> None:
    async def handler(event: Event, ctx: Context) -> Any:
        await ctx.step("charge", hangs, "charge", once=True)

    async with running(tmp_path, handler, timeout_seconds=0.1) as house:
        event = await house.reaches(await house.send(), "held")
    assert event["reason"] == "in_doubt"
    assert "'charge'" in event["last_error"]
    assert calls == {"charge": 1}


async def test_a_step_waits_longer_than_a_second_parked_as_retrying(tmp_path: Path) -> None:
    async def handler(event: Event, ctx: Context) -> Any:
        return await ctx.step("flaky", effect, "flaky", 1)

    async with running(tmp_path, handler, settings={"retry.base_seconds": 1.5, "retry.jitter": 1}) as house:
        event_id = await house.send()
        event = await house.reaches(event_id, "retrying")
        assert event["attempts"] == []
        assert "flaky fails" in event["last_error"]
        event = await house.reaches(event_id, "succeeded")
    assert calls == {"flaky": 2}
    assert event["attempt_count"] == 0


async def test_a_signal_is_taken_whether_it_comes_before_or_after(tmp_path: Path) -> None:
    async def handler(event: Event, ctx: Context) -> Any:
        first = await ctx.wait_for("scanned")
        second = await ctx.wait_for("scanned")
        return [first.payload, second.payload]

    async with running(tmp_path, handler, signals=["scanned"]) as house:
        early = await house.send("scanned", {"n": 1})
        await house.reaches(early, "kept")
        event_id = await house.send()
        await house.reaches(event_id, "waiting")
        late = await house.send("scanned", {"n": 2})
        event = await house.reaches(event_id, "succeeded")
        taken = await house.reaches(early, "succeeded")
        await house.reaches(late, "succeeded")
    assert event["result"] == [{"n": 1}, {"n": 2}]
    assert taken["result"]["taken_by"] == event_id


async def test_a_wait_that_is_too_long_is_told_so_on_every_pass(tmp_path: Path) -> None:
    async def handler(event: Event, ctx: Context) -> Any:
        try:
            await ctx.wait_for("never", timeout_seconds=1.1)
        except WaitTimedOut:
            seen.append("timed out")
        if len(seen) == 1:
            raise RuntimeError("once more")
        return "none"

    async with running(tmp_path, handler, signals=["never"]) as house:
        event = await house.reaches(await house.send(), "succeeded")
    assert event["result"] == "none"
    assert seen == ["timed out"] * 2


async def test_the_first_of_several_waits_is_recorded_and_the_loser_keeps(tmp_path: Path) -> None:
    async def handler(event: Event, ctx: Context) -> Any:
        name, value = await ctx.first(a=ctx.wait_for("a"), b=ctx.wait_for("b"), late=ctx.sleep("late", 60))
        seen.append(name)
        return [name, value.payload]

    async with running(tmp_path, handler, signals=["a", "b"]) as house:
        b = await house.send("b", {"n": 2})
        await house.reaches(b, "kept")
        a = await house.send("a", {"n": 1})
        await house.reaches(a, "kept")
        event = await house.reaches(await house.send(), "succeeded")
        assert (await house.event(b))["status"] == "kept"
    assert event["result"] == ["a", {"n": 1}]


async def test_a_child_is_sent_once_and_its_outcome_comes_back(tmp_path: Path) -> None:
    async def handler(event: Event, ctx: Context) -> Any:
        child = await ctx.send("other", {"n": 1})
        called = await ctx.call("other", {"n": 2})
        seen.append((child, called))
        if len(seen) == 1:
            raise RuntimeError("once more")
        return [child, called]

    async with running(tmp_path, handler) as house:
        event = await house.reaches(await house.send(), "succeeded")
        await house.converges()
        totals = await house.get("/api/workflows/workflow")
        child = await house.event(event["result"][0])
    assert event["result"][1] == {"other": {"n": 2}}
    assert seen[0] == seen[1]
    assert totals["total_events"] == 3
    assert child["status"] == "succeeded"


async def test_a_dead_child_keeps_its_parent_waiting_and_a_discarded_one_fails_the_step(tmp_path: Path) -> None:
    async def handler(event: Event, ctx: Context) -> Any:
        try:
            return await ctx.call("other", {"fail": True})
        except StepFailed as error:
            return error.type

    async with running(tmp_path, handler) as house:
        event_id = await house.send()
        await house.reaches(event_id, "waiting")
        dead = (await house.get("/api/events?status=dead_lettered"))["items"]
        assert [event["event_type"] for event in dead] == ["other"]
        assert (await house.event(event_id))["status"] == "waiting"
        status, _ = await house.post(f"/api/deadletters/{dead[0]['id']}/discard", {"reason": "no use"})
        assert status in (200, 202, 204)
        event = await house.reaches(event_id, "succeeded")
    assert event["result"] == "StepFailed"


async def test_a_parked_event_is_cancelled_at_once_and_a_running_one_at_its_next_call(tmp_path: Path) -> None:
    async def handler(event: Event, ctx: Context) -> Any:
        try:
            await ctx.sleep("long", 3600)
        except Cancelled:
            seen.append("never")
            raise

    async with running(tmp_path, handler) as house:
        event_id = await house.send()
        await house.reaches(event_id, "waiting")
        status, _ = await house.post(f"/api/events/{event_id}/cancel", {"reason": "no use"})
        assert status in (200, 202)
        await house.reaches(event_id, "cancelled")
    assert seen == []


async def test_a_run_ends_at_its_deadline_though_it_is_parked(tmp_path: Path) -> None:
    async def handler(event: Event, ctx: Context) -> Any:
        await ctx.sleep("long", 3600)

    async with running(tmp_path, handler, deadline_seconds=1.2) as house:
        event = await house.reaches(await house.send(), "dead_lettered")
    assert event["reason"] == "deadline"


async def test_a_journal_that_is_full_ends_the_run_with_everything_in_it(tmp_path: Path) -> None:
    async def handler(event: Event, ctx: Context) -> Any:
        for n in range(10):
            await ctx.step("one", effect, f"one-{n}")

    async with running(tmp_path, handler, settings={"journal.steps_max": 4}) as house:
        event = await house.reaches(await house.send(), "dead_lettered")
    assert event["reason"] == "journal_full"
    assert len(calls) == 4
