"""What a page says after something was done."""

from replayforge.domain.lifecycle import State
from replayforge.domain.replay_plan import ReplayPlan
from replayforge.engine.replay.replayer import Replay
from replayforge.stores.replaying import Replayed
from replayforge.web.pages.actions import Order, outcome
from tests.support.builders import stored_event


def test_signals_that_cannot_be_given_back_are_named() -> None:
    done = Replayed(ReplayPlan(begins_from="start"), entries=(), given_back=("kept",), gone=("retired",))
    flash = outcome(Order("replay", "", force=False), [stored_event()], [Replay("e", 2, State.QUEUED, done=done)], [])
    assert flash.text == ("1 event replayed. Their waits had taken signals that retention has removed: retired.")


def test_a_cancel_that_is_only_asked_for_is_counted_apart() -> None:
    events = [stored_event(seq) for seq in (1, 2, 3)]
    done = [(events[0], True), (events[1], False), (events[2], False)]
    flash = outcome(Order("cancel", "", force=False), events, done, [])
    assert flash.text == "1 event cancelled. 2 events asked to end: that happens at the next step."
