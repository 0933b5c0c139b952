"""The report: each run once under its gravest verdict, groups of what differs alike, in JSON, in words and as HTML."""

import json

import msgspec
import pytest

from replayforge.domain.lifecycle import Reason, State
from replayforge.shadow.comparing import Comparison
from replayforge.shadow.html_report import html_of
from replayforge.shadow.replayed import NamedStep
from replayforge.shadow.report import exit_code, in_words, report_of
from replayforge.shadow.verdicts import Difference, ShadowVerdict
from tests.support.builders import stored_event
from tests.unit.shadow.test_verdicts import recorded_run

V = ShadowVerdict
STOPPED = "stopped at the step charge/all, recorded as failed; shadow does not call steps"
FEE = Difference(V.RESULT_CHANGED, "/result/fee", "2.5", "3")
STEP = Difference(V.NEW_STEP, "/steps/charge", None, '{"kind":"step","arguments":[12]}')
GONE = Difference(V.STEP_VANISHED, "/steps/all", '{"kind":"step"}')
CURED = Difference(V.CURED, "/error", '"KeyError: N"')
RAISES = Difference(V.RAISES, "/error", None, '"<b>TypeError</b>"')
EFFECT = Difference(V.EFFECT, "", None, '"a connection at new.py:12"')
UNSTEADY = Difference(V.NOT_REPRODUCIBLE, "", None, '"it is not the same on every pass"')


def comparison(*found: tuple[Difference, ...]) -> Comparison:
    runs = [
        recorded_run(stored_event(at, id=f"id-{at}", workflow_id=f"order-{at}", state=State.SUCCEEDED))
        for at in range(len(found))
    ]
    return Comparison(runs, {run.id: own for run, own in zip(runs, found, strict=True)})


def test_a_run_counts_once_and_stands_in_each_group_of_what_differs() -> None:
    report = json.loads(msgspec.json.encode(report_of(comparison((FEE,), (), (FEE, GONE), (FEE,)))))
    assert (report["runs"], sum(report["verdicts"].values())) == (4, 4)
    assert {name: count for name, count in report["verdicts"].items() if count} == {
        "same": 1, "result_changed": 2, "step_vanished": 1,
    }  # fmt: skip
    assert list(report["verdicts"]) == [str(one) for one in V]
    assert report["groups"] == [
        {
            "verdict": "step_vanished", "pointer": "/steps/all", "before": {"kind": "step"}, "after": None,
            "count": 1, "first": {"id": "id-2", "workflow_id": "order-2"}, "ids": ["id-2"],
        },
        {
            "verdict": "result_changed", "pointer": "/result/fee", "before": 2.5, "after": 3, "count": 3,
            "first": {"id": "id-0", "workflow_id": "order-0"}, "ids": ["id-0", "id-2", "id-3"],
        },
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("found", "code"),
    [
        ([()], 0),
        ([], 0),
        ([(FEE,), ()], 1),
        ([(CURED,)], 1),
        ([(EFFECT,), ()], 2),
        ([(UNSTEADY,)], 2),
        ([(UNSTEADY,), (FEE,)], 1),
    ],
)
def test_the_exit_code_says_same_changed_or_undecidable(found: list[tuple[Difference, ...]], code: int) -> None:
    assert exit_code(report_of(comparison(*found))) == code


def test_the_report_in_words() -> None:
    report = report_of(comparison((FEE,), (STEP,), (GONE,), (CURED,), (RAISES,), (EFFECT,), (UNSTEADY,), ()))
    summary = (
        "8 runs: 1 same, 1 result changed, 1 new step, 1 recorded step vanished, 1 now raises, 1 cured,"
        " 1 effect outside a step, 1 not reproducible"
    )
    assert list(in_words(report)) == [
        summary,
        "  1 run: effect outside a step: a connection at new.py:12; first: order-5 (id-5)",
        "  1 run: now raises: no error -> <b>TypeError</b>; first: order-4 (id-4)",
        "  1 run: not reproducible: it is not the same on every pass; first: order-6 (id-6)",
        '  1 run: recorded step vanished: /steps/all {"kind":"step"} is not asked for any more; first: order-2 (id-2)',
        '  1 run: new step: /steps/charge would begin: {"kind":"step","arguments":[12]}; first: order-1 (id-1)',
        "  1 run: result changed: /result/fee 2.5 -> 3; first: order-0 (id-0)",
        "  1 run: cured: KeyError: N is over, as far as recorded; first: order-3 (id-3)",
    ]


def test_dead_letters_that_stay_are_told_by_their_errors() -> None:
    """In JSON, in words and as HTML; where a step is recorded as failed, that its function is not called."""
    value, step = "ValueError: no such currency", "StepFailed: The step '…' failed: OSError"
    runs = [
        recorded_run(
            stored_event(
                at, id=f"id-{at}", workflow_id=f"order-{at}", state=State.DEAD_LETTERED, error_signature=error,
                reason=Reason.ATTEMPTS_EXHAUSTED,
            )
        )
        for at, error in enumerate([value, step, value, "KeyError: N"])
    ]  # fmt: skip
    found = {run.id: (CURED,) if run.event.error_signature == "KeyError: N" else () for run in runs}
    report = report_of(Comparison(runs, found, {"id-1": NamedStep("step", "charge/all")}))
    assert exit_code(report) == 1
    groups = json.loads(msgspec.json.encode(report))["groups"]
    assert [(one["verdict"], one["pointer"], one["before"], one["after"], one["ids"]) for one in groups] == [
        ("cured", "/error", "KeyError: N", None, ["id-3"]),
        ("same", "/error", value, value, ["id-0", "id-2"]),
        ("same", "/steps/charge~1all", step, step, ["id-1"]),
    ]
    assert list(in_words(report))[2:] == [
        f"  2 runs: still {value}; first: order-0 (id-0)",
        f"  1 run: still {step}: {STOPPED}; first: order-1 (id-1)",
    ]
    page = html_of(report, "new.py")
    assert page.index("KeyError: N is over") < page.index("Not cured") < page.index("still ValueError")


def test_what_code_says_is_no_html() -> None:
    page = html_of(report_of(comparison((RAISES,), (FEE,))), "new.py")
    assert "&lt;b&gt;TypeError&lt;/b&gt;" in page
    assert "<b>TypeError" not in page
    assert "/result/fee 2.5 -&gt; 3" in page
