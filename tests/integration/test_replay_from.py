"""A replay says from where: what had been done stays done, and whoever means otherwise has to say so."""

import asyncio
import io
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from replayforge import Context, Event, Handlers, StepFailed
from replayforge.cli import main
from tests.integration.test_pages import page
from tests.integration.test_replay_pages import hidden, submit
from tests.support.house import House, open_house
from tests.support.polling import persist

ORDERS = 60
STEPS = [f"step-{number}" for number in range(1, 7)]

calls: Counter[str] = Counter()
keys: list[str] = []
broken: set[str] = set()


@pytest.fixture(autouse=True)
def fresh() -> None:
    calls.clear()
    keys.clear()
    broken.clear()


async def effect(name: str, ctx: Context | None = None) -> str:
    """An effect outside that fails while it is broken."""
    calls[name] += 1
    if ctx is not None:
        keys.append(ctx.step_key)
    if name in broken:
        raise RuntimeError(f"{name} is broken")
    return name


@asynccontextmanager
async def running(tmp_path: Path, handler: Callable[..., Any], signals: tuple[str, ...] = ()) -> AsyncIterator[House]:
    handlers = Handlers()
    for signal in signals:
        handlers.signal(signal)
    handlers.on("test", max_attempts=1)(handler)
    async with open_house(tmp_path / "data", handlers, {"workers.count": 2}) as house:
        yield house


async def is_done(house: House, job_id: str) -> bool:
    """Tell whether a bulk replay has taken all its members."""
    return bool((await house.get(f"/api/replays/{job_id}"))["status"] == "done")


async def six_steps(event: Event, ctx: Context) -> list[str]:
    return [await ctx.step(name, effect, name) for name in STEPS]


async def test_a_bulk_replay_of_mended_dead_letters_does_nothing_twice(tmp_path: Path) -> None:
    """Dead at step 4 of 6, mended, and replayed in bulk: steps 1 to 3 are never called again."""
    broken.add("step-4")
    async with running(tmp_path, six_steps) as house:
        await house.send_many(ORDERS)
        await house.converges(120)
        assert calls == dict.fromkeys(STEPS[:4], ORDERS)
        calls.clear()
        broken.clear()
        order = {"filter": {}, "expected_count": ORDERS, "reason": "mended", "from": "failure"}
        status, job = await house.post("/api/replays", order)
        assert (status, job["selection"]["from"]) == (202, "failure")
        assert await persist(lambda: is_done(house, job["id"]), 120)
        ledger = await house.converges(120)
        assert calls == dict.fromkeys(STEPS[3:], ORDERS)
        assert ledger["succeeded"] == ORDERS


async def test_a_failure_that_was_caught_stays_and_its_compensation_is_not_undone(tmp_path: Path) -> None:
    """What the code has dealt with is no failure to begin from; what it let through is, unless more has been done."""

    async def handler(event: Event, ctx: Context) -> Any:
        try:
            await ctx.step("coupon", effect, "coupon")
        except StepFailed:
            await ctx.step("without", effect, "without")
        try:
            await ctx.step("charge", effect, "charge")
        except StepFailed as error:
            if event.payload.get("compensates"):
                await ctx.step("release", effect, "release")
            raise RuntimeError("not paid") from error
        return "paid"

    broken.update({"coupon", "charge"})
    async with running(tmp_path, handler) as house:
        mended = await house.send()
        compensated = await house.send(payload={"compensates": True})
        for event_id in (mended, compensated):
            await house.reaches(event_id, "dead_lettered")
        calls.clear()
        broken.clear()
        status, answer = await house.post(f"/api/events/{mended}/replay", {"from": "failure"})
        assert (status, answer["cleared"]) == (202, [{"kind": "step", "name": "charge"}])
        await house.reaches(mended, "succeeded")
        assert calls == {"charge": 1}
        status, problem = await house.post(f"/api/deadletters/{compensated}/replay", {})
        assert status == 409
        assert "'release'" in problem["detail"]
        assert "`start`" in problem["detail"]
        status, answer = await house.post(f"/api/deadletters/{compensated}/replay", {"from": "start"})
        assert (status, answer["journal"], answer["effects_again"]) == (202, 2, 2)
        await house.reaches(compensated, "succeeded")
    assert calls == {"charge": 2, "coupon": 1}


