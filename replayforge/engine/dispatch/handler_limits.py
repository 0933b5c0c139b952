"""Which handlers may be given events now: pauses, limits and breakers, and how each handler has fared."""

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from replayforge.domain.admission import ALL_WELCOME, EVERYTHING, NO_HANDLER, Admission, Pause
from replayforge.domain.breaker import CLOSED, BreakerState
from replayforge.domain.clock import Clock
from replayforge.domain.event import ClaimedEvent, Lease
from replayforge.domain.lifecycle import ATTEMPT_SPENDING, Outcome, Reason
from replayforge.engine.handlers.registry import Handler, Handlers
from replayforge.stores.transactions import Settlement
from replayforge.telemetry import Telemetry

LINGERING_MAX = 16


class HandlerLimit:
    """What stands before one handler; the one without a handler stands before event types that none takes.

    `has_deferred` is true while events may wait for the handler in the store, and `deferred` counts those that this
    process let wait. `running` are events of a guarded handler that this process has claimed and whose attempts have
    not ended, `promised` is room that a claim under way may fill, `lingering` are attempts that were settled and still
    run, of which there are to be no more than `lingering_max`, and `probe` is the one event that a half-open breaker
    let through.
    """

    def __init__(self, handler: Handler | None, lingering_max: int) -> None:
        self.handler = handler
        self.pattern = handler.identity if handler else NO_HANDLER
        self.concurrency_max = handler.concurrency_max if handler else None
        self.pause: Pause | None = None
        self.breaker = CLOSED
        self.probe: Lease | None = None
        self.running = 0
        self.promised = 0
        self.lingering = 0
        self.lingering_max = lingering_max
        self.has_deferred = False
        self.deferred = 0
        self.successes = 0
        self.failures = 0

    @property
    def guarded(self) -> bool:
        """Whether an event of this handler has to be looked at before it is claimed."""
        limited = self.concurrency_max is not None or self.stuck
        return limited or self.has_deferred or self.pause is not None or self.breaker.tripped

    @property
    def stuck(self) -> bool:
        """Whether so many attempts do not end that there must not be another one."""
        return self.lingering >= self.lingering_max

    def room(self, now: float) -> int | None:
        """Return how many more events the handler may be given; None for any number."""
        if self.pause is not None or self.stuck:
            return 0
        rooms = []
        if self.concurrency_max is not None:
            rooms.append(max(0, self.concurrency_max - self.running - self.lingering - self.promised))
        if self.breaker.tripped:
            may_try = self.breaker.state(now) is BreakerState.HALF_OPEN and self.probe is None and not self.promised
            rooms.append(int(may_try))
        return min(rooms, default=None)


