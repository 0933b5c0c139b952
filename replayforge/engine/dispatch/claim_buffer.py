"""Where claimed events lie until a worker takes them: who is free, what waits, what is in whose hands."""

import asyncio
from asyncio import get_running_loop
from collections import deque
from collections.abc import Callable, Collection, Iterable

from replayforge.domain.clock import Clock
from replayforge.domain.event import ClaimedEvent, Lease
from replayforge.engine.dispatch.leases import ClaimUnderWay, Leases
from replayforge.engine.dispatch.prefetch import PREFETCH_SECONDS, Prefetch


class ClaimBuffer:
    """Filled by every claim, emptied by the workers, who take one event each.

    Every claimed event of this process is waiting here, or in the hands of exactly one worker, or on its way to the
    store with an outcome, until it is put away. Any free worker takes the next event, so a slow handler holds up nobody
    but its own worker. `left` is told of each event that no worker has any more, or will have.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        workers: int,
        lease_seconds: float | None = None,
        left: Callable[[Lease], None] = lambda lease: None,
    ) -> None:
        self.clock = clock
        self.workers = workers
        self.unstarted: deque[ClaimedEvent] = deque()
        self.running: dict[str, ClaimedEvent] = {}
        self.leases = Leases(clock, lease_seconds)
        self.settling: set[Lease] = set()
        self.stuck_threads = 0  # attempts that were settled while code of theirs runs on
        self.idle: deque[tuple[str, asyncio.Future[ClaimedEvent | None], float]] = deque()  # and since when
        self.watching: list[asyncio.Future[None]] = []
        self.seeking: list[asyncio.Future[None]] = []  # who waits for room and no other change
        self.closed = False
        self.prefetch = Prefetch(workers)
        self.ended = 0  # how many events workers were through with, in all
        self.reserved = 0
        self.left = left

    def reserve(self, count: int) -> int:
        """Keep room for up to `count` events that the caller is about to claim; returns for how many."""
        if self.closed:
            return 0
        room = max(0, min(count, self.room()))
        self.reserved += room
        return room

    def unreserve(self, count: int) -> None:
        """Give up room that was reserved, once the events lie in the buffer or will not come."""
        self.reserved -= count
        self.tell()

    def put(self, claimed: Iterable[ClaimedEvent], claim: ClaimUnderWay | None = None) -> None:
        """Lay down what a claim has taken; idle workers get theirs at once."""
        for one in claimed:
            self.leases.book(one, claim)
            self.unstarted.append(one)
        self.hand_out()

    def hand_out(self) -> None:
        """Give waiting events to idle workers, first come first served; once closed, send the idle ones home."""
        if not self.idle:
            return
        now = self.clock.monotonic()
        while self.idle and (self.unstarted or self.closed):
            worker, future, since = self.idle.popleft()
            self.prefetch.note_wait(since, now)
            if not future.done():
                future.set_result(self.hand_to(worker) if self.unstarted else None)

    def hand_to(self, worker: str) -> ClaimedEvent:
        """Give a worker the event that waits longest. It holds it from now on, though it may see it much later."""
        claimed = self.running[worker] = self.unstarted.popleft()
        return claimed

    async def take(self, worker: str) -> ClaimedEvent | None:
        """Return the next event for this worker, which holds it until `release`; None once closed and empty."""
        return self.hand_to(worker) if self.unstarted else await self.wait_in_line(worker)

    async def wait_in_line(self, worker: str) -> ClaimedEvent | None:
        """Wait for an event; one that was handed out just as the wait was cancelled goes to the next in line."""
        if self.closed:
            return None
        future: asyncio.Future[ClaimedEvent | None] = get_running_loop().create_future()
        self.idle.append((worker, future, self.clock.monotonic()))
        try:
            return await future
        except asyncio.CancelledError:
            if (handed := self.running.pop(worker, None)) is not None:
                self.unstarted.appendleft(handed)
                self.hand_out()
            raise

    def close(self) -> list[ClaimedEvent]:
        """Take back everything that no worker has begun, and hand out nothing more."""
        self.closed = True
        withdrawn = list(self.unstarted)
        self.unstarted.clear()
        for one in withdrawn:
            self.leases.forget(one.lease)
            self.left(one.lease)
        self.hand_out()
        self.look_again()
        return withdrawn

    def withdraw(self, leases: Collection[Lease]) -> int:
        """Drop those waiting events, named as (row number, token), whose lease is lost; returns how many.

        One that was handed to a worker which has not begun yet is not begun any more.
        """
        dropped = [one for one in self.unstarted if one.lease in leases]
        for one in dropped:
            self.unstarted.remove(one)
            self.leases.forget(one.lease)
            self.left(one.lease)
        self.leases.lose(leases)
        self.tell()
        return len(dropped)

    def detach(self, worker: str) -> ClaimedEvent | None:
        """End a worker's hold on its event, which still has to be put away; returns the event, if it held one."""
        claimed = self.running.pop(worker, None)
        if claimed is not None:
            self.settling.add(claimed.lease)
            self.prefetch.note_end()
            self.ended += 1
            self.leases.end(claimed.lease)
            self.left(claimed.lease)
        if self.watching or self.seeking:
            self.tell()
        return claimed

    def release(self, *leases: Lease) -> None:
        """Forget events whose outcomes, whatever they were, are committed."""
        self.leases.forget(*leases)
        self.settling.difference_update(leases)
        self.tell()

    def holds(self, lease: Lease) -> bool:
        """Tell whether the event with this lease is in this process's hands."""
        return lease in self.leases.held

    def room(self) -> int:
        """Return how many more events may be claimed: one for each free worker, and what is fetched ahead."""
        now = self.clock.monotonic()
        if now - self.prefetch.started >= PREFETCH_SECONDS:  # asked here, since room is looked for very often
            self.prefetch.measure(now, [since for _, _, since in self.idle])
        return self.workers + self.prefetch.count - self.reserved - len(self.leases.held) + len(self.settling)

    def next_change(self) -> "asyncio.Future[None]":
        """Return what is done with the next change from now on of what is waiting, held or reserved."""
        watch: asyncio.Future[None] = get_running_loop().create_future()
        self.watching = [*(one for one in self.watching if not one.done()), watch]
        return watch

    def tell(self) -> None:
        """Tell whoever watches of a change, and whoever seeks room if there is some."""
        if self.watching:
            watching, self.watching = self.watching, []
            resolve(watching)
        if self.seeking and self.worthwhile_room():
            self.look_again()

    def look_again(self) -> None:
        """Have all who watch or seek room look again at what they wait for."""
        waiting, self.watching, self.seeking = [*self.watching, *self.seeking], [], []
        resolve(waiting)

    def next_room(self) -> "asyncio.Future[None]":
        """Return what is done once there is room that is worth a claim, or something else may have changed."""
        sought: asyncio.Future[None] = get_running_loop().create_future()
        self.seeking = [*(one for one in self.seeking if not one.done()), sought]
        return sought

    def worthwhile_room(self) -> int:
        """Return how many events may be claimed, if that is worth a claim; else 0.

        While workers still find events to begin, half of what is fetched ahead is worth one: a batch is claimed while
        another runs.
        """
        room = self.room()
        return 0 if room <= 0 or (self.unstarted and room < self.prefetch.count // 2) else room

    async def wait_for_room(self) -> int:
        """Return how many events may be claimed, once that is worth a claim."""
        while not (room := self.worthwhile_room()):
            await self.next_room()
        return room

    def note_stuck(self, count: int) -> None:
        """Note that so many more, or fewer, attempts run on after they were settled."""
        self.stuck_threads += count
        self.tell()

    @property
    def idle_now(self) -> bool:
        """Whether nothing runs in this process, nor is about to: no event, and no plain function past its time-out."""
        return not (self.leases.held or self.reserved or self.stuck_threads)

    async def wait_until_idle(self) -> None:
        """Return when nothing is in this process's hands, nor about to come."""
        while self.leases.held or self.reserved:
            await self.next_change()

    async def wait_until_done(self, lease: Lease) -> None:
        """Return when the event with this lease is no longer in this process's hands."""
        while lease in self.leases.held:
            await self.next_change()


def resolve(waiting: Iterable["asyncio.Future[None]"]) -> None:
    """Have those go on who still wait."""
    for one in waiting:
        if not one.done():
            one.set_result(None)
