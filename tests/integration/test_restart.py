"""ctx.restart: a journal ends and the next one goes on, with a payload of its own, in the same run."""

import asyncio
from collections import Counter
from typing import Any

import pytest

from replayforge import Context, Event, Handlers, Permanent
from replayforge.testing import Forge

calls: Counter[str] = Counter()
seen: list[Any] = []


@pytest.fixture(autouse=True)
def fresh() -> None:
    calls.clear()
    seen.clear()


async def effect(name: str, seconds: float = 0.0) -> str:
    """An effect outside."""
    await asyncio.sleep(seconds)
    calls[name] += 1
    return name


def forge(handler: Any, **options: Any) -> Forge:
    handlers = Handlers()
    handlers.on("test", **options)(handler)
    return Forge(handlers, settings={"workers.count": 1})


async def test_a_journal_ends_and_the_next_one_goes_on_in_the_same_run() -> None:
    """Each journal takes its steps anew; there is one run, start and attempt, and what the event came with stays."""

    async def handler(event: Event, ctx: Context) -> Any:
        left = event.payload["left"]
        await ctx.step("work", effect, f"work-{left}")
        try:
            if left:
                await ctx.restart({"left": left - 1})
        except Exception:
            seen.append("swallowed")
        finally:
            seen.append(left)
        return {"ended": left}

    async with forge(handler) as daemon:
        event = await daemon.send("test", {"left": 3})
        await daemon.settled()
        assert (event.status, event.result, event.run) == ("succeeded", {"ended": 0}, 1)
        found = await daemon.do(daemon.daemon.store.history(event.id))
        assert found is not None
        journal = await daemon.do(daemon.daemon.store.read_journal(found.event, 0))
        assert (found.event.starts, [one.number for one in found.attempts], found.content.payload) == (
            1, [1], b'{"left":3}',
        )  # fmt: skip
        assert (journal.number, journal.wakes) == (4, 3)
    assert calls == {f"work-{left}": 1 for left in range(4)}
    assert seen == [3, 2, 1, 0]


async def test_a_restart_is_kept_across_a_crash() -> None:
    """Whoever dies after it goes on with the payload that it has left, and before it takes no step a second time."""

    async def handler(event: Event, ctx: Context) -> Any:
        left = event.payload["left"]
        await ctx.step("work", effect, f"work-{left}")
        if left:
            await ctx.restart({"left": 0})
        await ctx.step("end", effect, "end")

    async with forge(handler) as daemon:
        for point in ("step.committed", "park.committed", "step.committed:2"):
            calls.clear()
            daemon.crash_at(point)
            event = await daemon.send("test", {"left": 7})
            await daemon.crashed()
            await daemon.restart()
            await daemon.settled()
            assert event.status == "succeeded"
            assert calls == {"work-7": 1, "work-0": 1, "end": 1}


async def test_a_deadline_goes_on_counting() -> None:
    """A restart does not renew the time of its run."""

    async def handler(event: Event, ctx: Context) -> Any:
        await ctx.sleep("while", 3600)
        await ctx.restart()

    async with forge(handler, deadline_seconds=3 * 3600 + 60) as daemon:
        event = await daemon.send("test", {})
        await daemon.advance(hours=5)
        assert (event.status, event.reason) == ("dead_lettered", "deadline")


async def test_a_replay_from_the_start_begins_with_what_the_last_restart_has_left() -> None:
    """The effects of journals that have ended do not happen again."""

    async def handler(event: Event, ctx: Context) -> Any:
        page = event.payload["page"]
        await ctx.step("work", effect, f"work-{page}")
        if page < 2:
            await ctx.restart({"page": page + 1})
        if calls["work-2"] == 1:
            raise Permanent("broken")

    async with forge(handler) as daemon:
        event = await daemon.send("test", {"page": 1})
        await daemon.settled()
        assert event.status == "dead_lettered"
        await daemon.replay(event, begins_from="start")
        await daemon.settled()
        assert event.status == "succeeded"
    assert calls == {"work-1": 1, "work-2": 2}


async def test_steps_that_run_come_to_their_ends_first() -> None:
    """A plain handler restarts as well; what goes on at an async one's side is recorded before its journal ends."""

    def plain(event: Event, ctx: Context) -> Any:
        if event.payload.get("again"):
            return "ended"
        ctx.restart({"again": True})
        return "never"

    async def busy(event: Event, ctx: Context) -> Any:
        if event.payload.get("again"):
            return "ended"
        async with asyncio.TaskGroup() as group:
            group.create_task(ctx.step("slow", effect, "slow", 0.1))
            await asyncio.sleep(0)
            await ctx.restart({"again": True})
        return "never"

    for handler in (plain, busy):
        async with forge(handler) as daemon:
            event = await daemon.send("test", {})
            await daemon.settled()
            assert event.result == "ended"
    assert calls == {"slow": 1}


async def test_what_cannot_be_a_payload_is_refused() -> None:
    async def handler(event: Event, ctx: Context) -> Any:
        with pytest.raises(ValueError, match="payload is not JSON"):
            await ctx.restart(object())
        return "went on"

    async with forge(handler) as daemon:
        event = await daemon.send("test", {})
        await daemon.settled()
        assert event.result == "went on"
