"""What handlers do step by step: each step once, whatever comes between, and waits that hold no worker."""

import asyncio
import gc
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from replayforge import Cancelled, Context, Event, Handlers, Parking, Permanent, Retry, StepFailed, WaitTimedOut
from replayforge.stores.sqlite import SqliteDriver
from replayforge.testing import Forge
from tests.support.house import open_house

HOUR_SECONDS = 3600.0

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


async def not_json(name: str) -> Any:
    calls[name] += 1
    return object()


async def large(name: str) -> str:
    calls[name] += 1
    return "x" * 300_000


async def hangs(name: str) -> None:
    calls[name] += 1
    await asyncio.sleep(60)


def forge(handler: Any, *, signals: Iterable[str] = (), settings: Any = None, **options: Any) -> Forge:
    """A daemon with one worker whose events of type `test` go to a handler, and that has a handler for children."""
    handlers = Handlers()
    for signal in signals:
        handlers.signal(signal)
    handlers.on("test", **options)(handler)

    @handlers.on("other", max_attempts=1)
    async def other(event: Event, ctx: Context) -> Any:
        if event.payload.get("fail"):
            raise Permanent("the child fails")
        return {"other": event.payload}

    return Forge(handlers, settings={"workers.count": 1, **(settings or {})})


# Steps


async def test_steps_are_not_taken_again_on_a_later_pass() -> None:
    async def handler(event: Event, ctx: Context) -> Any:
        first = await ctx.step("first", effect, "first")
        second = await ctx.step("second", plain_effect, "second")
        seen.append((first, second, await ctx.now(), await ctx.random(), await ctx.uuid()))
        if len(seen) == 1:
            await ctx.step("commits what rides", effect, "third")
            raise RuntimeError("between the steps")
        return [first, second]

    async with forge(handler) as daemon:
        event = await daemon.send("test", {})
        await daemon.advance(hours=1)
        assert event.result == ["first done", "second done in handler"]
    assert calls == {"first": 1, "second": 1, "third": 1}
    assert seen[:1] * 2 == seen


async def test_a_step_that_fails_is_tried_again_and_the_code_hears_nothing() -> None:
    async def handler(event: Event, ctx: Context) -> Any:
        return await ctx.step("flaky", effect, "flaky", 2)

    async with forge(handler) as daemon:
        event = await daemon.send("test", {})
        await daemon.settled()
        assert (event.status, event.attempts) == ("retrying", [])
        assert event.last_error == "RuntimeError: flaky fails"
        await daemon.advance(hours=1)
        assert (event.status, event.result, event.attempt_count) == ("succeeded", "flaky done", 0)
    assert calls == {"flaky": 3}


async def test_what_rides_goes_with_the_next_commit_though_a_wait_took_nothing() -> None:
    """A wait that finds no signal writes nothing: what was to ride with it rides with the step that comes after."""

    async def pay() -> None:
        await asyncio.sleep(0.1)  # by then the wait has looked in vain

    async def handler(event: Event, ctx: Context) -> Any:
        seen.append(await ctx.now())
        async with asyncio.TaskGroup() as group:
            group.create_task(ctx.wait_for("scanned"))
            await ctx.step("pay", pay)

    async with forge(handler, signals=["scanned"]) as daemon:
        daemon.crash_at("step.committed")
        await daemon.send("test", {})
        await daemon.crashed()
        await daemon.restart()
        await daemon.settled()
    first, *others = seen
    assert others
    assert set(others) == {first}


async def test_the_end_of_a_child_wakes_who_also_waits_for_a_next_try() -> None:
    """While anything else is waited for the parent is `waiting`, and what comes is heard at once; the try keeps its
    time."""

    async def handler(event: Event, ctx: Context) -> Any:
        async with asyncio.TaskGroup() as group:
            bill = group.create_task(ctx.call("other", {"number": 7}))
            flaky = group.create_task(ctx.step("flaky", effect, "flaky", 1))
            seen.append(await bill)
        return await flaky

    async with forge(handler) as daemon:
        event = await daemon.send("test", {})
        await daemon.settled()
        assert (event.status, calls["flaky"], seen) == ("retrying", 1, [{"other": {"number": 7}}])
        await daemon.advance(hours=1)
        assert (event.status, event.result, calls["flaky"]) == ("succeeded", "flaky done", 2)