class HandlerLimits:
    """One limit for each handler, and one for event types without any. `news` is set when one may have room again.

    While events wait for a handler, fresh ones of the same handler go behind them. As long as nothing is guarded, a
    claim costs one look at an empty dict.
    """

    def __init__(
        self, handlers: Handlers, clock: Clock, telemetry: Telemetry, *, lingering_max: int = LINGERING_MAX
    ) -> None:
        self.handlers = handlers
        self.clock = clock
        self.telemetry = telemetry
        self.by_pattern = {
            limit.pattern: limit
            for limit in [HandlerLimit(one, lingering_max) for one in (*handlers.registered, handlers.fan_out, None)]
        }
        self.guarded = {pattern: limit for pattern, limit in self.by_pattern.items() if limit.guarded}
        self.acquired: dict[Lease, HandlerLimit] = {}
        self.pauses: dict[str, Pause] = {}
        self.news = asyncio.Event()

    def pattern_of(self, route: str) -> str:
        """Return the identity of the handler that takes events with a route; safe in any thread."""
        handler = self.handlers.find(route)
        return handler.identity if handler else NO_HANDLER

    def is_paused(self, pattern: str) -> bool:
        """Tell whether a handler is paused, by its own pattern or with everything."""
        return EVERYTHING in self.pauses or pattern in self.pauses

    # Claims

    def open_admission(self, count: int, routes: Iterable[str] | None = None, *, alone: bool = False) -> Admission:
        """Promise room to a claim of so many events, until `close_admission`.

        With `routes`, those that are about to be claimed, no more is promised than these can fill. An event that
        is to run `alone` goes before those that wait.
        """
        if not self.guarded:
            return ALL_WELCOME
        room = self.room_for(count, routes, alone=alone)
        self.promise(room, 1)
        return Admission(room, self.pattern_of)

    def open_admission_of(self, limit: HandlerLimit, count: int) -> Admission:
        """Promise one handler what it may have of so many events that wait for it."""
        free = limit.room(self.clock.monotonic())
        room = {limit.pattern: count if free is None else min(count, free)}
        self.promise(room, 1)
        return Admission(room, self.pattern_of)

    def close_admission(self, admission: Admission) -> None:
        """Take a promise back; what the claim has not filled of it is free again."""
        self.promise(admission.room, -1)

    def room_for(self, count: int, routes: Iterable[str] | None, *, alone: bool) -> dict[str, int]:
        """Return the room that each guarded handler has for a claim."""
        now = self.clock.monotonic()
        wanted = None if routes is None else Counter(map(self.pattern_of, routes))
        room = {}
        for pattern, limit in self.guarded.items():
            free = 0 if limit.has_deferred and not alone else limit.room(now)
            most = count if wanted is None else wanted[pattern]
            room[pattern] = most if free is None else min(free, most)
        return room

    def promise(self, room: Mapping[str, int], sign: int) -> None:
        """Promise this room, or take the promise back."""
        for pattern, count in room.items():
            limit = self.by_pattern[pattern]
            limit.promised += sign * count
            if sign < 0 and count and limit.has_deferred:
                self.news.set()

    def acquire(self, claimed: Sequence[ClaimedEvent]) -> None:
        """Note that these events are in this process's hands."""
        if not self.guarded:
            return
        for one in claimed:
            limit = self.guarded.get(self.pattern_of(one.event.route))
            if limit is not None:
                self.acquired[one.lease] = limit
                limit.running += 1
                if limit.breaker.tripped:
                    limit.probe = one.lease

    def blocks(self, claimed: ClaimedEvent) -> bool:
        """Tell whether an event may not begin now, because its handler was paused, failed or got stuck since it was
        claimed."""
        limit = self.guarded.get(self.pattern_of(claimed.event.route)) if self.guarded else None
        if limit is None:
            return False
        return limit.pause is not None or limit.stuck or (limit.breaker.tripped and limit.probe != claimed.lease)

    def release(self, lease: Lease) -> None:
        """Note that the attempt of an event has ended, or will not begin."""
        limit = self.acquired.pop(lease, None)
        if limit is not None:
            limit.running -= 1
            if limit.probe == lease:
                limit.probe = None
            self.news.set()

    def linger(self, pattern: str, count: int) -> None:
        """Note that so many more, or fewer, attempts run on after they were settled; each keeps its handler's place."""
        limit = self.by_pattern[pattern]
        limit.lingering += count
        self.update(limit)

    def is_stuck(self, pattern: str) -> bool:
        """Tell whether a handler is given no events because too many of its attempts do not end."""
        return self.by_pattern[pattern].stuck

    def note_deferred(self, deferred: Mapping[str, int]) -> None:
        """Note how many events began to wait for handlers."""
        for pattern, count in deferred.items():
            self.by_pattern[pattern].deferred += count
            self.set_has_deferred(pattern, True)

    def set_has_deferred(self, pattern: str, has_deferred: bool) -> None:
        """Note whether events may wait for a handler."""
        limit = self.by_pattern[pattern]
        limit.has_deferred = has_deferred
        self.update(limit)

    def update(self, limit: HandlerLimit) -> None:
        """Note anew whether a handler is guarded, after something about it has changed."""
        if limit.guarded:
            self.guarded[limit.pattern] = limit
        else:
            self.guarded.pop(limit.pattern, None)
        if limit.has_deferred:
            self.news.set()

    # Who may have what waits for it

    def ready(self) -> list[HandlerLimit]:
        """Return the limits of handlers that have room for events which wait for them."""
        now = self.clock.monotonic()
        return [limit for limit in self.guarded.values() if limit.has_deferred and limit.room(now) != 0]

    def seconds_until_probe(self) -> float | None:
        """Return when the next breaker lets one event through that waits; None when there is no such breaker."""
        now = self.clock.monotonic()
        shut = (limit for limit in self.guarded.values() if limit.has_deferred and limit.pause is None)
        times = (limit.breaker.open_until for limit in shut if limit.breaker.state(now) is BreakerState.OPEN)
        earliest = min(times, default=None)
        return None if earliest is None else earliest - now

    # What is learnt

    def see_pauses(self, pauses: Iterable[Pause]) -> set[str]:
        """Take note of all pauses there are; returns the patterns of the handlers that have just been paused."""
        self.pauses = {pause.pattern: pause for pause in pauses}
        fresh = set()
        for limit in self.by_pattern.values():
            before, limit.pause = limit.pause, self.pauses.get(limit.pattern) or self.pauses.get(EVERYTHING)
            if limit.pause is not None and before is None:
                fresh.add(limit.pattern)
            if limit.pause is None and before is not None:
                limit.has_deferred = True
            self.update(limit)
        return fresh

    def note(self, settlement: Settlement) -> None:
        """Note how an attempt went; an endpoint that fails in a row has its breaker opened."""
        limit = self.by_pattern[self.pattern_of(settlement.event.route)]
        succeeded = settlement.outcome is Outcome.SUCCEEDED
        failed = settlement.outcome in ATTEMPT_SPENDING
        limit.successes += succeeded
        limit.failures += failed
        if limit.handler is None or not limit.handler.breaker:
            return
        if limit.breaker.tripped and settlement.lease != limit.probe:
            return  # it had begun before the breaker opened, and tells nothing new
        if succeeded or settlement.verdict.reason is Reason.PERMANENT:
            self.close_breaker(limit)
        elif failed:
            self.count_failure(limit)

    def close_breaker(self, limit: HandlerLimit) -> None:
        """Let everything through again, since the endpoint has answered."""
        was_open, limit.breaker = limit.breaker.tripped, CLOSED
        if was_open:
            self.update(limit)
            self.telemetry.emit("breaker.closed", handler=limit.pattern)

    def count_failure(self, limit: HandlerLimit) -> None:
        """Count one more failure in a row, which may open the breaker."""
        now = self.clock.monotonic()
        limit.breaker = limit.breaker.failed(now)
        if limit.breaker.tripped:
            self.update(limit)
            seconds = round(limit.breaker.open_until - now, 3)
            self.telemetry.emit(
                "breaker.opened", handler=limit.pattern, failures=limit.breaker.failures, seconds=seconds
            )
