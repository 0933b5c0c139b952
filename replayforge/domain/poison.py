"""Which event kills the process: what the deaths that an event was part of say about it. Decisions only."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum, StrEnum

import msgspec

ALONE_SECONDS_MAX = 64.0
CONTROL_FACTOR = 5
CONTROL_SECONDS_MAX = 300.0
AGREEING_DEATHS = 3
AGREEING_RATIO = 1.3
AGREEING_SECONDS = 0.1
DEATHS_ALONE_MAX = 6


class Isolation(IntEnum):
    """How a queued event is claimed: as any other, alone, or not before its control is over."""

    FREE = 0
    RUNS_ALONE = 1
    SET_ASIDE = 2


class Suspicion(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is known of an event that was in flight when a process died; its row keeps it until an attempt has ended.

    `deaths` counts all of them. `alone` holds, for each death at which it ran alone, after how many seconds that came,
    the last one last; None where nobody can know. `died_with` is the incarnation whose death was judged last, `node`
    the daemon on which the event is set aside. `left_by` is the incarnation another daemon took the event over from.
    """

    deaths: int = 0
    alone: tuple[float | None, ...] = ()
    died_with: str = ""
    node: str = ""
    left_by: str = ""


@dataclass(frozen=True, slots=True)
class Death:
    """The proven death of an incarnation of a node, as it concerns one event.

    `alone` says that the event ran with nothing beside it; `seconds` is for how long, None where nobody can know.
    `outlived` says that it had run on beyond its time alone, and others were running beside it.
    """

    incarnation: str
    node: str
    alone: bool = False
    seconds: float | None = None
    outlived: bool = False


class Decision(StrEnum):
    """What a death means for an event that was in flight."""

    RUN_ALONE = "run_alone"
    SET_ASIDE = "set_aside"
    HOLD = "hold"
    CONVICT = "convict"


def after_death(known: Suspicion, death: Death) -> tuple[Decision, Suspicion]:
    """Decide what becomes of an event that was in flight at a death, and what is known of it from now on.

    A death beside others charges nobody, and who has just outlived its time alone begins its row anew. A death alone is
    only evidence: a control follows, and it takes three in a row that agree to convict. Who died alone six times at
    times that do not agree is left to a person.
    """
    if not death.alone:
        return Decision.RUN_ALONE, suspect(known, death, () if death.outlived else known.alone)
    found = suspect(known, death, (*known.alone, death.seconds))
    if agree(found.alone[-AGREEING_DEATHS:]):
        return Decision.CONVICT, found
    if len(found.alone) >= DEATHS_ALONE_MAX:
        return Decision.HOLD, found
    return Decision.SET_ASIDE, found


def suspect(known: Suspicion, death: Death, alone: tuple[float | None, ...]) -> Suspicion:
    """Return what is known of an event after one more death."""
    return Suspicion(known.deaths + 1, alone, died_with=death.incarnation, node=death.node)


def agree(times: Sequence[float | None]) -> bool:
    """Tell whether an event died often enough alone, each time after about as many seconds."""
    known = [seconds for seconds in times if seconds is not None]
    if len(known) < max(AGREEING_DEATHS, len(times)):
        return False
    shortest, longest = min(known), max(known)
    return longest <= shortest * AGREEING_RATIO or longest - shortest <= AGREEING_SECONDS


def released(known: Suspicion) -> Suspicion:
    """Return what is known of an event whose control is over, and which runs alone again."""
    return Suspicion(known.deaths, known.alone, known.died_with)


def exonerated(known: Suspicion) -> Suspicion:
    """Return what is known of an event once a process died while the event was set aside.

    Its deaths alone are taken back. It goes on to run alone first: were it let go among others, two guilty ones could
    vouch for each other for ever.
    """
    return Suspicion(max(1, known.deaths - len(known.alone)))


def uncontrolled(known: Suspicion) -> Suspicion:
    """Return what is known of an event whose control never came to its end: its last death alone proves nothing."""
    return Suspicion(known.deaths, known.alone[:-1])


def seconds_alone(deaths: int, first_seconds: float) -> float:
    """Return for how long everything else waits while a suspect runs: it doubles with each death, up to a minute."""
    return min(max(ALONE_SECONDS_MAX, first_seconds), first_seconds * 2.0 ** min(max(deaths - 1, 0), 16))


def control_seconds(alone: Sequence[float | None], least_seconds: float) -> float:
    """Return for how long a daemon has to live without an event that died alone before the event may run again."""
    longest = max((seconds for seconds in alone if seconds is not None), default=0.0)
    return max(least_seconds, min(CONTROL_SECONDS_MAX, CONTROL_FACTOR * longest))


def after_proven_death(
    isolation: Isolation, known: Suspicion, death: Death, *, here: bool, explained: bool
) -> tuple[Isolation, Suspicion] | None:
    """Decide what the death of an incarnation says of an open event that it did not hold; None for nothing.

    What another daemon has taken over from it was in flight all the same. What is set aside `here` did not kill it,
    unless the death is `explained` by an event that ran alone; then the control just begins anew.
    """
    if known.left_by == death.incarnation:
        found = suspect(known, death, known.alone)
        return (isolation if isolation is Isolation.SET_ASIDE else Isolation.RUNS_ALONE), found
    if isolation is Isolation.SET_ASIDE and here and not explained and known.died_with != death.incarnation:
        return Isolation.RUNS_ALONE, exonerated(known)
    return None
