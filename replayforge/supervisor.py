"""Keeps every long-running part alive: a guard for each service, backoff between restarts, and a limit to restarts."""

import asyncio
import random
from asyncio import get_running_loop, timeout, wait
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol, runtime_checkable

from replayforge.domain.clock import Clock
from replayforge.domain.errors import Fatal
from replayforge.telemetry import Telemetry
from replayforge.tracebacks import formatted

BACKOFF_FIRST_SECONDS = 0.05
BACKOFF_MAX_SECONDS = 5.0
CANCEL_SECONDS = 1.0


class SimulatedCrash(BaseException):
    """A crash that somebody asked for; no handler's `except Exception` may swallow it."""


class Service(Protocol):
    """A long-running part of the daemon.

    `run` works until `stopping` is set and then returns soon; it may be called again after it has ended or crashed,
    and must then go on from what is durable. Being stopped before it ran, or twice, does no harm.
    """

    name: str

    async def run(self, stopping: asyncio.Event) -> None:
        """Work until `stopping` is set."""
        ...


@runtime_checkable
class SelfCharging(Protocol):
    """A service whose crashes may be the fault of what it was working on rather than its own."""

    async def charge_crash(self, error: BaseException) -> bool:
        """Clean up after a crash; True when it was charged elsewhere and must not count against the service."""
        ...


@dataclass
class Guard:
    """What the supervisor knows about one service. Times are microseconds since the epoch."""

    service: Service
    state: str = "stopped"
    since_us: int = 0
    restarts: int = 0
    last_error: str | None = None
    last_error_at_us: int | None = None
    last_traceback: str | None = None
    crashes: deque[float] = field(default_factory=deque)
    task: asyncio.Task[None] | None = None
    injected: BaseException | None = None


