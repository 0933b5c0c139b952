"""What is asked of the store a second time, because the first answer did not come."""

from typing import Any, cast

from replayforge.domain.errors import Unavailable
from replayforge.engine.run.recorder import Recorder
from replayforge.stores.journals import SignalTaken
from replayforge.stores.store import Store
from replayforge.telemetry import Telemetry
from tests.support.clock import FakeClock

NOTHING: Any = None


class AnswersLate:
    """A store whose first answer is lost on the way."""

    def __init__(self) -> None:
        self.asked: list[bool] = []

    async def take_signal(self, *_: Any, again: bool) -> SignalTaken:
        self.asked.append(again)
        if len(self.asked) == 1:
            raise Unavailable
        return SignalTaken(fenced=False, record=None)


async def test_a_signal_whose_answer_was_lost_is_asked_for_again_as_such() -> None:
    """The store is told that it may have given the signal already; of the next wait it is not told so."""
    store = AnswersLate()
    recorder = Recorder(cast("Store", store), FakeClock(), Telemetry())
    await recorder.take_signal(NOTHING, NOTHING, None)
    await recorder.take_signal(NOTHING, NOTHING, None)
    assert store.asked == [False, True, False]