async def test_a_short_wait_for_the_next_try_keeps_the_worker(tmp_path: Path) -> None:
    handlers = Handlers()

    @handlers.on("test")
    async def handler(event: Event, ctx: Context) -> Any:
        seen.append("pass")
        return await ctx.step("flaky", effect, "flaky", 99, attempts=3)

    async with open_house(tmp_path / "data", handlers) as house:
        event = await house.reaches(await house.send(), "dead_lettered")
    assert event["reason"] == "step_failed"
    assert (calls["flaky"], seen) == (3, ["pass"])


async def test_a_failure_for_good_is_heard_and_can_be_compensated() -> None:
    async def handler(event: Event, ctx: Context) -> Any:
        await ctx.step("reserve", effect, "reserve")
        try:
            await ctx.step("charge", effect, "charge", 99, attempts=2)
        except StepFailed as error:
            seen.append((error.step, error.type, error.message))
            await ctx.step("release", effect, "release")
            if len(seen) < 3:
                raise RuntimeError("once more") from None
            return {"ended": "not paid"}

    async with forge(handler) as daemon:
        event = await daemon.send("test", {})
        await daemon.advance(hours=1)
        assert event.result == {"ended": "not paid"}
    assert calls == {"reserve": 1, "charge": 2, "release": 1}
    assert seen == [("charge", "RuntimeError", "charge fails")] * 3


@pytest.mark.parametrize(
    ("step", "tries", "words"),
    [
        (lambda ctx: ctx.step("bad", effect, "bad", 99, attempts=3), 3, "RuntimeError: bad fails"),
        (lambda ctx: ctx.step("bad", effect, "bad", 99, Permanent), 1, "Permanent: bad fails"),
        (lambda ctx: ctx.step("bad", not_json, "bad"), 1, "bad_result: The step's result is not JSON"),
        (lambda ctx: ctx.step("bad", large, "bad"), 1, "bad_result: The step's result has 300,002 bytes"),
        (lambda ctx: ctx.step("bad", hangs, "bad", attempts=2, timeout_seconds=0.02), 2, "TimeoutError"),
    ],
)
async def test_a_failure_that_nobody_catches_is_a_dead_letter(step: Any, tries: int, words: str) -> None:
    async def handler(event: Event, ctx: Context) -> Any:
        await step(ctx)

    async with forge(handler) as daemon:
        event = await daemon.send("test", {})
        await daemon.advance(hours=1)
        assert (event.status, event.reason) == ("dead_lettered", "step_failed")
        assert str(event.last_error).startswith(f"StepFailed: The step 'bad' failed: {words}")
    assert calls["bad"] == tries


async def test_tasks_side_by_side_each_take_their_step_once() -> None:
    async def handler(event: Event, ctx: Context) -> Any:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(ctx.step("label", effect, f"label-{n}", key=str(n))) for n in range(5)]
            group.create_task(ctx.sleep("pause", 60))
        return [task.result() for task in tasks]

    async with forge(handler) as daemon:
        event = await daemon.send("test", {})
        await daemon.settled()
        assert event.status == "waiting"
        await daemon.advance(minutes=1)
        assert event.result == [f"label-{n} done" for n in range(5)]
    assert set(calls.values()) == {1}


async def test_two_steps_of_one_name_at_once_are_refused_and_in_order_they_are_numbered() -> None:
    async def handler(event: Event, ctx: Context) -> Any:
        in_order = [await ctx.step("one", effect, f"one-{n}") for n in range(3)]
        with pytest.raises(RuntimeError, match="give each a key="):
            await asyncio.gather(ctx.step("two", effect, "two"), ctx.step("two", effect, "two"))
        for name in ("a#2", "a[b]", "", None):
            with pytest.raises(ValueError, match="A step cannot be taken"):
                await ctx.step(name, effect, "never")  # type: ignore[arg-type]
        return in_order

    async with forge(handler) as daemon:
        event = await daemon.send("test", {})
        await daemon.settled()
        assert event.result == ["one-0 done", "one-1 done", "one-2 done"]


