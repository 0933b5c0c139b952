"""Whether fresh events wait in the log for workers that are soon free: then they are claimed as their rows are made."""

from asyncio import sleep, wait
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic

from replayforge.engine.accept.window import Window
from replayforge.engine.dispatch.claim_desk import ClaimDesk
from replayforge.engine.dispatch.saturation import Saturation

WAIT_SECONDS_MAX = 0.05
WAIT_TURNS_MAX = 10  # of the loop: what takes no time ends in them, however much else the loop has to do
SLOW_SECONDS = 1.0  # so long none waits after one that waited in vain
BEHIND_SECONDS_MAX = 5.0  # so long rows may be behind the log because of this, and longer in a saturated process
CAUGHT_UP_EVENTS = 500  # so few are no backlog of the log
EVENTS_PER_PROCESSOR_SECOND_MIN = 2_000  # fewer that are written twice take less than a fifth of the time
WINDOW_EVENTS_MIN = 2_500  # to which ingest is narrowed at most


class WorkerWait:
    """Says how many fresh events get their rows now.

    One that is queued first is written a second time, published, read, and looked up again to be claimed. So it stays
    in the log until a worker is free, if that is soon: where handlers are slow, where a backlog goes first, where other
    daemons may be free, where somebody waits for a row, and where no worker may have what comes, none waits.

    Nor does any once rows have been behind the log for `BEHIND_SECONDS_MAX`, unless the process is out of processor
    time, and much of that goes to what comes in: then rows that are written twice would be paid for with outcomes, so
    ingest refuses what would take longer. Where handlers take it, nothing is refused.
    """

    def __init__(self, desk: ClaimDesk, window: Window) -> None:
        self.desk = desk
        self.buffer = desk.buffer
        self.window = window
        self.rows_awaited = 0
        self.none_taken = False
        self.slow_until = 0.0
        self.behind_since: float | None = None
        self.saturation = Saturation()

    async def room(self) -> int | None:
        """Return how many fresh events workers are free for, once there are any; None where none is to wait."""
        while self.pays(monotonic()):
            if room := self.buffer.worthwhile_room():
                return room
            if not await self.room_again():
                self.slow_until = monotonic() + SLOW_SECONDS
        return None

    def pays(self, now: float) -> bool:
        """Tell whether it is worth while to wait, and have ingest refuse what would wait for too long."""
        if self.window.durable_count <= CAUGHT_UP_EVENTS:
            self.behind_since = None
        elif self.behind_since is None:
            self.behind_since = now
        rows_cost_outcomes = (
            self.saturation.measure(now, self.window.accepted, self.buffer.ended)
            and self.saturation.events_per_processor_second >= EVENTS_PER_PROCESSOR_SECOND_MIN
        )
        is_behind = self.behind_since is not None and now - self.behind_since > BEHIND_SECONDS_MAX
        may_wait = self.desk.fresh_first and not (self.rows_awaited or self.none_taken) and now >= self.slow_until
        if may_wait and is_behind and rows_cost_outcomes:
            in_time = int(self.saturation.ended_per_second * BEHIND_SECONDS_MAX)
            self.window.narrow(max(WINDOW_EVENTS_MIN, in_time))
        else:
            self.window.widen()
        return may_wait and (rows_cost_outcomes or not is_behind)

    def note_taken(self, room: int, taken: int) -> None:
        """Note how many events of a stretch were claimed, of as many as there was room for.

        Where none was, they are signals, due later, in lanes, copies, or for handlers that are paused or busy: what
        comes next is likely to be like them, and is no less of a stretch for want of workers.
        """
        self.none_taken = room > 0 and not taken

    async def room_again(self) -> bool:
        """Return once there is room, or something else may have changed; False where nothing has, in its time.

        A reader that waits for the same room hears of it some turns before.
        """
        change = self.buffer.next_room()
        await wait((change,), timeout=WAIT_SECONDS_MAX)
        for _ in range(WAIT_TURNS_MAX):
            if change.done():
                break
            await sleep(0)
        return change.done()

    @contextmanager
    def suspended(self) -> Iterator[None]:
        """Have none wait meanwhile, since somebody waits for a row."""
        self.rows_awaited += 1
        self.buffer.look_again()
        try:
            yield
        finally:
            self.rows_awaited -= 1
