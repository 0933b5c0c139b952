"""Random handlers against a small model of what they must come to, with crashes at random points of their way.

A program is a tuple of calls, made by Hypothesis. The model walks through it as if nothing could ever go wrong.
"""

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from replayforge import Context, Event, Handlers, StepFailed, WaitTimedOut
from replayforge.engine.run import waits
from replayforge.testing import Forge
from tests.crash.test_step_crashes import POINTS
from tests.support.lives import Lives

ATTEMPTS = 3
NEVER = 99  # a step that fails so often never succeeds
DAYS = 40


@dataclass(frozen=True)
class Step:
    fails: int
    pure: bool = False


@dataclass(frozen=True)
class Sleep:
    seconds: int


@dataclass(frozen=True)
class Wait:
    """For a signal: sent before the workflow begins, while it goes on, or never."""

    sent: str


@dataclass(frozen=True)
class Send:
    pass


@dataclass(frozen=True)
class Call:
    pass


@dataclass(frozen=True)
class Try:
    body: "Program"
    compensation: "Program"


@dataclass(frozen=True)
class Gather:
    branches: tuple["Program", ...]


Call_ = Step | Sleep | Wait | Send | Call | Try | Gather
Program = tuple[Call_, ...]

LEAVES = st.one_of(
    st.builds(Step, st.sampled_from([0, 0, 1, 2, NEVER]), st.booleans()),
    st.builds(Sleep, st.sampled_from([0, 5, 90_000])),
    st.builds(Wait, st.sampled_from(["before", "later", "never"])),
    st.builds(Send),
    st.builds(Call),
)
PROGRAMS: st.SearchStrategy[Program] = st.recursive(
    st.lists(LEAVES, max_size=3).map(tuple),
    lambda inner: st.lists(
        st.one_of(
            LEAVES,
            st.builds(Try, inner, inner),
            st.builds(Gather, st.lists(inner, min_size=2, max_size=3).map(tuple)),
        ),
        min_size=1,
        max_size=4,
    ).map(tuple),
    max_leaves=5,
)
CRASHES = st.lists(
    st.tuples(st.sampled_from(sorted(POINTS)), st.integers(1, 12)).map(lambda pair: f"{pair[0]}:{pair[1]}"), max_size=4
)


class Failed(Exception):
    """The model's StepFailed, or WaitTimedOut."""


@dataclass
class Model:
    """What a program comes to: `tries` of each step, the signals that are taken, and the children that are sent.

    `recorded_at_once` are steps between whose return and record only one crash point lies.
    """

    tries: Counter[str] = field(default_factory=Counter)
    recorded_at_once: set[str] = field(default_factory=set)
    taken: Counter[str] = field(default_factory=Counter)
    signals: dict[str, str] = field(default_factory=dict)
    children: set[str] = field(default_factory=set)
    concurrent: bool = False

    def run(self, program: Program, path: str = "") -> list[Any]:
        return [self.call(call, f"{path}{place}") for place, call in enumerate(program)]

    def call(self, call: Call_, name: str) -> Any:
        match call:
            case Step(fails, pure):
                self.tries[name] = min(fails + 1, ATTEMPTS)
                if fails == 0 and not pure:
                    self.recorded_at_once.add(name)
                if fails >= ATTEMPTS:
                    raise Failed(name)
                return name
            case Wait(sent):
                self.signals[name] = sent
                if sent == "never":
                    raise Failed(name)
                self.taken[name] += 1
                return name
            case Send() | Call():
                self.children.add(name)
                return name
            case Try(body, compensation):
                try:
                    return self.run(body, f"{name}.t")
                except Failed as failed:
                    return [str(failed), *self.run(compensation, f"{name}.c")]
            case Gather(branches):
                self.concurrent = True
                return self.gather(branches, name)
        return None

    def gather(self, branches: tuple[Program, ...], name: str) -> list[Any]:
        came: list[Any] = []
        for place, branch in enumerate(branches):
            try:
                came.append(self.run(branch, f"{name}.g{place}."))
            except Failed as failed:
                came.append(failed)
        for one in came:
            if isinstance(one, Failed):
                raise one
        return came


