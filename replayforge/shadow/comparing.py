"""Compares code with recorded runs, again and again, until only differences that every pass shows are left."""

import os
from asyncio import Semaphore, gather
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from replayforge.domain.journal import StepKind
from replayforge.domain.recorded_run import RecordedRun
from replayforge.shadow import verdicts
from replayforge.shadow.replayed import Job, NamedStep, ReplayedRun, World
from replayforge.shadow.replaying import replay_all
from replayforge.shadow.verdicts import Difference, Found, differences_of

DAY_SECONDS = 86_400
SAMPLES = 5  # of each kind of difference, to be looked at in further worlds
# The second looks at every run that differs. A set of two texts has the same order in every second world, and a coin
# falls alike as often: what is left by then is tried in many more, a few runs of each kind.
SECOND = World(ahead_seconds=400 * DAY_SECONDS + 18_413, random_seed=1, hash_seed=1)
FURTHER = tuple(
    World(ahead_seconds=number * (53 * DAY_SECONDS + 11_117), random_seed=number, hash_seed=number)
    for number in range(2, 12)
)


@dataclass(frozen=True)
class Comparison:
    """Recorded runs, and in what each of them differs with other code.

    `stopped` are those that end by the recorded failure of a step's function, and that step.
    """

    runs: Sequence[RecordedRun]
    found: Found = field(default_factory=dict)
    stopped: Mapping[str, NamedStep] = field(default_factory=dict)

    @property
    def cured(self) -> list[str]:
        """The ids of the dead letters that would succeed, as far as recorded."""
        return [run.id for run in self.runs if verdicts.gravest(self.found[run.id]) is verdicts.ShadowVerdict.CURED]

    def told(self, run: RecordedRun) -> tuple[Difference, ...]:
        """Return what there is to say of a run: in what it differs, or why a dead letter stays one."""
        if self.found[run.id] or not verdicts.is_dead(run):
            return self.found[run.id]
        return (verdicts.staying(run, self.stopped.get(run.id)),)


@dataclass(frozen=True)
class Question:
    """What is to be compared: the job, the code that counts as known, and the places that do not count."""

    job: Job
    against: tuple[str, ...] = ()
    ignored: Collection[str] = ()


async def compare(
    question: Question, runs: Sequence[RecordedRun], progress: Callable[[int], None] = lambda _: None
) -> Comparison:
    """Return in what runs differ with a job's handlers; raises HandlersNotLoaded.

    Nothing is said that is not so whatever time it is, however chance falls and in whatever order sets are.
    """
    routes = {run.id: run.event.route for run in runs}
    replayed = await replayed_by(question, question.job.handlers, World(), runs, progress)
    stopped = {one.id: step for one in replayed for step in one.failed_steps if step.kind == StepKind.STEP}
    found = found_in(question, runs, replayed)
    if question.against and (left := differing(runs, found)):
        found = verdicts.without(found, await found_by(question, question.against, World(), left))
    if left := differing(runs, found):
        found = verdicts.steady(found, await found_by(question, question.job.handlers, SECOND, left), routes)
    chosen = verdicts.samples(found, routes, SAMPLES)
    some = [run for run in runs if run.id in chosen]
    for again in await found_in_further(question, some) if some else ():
        found = verdicts.steady(found, again, routes)
    return Comparison(runs, found, stopped)


async def found_in_further(question: Question, runs: Sequence[RecordedRun]) -> list[Found]:
    """Return in what runs differ in each of the further worlds, as many of them at once as there are processors."""
    places = Semaphore(os.cpu_count() or 1)

    async def found_there(world: World) -> Found:
        async with places:
            return await found_by(question, question.job.handlers, world, runs)

    return await gather(*map(found_there, FURTHER))


async def found_by(question: Question, handlers: tuple[str, ...], world: World, runs: Sequence[RecordedRun]) -> Found:
    """Return in what runs differ with some handlers in one world."""
    return found_in(question, runs, await replayed_by(question, handlers, world, runs))


async def replayed_by(
    question: Question,
    handlers: tuple[str, ...],
    world: World,
    runs: Sequence[RecordedRun],
    progress: Callable[[int], None] = lambda _: None,
) -> list[ReplayedRun]:
    """Return what comes of runs with some handlers in one world."""
    return await replay_all(msgspec.structs.replace(question.job, handlers=handlers, world=world), runs, progress)


def found_in(question: Question, runs: Sequence[RecordedRun], replayed: Sequence[ReplayedRun]) -> Found:
    """Return in what runs differ that were replayed, but for the places that do not count."""
    found = {run.id: differences_of(run, one) for run, one in zip(runs, replayed, strict=True)}
    return verdicts.counting(found, question.ignored)


def differing(runs: Sequence[RecordedRun], found: Found) -> list[RecordedRun]:
    """Return the runs that differ."""
    return [run for run in runs if found[run.id]]