async def test_a_failure_cancels_its_siblings_and_so_they_are_recorded() -> None:
    async def handler(event: Event, ctx: Context) -> Any:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(ctx.step("fails", effect, "fails", 99, attempts=1))
                group.create_task(ctx.step("slow", hangs, "slow"))
        except* StepFailed:
            seen.append("failed")
        if len(seen) == 1:
            raise RuntimeError("once more")

    async with forge(handler) as daemon:
        event = await daemon.send("test", {})
        await daemon.advance(hours=1)
        assert event.status == "succeeded"
    assert calls == {"fails": 1, "slow": 1}
    assert seen == ["failed", "failed"]


async def nested(step: Any) -> None:
    """A step whose failure passes through two groups and a gather before it cancels its siblings."""
    async with asyncio.TaskGroup() as group:
        group.create_task(gathered(step))


async def gathered(step: Any) -> None:
    await asyncio.gather(step, asyncio.sleep(0))


@pytest.mark.parametrize("around", [asyncio.ensure_future, gathered, nested])
async def test_a_recorded_failure_cancels_its_siblings_before_they_begin_anew(around: Any) -> None:
    """The process dies once the failure is recorded, and before its siblings hear of it: they have no record."""

    async def handler(event: Event, ctx: Context) -> Any:
        async def fail() -> None:
            await around(ctx.step("fails", effect, "fails", 99, attempts=1))

        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(ctx.step("slow", hangs, "slow"))
                group.create_task(fail())
        except* StepFailed:
            seen.append("failed")

    async with forge(handler) as daemon:
        daemon.crash_at("step.committed")
        event = await daemon.send("test", {})
        await daemon.crashed()
        assert calls == {"fails": 1, "slow": 1}
        await daemon.restart()
        await daemon.settled()
        assert event.status == "succeeded"
    assert calls == {"fails": 1, "slow": 1}


async def test_plain_handlers_use_the_same_calls() -> None:
    def handler(event: Event, ctx: Context) -> Any:
        first = ctx.step("first", effect, "first")
        try:
            ctx.sleep("grace", HOUR_SECONDS)
        finally:
            seen.append("finally")
        return [first, ctx.step("second", plain_effect, "second"), ctx.random()]

    async with forge(handler) as daemon:
        event = await daemon.send("test", {})
        await daemon.settled()
        assert event.status == "waiting"
        await daemon.advance(hours=1)
        assert event.result[:2] == ["first done", "second done in handler"]
    assert calls == {"first": 1, "second": 1}
    assert seen == ["finally", "finally"]


async def test_ctx_answers_nobody_after_its_attempt_and_no_stranger() -> None:
    kept: list[Context] = []

    async def handler(event: Event, ctx: Context) -> Any:
        kept.append(ctx)
        await ctx.step("first", effect, "first")
        with pytest.raises(RuntimeError, match="only by its own handler"):
            await asyncio.to_thread(ctx.step, "second", effect, "second")

    async with forge(handler) as daemon:
        event = await daemon.send("test", {})
        await daemon.settled()
        assert event.status == "succeeded"
        with pytest.raises(RuntimeError, match="has ended"):
            kept[0].step("late", effect, "late")
    assert calls == {"first": 1}


async def test_a_step_that_runs_once_and_was_cut_short_is_held_in_doubt() -> None:
    async def handler(event: Event, ctx: Context) -> Any:
        await ctx.step("charge", hangs, "charge", once=True)

    async with forge(handler, timeout_seconds=0.1) as daemon:
        event = await daemon.send("test", {})
        await daemon.settled()
        assert (event.status, event.reason) == ("held", "in_doubt")
        assert "'charge'" in str(event.last_error)
    assert calls == {"charge": 1}


async def test_a_step_that_runs_once_is_held_after_a_crash_and_not_when_it_was_recorded() -> None:
    async def handler(event: Event, ctx: Context) -> Any:
        await ctx.step("charge", effect, "charge", once=True)
        await ctx.step("mail", effect, "mail")

    async with forge(handler) as daemon:
        daemon.crash_at("step.returned")
        event = await daemon.send("test", {})
        await daemon.crashed()
        await daemon.restart()
        await daemon.settled()
        assert (event.status, event.reason) == ("held", "in_doubt")
        daemon.crash_at("step.returned:2")
        other = await daemon.send("test", {})
        await daemon.crashed()
        await daemon.restart()
        await daemon.settled()
        assert other.status == "succeeded"
    assert calls == {"charge": 2, "mail": 2}


