"""How every handler stands, for people: paused, at its limit, behind a breaker, and how it has fared."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from replayforge.domain.admission import EVERYTHING, Pause
from replayforge.domain.breaker import BreakerState
from replayforge.domain.reports import Group
from replayforge.engine.dispatch.claim_buffer import ClaimBuffer
from replayforge.engine.dispatch.handler_limits import HandlerLimit, HandlerLimits
from replayforge.engine.handlers.registry import FAN_OUT, Handler
from replayforge.engine.run.execution import Rules
from replayforge.stores.store import Store

Kind = Literal["function", "http", "fan-out"]


@dataclass(frozen=True, slots=True)
class HandlerStatus:
    """One handler as people see it, with the types of events that it takes. `deferred` events wait for it in the store,
    `successes` and `failures` are this process's. `breaker_seconds` is how long an open breaker stays open yet."""

    pattern: str
    event_types: str
    kind: Kind
    name: str
    max_attempts: int
    timeout_seconds: float
    on_crash: str
    concurrency_max: int | None
    running: int
    deferred: int
    pause: Pause | None
    breaker: BreakerState | None
    breaker_seconds: float
    successes: int
    failures: int


@dataclass(frozen=True, slots=True)
class HandlersReport:
    """All handlers; the pause of everything, if there is one; pauses of handlers that this daemon does not have; and
    the event types that died for want of a handler, with whether they have one by now."""

    handlers: list[HandlerStatus]
    everything: Pause | None
    strange: list[Pause]
    orphans: list[tuple[Group, bool]]


class HandlerReporter:
    """Puts together what the handler limits, the buffer and the store know of the handlers; it only looks."""

    def __init__(self, store: Store, buffer: ClaimBuffer, handler_limits: HandlerLimits, defaults: Rules) -> None:
        self.store = store
        self.buffer = buffer
        self.handler_limits = handler_limits
        self.defaults = defaults

    def knows(self, pattern: str) -> bool:
        """Tell whether this daemon has a handler of this pattern."""
        return bool(pattern) and pattern in self.handler_limits.by_pattern

    async def report(self) -> HandlersReport:
        """Return how every handler stands."""
        pauses, deferred = await self.store.pauses_and_deferred()
        orphans = await self.store.handlerless()
        held = Counter(self.handler_limits.pattern_of(one.event.route) for one in self.buffer.running.values())
        has_subscribers = self.handler_limits.handlers.has_subscribers
        return HandlersReport(
            handlers=[
                self.status(limit, limit.handler, held[pattern], deferred)
                for pattern, limit in sorted(self.handler_limits.by_pattern.items())
                if limit.handler is not None and (has_subscribers or pattern != FAN_OUT.identity)
            ],
            everything=next((pause for pause in pauses if pause.pattern == EVERYTHING), None),
            strange=[
                one for one in pauses if one.pattern != EVERYTHING and one.pattern not in self.handler_limits.by_pattern
            ],
            orphans=[(group, self.handler_limits.handlers.find(group.name) is not None) for group in orphans],
        )

    def status(self, limit: HandlerLimit, handler: Handler, running: int, deferred: Mapping[str, int]) -> HandlerStatus:
        """Return how one handler stands."""
        now = self.handler_limits.clock.monotonic()
        return HandlerStatus(
            pattern=limit.pattern,
            event_types="" if handler.identity == FAN_OUT.identity else handler.pattern,
            kind=kind_of(handler),
            name=handler.name,
            max_attempts=handler.max_attempts or self.defaults.retry.max_attempts,
            timeout_seconds=handler.timeout_seconds or self.defaults.timeout_seconds,
            on_crash=handler.on_crash,
            concurrency_max=handler.concurrency_max,
            running=running,
            deferred=deferred.get(limit.pattern, 0),
            pause=limit.pause,
            breaker=limit.breaker.state(now) if handler.breaker else None,
            breaker_seconds=max(0.0, limit.breaker.open_until - now),
            successes=limit.successes,
            failures=limit.failures,
        )


def kind_of(handler: Handler) -> Kind:
    """Return what kind of handler it is."""
    if handler.identity == FAN_OUT.identity:
        return "fan-out"
    return "http" if handler.endpoint else "function"
