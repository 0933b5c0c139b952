"""What a trial with a death proves, held against trials without one: values and decisions only."""

from collections import Counter
from collections.abc import Iterator, Sequence
from enum import StrEnum

import msgspec

from replayforge.domain.lifecycle import State
from replayforge.prove.proxy import Call
from replayforge.prove.trial import CrashTrial, EndedEvent

SAFE = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})  # have no effect
IDEMPOTENT = frozenset({"PUT", "DELETE"})  # have it once, by what HTTP says of them, however often they come
Effect = tuple[str, str]


class CrashMark(StrEnum):
    """How handlers fare at a point."""

    CONVERGED = "converged"
    HELD = "held"
    NOT_REACHED = "not_reached"
    DOUBLED = "doubled"
    FAILED = "failed"


RED = frozenset({CrashMark.DOUBLED, CrashMark.FAILED})


class Doubled(msgspec.Struct, frozen=True):
    """An effect that happened more often than without the death: which, how often too often, where, and what helps."""

    call: str
    times: int
    place: str
    innermost: str
    step: str
    function: str
    remedy: str


class CrashCell(msgspec.Struct, frozen=True):
    """How a sample's handlers fare at one pass of a crash point."""

    point: str
    nth: int
    mark: CrashMark
    step: str = ""
    extra_starts: int = 0
    steps_again: tuple[str, ...] = ()
    known_again: int = 0
    doubled: tuple[Doubled, ...] = ()
    held: tuple[str, ...] = ()
    objections: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The point, which pass of it where that is not the first, and at which step."""
        return self.point + (f":{self.nth}" if self.nth > 1 else "") + (f" {self.step}" if self.step else "")


def judged(point: str, nth: int, step: str, trial: CrashTrial, usual: CrashTrial) -> CrashCell:
    """Judge a trial that was to die at a point, by what comes of the same sample without a death."""
    held = tuple(dict.fromkeys(held_in(trial, usual)))
    objections = trial.objections or tuple(ended_otherwise(trial, usual))
    doubled = tuple(doubled_in(trial, usual))
    return CrashCell(
        point,
        nth,
        mark_of(trial, doubled, held, objections),
        step=step,
        extra_starts=max(0, trial.starts - usual.starts),
        steps_again=tuple(sorted((trial.step_starts - usual.step_starts).elements())),
        known_again=known_repeats(trial.calls),
        doubled=doubled,
        held=held,
        objections=objections,
    )


def mark_of(trial: CrashTrial, doubled: Sequence[Doubled], held: Sequence[str], objections: Sequence[str]) -> CrashMark:
    """Return the one word, the gravest first."""
    if doubled:
        return CrashMark.DOUBLED
    if objections:
        return CrashMark.FAILED
    if held:
        return CrashMark.HELD
    return CrashMark.CONVERGED if trial.died else CrashMark.NOT_REACHED


def held_in(trial: CrashTrial, usual: CrashTrial) -> Iterator[str]:
    """Yield why events are held for a person that are not without the death."""
    for event in trial.events:
        if event.status == State.HELD and not any(one.status == State.HELD for one in usual.events):
            steps = f": step {', '.join(event.in_doubt)}" if event.in_doubt else ""
            yield f"{event.event_type} is held, {event.reason.replace('_', ' ') or 'in doubt'}{steps}"


def ended_otherwise(trial: CrashTrial, usual: CrashTrial) -> Iterator[str]:
    """Yield how events ended that end in another way without the death; who is held may keep others waiting."""
    if any(event.status == State.HELD for event in trial.events):
        return
    wanted = Counter((event.event_type, event.status) for event in usual.events)
    found = Counter((event.event_type, event.status) for event in trial.events)
    for event_type, status in found - wanted:
        errors = [
            event.error or event.reason
            for event in trial.events
            if (event.event_type, event.status) == (event_type, status)
        ]
        yield f"{event_type} is {status.replace('_', ' ')} ({errors[0] or 'no error'})"
    for event_type, status in wanted - found:
        yield f"no {event_type} is {status.replace('_', ' ')}"


def doubled_in(trial: CrashTrial, usual: CrashTrial) -> Iterator[Doubled]:
    """Yield the effects that the death has doubled."""
    for effect, times in (effects_of(trial.calls) - effects_of(usual.calls)).items():
        happened = [call for call in distinct(trial.calls) if effect_of(call) == effect]
        expected = Counter(place_of(call) for call in distinct(usual.calls) if effect_of(call) == effect)
        yield described(too_often(happened, expected), times)


def too_often(happened: Sequence[Call], expected: Counter[str]) -> Call:
    """Return the call that was made more often than expected, by its line where that is known."""
    places = Counter(map(place_of, happened)) - expected
    known = [call for call in happened if call.sites]
    return next((call for call in reversed(known) if place_of(call) in places), (known or happened)[-1])


def place_of(call: Call) -> str:
    """Return the line that a call comes from."""
    return (call.sites[0].innermost or call.sites[0].place) if call.sites else ""


def described(call: Call, times: int) -> Doubled:
    """Say what was called too often, from where, and what helps."""
    site = call.sites[0] if call.sites else None
    words = f"{call.method} {call.url}"
    if site is None:
        return Doubled(words, times, "", "", "", "", "no line of yours was seen to call it")
    return Doubled(words, times, site.place, site.innermost, site.step, site.function, remedy(site.step))


def remedy(step: str) -> str:
    """Say what keeps an effect from being doubled."""
    if step:
        return f"step {step!r}: send ctx.step_key as its Idempotency-Key, or use once=True"
    return "wrap it in ctx.step(...)"


def effects_of(calls: Sequence[Call]) -> Counter[Effect]:
    """Count the effects of calls: none of those that only ask, one of those whose receiver can tell a repetition."""
    return Counter(effect_of(call) for call in distinct(calls) if call.method not in SAFE)


def distinct(calls: Sequence[Call]) -> Iterator[Call]:
    """Yield the calls that a receiver cannot know to be repetitions."""
    seen = set[tuple[str, str]]()
    for call in calls:
        known_by = (call.method, (call.key and f"{call.origin} {call.key}") or call.url)
        if (call.key or call.method in IDEMPOTENT) and known_by in seen:
            continue
        seen.add(known_by)
        yield call


def known_repeats(calls: Sequence[Call]) -> int:
    """Count the repetitions that receivers can tell."""
    return len(calls) - sum(1 for _ in distinct(calls))


def effect_of(call: Call) -> Effect:
    """Return by what an effect is told from others: whom it reaches; the rest of an address may hold what differs."""
    return (call.method, call.origin)


def doubts_about(first: CrashTrial, second: CrashTrial) -> list[str]:
    """Say what keeps a sample from proving all that its handlers do, by two trials without a death."""
    doubts = [f"without a crash: {objection}" for objection in first.objections or second.objections]
    doubts += [unproved(event) for event in first.events if event.status not in (State.SUCCEEDED, State.KEPT)]
    for address, site in dict(first.refused).items():
        doubts.append(f"{address} was called past the proxy{f', at {site.place}' if site else ''}: see --forward")
    once, again = effects_of(first.calls), effects_of(second.calls)
    if not doubts and once != again:
        differing = min((once - again) | (again - once))
        doubts.append(f"what it calls differs from run to run, without a crash: {' '.join(differing)}")
    return doubts


def unproved(event: EndedEvent) -> str:
    """Say why an event that did not succeed without a death proves less."""
    if event.status == State.WAITING:
        return f"{event.event_type} waits ({', '.join(event.awaits)}): what comes after is not proved"
    why = event.error or event.reason
    return f"without a crash {event.event_type} is {event.status.replace('_', ' ')}{f': {why}' if why else ''}"