@dataclass
class Real:
    """The same program as a handler; `tries` counts outside of the daemon."""

    tries: Counter[str] = field(default_factory=Counter)

    def handlers(self, program: Program, signals: dict[str, str]) -> Handlers:
        handlers = Handlers()
        for name in signals:
            handlers.signal(f"signal {name}")

        @handlers.on("random")
        async def interpret(event: Event, ctx: Context) -> Any:
            return await self.run(ctx, program, "")

        @handlers.on("child *")
        async def child(event: Event, ctx: Context) -> Any:
            return await ctx.step("answer", self.work, event.event_type, 0)

        return handlers

    async def work(self, name: str, fails: int) -> str:
        self.tries[name] += 1
        if fails == NEVER or self.tries[name] <= fails:
            raise RuntimeError(f"{name} fails")
        return name.removeprefix("child ")

    async def run(self, ctx: Context, program: Program, path: str) -> list[Any]:
        return [await self.call(ctx, call, f"{path}{place}") for place, call in enumerate(program)]

    async def call(self, ctx: Context, call: Call_, name: str) -> Any:
        match call:
            case Step(fails, pure):
                return await ctx.step(name, self.work, name, fails, attempts=ATTEMPTS, pure=pure)
            case Sleep(seconds):
                return await ctx.sleep(name, seconds)
            case Wait(sent):
                timeout_seconds = 7_200 if sent == "never" else None
                return (await ctx.wait_for(f"signal {name}", timeout_seconds=timeout_seconds)).payload
            case Send():
                await ctx.send(f"child {name}")
                return name
            case Call():
                return await ctx.call(f"child {name}")
            case Try(body, compensation):
                try:
                    return await self.run(ctx, body, f"{name}.t")
                except (StepFailed, WaitTimedOut) as failed:
                    step = failed.step.removeprefix("signal ")
                    return [step, *await self.run(ctx, compensation, f"{name}.c")]
            case Gather(branches):
                return await self.gather(ctx, branches, name)

    async def gather(self, ctx: Context, branches: tuple[Program, ...], name: str) -> list[Any]:
        runs = [self.run(ctx, branch, f"{name}.g{place}.") for place, branch in enumerate(branches)]
        came = await asyncio.gather(*runs, return_exceptions=True)
        for one in came:
            if isinstance(one, BaseException):
                raise one
        return came


async def play(program: Program, crashes: list[str]) -> None:
    """Run a program with crashes, and compare what came of it with the model."""
    model, real = Model(), Real()
    try:
        expected: Any = model.run(program)
    except Failed as failed:
        expected = failed
    async with Forge(real.handlers(program, model.signals), settings={"retry.jitter": 1}) as forge:
        lives = Lives(forge, crashes)
        for name in (name for name, sent in model.signals.items() if sent == "before"):
            await lives.send(f"signal {name}", name)
        order = await lives.send("random")
        await lives.advance(hours=1)
        for name in (name for name, sent in model.signals.items() if sent == "later"):
            await lives.send(f"signal {name}", name)
            await lives.advance(hours=1)
        await lives.advance(days=DAYS)
        await lives.advance(days=DAYS)
        if isinstance(expected, Failed):
            assert (order.status, order.reason) == ("dead_lettered", "step_failed"), order.last_error
        else:
            assert (order.status, order.result) == ("succeeded", expected), order.last_error
        await judge(forge, model, real, lives.deaths)


async def judge(forge: Forge, model: Model, real: Real, deaths: list[str]) -> None:
    """Compare effects, children and signals with the model."""
    normal = model.tries + Counter(f"child {name}" for name in model.children)
    assert real.tries.keys() == normal.keys()
    again = real.tries - normal
    assert max(again.values(), default=0) <= len(deaths), (again, deaths)
    if not model.concurrent and not model.children:
        between = [death for death in deaths if death.startswith("step.returned")]
        assert sum(again[name] for name in model.recorded_at_once) <= len(between), (again, deaths)
    children = await forge.events("child *")
    assert Counter(event.event_type for event in children) == Counter(f"child {name}" for name in model.children)
    assert all(event.status == "succeeded" for event in children)
    signals = {event.event_type: event.status for event in await forge.events("signal *")}
    sent = {name for name, when in model.signals.items() if when != "never"}
    assert signals == {f"signal {name}": "succeeded" if model.taken[name] else "kept" for name in sent}
    assert await forge.do(forge.daemon.store.mend(forge.clock.now_us())) == []
    found = await forge.do(forge.daemon.convergence.read())
    assert (found.converged, found.ledger.lost) == (True, 0)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have handlers with several tasks parked as soon as these are quiet."""
    monkeypatch.setattr(waits, "IDLE_SECONDS", 0.0)
    monkeypatch.setattr(waits, "LOOK_SECONDS", 0.001)


@pytest.mark.parametrize("examples", [25, pytest.param(2_000, marks=pytest.mark.soak)])
def test_random_handlers_come_to_what_the_model_says(examples: int) -> None:
    """Steps that fail, sleeps, signals, children, compensation and tasks side by side, killed up to four times."""

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=examples < 100,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(PROGRAMS, CRASHES)
    def check(program: Program, crashes: list[str]) -> None:
        asyncio.run(play(program, crashes))

    check()
