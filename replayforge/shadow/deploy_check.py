"""Holds code against the open runs of a store: which it continues, and which it would break."""

from collections.abc import Sequence
from fnmatch import fnmatchcase

import msgspec

from replayforge.domain.code_change import CONTINUES, CodeChange, Fate
from replayforge.shadow.comparing import SECOND
from replayforge.shadow.fates import changes_of, gravest, is_doubtful, steady
from replayforge.shadow.replayed import Job
from replayforge.shadow.replaying import replay_all
from replayforge.stores.code_changes import OpenRun


class Code(msgspec.Struct, frozen=True):
    """Code that is held against runs: a job for the child process, and the patterns that HTTP endpoints handle.

    Of what an endpoint does nothing is known.
    """

    job: Job
    endpoints: tuple[str, ...] = ()


async def check(code: Code, runs: Sequence[OpenRun]) -> list[CodeChange]:
    """Return what the code does with each run, in their order; raises HandlersNotLoaded.

    What would break a run is looked at twice, in worlds of other times and other chance.
    """
    recorded = [one.recorded for one in runs]
    replayed = await replay_all(code.job, recorded)
    found = [changes_of(run, one) for run, one in zip(recorded, replayed, strict=True)]
    doubtful = [at for at, own in enumerate(found) if is_doubtful(own)]
    second = msgspec.structs.replace(code.job, world=SECOND)
    again = await replay_all(second, [recorded[at] for at in doubtful]) if doubtful else []
    decided = [gravest(own) for own in found]
    for at, one in zip(doubtful, again, strict=True):
        decided[at] = steady(found[at], changes_of(recorded[at], one))
    return [
        CONTINUES if is_of_endpoint(code, run, change) else change for run, change in zip(runs, decided, strict=True)
    ]


def is_of_endpoint(code: Code, run: OpenRun, change: CodeChange) -> bool:
    """Tell whether an HTTP endpoint goes on with a run: its code has no label, and no module handles it."""
    if run.label and change.fate is not Fate.NO_HANDLER:
        return False
    return any(fnmatchcase(run.event.event_type, pattern) for pattern in code.endpoints)
