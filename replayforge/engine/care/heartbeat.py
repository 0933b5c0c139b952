"""The heart of a daemon that shares its store: it renews leases on a thread of its own, which no handler can block."""

import asyncio
import contextlib
import threading
from asyncio import ensure_future, get_running_loop, sleep, wait
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from replayforge.domain.clock import Clock
from replayforge.domain.errors import Unavailable
from replayforge.domain.event import Lease
from replayforge.domain.reports import Node
from replayforge.engine.dispatch.claim_buffer import ClaimBuffer
from replayforge.engine.dispatch.leases import ClaimUnderWay, Hold
from replayforge.engine.handlers.registry import Handlers
from replayforge.engine.run.worker import Worker
from replayforge.engine.service_loop import run_until
from replayforge.forks import kept_loop
from replayforge.stores.store import Store
from replayforge.stores.transactions import Renewal
from replayforge.telemetry import Telemetry

LOOKS_PER_LEASE = 20
RETRY_SECONDS_MAX = 1.0
CALL_SECONDS_MIN = 1.0
OVERTIME_SECONDS = 10.0
LAST_BEAT_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class LeaseTimes:
    """How often leases are renewed, how long they last, and how long a handler may run that says nothing of it."""

    heartbeat_seconds: float
    lease_seconds: float
    timeout_seconds: float


