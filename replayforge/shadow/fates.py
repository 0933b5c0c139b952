"""What becomes of an open run under other code: decisions only, of which each can be tested by itself."""

from collections.abc import Iterator, Sequence

from replayforge.domain.code_change import BREAKING, CONTINUES, CodeChange, Fate
from replayforge.domain.event import StoredEvent
from replayforge.domain.recorded_run import RecordedRun
from replayforge.shadow.replayed import Asked, ChangedArguments, End, NamedStep, ReplayedRun

VALUE_CHARACTERS = 200
GRAVITY = tuple(Fate)


def changes_of(run: RecordedRun, replayed: ReplayedRun) -> tuple[CodeChange, ...]:
    """Return in what code differs up to where an open run stands, or what it would begin there; one at least."""
    return (*map(changed_arguments, replayed.changed), *changes_at_end(run, replayed)) or (CONTINUES,)


def changes_at_end(run: RecordedRun, replayed: ReplayedRun) -> Iterator[CodeChange]:
    """Yield what there is to say of where the code comes to."""
    match replayed.end:
        case End.NO_HANDLER:
            yield CodeChange(Fate.NO_HANDLER, before=type_of(run.event))
        case End.RAISED if replayed.signature != run.event.error_signature:
            yield CodeChange(Fate.RAISES, after=first_line(replayed.error or ""))
        case End.EFFECT if replayed.effect is not None:
            yield CodeChange(Fate.UNDECIDABLE, after=f"{replayed.effect.what} at {replayed.effect.place}")
        case End.UNFINISHED:
            yield CodeChange(Fate.UNDECIDABLE, after=replayed.error or "")
        case End.BEGINS:
            yield from begun(replayed)
        case End.STANDS:
            yield from (vanished(one, "") for one in replayed.unreached)
        case End.RETURNED:
            yield from (vanished(one, "returns") for one in replayed.unreached)


def begun(replayed: ReplayedRun) -> Iterator[CodeChange]:
    """Yield what is to be said of steps that are not recorded.

    Where they lead to is not known: what is recorded behind them may come yet, unless the code does not name it at all.
    """
    first = replayed.asks[0]
    changed = [one for one in replayed.asks if one.known_as is not None]
    if changed:
        yield from map(kind_changed, changed)
    elif replayed.unnamed:
        yield from (vanished(one, f"begins the {first.kind} {first.step!r}") for one in replayed.unnamed)
    else:
        yield CodeChange(Fate.INSERTED, first.step, first.kind)


def changed_arguments(one: ChangedArguments) -> CodeChange:
    """Say that a recorded step is asked for with other arguments."""
    return CodeChange(Fate.ARGUMENTS_CHANGED, one.step, one.kind, cut(one.before), cut(one.after))


def kind_changed(asked: Asked) -> CodeChange:
    """Say that what has the name of a recorded step is something else now."""
    return CodeChange(Fate.KIND_CHANGED, asked.step, asked.kind, asked.known_as or "", asked.kind)


def vanished(step: NamedStep, instead: str) -> CodeChange:
    """Say that a recorded step is not come to."""
    return CodeChange(Fate.VANISHED, step.step, step.kind, after=instead)


def type_of(event: StoredEvent) -> str:
    """Return the type of an event, and for which subscriber it is."""
    return event.event_type if event.subscriber is None else f"{event.event_type}, subscriber {event.subscriber}"


def first_line(text: str) -> str:
    """Return how an error begins."""
    return cut(text.partition("\n")[0])


def cut(text: str) -> str:
    """Return as much of a value as tells it from another."""
    return text if len(text) <= VALUE_CHARACTERS else f"{text[: VALUE_CHARACTERS - 1]}…"


def is_doubtful(found: Sequence[CodeChange]) -> bool:
    """Tell whether a second look is to show that a difference is one on every pass."""
    return any(one.fate in BREAKING for one in found)


def steady(first: Sequence[CodeChange], again: Sequence[CodeChange]) -> CodeChange:
    """Return the gravest of what two passes both say of a run.

    Arguments that differ from pass to pass are no difference; where nothing else is the same, nothing can be said.
    """
    same = [one for one in first if one in again]
    if same:
        return gravest(same)
    only_arguments = all(one.fate is Fate.ARGUMENTS_CHANGED for one in (*first, *again) if one.fate in BREAKING)
    return CONTINUES if only_arguments else CodeChange(Fate.UNDECIDABLE, after="it is not the same on every pass")


def gravest(found: Sequence[CodeChange]) -> CodeChange:
    """Return what decides about a run; of several alike the first."""
    return max(found, key=lambda one: GRAVITY.index(one.fate))
