"""The process in which code is tried: it reads a job and runs, refuses effects, and says what came of each run.

`python -m replayforge.shadow.child`, with the job and the runs on its standard input and the answers on its standard
output, each as its length in four bytes and then itself.
"""

import io
import os
from collections.abc import Iterator

from replayforge.domain.errors import ReplayForgeError
from replayforge.engine.handlers.loading import load_handlers
from replayforge.engine.handlers.registry import Handlers
from replayforge.shadow.guard import EffectGuard, EffectRefused, die_with_parent, leave_network, roots_of
from replayforge.shadow.moved_time import MovedClock, SkippingLoop
from replayforge.shadow.replayed import (
    Job,
    NotLoaded,
    OutsideEffect,
    Told,
    TrialEnded,
    TrialReady,
    decode_job,
    decode_run,
    encode,
)
from replayforge.shadow.trial import Trial

LENGTH_BYTES = 4


def main() -> None:
    """Do one job."""
    die_with_parent()
    isolated = leave_network()
    given, answers = take_streams()
    job = decode_job(next(frames(given)))
    effects: list[OutsideEffect] = []
    clock = MovedClock(job.world.ahead_seconds)
    loop = SkippingLoop(clock)
    clock.install()
    EffectGuard(effects.append, roots_of(job)).stand()
    handlers = loaded(job, effects)
    tell(answers, handlers if isinstance(handlers, NotLoaded) else TrialReady(isolated))
    if isinstance(handlers, NotLoaded):
        return
    trial = Trial(job, handlers, loop, effects)
    for frame in frames(given):
        tell(answers, TrialEnded(loop.run_until_complete(trial.replay(decode_run(frame)))))
    os._exit(0)  # whatever threads of users still do


def loaded(job: Job, effects: list[OutsideEffect]) -> Handlers | NotLoaded:
    """Return what the job's modules register, or why they cannot be loaded."""
    try:
        handlers = load_handlers(job.handlers)
    except EffectRefused as refused:
        return NotLoaded(f"importing the handlers has an effect: {refused}", refused.effect)
    except ReplayForgeError as error:
        return NotLoaded(str(error))
    if effects:  # whoever caught it
        return NotLoaded(f"importing the handlers has an effect: {effects[0].what} at {effects[0].place}", effects[0])
    return handlers


def take_streams() -> tuple[io.BufferedReader, io.BufferedWriter]:
    """Take standard input and output for ourselves; what users print goes nowhere."""
    given, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1):
        os.dup2(nothing, descriptor)
    return given, answers


def frames(stream: io.BufferedReader) -> Iterator[bytes]:
    """Yield what comes, until there is nothing more."""
    while len(length := stream.read(LENGTH_BYTES)) == LENGTH_BYTES:
        yield stream.read(int.from_bytes(length, "big"))


def framed(message: bytes) -> bytes:
    """Return a message as it travels."""
    return len(message).to_bytes(LENGTH_BYTES, "big") + message


def tell(answers: io.BufferedWriter, told: Told) -> None:
    """Say something to whoever started us."""
    answers.write(framed(encode(told)))
    answers.flush()


if __name__ == "__main__":
    main()
