"""What is said of a run: where it differs, whether that is so on every pass, and under which verdict it counts."""

from typing import Any

import pytest

from replayforge.domain.event import Content, StoredEvent
from replayforge.domain.journal import Journal
from replayforge.domain.lifecycle import Reason, State
from replayforge.domain.recorded_run import RecordedRun
from replayforge.shadow.differences import differences
from replayforge.shadow.replayed import Asked, ChangedArguments, End, NamedStep, OutsideEffect, ReplayedRun
from replayforge.shadow.verdicts import (
    Difference,
    ShadowVerdict,
    counting,
    differences_of,
    gravest,
    samples,
    steady,
    without,
)
from tests.support.builders import stored_event

LOST = NamedStep("step", "reserve")
MORE = Asked("step", "charge", '[{"amount":12}]')


def recorded_run(event: StoredEvent) -> RecordedRun:
    journal = Journal(run_started_at_us=0, now_us=0)
    return RecordedRun(event=event, content=Content(b"{}", b"{}"), journal=journal, started_at_us=0)


def run(state: State, result: bytes | None = None, signature: str | None = None, **fields: Any) -> RecordedRun:
    return recorded_run(stored_event(state=state, result=result, error_signature=signature, **fields))


def replayed(end: End, **said: Any) -> ReplayedRun:
    return ReplayedRun(id="one", end=end, **said)


SUCCEEDED = run(State.SUCCEEDED, b'{"fee":2.5}')
DEAD = run(State.DEAD_LETTERED, signature="KeyError: N", reason=Reason.ATTEMPTS_EXHAUSTED)
WAITING = run(State.WAITING)
LATE = run(State.DEAD_LETTERED, signature="The run did not end", reason=Reason.DEADLINE)
HANDLERLESS = run(State.DEAD_LETTERED, reason=Reason.NO_HANDLER)
V = ShadowVerdict


@pytest.mark.parametrize(
    ("recorded", "came", "verdict"),
    [
        (SUCCEEDED, replayed(End.RETURNED, result=b'{"fee": 2.50}'), V.SAME),
        (SUCCEEDED, replayed(End.RETURNED, result=b'{"fee":3}'), V.RESULT_CHANGED),
        (SUCCEEDED, replayed(End.RETURNED, result=b'{"fee":3}', unreached=(LOST,)), V.STEP_VANISHED),
        (SUCCEEDED, replayed(End.RAISED, signature="KeyError: N"), V.RAISES),
        (SUCCEEDED, replayed(End.BEGINS, asks=(MORE,), unreached=(LOST,)), V.NEW_STEP),
        (SUCCEEDED, replayed(End.STANDS, stands=(LOST,)), V.NEW_STEP),
        (SUCCEEDED, replayed(End.NO_HANDLER), V.RAISES),
        (SUCCEEDED, replayed(End.UNFINISHED, error="died"), V.NOT_REPRODUCIBLE),
        (SUCCEEDED, replayed(End.EFFECT, effect=OutsideEffect("a connection", "new.py:3")), V.EFFECT),
        (DEAD, replayed(End.RAISED, signature="KeyError: N"), V.SAME),
        (DEAD, replayed(End.RAISED, signature="TypeError: N"), V.RAISES),
        (DEAD, replayed(End.RETURNED, result=b"1"), V.CURED),
        (DEAD, replayed(End.BEGINS, asks=(MORE,)), V.CURED),
        (DEAD, replayed(End.BEGINS, asks=(MORE,), unreached=(LOST,)), V.NEW_STEP),
        (LATE, replayed(End.STANDS, stands=(LOST,)), V.SAME),
        (HANDLERLESS, replayed(End.NO_HANDLER), V.SAME),
        (HANDLERLESS, replayed(End.RETURNED), V.CURED),
        (WAITING, replayed(End.STANDS, stands=(LOST,)), V.SAME),
        (WAITING, replayed(End.STANDS, unreached=(LOST,)), V.STEP_VANISHED),
        (WAITING, replayed(End.BEGINS, asks=(MORE,), unreached=(LOST,)), V.NEW_STEP),
        (WAITING, replayed(End.RAISED, signature="KeyError: N"), V.RAISES),
    ],
)
def test_a_run_comes_to_one_verdict(recorded: RecordedRun, came: ReplayedRun, verdict: ShadowVerdict) -> None:
    assert gravest(differences_of(recorded, came)) is verdict


