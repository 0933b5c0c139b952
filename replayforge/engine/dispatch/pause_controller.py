"""Pauses handlers and resumes them, sees what other daemons have paused, and clears the way of what has to wait."""

from collections.abc import Mapping

from replayforge.domain.admission import EVERYTHING, Admission, Pause
from replayforge.domain.clock import Clock
from replayforge.domain.errors import NotFound, Unavailable
from replayforge.engine.dispatch.claim_buffer import ClaimBuffer
from replayforge.engine.dispatch.claim_desk import ClaimDesk
from replayforge.engine.dispatch.handler_limits import HandlerLimits
from replayforge.stores.store import Store
from replayforge.telemetry import Telemetry

SORTED_PER_STEP_MAX = 1000
RELEASED_PER_STEP_MAX = 1000


class PauseController:
    """Every pause is a row in the store, so it holds for all daemons, and for those that start later."""

    def __init__(
        self,
        store: Store,
        buffer: ClaimBuffer,
        handler_limits: HandlerLimits,
        desk: ClaimDesk,
        clock: Clock,
        telemetry: Telemetry,
    ) -> None:
        self.store = store
        self.buffer = buffer
        self.handler_limits = handler_limits
        self.desk = desk
        self.clock = clock
        self.telemetry = telemetry
        self.sort_after: int | None = None

    async def pause(self, pattern: str, reason: str, by: str) -> Pause:
        """Give a handler no more events until it is resumed; attempts that have begun end as they will.

        With EVERYTHING that holds for all handlers. Raises NotFound for a pattern without a handler, and Rejected
        without a reason. A handler that is paused already stays as it is.
        """
        if pattern != EVERYTHING and (not pattern or pattern not in self.handler_limits.by_pattern):
            raise NotFound(f"There is no handler for the pattern {pattern!r}.")
        wanted = Pause(pattern, reason, by, self.clock.now_us())
        await self.store.pause(wanted)
        await self.look()
        pause = self.handler_limits.pauses.get(pattern, wanted)
        if pause == wanted:
            self.telemetry.emit("handler.paused", handler=pattern, reason=reason, by=by)
        return pause

    async def resume(self, pattern: str) -> None:
        """Give a handler events again, those first that have waited; raises NotFound when it is not paused."""
        if not await self.store.resume(pattern):
            raise NotFound(f"Nothing is paused under the pattern {pattern!r}.")
        await self.look()
        self.telemetry.emit("handler.resumed", handler=pattern)

    # Chores

    async def look(self) -> int:
        """See which handlers are paused and for which events wait; returns how many events wait."""
        pauses, deferred = await self.store.pauses_and_deferred()
        freshly_paused = self.handler_limits.see_pauses(pauses)
        for pattern in deferred.keys() & self.handler_limits.by_pattern.keys():
            self.handler_limits.set_has_deferred(pattern, True)
        if freshly_paused:
            self.sort_after = 0
        await self.take_back()
        await self.release_unknown_handlers(deferred)
        return sum(deferred.values())

    async def take_back(self) -> None:
        """Return what lies in the buffer for paused handlers; nothing of it has begun, and others have room then.

        A claim that was under way as the handler was paused has laid it there.
        """
        leases = [one.lease for one in self.buffer.unstarted if self.handler_limits.blocks(one)]
        if leases:
            self.buffer.withdraw(leases)
            await self.store.hand_back(leases, self.clock.now_us())
            self.sort_after = 0

    async def release_unknown_handlers(self, deferred: Mapping[str, int]) -> None:
        """Queue as any other what waits for a handler that this daemon does not have and that nobody has paused."""
        for pattern in deferred.keys() - self.handler_limits.by_pattern.keys():
            if not self.handler_limits.is_paused(pattern):
                released = await self.store.release(pattern, RELEASED_PER_STEP_MAX)
                self.desk.hand_on(released.entries, released.suspects)

    async def clear_the_way(self) -> int:
        """Let a piece of the queue wait whose handlers are paused, so that the rest need not stand behind it.

        Begun after each pause and carried on to the end of the queue; returns how many rows were looked at.
        """
        if self.sort_after is None:
            return 0
        shut = {limit.pattern: 0 for limit in self.handler_limits.by_pattern.values() if limit.pause is not None}
        admission = Admission(shut, self.handler_limits.pattern_of)
        after, self.sort_after = self.sort_after, None
        try:
            done = await self.store.sort_out(admission, after, SORTED_PER_STEP_MAX)
        except Unavailable:
            self.sort_after = 0
            raise
        self.handler_limits.note_deferred(done.deferred)
        if self.sort_after is None:  # else another pause has come meanwhile, and it begins anew
            self.sort_after = done.next_seq
        return SORTED_PER_STEP_MAX if done.next_seq is not None else 0
