"""What becomes of a step whose loop is gone."""

from collections.abc import Generator
from contextvars import copy_context
from types import SimpleNamespace
from typing import Any

from replayforge.domain.journal import StepKind, StepRecord, StepState
from replayforge.domain.retry import RetryPolicy
from replayforge.engine.handlers.context import StepCall, running_step_key
from replayforge.engine.run.step_runner import StepRunner


class Stays:
    """What never comes."""

    def __await__(self) -> Generator[None, None, None]:
        yield


async def stay() -> None:
    await Stays()


def test_a_step_that_its_loop_has_left_behind_is_closed_in_silence() -> None:
    """The interpreter closes it in whatever context it is in then, which keeps the key of its own step."""
    records: Any = SimpleNamespace(event=SimpleNamespace(id="event"), number=1)
    runner = StepRunner(records, records, RetryPolicy(1, 1.0, 2.0, 60.0, 0.0))
    begun = StepRecord(
        kind=StepKind.STEP, step="stay", state=StepState.STARTED, token=1, run=1, begun=1, started_at_us=1
    )
    trying = runner.tried(StepCall("stay", None, stay, (), {}, None, None, False, False, None), "stay", begun)
    copy_context().run(trying.send, None)
    mark = running_step_key.set(str)
    trying.close()
    assert (running_step_key.get(), runner.running) == (str, 0)
    running_step_key.reset(mark)
