"""The heart of a daemon that shares its store: it renews leases on a thread of its own, which no handler can block."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from replayforge.domain.clock import Clock, to_us
from replayforge.domain.errors import Unavailable
from replayforge.domain.event import Claimed
from replayforge.domain.reports import Node
from replayforge.engine.handlers import Handlers
from replayforge.engine.workbench import Workbench
from replayforge.engine.worker import Worker
from replayforge.stores.store import Store
from replayforge.supervisor import wait_for_event
from replayforge.telemetry import Telemetry

LOOKS_PER_LEASE = 20
RETRY_SECONDS_MAX = 1.0
CALL_SECONDS_MIN = 1.0
OVERTIME_SECONDS = 10.0
LAST_BEAT_SECONDS = 5.0
DOUBT_SHARE = 2 / 3

Lease = tuple[int, int]  # row number, token


@dataclass(frozen=True, slots=True)
class Pace:
    """How often leases are renewed, how long they last, and how long a handler may run that says nothing of it."""

    heartbeat_seconds: float
    lease_seconds: float
    timeout_seconds: float


@dataclass(slots=True)
class Hold:
    """A lease in this process's hands: when it was surely ours last, and when its handler was first seen to run."""

    sure_at: float
    limit_seconds: float
    begun_at: float | None = None

    def overdue(self, now: float) -> bool:
        """Tell whether the handler has run for so long that its lease is not renewed any more."""
        return self.begun_at is not None and now - self.begun_at > self.limit_seconds


class Heartbeat:
    """Renews what is on the bench every `heartbeat_seconds`, and reports this daemon to its neighbours.

    A lease that could not be renewed for two thirds of its length is given up: an unfinished attempt is cut short, what
    waits on the bench is dropped, and finished results are kept. `calm` says whether leases of others may be judged.
    """

    name = "heartbeat"

    def __init__(
        self,
        store: Store,
        bench: Workbench,
        workers: Sequence[Worker],
        handlers: Handlers,
        report: Callable[[bool], Node],
        clock: Clock,
        telemetry: Telemetry,
        pace: Pace,
    ) -> None:
        self.store = store
        self.bench = bench
        self.workers = workers
        self.handlers = handlers
        self.report = report
        self.clock = clock
        self.telemetry = telemetry
        self.pace = pace
        self.holds: dict[Lease, Hold] = {}
        self.beating_since: float | None = None
        self.last_error: str | None = None
        self.tell: Callable[..., None] = lambda call, *values: call(*values)

    # On the daemon's own loop

    async def run(self, stopping: asyncio.Event) -> None:
        """Beat until told to stop; the last beat says that this daemon ended in order."""
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[None] = loop.create_future()
        told, beating = asyncio.Event(), asyncio.new_event_loop()
        thread = threading.Thread(target=self.live, args=(beating, told, loop, ended), name=self.name, daemon=True)
        stop = asyncio.ensure_future(stopping.wait())
        thread.start()
        try:
            await asyncio.wait((ended, stop), return_when=asyncio.FIRST_COMPLETED)
        finally:
            stop.cancel()
            with contextlib.suppress(RuntimeError):  # the thread has ended by itself
                beating.call_soon_threadsafe(told.set)
            await asyncio.wait([ended], timeout=LAST_BEAT_SECONDS)
        if ended.done():
            ended.result()

    def calm(self) -> bool:
        """Tell whether the store has answered for a whole lease, so that whoever lives has renewed what is theirs."""
        since = self.beating_since
        return since is not None and self.clock.monotonic() - since >= self.pace.lease_seconds

    def beaten(self, renewed: int, lost: Collection[Lease]) -> None:
        """Take in that the store answered, and let go of the leases that somebody else took."""
        self.last_error = None
        if self.beating_since is None:
            self.beating_since = self.clock.monotonic()
        if renewed:
            self.telemetry.emit("lease.renewed", renewed)
        self.give_up(lost, "The lease was lost: another daemon took the event over.")

    def missed(self, error: str) -> None:
        """Take in that the store did not answer."""
        self.beating_since = None
        self.last_error = error

    def give_up(self, leases: Collection[Lease], reason: str) -> None:
        """Cut short what runs under these leases, and drop what waits; what has finished meanwhile is left alone."""
        if not leases:
            return
        count = self.bench.withdraw(leases)
        for worker in self.workers:
            claimed = self.bench.in_hands.get(worker.name)
            if claimed is not None and lease_of(claimed) in leases:
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
            beating.run_until_complete(self.beat_on(told))
        except BaseException as error:  # whatever ends the heart must reach the supervisor
            call_on(loop, set_unless_done, ended, error)
        else:
            call_on(loop, set_unless_done, ended, None)
        finally:
            beating.close()

    async def beat_on(self, told: asyncio.Event) -> None:
        """Beat and watch until told to stop."""
        store = self.store.beside(max(CALL_SECONDS_MIN, self.pace.lease_seconds / 6))
        watching = asyncio.ensure_future(self.watch())
        try:
            while not told.is_set():
                await wait_for_event(told, await self.tick(store))
            with contextlib.suppress(Unavailable):
                await store.beat([], 0, self.clock.now_us(), self.report(True))
        finally:
            watching.cancel()
            await store.close()

    async def tick(self, store: Store) -> float:
        """Beat once; returns the seconds until the next beat is due."""
        now = self.clock.monotonic()
        self.look(now)
        leases = [lease for lease, hold in self.holds.items() if not hold.overdue(now)]
        lease_us = to_us(self.pace.lease_seconds)
        try:
            renewed = await store.beat(leases, lease_us, self.clock.now_us(), self.report(False))
        except Unavailable as error:
            self.tell(self.missed, str(error))
            return min(RETRY_SECONDS_MAX, self.pace.heartbeat_seconds / 4)
        for lease in leases:
            if lease[0] in renewed and lease in self.holds:
                self.holds[lease].sure_at = now
        self.tell(self.beaten, len(renewed), [lease for lease in leases if lease[0] not in renewed])
        return self.pace.heartbeat_seconds

    async def watch(self) -> None:
        """Give up the leases that have been in doubt for too long, also while a beat waits for its answer."""
        while True:
            now = self.clock.monotonic()
            self.look(now)
            doubtful = self.pace.lease_seconds * DOUBT_SHARE
            leases = [lease for lease, hold in self.holds.items() if now - hold.sure_at > doubtful]
            if leases:
                self.tell(self.give_up, leases, "The lease could not be renewed in time.")
            await asyncio.sleep(self.pace.lease_seconds / LOOKS_PER_LEASE)

    def look(self, now: float) -> None:
        """Take in what is on the bench; a lease that is new was won since the last look."""
        waiting, in_hands = self.bench.leases()
        fresh = now - self.pace.lease_seconds / LOOKS_PER_LEASE
        holds: dict[Lease, Hold] = {}
        for claimed in (*waiting, *in_hands):
            lease = lease_of(claimed)
            holds[lease] = self.holds.get(lease) or Hold(fresh, self.limit(claimed))
        for claimed in in_hands:
            hold = holds[lease_of(claimed)]
            hold.begun_at = hold.begun_at or now
        self.holds = holds

    def limit(self, claimed: Claimed) -> float:
        """Return for how long a lease is renewed: as long as its handler may run, and a little longer."""
        handler = self.handlers.find(claimed.event.event_type)
        own = handler.timeout_seconds if handler else None
        return (own or self.pace.timeout_seconds) + OVERTIME_SECONDS


def lease_of(claimed: Claimed) -> Lease:
    """Return the (row number, token) by which the store knows a lease."""
    return (claimed.event.seq, claimed.event.lease_token)


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
