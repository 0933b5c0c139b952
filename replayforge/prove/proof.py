"""The whole proof: which trials there are, some of them at a time, and what all of them come to."""

import os
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import Any

import msgspec

from replayforge.crashpoints import POINTS
from replayforge.forked_process import ForkServer
from replayforge.prove.certificates import Certificates
from replayforge.prove.described import Described
from replayforge.prove.judging import RED, CrashCell, CrashMark, doubts_about, effects_of, judged
from replayforge.prove.proved_daemon import Subject, inherited
from replayforge.prove.samples import SampleEvent, with_signals
from replayforge.prove.trial import CrashTrial, tried

CHILD = "replayforge.prove.child"
AT_ONCE = min(8, 2 * (os.cpu_count() or 1))  # half of what a trial takes is waiting for disks and for time
# Points that a handler's own actions reach: every pass is tried. Of all others the first pass is enough.
OF_HANDLERS = ("attempt.", "step.", "child.", "park.", "signal.", "wake.", "settle.")
OF_STEPS = ("step.started", "step.returned")
PATIENCE_SECONDS = 0.2

CLEAN, BAD, UNDECIDED = 0, 1, 2


class Row(msgspec.Struct, frozen=True):
    """What a sample proves: of which handlers, at which points, and what keeps it from proving more.

    `reached` are the types of all events that came of it.
    """

    sample: str
    event_type: str
    handlers: tuple[str, ...]
    reached: tuple[str, ...] = ()
    cells: tuple[CrashCell, ...] = ()
    doubts: tuple[str, ...] = ()
    effects: int = 0
    steps: int = 0

    @property
    def name(self) -> str:
        """How people know it: by its handler, or its type where there are several."""
        return self.handlers[0] if len(self.handlers) == 1 else self.event_type

    @property
    def worst(self) -> CrashMark:
        """The gravest of its marks."""
        marks = {cell.mark for cell in self.cells}
        order = (CrashMark.FAILED, CrashMark.DOUBLED, CrashMark.HELD, CrashMark.NOT_REACHED)
        return next((mark for mark in order if mark in marks), CrashMark.CONVERGED)


class Proof(msgspec.Struct, frozen=True):
    """What all trials come to. `no_sample` names the handlers that nothing was tried with, and where they stand."""

    modules: tuple[str, ...]
    rows: tuple[Row, ...]
    no_sample: Mapping[str, str]
    seconds: float
    made_at: str

    @property
    def exit_code(self) -> int:
        """0: no observed effect was doubled, all converged; 1: one was, or something did not; 2: not all was judged."""
        if any(cell.mark in RED for row in self.rows for cell in row.cells):
            return BAD
        return UNDECIDED if self.no_sample or not self.rows or any(row.doubts for row in self.rows) else CLEAN


class TrialLimits(msgspec.Struct, frozen=True):
    """How long a trial may take, which points are tried, and how many passes of each."""

    trial_seconds: float = 30.0
    passes_max: int = 10
    points: tuple[str, ...] = tuple(POINTS)


