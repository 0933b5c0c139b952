"""From where a replay begins: what is cleared of a journal, and what stands in the way."""

from typing import Any

import pytest

from replayforge.domain.errors import Conflict
from replayforge.domain.journal import StepKind, StepState
from replayforge.domain.lifecycle import State
from replayforge.domain.replay_plan import PastJournal, PastStep, ReplayPlan, plan_replay

KINDS = {"nap": StepKind.SLEEP, "scanned": StepKind.WAIT, "invoice": StepKind.CALL, "mail": StepKind.SEND}


def step(name: str, begun: int, recorded: int = 0, *, failed: bool = False, **fields: Any) -> PastStep:
    """Return a step by its places; one that is recorded has a result unless it has failed."""
    ended = StepState.FAILED if failed else StepState.DONE
    state = ended if recorded else StepState.PENDING
    given: dict[str, Any] = {"kind": KINDS.get(name, StepKind.STEP), "generation": 0, "state": state} | fields
    return PastStep(step=name, begun=begun, recorded=recorded, **given)


def plan(
    *steps: PastStep, ended_by: tuple[str, ...] = (), state: State = State.DEAD_LETTERED, **asked: Any
) -> ReplayPlan:
    journal = PastJournal(number=3, ended_by=ended_by, steps=steps)
    return plan_replay("e-1", state, journal, asked.get("begins_from"))


def names(plan: ReplayPlan) -> list[str]:
    return [one.step for one in plan.cleared]


ORDER = (step("reserve", 1, 2), step("charge", 3, 4), step("mail", 5, 6), step("ship", 7, 8, failed=True))


def test_failure_clears_what_ended_the_run_and_nothing_else() -> None:
    """Of the failed steps those are done again, in their generation, that the exception carried; it is the default."""
    caught = step("coupon", 0, 9, failed=True)
    for asked in (None, "failure"):
        decided = plan(caught, *ORDER, ended_by=("ship",), begins_from=asked)
        assert (names(decided), decided.rises, decided.number, decided.effects) == (["ship"], False, 3, 0)
    assert names(plan(*ORDER)) == []


def test_a_step_that_followed_a_failure_stands_in_the_way() -> None:
    """What began after a failure that ended the run may have undone something; a sleep undoes nothing."""
    compensated = (*ORDER, step("release", 9, 10))
    with pytest.raises(Conflict, match=r"'release'.*began after 'ship' had failed.*`start`.*reserve, charge"):
        plan(*compensated, ended_by=("ship",))
    assert names(plan(*compensated)) == []
    assert names(plan(*ORDER, step("nap", 9, 10), ended_by=("ship",))) == ["ship"]


def test_side_by_side_is_not_afterwards() -> None:
    """A step that had begun when another failed is no compensation, however late it was recorded."""
    assert names(plan(step("a", 1, 3, failed=True), step("b", 2, 4, failed=True), ended_by=("a", "b"))) == ["a", "b"]


def test_where_the_code_was_told_of_a_cancel_is_cleared_too() -> None:
    told = step("ship", 3, 4, failed=True, error_type="Cancelled")
    assert names(plan(step("reserve", 1, 2), told, state=State.CANCELLED)) == ["ship"]
    with pytest.raises(Conflict, match="release"):
        plan(told, step("release", 5, 6), state=State.CANCELLED)


def test_a_failed_call_has_its_child_replayed() -> None:
    call = step("invoice", 1, 2, failed=True, other_id="child")
    assert plan(call, ended_by=("invoice",)).children == ("child",)
    assert plan(call, begins_from="invoice").children == ()


def test_start_is_the_next_journal_and_counts_what_happens_again() -> None:
    waited = step("scanned", 9, 10, other_id="signal")
    decided = plan(*ORDER, waited, begins_from="start")
    assert (decided.number, decided.cleared, decided.effects, decided.signals) == (4, (), 3, ("signal",))


def test_a_step_is_done_again_with_all_that_was_recorded_after_it() -> None:
    """Their generation rises; what was recorded before stays, and so does what was at work at its side."""
    slow = step("slow", 4, 0)
    waited = step("scanned", 9, 10, other_id="signal")
    later = step("later", 11, 0)
    decided = plan(*ORDER, slow, waited, later, begins_from="mail")
    assert names(decided) == ["mail", "ship", "scanned", "later"]
    assert (decided.rises, decided.number, decided.effects, decided.signals) == (True, 3, 1, ("signal",))
    again = plan(ORDER[0], step("charge", 0, 0), begins_from="charge")
    assert names(again) == ["charge"]


@pytest.mark.parametrize("name", ["start", "failure", "step:start"])
def test_a_step_is_begun_from_whatever_it_is_called(name: str) -> None:
    """Said plainly, `start` and `failure` are what they always are; after `step:` stands the name of a step."""
    odd = step(name, 7, 8, failed=True)
    decided = plan(*ORDER, odd, begins_from=f"step:{name}")
    assert (names(decided), decided.begins_from, decided.rises) == ([name], f"step:{name}", True)
    assert plan(*ORDER, odd, begins_from="step:charge") == plan(*ORDER, odd, begins_from="charge")
    assert not plan(*ORDER, odd, begins_from="start").cleared
    with pytest.raises(Conflict, match=f"it has .*step:{name}"):
        plan(*ORDER, odd, begins_from="step:none")


def test_what_nobody_has_recorded_cannot_be_begun_from() -> None:
    with pytest.raises(Conflict, match="no step 'shop'; it has reserve, charge, mail, ship"):
        plan(*ORDER, begins_from="shop")
    with pytest.raises(Conflict, match="no step"):
        plan(begins_from="shop")


def test_who_has_succeeded_is_asked_from_where() -> None:
    """An event that has succeeded and remembers steps has no failure to begin from."""
    for asked in (None, "failure"):
        with pytest.raises(Conflict, match="say from where"):
            plan(*ORDER, state=State.SUCCEEDED, begins_from=asked)
    assert plan(*ORDER, state=State.SUCCEEDED, begins_from="start").number == 4


def test_an_event_without_steps_begins_anew() -> None:
    for asked in (None, "failure", "start"):
        assert plan_replay("e-1", State.SUCCEEDED, None, asked) == ReplayPlan(begins_from="start")
        assert plan(state=State.SUCCEEDED, begins_from=asked) == ReplayPlan(begins_from="start", number=3)