async def test_a_journal_that_is_full_ends_the_run_with_everything_in_it() -> None:
    async def handler(event: Event, ctx: Context) -> Any:
        for n in range(10):
            await ctx.step("one", effect, f"one-{n}")

    async with forge(handler, settings={"journal.steps_max": 4}) as daemon:
        event = await daemon.send("test", {})
        await daemon.settled()
        assert (event.status, event.reason) == ("dead_lettered", "journal_full")
    assert len(calls) == 4


async def test_progress_pays_for_earlier_failures() -> None:
    async def handler(event: Event, ctx: Context) -> Any:
        for n in range(6):
            await ctx.step("one", effect, f"one-{n}")
            if len(seen) == n:
                seen.append(event.attempt)
                raise RuntimeError("between two steps")

    async with forge(handler, max_attempts=2) as daemon:
        event = await daemon.send("test", {})
        await daemon.advance(hours=1)
        assert event.status == "succeeded"
    assert set(calls.values()) == {1}


# Waits


async def test_a_sleep_parks_and_holds_no_worker() -> None:
    async def handler(event: Event, ctx: Context) -> Any:
        await ctx.step("before", effect, "before")
        try:
            await ctx.sleep("grace", HOUR_SECONDS)
        except Exception:
            seen.append("swallowed")
        finally:
            seen.append("finally")
        return await ctx.step("after", effect, "after")

    async with forge(handler) as daemon:
        event = await daemon.send("test", {})
        await daemon.settled()
        assert (event.status, seen) == ("waiting", ["finally"])
        assert (await (await daemon.send("other", {})).ended()).status == "succeeded"
        await daemon.advance(minutes=59)
        await daemon.restart()
        await daemon.settled()
        assert event.status == "waiting"
        await daemon.advance(minutes=1)
        assert event.result == "after done"
        assert [(attempt.outcome, event.starts) for attempt in event.attempts] == [("succeeded", 1)]
    assert calls == {"before": 1, "after": 1}
    assert seen == ["finally", "finally"]


async def test_a_sleep_until_a_time_and_one_that_is_over_already() -> None:
    async def handler(event: Event, ctx: Context) -> Any:
        now = await ctx.now()
        await ctx.sleep_until("past", now - timedelta(days=1))
        await ctx.sleep_until("future", now + timedelta(days=1))
        return "slept"

    async with forge(handler) as daemon:
        event = await daemon.send("test", {})
        await daemon.advance(hours=23)
        assert event.status == "waiting"
        await daemon.advance(hours=1)
        assert event.result == "slept"


async def test_a_handler_that_swallows_everything_is_parked_all_the_same() -> None:
    async def handler(event: Event, ctx: Context) -> Any:
        try:
            await ctx.sleep("grace", HOUR_SECONDS)
        except BaseException as error:
            seen.append(type(error).__name__)
            try:
                await ctx.step("compensate", effect, "compensate")
            except BaseException as another:
                seen.append(type(another).__name__)
        return "done"

    async with forge(handler) as daemon:
        event = await daemon.send("test", {})
        await daemon.settled()
        assert event.status == "waiting"
        await daemon.advance(hours=1)
        assert event.result == "done"
    assert seen == ["CancelledError", "Parking"]
    assert not calls


async def test_a_run_ends_at_its_deadline_though_it_is_parked() -> None:
    async def handler(event: Event, ctx: Context) -> Any:
        await ctx.sleep("long", HOUR_SECONDS)

    async with forge(handler, deadline_seconds=60) as daemon:
        event = await daemon.send("test", {})
        await daemon.advance(seconds=59)
        assert event.status == "waiting"
        await daemon.advance(seconds=1)
        assert (event.status, event.reason) == ("dead_lettered", "deadline")