class Heartbeat:
    """Renews what the table of leases holds every `heartbeat_seconds`, and reports this daemon to its peers.

    A lease that could not be renewed for two thirds of its length is given up: an unfinished attempt is cut short, what
    waits in the buffer is dropped, and finished results are kept. `beating_since` is when the store began to answer,
    None while it does not: what others have not renewed before that they could not renew. `open_store` opens the shared
    store for its thread.
    """

    name = "heartbeat"

    def __init__(
        self,
        open_store: Callable[[float], Store],
        buffer: ClaimBuffer,
        workers: Sequence[Worker],
        handlers: Handlers,
        report: Callable[[bool], Node],
        clock: Clock,
        telemetry: Telemetry,
        pace: LeaseTimes,
    ) -> None:
        self.open_store = open_store
        self.buffer = buffer
        self.workers = workers
        self.handlers = handlers
        self.report = report
        self.clock = clock
        self.telemetry = telemetry
        self.pace = pace
        self.leases = buffer.leases
        self.beating_since: float | None = None
        self.loop_ran_at = clock.elapsed()
        self.tell: Callable[..., None] = lambda call, *values: call(*values)

    # On the daemon's own loop

    async def run(self, stopping: asyncio.Event) -> None:
        """Beat until told to stop; the last beat says that this daemon ended in order."""
        loop = get_running_loop()
        ended: asyncio.Future[None] = loop.create_future()
        told, beating = asyncio.Event(), asyncio.new_event_loop()
        thread = threading.Thread(target=self.live, args=(beating, told, loop, ended), name=self.name, daemon=True)
        stop = ensure_future(stopping.wait())
        thread.start()
        try:
            await wait((ended, stop), return_when=asyncio.FIRST_COMPLETED)
        finally:
            stop.cancel()
            with contextlib.suppress(RuntimeError):  # the thread has ended by itself
                beating.call_soon_threadsafe(told.set)
            await wait([ended], timeout=LAST_BEAT_SECONDS)
        if ended.done():
            ended.result()

    def beaten(self, renewed: int, lost: Collection[Lease]) -> None:
        """Take in that the store answered, and let go of the leases that somebody else took."""
        self.loop_ran_at = self.clock.elapsed()
        if renewed:
            self.telemetry.emit("lease.renewed", renewed)
        self.give_up(lost, "The lease was lost: another daemon took the event over.")

    def missed(self) -> None:
        """Take in that the store did not answer."""
        self.loop_ran_at = self.clock.elapsed()

    def give_up(self, leases: Collection[Lease], reason: str) -> None:
        """Cut short what runs under these leases, and drop what waits; what has finished meanwhile is left alone."""
        if not leases:
            return
        count = self.buffer.withdraw(leases)
        for worker in self.workers:
            claimed = self.buffer.running.get(worker.name)
            if claimed is not None and claimed.lease in leases:
                count += worker.abandon(reason)
        if count:
            self.telemetry.emit("lease.lost", count, reason=reason)

    # On the thread

    def live(
        self, beating: asyncio.AbstractEventLoop, told: asyncio.Event, loop: asyncio.AbstractEventLoop, ended: Any
    ) -> None:
        """Run the thread's own loop to its end and tell the daemon's loop how it came."""
        self.tell = lambda call, *values: call_on(loop, call, *values)
        try:
            with kept_loop(beating):
                beating.run_until_complete(self.beat_on(told))
        except BaseException as error:  # whatever ends the heart must reach the supervisor
            call_on(loop, set_unless_done, ended, error)
        else:
            call_on(loop, set_unless_done, ended, None)
        finally:
            beating.close()

    async def beat_on(self, told: asyncio.Event) -> None:
        """Beat and watch until told to stop."""
        store = self.open_store(max(CALL_SECONDS_MIN, self.pace.lease_seconds / 6))
        watching = ensure_future(self.watch())
        try:
            await run_until(told, lambda: self.tick(store))
            with contextlib.suppress(Unavailable):
                await store.beat([], self.clock.now_us(), self.report(True))
        finally:
            watching.cancel()
            await store.close()

    async def tick(self, store: Store) -> float:
        """Beat once; returns the seconds until the next beat is due."""
        now = self.clock.elapsed()
        held = self.leases.held.copy()
        leases = [lease for lease, hold in held.items() if not self.is_overdue(hold, now)]
        claims = self.leases.overdue_claims(now - self.pace.heartbeat_seconds)
        besides = list(held) if claims else None
        try:
            renewal = await store.beat(leases, self.clock.now_us(), self.report(False), besides=besides)
        except Unavailable:
            self.beating_since = None
            self.tell(self.missed)
            return min(RETRY_SECONDS_MAX, self.pace.heartbeat_seconds / 4)
        if self.beating_since is None:
            self.beating_since = self.clock.elapsed()
        if renewal.complete:
            self.renew_claims(claims, now)
        self.tell(self.beaten, len(renewal.renewed), self.take_in(leases, renewal, now))
        return self.pace.heartbeat_seconds

    def take_in(self, leases: Sequence[Lease], renewal: Renewal, now: float) -> list[Lease]:
        """Note which leases were renewed by a beat that began `now`; returns those that somebody else took."""
        lost: list[Lease] = []
        for lease in leases:
            hold = self.leases.held.get(lease)
            if hold is None:
                continue
            if lease.seq in renewal.renewed:
                hold.renew(now)
            elif lease.seq not in renewal.held:
                lost.append(lease)
        self.leases.lose(lost)
        return lost

    def renew_claims(self, claims: Sequence[ClaimUnderWay], now: float) -> None:
        """Note that what these claims may have taken was renewed, where nobody can have taken it over before."""
        later = self.clock.elapsed()
        for claim in claims:
            if later - claim.sure_at < self.pace.lease_seconds:
                claim.renew(now)

    async def watch(self) -> None:
        """Give up the leases that have been in doubt for too long, also while a beat waits for its answer."""
        while True:
            leases = self.leases.doubtful(self.clock.elapsed())
            if leases:
                self.tell(self.give_up, leases, "The lease could not be renewed in time.")
            await sleep(self.pace.lease_seconds / LOOKS_PER_LEASE)

    def is_overdue(self, hold: Hold, now: float) -> bool:
        """Tell whether a lease is to lapse: its handler has run too long, or the loop has, which would begin it."""
        if hold.begun_at is None:
            return now - self.loop_ran_at > self.pace.timeout_seconds + OVERTIME_SECONDS
        return now - hold.begun_at > self.limit(hold.route)

    def limit(self, route: str) -> float:
        """Return for how long a lease is renewed: as long as its handler may run, and a little longer."""
        handler = self.handlers.find(route)
        own = handler.timeout_seconds if handler else None
        return (own or self.pace.timeout_seconds) + OVERTIME_SECONDS


def call_on(loop: asyncio.AbstractEventLoop, call: Callable[..., None], *values: Any) -> None:
    """Have a function called on another thread's loop, unless that loop has come to its end."""
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(call, *values)


def set_unless_done(future: asyncio.Future[None], error: BaseException | None) -> None:
    """Resolve a future that somebody may have cancelled."""
    if future.done():
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)
