"""How every handler stands, for people: paused, at its limit, behind a breaker, and how it has fared."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from replayforge.domain.admission import EVERYTHING, Pause
from replayforge.domain.breaker import BreakerState
from replayforge.domain.reports import Group
from replayforge.engine.gates import Gate, Gates
from replayforge.engine.handlers import Handler
from replayforge.engine.workbench import Workbench
from replayforge.stores.store import Store


@dataclass(frozen=True, slots=True)
class HandlerStatus:
    """One handler as people see it. `waiting` events wait for it in the store, `successes` and `failures` are this
    process's. `breaker_seconds` is how long an open breaker stays open yet."""

    pattern: str
    kind: str
    name: str
    max_attempts: int | None
    timeout_seconds: float | None
    on_crash: str
    concurrency_max: int | None
    running: int
    waiting: int
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
    """Puts together what the gates, the bench and the store know of the handlers; it only looks."""

    def __init__(self, store: Store, bench: Workbench, gates: Gates) -> None:
        self.store = store
        self.bench = bench
        self.gates = gates

    def knows(self, pattern: str) -> bool:
        """Tell whether this daemon has a handler of this pattern."""
        return bool(pattern) and pattern in self.gates.gates

    async def report(self) -> HandlersReport:
        """Return how every handler stands."""
        pauses, waiting = await self.store.standing()
        orphans = await self.store.handlerless()
        held = Counter(self.gates.pattern_of(one.event.event_type) for one in self.bench.in_hands.values())
        return HandlersReport(
            handlers=[
                self.status(gate, gate.handler, held[pattern], waiting)
                for pattern, gate in sorted(self.gates.gates.items())
                if gate.handler is not None
            ],
            everything=next((pause for pause in pauses if pause.pattern == EVERYTHING), None),
            strange=[one for one in pauses if one.pattern != EVERYTHING and one.pattern not in self.gates.gates],
            orphans=[(group, self.gates.handlers.find(group.name) is not None) for group in orphans],
        )

    def status(self, gate: Gate, handler: Handler, running: int, waiting: Mapping[str, int]) -> HandlerStatus:
        """Return how one handler stands."""
        now = self.gates.clock.monotonic()
        return HandlerStatus(
            pattern=gate.pattern,
            kind="http" if handler.endpoint else "function",
            name=handler.name,
            max_attempts=handler.max_attempts,
            timeout_seconds=handler.timeout_seconds,
            on_crash=handler.on_crash,
            concurrency_max=handler.concurrency_max,
            running=running,
            waiting=waiting.get(gate.pattern, 0),
            pause=gate.pause,
            breaker=gate.breaker.state(now) if handler.breaker else None,
            breaker_seconds=max(0.0, gate.breaker.open_until - now),
            successes=gate.successes,
            failures=gate.failures,
        )