async def test_a_signal_is_taken_whether_it_comes_before_or_after() -> None:
    async def handler(event: Event, ctx: Context) -> Any:
        first = await ctx.wait_for("scanned")
        second = await ctx.wait_for("scanned")
        return [first.payload, second.payload]

    async with forge(handler, signals=["scanned"]) as daemon:
        early = await daemon.send("scanned", {"n": 1})
        await daemon.settled()
        assert early.status == "kept"
        event = await daemon.send("test", {})
        await daemon.settled()
        assert (event.status, early.status) == ("waiting", "succeeded")
        elsewhere = await daemon.send("scanned", {"n": 9}, workflow_id="another")
        await daemon.settled()
        assert (event.status, elsewhere.status) == ("waiting", "kept")
        late = await daemon.send("scanned", {"n": 2})
        await daemon.settled()
        assert event.result == [{"n": 1}, {"n": 2}]
        assert late.result["taken_by"] == early.result["taken_by"] == event.id


async def test_a_wait_that_is_too_long_is_told_so_on_every_pass() -> None:
    async def handler(event: Event, ctx: Context) -> Any:
        try:
            await ctx.wait_for("never", timeout_seconds=60)
        except WaitTimedOut:
            seen.append("timed out")
        if len(seen) == 1:
            raise RuntimeError("once more")
        return "none"

    async with forge(handler, signals=["never"]) as daemon:
        event = await daemon.send("test", {})
        await daemon.advance(hours=1)
        assert event.result == "none"
        await daemon.send("never", {})
    assert seen == ["timed out"] * 2


async def test_an_undeclared_signal_and_one_that_is_handled_are_refused() -> None:
    async def handler(event: Event, ctx: Context) -> Any:
        with pytest.raises(ValueError, match="nobody has declared"):
            await ctx.wait_for("undeclared")

    async with forge(handler) as daemon:
        event = await daemon.send("test", {})
        await daemon.settled()
        assert event.status == "succeeded"
    with pytest.raises(Exception, match="both handled and declared"):
        forge(handler, signals=["other"])


async def test_the_first_of_several_waits_is_recorded_and_what_lost_is_kept() -> None:
    async def handler(event: Event, ctx: Context) -> Any:
        name, value = await ctx.first(a=ctx.wait_for("a"), b=ctx.wait_for("b"), late=ctx.sleep("late", 60))
        seen.append(name)
        if len(seen) == 1:
            raise RuntimeError("once more")
        return [name, value.payload]

    async with forge(handler, signals=["a", "b"]) as daemon:
        b = await daemon.send("b", {"n": 2})
        await daemon.send("a", {"n": 1})
        await daemon.settled()
        event = await daemon.send("test", {})
        await daemon.advance(hours=1)
        assert event.result == ["a", {"n": 1}]
        assert b.status == "kept"
    assert seen == ["a", "a"]


# Children


async def test_a_child_is_sent_once_and_its_outcome_comes_back() -> None:
    async def handler(event: Event, ctx: Context) -> Any:
        child = await ctx.send("other", {"n": 1})
        called = await ctx.call("other", {"n": 2})
        seen.append((child, called))
        if len(seen) == 1:
            raise RuntimeError("once more")
        return [child, called]

    async with forge(handler) as daemon:
        event = await daemon.send("test", {})
        await daemon.advance(hours=1)
        assert event.result[1] == {"other": {"n": 2}}
        children = await daemon.events("other")
        assert [child.status for child in children] == ["succeeded", "succeeded"]
        assert children[0].id == event.result[0]
    assert seen[:1] * 2 == seen


async def test_a_dead_child_keeps_its_parent_waiting_until_it_is_discarded() -> None:
    async def handler(event: Event, ctx: Context) -> Any:
        try:
            return await ctx.call("other", {"fail": True})
        except StepFailed as error:
            return error.type

    async with forge(handler) as daemon:
        event = await daemon.send("test", {})
        await daemon.settled()
        (child,) = await daemon.events("other")
        assert (event.status, child.status) == ("waiting", "dead_lettered")
        await daemon.do(daemon.daemon.replayer.discard(child.id, "no use"))
        await daemon.settled()
        assert event.result == "StepFailed"


# Cancels


async def test_a_parked_event_is_cancelled_at_once() -> None:
    async def handler(event: Event, ctx: Context) -> Any:
        await ctx.sleep("long", HOUR_SECONDS)

    async with forge(handler) as daemon:
        event = await daemon.send("test", {})
        await daemon.settled()
        await daemon.do(daemon.daemon.replayer.cancel(event.id, "no use"))
        await daemon.advance(hours=2)
        assert event.status == "cancelled"