class Prover:
    """Carries the trials out in a directory; `stopping` ends those under way."""

    def __init__(self, subject: Subject, directory: Path, limits: TrialLimits, say: Callable[[str], None]) -> None:
        self.subject = subject
        self.directory = directory
        self.limits = limits
        self.say = say
        self.certificates = Certificates(directory)
        self.stopping = threading.Event()
        self.numbers = count(1)

    def prove(self, samples: Sequence[SampleEvent], signals: Sequence[SampleEvent], told: Described) -> list[Row]:
        """Try every sample at every point on its road, and return a row for each."""
        if not samples:
            return []
        with closing(ForkServer(CHILD, Path.cwd(), inherited())) as server, ThreadPoolExecutor(AT_ONCE) as pool:
            try:
                sent = [with_signals(sample, signals) for sample in samples]
                trials = [pool.submit(self.try_once, server, bodies, "") for bodies in sent for _ in range(2)]
                usual = in_pairs(self.awaited(trials))
                planned = [points_of(*pair, self.limits) for pair in usual]
                dying = [
                    [pool.submit(self.try_once, server, bodies, f"{point}:{nth}") for point, nth in points]
                    for bodies, points in zip(sent, planned, strict=True)
                ]
                self.awaited([trial for row in dying for trial in row])
            except BaseException:
                self.stopping.set()
                pool.shutdown(cancel_futures=True)
                raise
        return [
            row_of(sample, told, pair, points, [trial.result() for trial in row])
            for sample, pair, points, row in zip(samples, usual, planned, dying, strict=True)
        ]

    def try_once(self, server: ForkServer, bodies: Sequence[Mapping[str, Any]], crash_at: str) -> CrashTrial:
        """Carry out one trial."""
        directory = self.directory / f"trial-{next(self.numbers)}"
        seconds = self.limits.trial_seconds
        made_of = directory, self.subject, self.certificates, server
        return tried(*made_of, bodies, crash_at, seconds, self.stopping)

    def awaited(self, trials: Sequence["Future[CrashTrial]"]) -> list[CrashTrial]:
        """Return what came of trials once all have ended, and say now and then how far they are; Ctrl-C is heard."""
        waiting, said = set(trials), 0
        while waiting:
            done, waiting = wait(waiting, timeout=PATIENCE_SECONDS, return_when=FIRST_COMPLETED)
            for trial in done:
                trial.result()
            ended = len(trials) - len(waiting)
            if ended * 10 // len(trials) > said or not waiting:
                said = ended * 10 // len(trials)
                self.say(f"{ended} of {len(trials)} trials")
        return [trial.result() for trial in trials]


def in_pairs(trials: Sequence[CrashTrial]) -> list[tuple[CrashTrial, CrashTrial]]:
    """Return two trials each."""
    return list(zip(trials[::2], trials[1::2], strict=True))


def points_of(first: CrashTrial, second: CrashTrial, limits: TrialLimits) -> list[tuple[str, int]]:
    """Return the points on the road of a sample, and which passes of them; none of one that does not come to an end."""
    if first.objections or second.objections:
        return []
    return list(planned(first.passes, second.passes, limits))


def planned(first: Mapping[str, int], second: Mapping[str, int], limits: TrialLimits) -> Iterator[tuple[str, int]]:
    """Yield the points that were passed each time."""
    for point in limits.points:
        passes = min(first.get(point, 0), second.get(point, 0))
        most = limits.passes_max if point.startswith(OF_HANDLERS) else 1
        yield from ((point, nth) for nth in range(1, min(passes, most) + 1))


def row_of(
    sample: SampleEvent,
    told: Described,
    usual: tuple[CrashTrial, CrashTrial],
    points: Sequence[tuple[str, int]],
    trials: Sequence[CrashTrial],
) -> Row:
    """Judge what was tried with a sample."""
    first, second = usual
    steps = first.steps if first.steps == second.steps else ()
    cells = [
        judged(point, nth, step_at(steps, point, nth), trial, first)
        for (point, nth), trial in zip(points, trials, strict=True)
    ]
    return Row(
        sample.name,
        sample.event_type,
        tuple(told.routes[sample.event_type]),
        tuple(sorted({event.event_type for event in first.events})),
        tuple(cells),
        tuple(dict.fromkeys(doubts_about(first, second))),
        effects_of(first.calls).total(),
        len(first.steps),
    )


def step_at(steps: Sequence[str], point: str, nth: int) -> str:
    """Return the step whose function stands at a pass of a point, where that is known."""
    return steps[nth - 1] if point in OF_STEPS and nth <= len(steps) else ""


def without_sample(told: Described, reached: Collection[str]) -> dict[str, str]:
    """Return the handlers that get none of the events that there were, by their types."""
    tried_ones = {name for event_type in reached for name in told.routes[event_type]}
    return {name: place for name, place in told.handlers.items() if name not in tried_ones}
