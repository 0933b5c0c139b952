"""What the replay of a recorded run says of the code: decisions only, of which each can be tested by itself."""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from enum import StrEnum

import msgspec

from replayforge.domain.lifecycle import Reason, State
from replayforge.domain.recorded_run import RecordedRun
from replayforge.shadow.differences import differences, escaped, shown
from replayforge.shadow.replayed import Asked, End, NamedStep, ReplayedRun


class ShadowVerdict(StrEnum):
    """What a run comes to with other code, in the order of the report."""

    SAME = "same"
    RESULT_CHANGED = "result_changed"
    ARGUMENTS_CHANGED = "arguments_changed"
    NEW_STEP = "new_step"
    STEP_VANISHED = "step_vanished"
    RAISES = "raises"
    CURED = "cured"
    EFFECT = "effect"
    NOT_REPRODUCIBLE = "not_reproducible"


GRAVITY = (
    ShadowVerdict.SAME,
    ShadowVerdict.CURED,
    ShadowVerdict.RESULT_CHANGED,
    ShadowVerdict.NEW_STEP,
    ShadowVerdict.ARGUMENTS_CHANGED,
    ShadowVerdict.STEP_VANISHED,
    ShadowVerdict.NOT_REPRODUCIBLE,
    ShadowVerdict.RAISES,
    ShadowVerdict.EFFECT,
)
UNDECIDABLE = frozenset({ShadowVerdict.NOT_REPRODUCIBLE, ShadowVerdict.EFFECT})
# What may differ from pass to pass without anything else being another: it is left out where it does.
FIELDS = frozenset({ShadowVerdict.RESULT_CHANGED, ShadowVerdict.ARGUMENTS_CHANGED})
# Dead letters that their own code did not end: code that goes no further than it did has changed nothing.
ENDED_FROM_OUTSIDE = frozenset({Reason.DEADLINE, Reason.JOURNAL_FULL, Reason.POISON, Reason.SUSPECTED_POISON})
ERROR = "/error"
INDEX = re.compile(r"/\d+(?=/|$)")


class Difference(msgspec.Struct, frozen=True):
    """One thing in which a run differs from what is recorded: where, and the JSON before and after, if any."""

    verdict: ShadowVerdict
    pointer: str
    before: str | None = None
    after: str | None = None


Found = Mapping[str, tuple[Difference, ...]]  # by the ids of runs


class Doubt(msgspec.Struct, frozen=True):
    """What is not the same on every pass, for all runs of one handler."""

    route: str
    verdict: ShadowVerdict
    pointer: str
    after: str | None = None


# One run


def differences_of(run: RecordedRun, replayed: ReplayedRun) -> tuple[Difference, ...]:
    """Return in what a run differs from what is recorded of it; nothing where the code does the same."""
    if replayed.effect is not None:
        said = f"{replayed.effect.what} at {replayed.effect.place}"
        return (Difference(ShadowVerdict.EFFECT, "", after=shown(said)),)
    return (*changed_arguments(replayed), *differences_at_end(run, replayed))


def changed_arguments(replayed: ReplayedRun) -> Iterator[Difference]:
    """Yield the places in which arguments of steps, or payloads of children, are others."""
    for one in replayed.changed:
        before, after = (text.encode() or b"[]" for text in (one.before, one.after))
        for place in differences(before, after, step_pointer(one.step)):
            yield Difference(ShadowVerdict.ARGUMENTS_CHANGED, *place)


def differences_at_end(run: RecordedRun, replayed: ReplayedRun) -> Iterator[Difference]:
    """Yield in what the end differs, or where an open run stands."""
    match replayed.end:
        case End.UNFINISHED if not ended_from_outside(run):
            yield Difference(ShadowVerdict.NOT_REPRODUCIBLE, "", after=shown(replayed.error))
        case End.NO_HANDLER if not run.found_no_handler:
            yield Difference(ShadowVerdict.RAISES, ERROR, error_of(run), shown("no handler is registered"))
        case End.RAISED if not raised_the_same(run, replayed):
            yield Difference(ShadowVerdict.RAISES, ERROR, error_of(run), shown(replayed.signature))
        case End.BEGINS if not ended_from_outside(run):
            yield from begun(run, replayed)
        case End.STANDS if not ended_from_outside(run):
            yield from stood(run, replayed)
        case End.RETURNED:
            yield from returned(run, replayed)


def staying(run: RecordedRun, stopped_at: NamedStep | None) -> Difference:
    """Return what there is to say of a dead letter that stays one: by which error, and at which step that is recorded
    as failed, where its code comes to an end by that.

    It is no difference, but is told like one.
    """
    pointer = ERROR if stopped_at is None else step_pointer(stopped_at.step)
    error = error_of(run)
    return Difference(ShadowVerdict.SAME, pointer, error, error)


def begun(run: RecordedRun, replayed: ReplayedRun) -> Iterator[Difference]:
    """Yield the steps that would begin; a dead letter that gets beyond all that is recorded of it is cured so far."""
    if is_dead(run) and not replayed.unreached:
        yield Difference(ShadowVerdict.CURED, ERROR, error_of(run))
    else:
        yield from map(new_step, replayed.asks)


def stood(run: RecordedRun, replayed: ReplayedRun) -> Iterator[Difference]:
    """Yield what is gone before the place where an open run stands; a run that had ended waits for something new."""
    if not run.is_open:
        yield from (new_step(Asked(one.kind, one.step)) for one in replayed.stands)
    yield from map(vanished, replayed.unreached)