async def test_a_parked_event_that_is_cancelled_undoes_what_it_did_if_it_says_so() -> None:
    async def handler(event: Event, ctx: Context) -> Any:
        try:
            await ctx.sleep("long", HOUR_SECONDS)
        except Cancelled:
            await ctx.sleep("cool", HOUR_SECONDS)
            await ctx.step("undo", effect, "undo")
            raise

    async with forge(handler, on_cancel="run") as daemon:
        event = await daemon.send("test", {})
        await daemon.settled()
        await daemon.do(daemon.daemon.replayer.cancel(event.id, "no use"))
        await daemon.settled()  # what was told of it waits as it likes, and is not woken again and again
        assert event.status == "waiting"
        await daemon.advance(hours=2)
        assert event.status == "cancelled"
    assert calls == {"undo": 1}


@pytest.mark.parametrize("on_cancel", ["end", "run"])
async def test_a_running_event_is_cancelled_at_its_next_call(on_cancel: Any) -> None:
    begun, going_on = asyncio.Event(), asyncio.Event()

    async def handler(event: Event, ctx: Context) -> Any:
        await ctx.step("first", effect, "first")
        begun.set()
        await going_on.wait()
        try:
            await ctx.step("second", effect, "second")
        except Cancelled:
            await ctx.step("undo", effect, "undo")
            raise

    async with forge(handler, on_cancel=on_cancel) as daemon:
        event = await daemon.send("test", {})
        await begun.wait()
        await daemon.do(daemon.daemon.replayer.cancel(event.id, "no use"))
        going_on.set()
        await daemon.settled()
        assert event.status == "cancelled"
    assert calls == ({"first": 1} if on_cancel == "end" else {"first": 1, "undo": 1})


async def test_a_task_that_a_handler_leaves_behind_ends_at_its_next_call() -> None:
    going_on = asyncio.Event()
    left: list[asyncio.Task[Any]] = []

    async def leaves(ctx: Context) -> None:
        await ctx.step("slow", going_on.wait)

    async def handler(event: Event, ctx: Context) -> Any:
        left.append(asyncio.create_task(leaves(ctx)))
        await ctx.step("first", effect, "first")

    async with forge(handler) as daemon:
        event = await daemon.send("test", {})
        await daemon.settled()
        assert event.status == "succeeded"
        going_on.set()
        async with asyncio.timeout(10):
            await asyncio.wait(left)
        assert isinstance(left[0].exception(), Parking)


# What it costs