class Supervisor:
    """Runs services until told to stop; more than `restarts_max` crashes of one in the window end the daemon.

    `failed` resolves with the error when a service was given up or raised Fatal; everything else keeps running until
    `stop`, so that the end is a clean one.
    """

    def __init__(
        self,
        clock: Clock,
        telemetry: Telemetry,
        *,
        restarts_max: int = 5,
        restart_window_seconds: float = 60,
        rng: random.Random | None = None,
    ) -> None:
        self.clock = clock
        self.telemetry = telemetry
        self.restarts_max = restarts_max
        self.restart_window_seconds = restart_window_seconds
        self.rng = rng or random.Random()
        self.guards: dict[str, Guard] = {}
        self.stops: dict[str, asyncio.Event] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self.loop = get_running_loop()
        self.failed: asyncio.Future[BaseException] = self.loop.create_future()

    def start(self, service: Service) -> None:
        """Begin to run the service; starting one that runs changes nothing."""
        if service.name in self.tasks:
            return
        self.guards[service.name] = Guard(service)
        self.stops[service.name] = asyncio.Event()
        self.begin(service.name)

    def begin(self, name: str) -> None:
        """Guard the service from now on, unless it is to end."""
        if self.stops[name].is_set():
            return
        task = self.tasks[name] = self.loop.create_task(self.keep_running(name), name=f"guard {name}")
        task.add_done_callback(partial(self.begin_again, name))

    def begin_again(self, name: str, guarding: "asyncio.Task[None]") -> None:
        """Guard the service again when that itself came to grief: a handler may have replaced what it calls."""
        if guarding.cancelled() or (error := guarding.exception()) is None:
            return
        self.telemetry.emit("service.crashed", service=name, error=f"while it was guarded: {error!r}")
        self.loop.call_later(BACKOFF_FIRST_SECONDS, self.begin, name)

    async def stop(self, names: Sequence[str], timeout_seconds: float) -> list[str]:
        """Ask services to end and wait; returns the names of those that had to be cancelled after the time-out."""
        present = [name for name in names if name in self.tasks]
        for name in present:
            self.stops[name].set()
        tasks = {self.tasks[name]: name for name in present}
        if not tasks:
            return []
        _, late = await wait(tasks, timeout=timeout_seconds)
        for task in late:
            task.cancel()
        if late:
            # A handler may swallow its cancellation; it is left behind, for only the end of the process stops it.
            await wait(late, timeout=CANCEL_SECONDS)
        for name in present:
            del self.tasks[name]
        return [tasks[task] for task in late]

    def crash(self, name: str) -> None:
        """Make the service die as if by a defect of its own; raises KeyError for a name that does not run."""
        guard = self.guards[name]
        if guard.task is not None and not guard.task.done():
            guard.injected = SimulatedCrash(f"{name} was crashed on purpose")
            guard.task.cancel()

    async def keep_running(self, name: str) -> None:
        """Run, and after a crash wait a little and run again, until stopped or past the limit of restarts."""
        guard, stopping = self.guards[name], self.stops[name]
        while not stopping.is_set():
            self.enter(guard, "running")
            self.telemetry.emit("service.started", service=name)
            error = await self.run_once(guard, stopping)
            if error is None:
                break
            self.note(guard, error)
            if await self.charged_elsewhere(guard.service, error):
                continue
            if isinstance(error, Fatal) or self.restarts_exhausted(guard):
                self.give_up(guard, error)
                return
            await self.pause(guard, stopping)
            self.telemetry.emit("service.restarted", service=name, restarts=guard.restarts)
        self.enter(guard, "stopped")

    async def run_once(self, guard: Guard, stopping: asyncio.Event) -> BaseException | None:
        """Run the service to its end; returns the error it died of, or None when it ended in order."""
        if guard.task is None:  # else it runs still, or has ended, and only its guard is another
            guard.task = self.loop.create_task(guard.service.run(stopping), name=guard.service.name)
        task = guard.task
        try:
            await wait([task])
        except asyncio.CancelledError:
            task.cancel()
            await wait([task])
            raise
        guard.task = None
        if task.cancelled():
            error, guard.injected = guard.injected, None
            return error or RuntimeError(f"{guard.service.name} was cancelled from outside")
        if (error := task.exception()) is not None:
            return error
        return None if stopping.is_set() else RuntimeError(f"{guard.service.name} ended without being asked to")

    async def charged_elsewhere(self, service: Service, error: BaseException) -> bool:
        """Ask the service whether its crash was somebody else's fault; if it cannot tell, it was its own."""
        if not isinstance(service, SelfCharging):
            return False
        try:
            return await service.charge_crash(error)
        except Exception as defect:
            self.telemetry.emit("service.crashed", service=service.name, error=f"while charging a crash: {defect!r}")
            return False

    def note(self, guard: Guard, error: BaseException) -> None:
        """Remember a crash for people to see."""
        guard.restarts += 1
        guard.last_error = f"{type(error).__name__}: {error}"
        guard.last_error_at_us = self.clock.now_us()
        guard.last_traceback = formatted(error)[-16_000:]
        self.enter(guard, "restarting")
        self.telemetry.emit("service.crashed", service=guard.service.name, error=guard.last_error)

    def restarts_exhausted(self, guard: Guard) -> bool:
        """Count a crash against the service's window."""
        now = self.clock.monotonic()
        guard.crashes.append(now)
        while guard.crashes and guard.crashes[0] < now - self.restart_window_seconds:
            guard.crashes.popleft()
        return len(guard.crashes) > self.restarts_max

    def give_up(self, guard: Guard, error: BaseException) -> None:
        """End the daemon because of this service."""
        self.enter(guard, "failed")
        self.telemetry.emit("service.gave_up", service=guard.service.name, error=guard.last_error)
        if not self.failed.done():
            self.failed.set_result(error)

    async def pause(self, guard: Guard, stopping: asyncio.Event) -> None:
        """Wait before a restart, the longer the more often the service crashed lately."""
        crashes = max(0, len(guard.crashes) - 1)
        delay = min(BACKOFF_MAX_SECONDS, BACKOFF_FIRST_SECONDS * 2**crashes) * self.rng.uniform(0.5, 1)
        await wait_for_event(stopping, delay)

    def enter(self, guard: Guard, state: str) -> None:
        """Move a guard to a state."""
        guard.state = state
        guard.since_us = self.clock.now_us()


async def wait_for_event(event: asyncio.Event, timeout_seconds: float) -> bool:
    """Wait until the event is set or the time is over; returns whether it is set."""
    try:
        async with timeout(timeout_seconds):
            await event.wait()
    except TimeoutError:
        return event.is_set()
    return True
