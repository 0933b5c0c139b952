"""What becomes of an event after a crash in the middle of an attempt: decisions only."""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

import msgspec

from replayforge.domain.event import Lease, route
from replayforge.domain.lifecycle import Outcome, Reason, State
from replayforge.domain.poison import Death, Decision, Isolation, Suspicion, after_death
from replayforge.domain.verdict import Verdict

CRASHES_MAX = 3


@dataclass(frozen=True, slots=True)
class InFlight:
    """An event that was in the hands of a worker or a process that died, and what earlier deaths say of it."""

    seq: int
    event_id: str
    event_type: str
    run: int
    token: int
    attempt_count: int
    crashes: int
    owner: str
    started_at_us: int
    isolation: Isolation = Isolation.FREE
    suspicion: Suspicion | None = None
    worker: str = ""
    subscriber: str | None = None
    subscribers: str | None = None

    @property
    def route(self) -> str:
        """By what its handler is found."""
        return route(self.event_type, self.subscriber, self.subscribers)

    @property
    def lease(self) -> Lease:
        """What it was held under."""
        return Lease(self.seq, self.token)


@dataclass(frozen=True, slots=True)
class Reclaim:
    """What to do with one event that a crash left behind, and how it is claimed if it is queued again."""

    event: InFlight
    verdict: Verdict
    isolation: Isolation = Isolation.FREE
    suspicion: Suspicion | None = None
    outcome: Outcome = Outcome.CRASHED


@dataclass(frozen=True, slots=True)
class FormerIncarnation:
    """What the last incarnation of a node left word of: who it was, whether it was told to end, and who ran alone.

    `alone` is the lease of the event that ran with nothing beside it when the word was left, `seconds`
    for how long it had. `outlived` are those that had run on beyond their time alone.
    """

    owner: str = ""
    draining: bool = False
    alone: Lease | None = None
    seconds: float | None = None
    outlived: Collection[Lease] = ()


def judge_former(
    left: Iterable[InFlight],
    former: FormerIncarnation,
    draining: Collection[str],
    node: str,
    holds_on_crash: Callable[[str], bool],
) -> list[Reclaim]:
    """Decide what becomes of the events that former incarnations of this node held.

    That they are gone is certain, for this one runs. What one left that was told to end, one of `draining`, was
    interrupted; of all others a death is proven. It charges no event but one that ran alone, and that only as
    `poison.after_death` says. `holds_on_crash` says of a route whether a person must look before it runs again.
    """
    events = list(left)
    held = sum(event.owner == former.owner for event in events)
    decided = []
    for event in events:
        ours, hold = event.owner == former.owner, holds_on_crash(event.route)
        if event.owner in draining:
            decided.append(as_it_was(event, hold=hold, outcome=Outcome.INTERRUPTED))
            continue
        alone = ours and held == 1 and former.alone == event.lease
        outlived = ours and event.lease in former.outlived
        death = Death(event.owner, node, alone, former.seconds if alone else None, outlived)
        decided.append(charged(event, death, hold=hold))
    return decided


def charged(event: InFlight, death: Death, *, hold: bool) -> Reclaim:
    """Decide for one event that was in flight at a proven death."""
    decision, known = after_death(event.suspicion or Suspicion(), death)
    if decision is Decision.CONVICT:
        verdict = Verdict(State.DEAD_LETTERED, event.attempt_count, event.crashes, reason=Reason.POISON)
    elif decision is Decision.HOLD:
        verdict = Verdict(State.HELD, event.attempt_count, event.crashes, reason=Reason.SUSPECTED_POISON)
    elif hold:
        verdict = Verdict(State.HELD, event.attempt_count, event.crashes)
    else:
        isolation = Isolation.SET_ASIDE if decision is Decision.SET_ASIDE else Isolation.RUNS_ALONE
        return Reclaim(event, Verdict(State.QUEUED, event.attempt_count, event.crashes), isolation, known)
    return Reclaim(event, verdict, suspicion=known)


def after_lapse(event: InFlight, *, hold: bool, draining: bool = False) -> Reclaim:
    """Decide for one event whose lease lapsed: nobody knows whether its daemon died, so nothing is charged to it.

    Who held it is remembered: should that incarnation turn out to be dead, the event is a suspect after all. One that
    was told to end, and was `draining`, made nobody a suspect.
    """
    if draining:
        return as_it_was(event, hold=hold, outcome=Outcome.INTERRUPTED)
    known = event.suspicion or Suspicion()
    return as_it_was(event, hold=hold, suspicion=msgspec.structs.replace(known, left_by=event.owner))


def as_it_was(
    event: InFlight, *, hold: bool, outcome: Outcome = Outcome.CRASHED, suspicion: Suspicion | None = None
) -> Reclaim:
    """Queue an event again that is neither more nor less suspect than it was, or hold it if its type asks for that."""
    state = State.HELD if hold else State.QUEUED
    known = suspicion or event.suspicion
    return Reclaim(event, Verdict(state, event.attempt_count, event.crashes), event.isolation, known, outcome)


def after_crash(event: InFlight, *, hold: bool) -> Reclaim:
    """Decide for one event whose worker died of it: bury it as poison after the third time, else hold or requeue it."""
    crashes = event.crashes + 1
    if crashes >= CRASHES_MAX:
        verdict = Verdict(State.DEAD_LETTERED, event.attempt_count, crashes, reason=Reason.POISON)
    else:
        verdict = Verdict(State.HELD if hold else State.QUEUED, event.attempt_count, crashes)
    return Reclaim(event, verdict)
