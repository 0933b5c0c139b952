"""The supervisor keeps services alive, within reason, and stops them in order."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from replayforge import supervisor
from replayforge.domain.errors import Fatal
from replayforge.supervisor import SimulatedCrash, Supervisor
from replayforge.telemetry import Telemetry
from tests.support.clock import FakeClock
from tests.support.probe import Probe


class Part:
    """A service that does what the test says."""

    def __init__(self, name: str = "part") -> None:
        self.name = name
        self.runs = 0
        self.errors: list[BaseException] = []
        self.ends_by_itself = False
        self.deaf = False
        self.charges = False
        self.charged: list[BaseException] = []

    async def run(self, stopping: asyncio.Event) -> None:
        self.runs += 1
        if self.errors:
            raise self.errors.pop(0)
        if self.ends_by_itself:
            return
        if self.deaf:
            await asyncio.Event().wait()
        await stopping.wait()

    async def charge_crash(self, error: BaseException) -> bool:
        self.charged.append(error)
        return self.charges


class Stubborn(Part):
    """A service that swallows its cancellation."""

    async def run(self, stopping: asyncio.Event) -> None:
        self.runs += 1
        released = asyncio.Event()
        asyncio.get_running_loop().call_later(3, released.set)
        while not released.is_set():
            try:
                await released.wait()
            except asyncio.CancelledError:
                continue


class Watch:
    """A supervisor with a clock of the test's own."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.telemetry = Telemetry()
        self.probe = Probe(self.telemetry)
        self.supervisor = Supervisor(self.clock, self.telemetry, restarts_max=3, restart_window_seconds=60)


@pytest.fixture
async def watch() -> AsyncIterator[Watch]:
    watch = Watch()
    yield watch
    await watch.supervisor.stop(list(watch.supervisor.tasks), 0.1)


async def test_a_crashed_service_runs_again(watch: Watch) -> None:
    """A service that raises is started again, and its error is remembered with its traceback."""
    part = Part()
    part.errors = [ValueError("one"), SimulatedCrash("two")]
    watch.supervisor.start(part)
    await watch.probe.saw("service.started", 3)
    guard = watch.supervisor.guards["part"]
    assert (guard.state, guard.restarts, guard.last_error) == ("running", 2, "SimulatedCrash: two")
    assert "Traceback" in (guard.last_traceback or "")
    assert not watch.supervisor.failed.done()


async def test_a_service_that_ends_unasked_runs_again(watch: Watch) -> None:
    """Ending without being told to counts as a crash."""
    part = Part()
    part.ends_by_itself = True
    watch.supervisor.start(part)
    await watch.probe.saw("service.crashed")
    part.ends_by_itself = False
    await watch.probe.saw("service.started", 2)
    assert "without being asked" in (watch.supervisor.guards["part"].last_error or "")


@pytest.mark.parametrize("ended", [False, True])
async def test_a_guard_that_comes_to_grief_is_replaced(
    watch: Watch, monkeypatch: pytest.MonkeyPatch, ended: bool
) -> None:
    """The next one looks after what runs, or after how it ended meanwhile, and starts no second one."""
    part = Part()
    part.errors = [ValueError("meanwhile")] if ended else []
    with monkeypatch.context() as patch:
        patch.setattr(supervisor, "wait", None)  # what a handler does to asyncio
        watch.supervisor.start(part)
        await watch.probe.saw("service.crashed")
    await watch.probe.saw("service.started", 3 if ended else 2)
    assert watch.supervisor.guards["part"].state == "running"
    assert (part.runs, [str(error) for error in part.charged]) == ((2, ["meanwhile"]) if ended else (1, []))
    assert await watch.supervisor.stop(["part"], 10) == []


async def test_patience_ends(watch: Watch) -> None:
    """More crashes than restarts_max within the window give the service up and name the error."""
    part = Part()
    part.errors = [ValueError(str(number)) for number in range(10)]
    watch.supervisor.start(part)
    error = await asyncio.wait_for(watch.supervisor.failed, 10)
    assert (str(error), part.runs) == ("3", 4)
    assert watch.supervisor.guards["part"].state == "failed"
    assert watch.probe.counts["service.gave_up"] == 1