async def test_a_succeeded_event_says_from_where_and_its_steps_are_others_outside(tmp_path: Path) -> None:
    """From a step on everything is done again under new keys; without saying so nothing is."""

    async def handler(event: Event, ctx: Context) -> Any:
        for name in ("one", "two", "three"):
            await ctx.step(name, effect, name, ctx)

    async with running(tmp_path, handler) as house:
        event_id = await house.send()
        await house.reaches(event_id, "succeeded")
        path = f"/api/events/{event_id}/replay"
        for refused in ({"force": True}, {"force": True, "from": "failure"}, {"force": True, "from": "four"}):
            assert (await house.post(path, refused))[0] == 409
        tried = {"force": True, "from": "two", "dry_run": True}
        status, answer = await house.post(path, tried)
        assert (status, answer["effects_again"], answer["dry_run"]) == (200, 2, True)
        await house.post(path, {"force": True, "from": "two"})
        event = await house.reaches(event_id, "succeeded")
    assert event["run"] == 2
    assert calls == {"one": 1, "two": 2, "three": 2}
    assert len(set(keys)) == 5


async def test_the_command_line_asks_before_effects_happen_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a step or the start it says how many that are; from the failure none do, and nobody is asked."""
    broken.add("step-4")
    monkeypatch.setattr("sys.stdin", io.StringIO())
    async with running(tmp_path, six_steps) as house:
        url = str(house.http.make_url("")).rstrip("/")

        async def command(*arguments: str) -> tuple[int, str]:
            code = await asyncio.to_thread(main.run, [*arguments, "--url", url])
            return code, "".join(capsys.readouterr())

        one, other = await house.send_many(2)
        for event_id in (one, other):
            await house.reaches(event_id, "dead_lettered")
        broken.clear()
        for asked in (
            ("events", "replay", one, "--from", "start"),
            ("dead", "replay", one, "--from", "step-1"),
        ):
            code, said = await command(*asked)
            assert (code, "3 recorded effects will happen again. Replay 1 event?" in said) == (1, True), said
        code, said = await command("dead", "replay", "--all", "--reason", "why", "--from", "start")
        assert (code, "6 recorded effects will happen again. Replay 2 dead letters?" in said) == (1, True), said
        assert (await house.event(one))["run"] == 1
        assert (await command("events", "replay", one, "--from", "step-3", "--yes"))[0] == 0
        assert (await command("dead", "replay", other, "--from", "failure"))[0] == 0
        await house.converges()
    assert calls == {"step-1": 2, "step-2": 2, "step-3": 3, "step-4": 4, "step-5": 2, "step-6": 2}


async def test_the_pages_offer_from_where_and_say_what_happens_again(tmp_path: Path) -> None:
    """For one event each step, for many the failure and the start; what cannot be chosen says why."""

    async def handler(event: Event, ctx: Context) -> Any:
        await ctx.step("reserve", effect, "reserve")
        try:
            await ctx.step("charge", effect, "charge")
        except StepFailed:
            if event.payload.get("compensates"):
                await ctx.step("release", effect, "release")
            raise

    broken.add("charge")
    async with running(tmp_path, handler) as house:
        plain, compensated = await house.send(), await house.send(payload={"compensates": True})
        for event_id in (plain, compensated):
            await house.reaches(event_id, "dead_lettered")
        broken.clear()
        text, _ = await hidden(house, f"/confirm/replay?id={plain}")
        assert '<option value="failure">the failure: charge once more</option>' in text
        assert '<option value="start">the start: 1 recorded effect happens again</option>' in text
        assert '<option value="reserve">step reserve: 1 recorded effect happens again</option>' in text
        text, _ = await hidden(house, f"/confirm/replay?id={compensated}")
        assert '<option value="failure" disabled' in text
        assert "as a compensation does" in text
        text, _ = await hidden(house, f"/confirm/replay?id={plain}&id={compensated}")
        assert "the start: 3 recorded effects happen again" in text
        _, _, message = await submit(house, "/actions/replay", {"id": plain, "from": "reserve"})
        assert message.startswith("1 event replayed.")
        await house.reaches(plain, "succeeded")
        text, form = await hidden(house, "/replays/new")
        assert "the start of each: 2 recorded effects happen again" in text
        await submit(house, "/replays", form | {"reason": "mended", "from": "failure", "step": "charge"})
        await house.reaches(compensated, "succeeded")
    assert calls == {"reserve": 3, "charge": 4, "release": 1}


async def test_signals_are_never_queued_and_children_are_left_to_their_parents(tmp_path: Path) -> None:
    """A replay of a signal is refused; that of a workflow passes signals and child events by."""

    async def handler(event: Event, ctx: Context) -> Any:
        if event.payload.get("child"):
            await ctx.send("test", {})
        await ctx.step("work", effect, "work")

    async with running(tmp_path, handler, signals=("scanned",)) as house:
        signal = await house.send("scanned")
        parent = await house.send(payload={"child": True})
        await house.reaches(parent, "succeeded")
        await house.converges()
        assert (await house.post(f"/api/events/{signal}/replay", {"force": True}))[0] == 409
        assert "Replay…" not in (await page(house, f"/events/{signal}"))[1]
        status, done = await house.post("/api/workflows/workflow/replay", {"only": "all", "from": "start"})
        assert (status, done["ids"], done["skipped"]) == (202, [parent], {})
        await house.converges()
