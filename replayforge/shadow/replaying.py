"""Has recorded runs replayed with other code, in a child process: what `shadow` and `deploy check` are made of."""

import asyncio
import contextlib
import os
import signal
import sys
from asyncio import (
    IncompleteReadError,
    StreamReader,
    StreamWriter,
    create_subprocess_exec,
    ensure_future,
    timeout,
    wait,
)
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from replayforge.domain.errors import Refused
from replayforge.domain.recorded_run import RecordedRun
from replayforge.shadow.child import LENGTH_BYTES, framed
from replayforge.shadow.replayed import (
    End,
    Job,
    NotLoaded,
    OutsideEffect,
    ReplayedRun,
    Told,
    TrialEnded,
    TrialReady,
    decode_told,
    encode,
)

LOAD_SECONDS = 60.0
RUN_SECONDS = 10.0  # of real time, for one run; most of what code waits for passes in no time
UNFINISHED = "It did not come to an end within {:g} s."
DIED = "It ended the process that it ran in, exit status {}."


class HandlersNotLoaded(Refused):
    """The handlers cannot be loaded. `effect` is what importing them would have done, where that is why."""

    def __init__(self, reason: str, effect: OutsideEffect | None = None) -> None:
        super().__init__(reason)
        self.effect = effect


@dataclass
class TrialProcess:
    """A process that code is tried in."""

    process: asyncio.subprocess.Process
    given: StreamWriter
    answers: StreamReader

    @classmethod
    async def start(cls, job: Job) -> "TrialProcess":
        """Start one and give it its job."""
        process = await create_subprocess_exec(
            sys.executable, "-B", "-m", "replayforge.shadow.child",
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
            env={**os.environ, "PYTHONHASHSEED": str(job.world.hash_seed), "REPLAYFORGE_SHADOW": "1"},
        )  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(framed(encode(job)))
        return cls(process, process.stdin, process.stdout)

    async def told(self, seconds: float) -> Told | None:
        """Return what it says next, None when it has died; raises TimeoutError when it says nothing for so long."""
        with contextlib.suppress(IncompleteReadError):
            async with timeout(seconds):
                length = int.from_bytes(await self.answers.readexactly(LENGTH_BYTES), "big")
                return decode_told.decode(await self.answers.readexactly(length))
        return None

    async def feed(self, runs: Sequence[RecordedRun]) -> None:
        """Hand in runs, as fast as they are taken."""
        with contextlib.suppress(OSError):
            for run in runs:
                self.given.write(framed(encode(run)))
                await self.given.drain()
            self.given.close()

    async def end(self) -> int:
        """Be sure that it is gone; returns its exit status.

        `Process.kill` would look whether it has ended, and so keep that from asyncio, which warns of it.
        """
        if self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process.pid, signal.SIGKILL)
        return await self.process.wait()


async def replay_all(
    job: Job, runs: Sequence[RecordedRun], progress: Callable[[int], None] = lambda _: None
) -> list[ReplayedRun]:
    """Return what comes of each run, in their order, when a job's handlers are given what is recorded of it.

    The code runs in a process of its own, one run after the other: it has the environment of this one, no network
    where the kernel allows that, and a guard that refuses whatever others could see. See ReplayedRun for what is
    promised of a run. Code that never ends, or ends its process, is UNFINISHED; the others go on in another process.
    `progress` is told how many runs are done by then. Raises HandlersNotLoaded.
    """
    done: list[ReplayedRun] = []

    def take(one: ReplayedRun) -> None:
        done.append(one)
        progress(len(done))

    while len(done) < len(runs) or not done:
        left = runs[len(done) :]
        unfinished = await replay_in_child(job, left, take)
        if unfinished is None:
            break
        take(ReplayedRun(id=runs[len(done)].id, end=End.UNFINISHED, error=unfinished, signature=unfinished))
    return done


async def replay_in_child(job: Job, runs: Sequence[RecordedRun], take: Callable[[ReplayedRun], object]) -> str | None:
    """Replay runs in one process; returns why the first one that was not handed to `take` has no end, if any."""
    child = await TrialProcess.start(job)
    feeding = ensure_future(child.feed(runs))
    count = 0
    try:
        await check_loaded(child)
        for _ in runs:
            told = await child.told(RUN_SECONDS)
            if not isinstance(told, TrialEnded):
                return DIED.format(await child.process.wait())
            take(told.replayed)
            count += 1
    except TimeoutError:
        return UNFINISHED.format(RUN_SECONDS)
    finally:
        await child.end()
        await wait([feeding])
    return None


async def check_loaded(child: TrialProcess) -> TrialReady:
    """Return when the child is ready; raises HandlersNotLoaded."""
    try:
        told = await child.told(LOAD_SECONDS)
    except TimeoutError:
        raise HandlersNotLoaded(f"The handlers could not be imported within {LOAD_SECONDS:g} s.") from None
    if isinstance(told, NotLoaded):
        raise HandlersNotLoaded(told.reason, told.effect)
    if not isinstance(told, TrialReady):
        raise HandlersNotLoaded("Importing the handlers ended the process.")
    return told