async def test_old_crashes_are_forgiven(watch: Watch) -> None:
    """Crashes that lie longer ago than the window count no more."""
    part = Part()
    watch.supervisor.start(part)
    for count in range(1, 9):
        await watch.probe.saw("service.started", count)
        watch.supervisor.crash("part")
        await watch.probe.saw("service.crashed", count)
        watch.clock.advance(30)
    await watch.probe.saw("service.started", 9)
    assert not watch.supervisor.failed.done()


async def test_fatal_ends_at_once(watch: Watch) -> None:
    """A Fatal error is not tried again."""
    part = Part()
    part.errors = [Fatal("no way on")]
    watch.supervisor.start(part)
    assert str(await asyncio.wait_for(watch.supervisor.failed, 5)) == "no way on"
    assert part.runs == 1


async def test_charged_elsewhere_costs_no_patience(watch: Watch) -> None:
    """A crash that is charged to what the service worked on is no reason to give the service up, nor to wait."""
    part = Part()
    part.charges = True
    part.errors = [ValueError(str(number)) for number in range(20)]
    watch.supervisor.start(part)
    await watch.probe.saw("service.started", 21)
    assert len(part.charged) == 20
    assert not watch.supervisor.failed.done()


async def test_crash_on_purpose(watch: Watch) -> None:
    """`crash` makes a running service die and run again; an unknown name is a KeyError."""
    watch.supervisor.start(Part())
    await watch.probe.saw("service.started")
    watch.supervisor.crash("part")
    await watch.probe.saw("service.started", 2)
    assert "on purpose" in (watch.supervisor.guards["part"].last_error or "")
    with pytest.raises(KeyError):
        watch.supervisor.crash("nobody")


async def test_starting_and_stopping_twice(watch: Watch) -> None:
    """Starting what runs, stopping what does not, and stopping twice change nothing."""
    part = Part()
    assert await watch.supervisor.stop(["part"], 1) == []
    watch.supervisor.start(part)
    watch.supervisor.start(part)
    await watch.probe.saw("service.started")
    assert await watch.supervisor.stop(["part", "nobody"], 1) == []
    assert await watch.supervisor.stop(["part"], 1) == []
    assert part.runs == 1
    assert watch.supervisor.guards["part"].state == "stopped"


async def test_stop_before_it_ran(watch: Watch) -> None:
    """A service stopped before its first step never runs."""
    part = Part()
    watch.supervisor.start(part)
    assert await watch.supervisor.stop(["part"], 1) == []
    assert part.runs == 0


async def test_late_services_are_cancelled_and_named(watch: Watch) -> None:
    """What does not end in time is cancelled and named; what ends in time is not."""
    deaf, good = Part("deaf"), Part("good")
    deaf.deaf = True
    for part in (deaf, good):
        watch.supervisor.start(part)
    await watch.probe.saw("service.started", 2)
    assert await watch.supervisor.stop(["deaf", "good"], 0.05) == ["deaf"]


async def test_a_service_that_swallows_its_cancellation_is_left_behind(watch: Watch) -> None:
    """Stopping takes a bounded time, whatever a service does with its cancellation."""
    watch.supervisor.start(Stubborn("stubborn"))
    await watch.probe.saw("service.started")
    async with asyncio.timeout(10):
        assert await watch.supervisor.stop(["stubborn"], 0.05) == ["stubborn"]


async def test_stop_in_the_pause_before_a_restart(watch: Watch) -> None:
    """A service that waits for its restart ends at once when told to stop."""
    part = Part()
    part.errors = [ValueError("x")] * 3
    watch.supervisor.start(part)
    await watch.probe.saw("service.crashed", 2)
    async with asyncio.timeout(20):
        assert await watch.supervisor.stop(["part"], 30) == []