def counted_statements(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Return how often each statement is run from now on, until the patch is taken off."""
    names: Counter[str] = Counter()
    run_statement = SqliteDriver.run_statement

    def counted(driver: SqliteDriver, raw: Any, statement: Any) -> Any:
        names[getattr(statement, "name", "")] += 1
        return run_statement(driver, raw, statement)

    monkeypatch.setattr(SqliteDriver, "run_statement", counted)
    return names


async def test_an_event_without_steps_costs_the_statements_it_always_did(monkeypatch: pytest.MonkeyPatch) -> None:
    async def handler(event: Event, ctx: Context) -> Any:
        return "done"

    async with forge(handler) as daemon:
        names = counted_statements(monkeypatch)
        event = await daemon.send("test", {})
        await daemon.settled()
        monkeypatch.undo()
        assert event.status == "succeeded"
    of_projection = ["known_contents", "advance_cursor", "reserve_seqs", "insert_events", "insert_contents"]
    of_outcome = ["settle_events", "insert_attempts"]
    of_looks = {"cursor", "cursors", "tallies", "nodes", "due_soon", "oldest_queued", "active_replays", "next_suspect"}
    of_looks |= {"paced_entries"}  # once a second
    # The first event after a start may have to wait until it is known that there are no suspects.
    claims = names["claim_events"]
    of_queue = dict.fromkeys(("claimable_events", "claim_events"), claims) if claims else {}
    assert {name: names[name] for name in names.keys() - of_looks - {"queued_entries", "set_aside"}} == {
        **dict.fromkeys([*of_projection, *of_outcome], 1),
        **of_queue,
        "add_tallies": 2 + claims,
    }


async def test_a_retry_without_steps_costs_no_look_for_any(monkeypatch: pytest.MonkeyPatch) -> None:
    """The claim itself says whether a restart has left anything: a handler that never takes a step has none."""

    async def handler(event: Event, ctx: Context) -> Any:
        if event.attempt == 1:
            raise RuntimeError("once")

    async with forge(handler) as daemon:
        event = await daemon.send("test", {})
        await daemon.settled()
        names = counted_statements(monkeypatch)
        await daemon.advance(hours=1)
        monkeypatch.undo()
        assert event.status == "succeeded"
    assert (names["claimable_events"], names["claim_events"]) == (1, 1)
    assert [name for name in names if "journal" in name or "steps" in name or "restart" in name] == []


async def test_a_traceback_of_a_failed_step_holds_no_line_of_the_daemon() -> None:
    async def handler(event: Event, ctx: Context) -> Any:
        await ctx.step("bad", effect, "bad", 99, attempts=1)

    async with forge(handler) as daemon:
        event = await daemon.send("test", {})
        await daemon.settled()
        error, (step,) = str(event.last_error), event.steps
    assert "in handler" in error
    assert "in effect" in str(step.trace)
    assert "replayforge/engine" not in error + str(step.trace)


async def test_what_waited_outside_says_nothing_of_how_fast_events_are_handled() -> None:
    async def handler(event: Event, ctx: Context) -> Any:
        if event.payload.get("sleeps"):
            await ctx.sleep("long", HOUR_SECONDS)

    async with forge(handler) as daemon:
        recorder = daemon.daemon.metrics_recorder
        await daemon.send("test", {"sleeps": True})
        await daemon.advance(hours=2)
        assert recorder.latencies.by_type == {}
        assert daemon.daemon.settler.pace.figures().attempt_ms_p95 is not None


async def test_a_try_that_does_not_count_spends_neither_an_attempt_nor_a_try_of_a_step() -> None:
    """A partner that is busy for longer than there are attempts costs the event none of them."""

    async def busy(name: str, times: int) -> str:
        calls[name] += 1
        if calls[name] <= times:
            raise Retry("busy", after=60, counts=False)
        return name

    async def handler(event: Event, ctx: Context) -> Any:
        await ctx.step("step", busy, "step", 5, attempts=2)
        return await busy("handler", 5)

    async with forge(handler, max_attempts=2) as daemon:
        event = await daemon.send("test")
        await daemon.advance(hours=1)
        assert (event.status, event.attempt_count, event.result) == ("succeeded", 0, "handler")
    assert calls == {"step": 6, "handler": 6}


async def test_handlers_hear_that_the_daemon_drains(tmp_path: Path) -> None:
    """Whoever asks has an event of its own, in a thread one of threads; what it then returns counts."""
    handlers, begun = Handlers(), asyncio.Semaphore(0)

    @handlers.on("async")
    async def waits(event: Event, ctx: Context) -> bool:
        ctx.stopping.set() if event.payload.get("alone") else begun.release()
        await ctx.stopping.wait()
        return bool(ctx.stopping.is_set())

    @handlers.on("plain")
    def waits_in_thread(event: Event, ctx: Context) -> bool:
        loop.call_soon_threadsafe(begun.release)
        return bool(ctx.stopping.wait(30))

    loop = asyncio.get_running_loop()
    async with open_house(tmp_path, handlers) as house:
        assert (await house.reaches(await house.send("async", {"alone": True}), "succeeded"))["result"] is True
        sent = [await house.send("async"), await house.send("plain")]
        for _ in sent:
            await begun.acquire()
        await house.daemon.stop()
        rows = await house.daemon.store.events_by_ids(sent)
    assert [(row.state, row.result) for row, _ in rows.values()] == [("succeeded", b"true")] * 2


async def test_an_attempt_that_is_settled_leaves_nothing_to_the_garbage_collector() -> None:
    """What belonged to it is gone at once, its journal included."""
    left: list[weakref.ref[Any]] = []

    async def handler(event: Event, ctx: Context) -> None:
        await ctx.step("one", effect, "one")
        left.extend(map(weakref.ref, (ctx, ctx.calls, ctx.calls.attempt)))  # type: ignore[attr-defined]

    gc.disable()
    try:
        async with forge(handler) as daemon:
            event = await daemon.send("test")
            await daemon.settled()
            assert event.status == "succeeded"
            assert [ref() for ref in left] == [None] * 3
    finally:
        gc.enable()