def test_a_change_is_told_by_its_place_and_its_values() -> None:
    changed = ChangedArguments("step", "a/b", '[{"amount":12}]', '[{"amount":13},1]')
    came = replayed(End.RETURNED, result=b'{"fee":2.5,"more":[1]}', changed=(changed,))
    assert differences_of(SUCCEEDED, came) == (
        Difference(V.ARGUMENTS_CHANGED, "/steps/a~1b/0/amount", "12", "13"),
        Difference(V.ARGUMENTS_CHANGED, "/steps/a~1b/1", None, "1"),
        Difference(V.RESULT_CHANGED, "/result/more", None, "[1]"),
    )


@pytest.mark.parametrize(
    ("before", "after", "places"),
    [
        (b"1e2", b"100.0", []),
        (b"1", b"true", [("", "1", "true")]),
        (b"null", None, []),
        (b'{"a":1,"b":2}', b'{"b":2,"a":1}', []),
        (
            b"12345678901234567890.1",
            b"12345678901234567890.2",
            [("", "12345678901234567890.1", "12345678901234567890.2")],
        ),
        (b"[1,2]", b"[1]", [("/1", "2", None)]),
        (b'{"a~/":null}', b"{}", [("/a~0~1", "null", None)]),
    ],
)
def test_documents_are_compared_by_what_they_mean(
    before: bytes, after: bytes | None, places: list[tuple[str, str | None, str | None]]
) -> None:
    assert list(differences(before, after, "")) == places


def fee(after: str, pointer: str = "/result/fee") -> Difference:
    return Difference(V.RESULT_CHANGED, pointer, "1", after)


RAISES = Difference(V.RAISES, "/error", None, '"KeyError"')
ROUTES = dict.fromkeys("abc", "order")


def test_a_field_that_differs_between_two_passes_counts_in_no_run_of_its_handler() -> None:
    found = {"a": (fee("2"), fee("9", "/result/at/3")), "b": (fee("9", "/result/at/4"),)}
    again = {"a": (fee("2"), fee("8", "/result/at/3"))}
    assert steady(found, again, ROUTES) == {"a": (fee("2"),), "b": ()}
    assert steady(found, again, {"a": "order", "b": "another"})["b"] == found["b"]


def test_of_a_run_that_ends_otherwise_on_another_pass_nothing_is_said() -> None:
    found = {"a": (RAISES,), "b": (RAISES,), "c": (RAISES,)}
    again = {"a": (), "b": (RAISES,), "c": (RAISES,)}
    verdicts = {name: gravest(own) for name, own in steady(found, again, ROUTES).items()}
    assert verdicts == {"a": V.NOT_REPRODUCIBLE, "b": V.RAISES, "c": V.RAISES}


def test_an_end_that_is_mostly_another_on_another_pass_says_nothing_of_any_run() -> None:
    found = {"a": (RAISES,), "b": (RAISES,), "c": (RAISES,)}
    verdicts = {gravest(own) for own in steady(found, {"a": (), "b": (RAISES,)}, ROUTES).values()}
    assert verdicts == {V.NOT_REPRODUCIBLE}


def test_what_other_code_changes_alike_and_what_is_ignored_does_not_count() -> None:
    found = {"a": (fee("2"), fee("3", "/result/items/0/price"))}
    assert without(found, {"a": (fee("2"),)}) == {"a": (fee("3", "/result/items/0/price"),)}
    assert without(found, {"a": (fee("5"),)}) == found
    assert counting(found, ["/result/items", "/result/fe"]) == {"a": (fee("2"),)}


def test_some_runs_of_each_kind_of_difference_are_tried_again() -> None:
    found = {"a": (fee("2"),), "b": (fee("3"),), "c": (fee("2"), RAISES)}
    assert samples(found, ROUTES, 1) == {"a", "c"}