def returned(run: RecordedRun, replayed: ReplayedRun) -> Iterator[Difference]:
    """Yield in what a result differs, and the steps that are gone."""
    if is_dead(run):
        yield Difference(ShadowVerdict.CURED, ERROR, error_of(run))
    elif not run.is_open:
        for place in differences(run.event.result, replayed.result, "/result"):
            yield Difference(ShadowVerdict.RESULT_CHANGED, *place)
    yield from map(vanished, replayed.unreached)


def is_dead(run: RecordedRun) -> bool:
    """Tell whether it is a dead letter."""
    return run.event.state is State.DEAD_LETTERED


def ended_from_outside(run: RecordedRun) -> bool:
    """Tell whether it is a dead letter that its own code has not made one."""
    return is_dead(run) and run.event.reason in ENDED_FROM_OUTSIDE


def raised_the_same(run: RecordedRun, replayed: ReplayedRun) -> bool:
    """Tell whether a dead letter would be one again, by the same kind of error."""
    return is_dead(run) and replayed.signature == run.event.error_signature


def error_of(run: RecordedRun) -> str | None:
    """Return the error that a run has ended with, None for one that has not failed."""
    return shown(run.event.error_signature or run.event.reason) if is_dead(run) else None


def new_step(asked: Asked) -> Difference:
    """Return the difference that a step makes which is not recorded."""
    before = None if asked.known_as is None else shown({"kind": asked.known_as})
    arguments = msgspec.Raw(asked.arguments.encode()) if asked.arguments else msgspec.UNSET
    told = {"kind": asked.kind} if arguments is msgspec.UNSET else {"kind": asked.kind, "arguments": arguments}
    return Difference(ShadowVerdict.NEW_STEP, step_pointer(asked.step), before, shown(told))


def vanished(step: NamedStep) -> Difference:
    """Return the difference that a recorded step makes which nobody asks for."""
    return Difference(ShadowVerdict.STEP_VANISHED, step_pointer(step.step), shown({"kind": step.kind}))


def step_pointer(step: str) -> str:
    """Return where a step stands in the report."""
    return f"/steps/{escaped(step)}"


def step_of(pointer: str) -> str:
    """Return the step that stands at a pointer."""
    return pointer.removeprefix("/steps/").replace("~1", "/").replace("~0", "~")


# What counts of that


def counting(found: Found, ignored: Collection[str]) -> Found:
    """Leave out the places that are ignored, and what is below them."""
    return {
        run_id: tuple(one for one in own if not any(is_below(one.pointer, place) for place in ignored))
        for run_id, own in found.items()
    }


def is_below(pointer: str, place: str) -> bool:
    """Tell whether a pointer leads to a place, or to what is below it."""
    return pointer == place or pointer.startswith(f"{place.rstrip('/')}/")


def without(found: Found, others: Found) -> Found:
    """Leave out what other code changes as well: the same difference, with the same value after."""
    known = {
        (run_id, one.verdict, one.pointer, one.after)
        for run_id, own in others.items()
        for one in own
        if one.verdict not in UNDECIDABLE
    }
    return {
        run_id: tuple(one for one in own if (run_id, one.verdict, one.pointer, one.after) not in known)
        for run_id, own in found.items()
    }


def steady(found: Found, again: Found, routes: Mapping[str, str]) -> Found:
    """Leave out what differs between two passes, of which the second may have been over some of the runs only.

    Fields that differ in one run are left out of all runs of its handler, by their routes. Where the whole end of a run
    differs, nothing can be said of that run; and nothing of such an end in any run, where it differs mostly.
    """
    doubts = doubted(found, again, routes)

    def kept(run_id: str, own: tuple[Difference, ...]) -> Iterator[Difference]:
        repeated = again.get(run_id, own)
        dropped = [one for one in own if one not in repeated or doubt(routes[run_id], one) in doubts]
        yield from (one for one in own if one not in dropped)
        if not FIELDS.issuperset(one.verdict for one in dropped):
            yield Difference(ShadowVerdict.NOT_REPRODUCIBLE, "", after=shown("it is not the same on every pass"))

    return {run_id: tuple(dict.fromkeys(kept(run_id, own))) for run_id, own in found.items()}


def doubted(found: Found, again: Found, routes: Mapping[str, str]) -> frozenset[Doubt]:
    """Return what is not the same on every pass, for all runs of a handler."""
    tried: Counter[Doubt] = Counter()
    differing: Counter[Doubt] = Counter()
    for run_id, repeated in again.items():
        first = found[run_id]
        for one in {*first, *repeated}:
            key = doubt(routes[run_id], one)
            tried[key] += 1
            differing[key] += (one in first) is not (one in repeated)
    return frozenset(
        key for key, count in differing.items() if count and (key.verdict in FIELDS or 2 * count >= tried[key])
    )


def doubt(route: str, difference: Difference) -> Doubt:
    """Return by what the difference of one run is known among all runs of a handler; places in arrays are all one."""
    pointer, after = difference.pointer, difference.after
    if difference.verdict in FIELDS:
        pointer, after = INDEX.sub("/*", pointer), None
    return Doubt(route, difference.verdict, pointer, after)


def samples(found: Found, routes: Mapping[str, str], each: int) -> frozenset[str]:
    """Return the ids of so many runs of each kind of difference."""
    taken: Counter[Doubt] = Counter()
    chosen = set()
    for run_id, own in found.items():
        keys = {doubt(routes[run_id], one) for one in own if one.verdict not in UNDECIDABLE}
        if any(taken[key] < each for key in keys):
            chosen.add(run_id)
            taken.update(keys)
    return frozenset(chosen)


def gravest(own: Iterable[Difference]) -> ShadowVerdict:
    """Return the verdict on a run."""
    return max((one.verdict for one in own), key=GRAVITY.index, default=ShadowVerdict.SAME)
