"""What chaos found, in words and as a page; and how it is found whether an outcome is doubled."""

import re
from typing import Any

import pytest
from msgspec.structs import replace

from replayforge.chaos.doubles import doubled, suspects
from replayforge.chaos.page import page, side_by_side
from replayforge.chaos.probes import Struck
from replayforge.chaos.report import ChaosReport, in_words
from replayforge.demo.oracle import Effects, effect_on

REPORT = ChaosReport(
    ok=True, seed=7, events=10, kills=1, relies_on="a private Redis and SQLite", seconds=12.0,
    injuries=[
        Struck(1, "kill", "daemon", "kill -9 of the daemon", 1.5, 0.1, 2.25, 3),
        Struck(2, "redis_line", "line to Redis", "the line to Redis is reset", 4.0, 1.0, None),
    ],
    killed_while_starting=0, start_seconds=[0.5], acknowledged=10, acknowledged_each_second=[4, 0, 6], sent_again=1,
    effects=9, effects_again=1, steps=4, steps_again=0, lost=0, doubled_outcomes=0,
    ledger={"accepted": 10, "succeeded": 9, "dead_lettered": 1, "open": 0, "lost": 0}, check_clean=True, objections=[],
)  # fmt: skip
BROKEN = replace(REPORT, ok=False, lost=1, doubled_outcomes=2, objections=["1 event <lost>"])


def test_the_report_in_words() -> None:
    """Each kind with how soon everything ran again, the ledger, and whether it adds up."""
    lines = list(in_words(REPORT))
    assert lines[0] == "1 time: kill -9 of the daemon; everything ran again after 2.2 s"
    assert lines[1] == "1 time: the line to Redis is cut; nothing is known to have run again"
    assert lines[-2:] == [
        "accepted 10 = succeeded 9 + dead_lettered 1 + open 0 · lost 0 · doubled outcomes 0", "✓ everything adds up",
    ]  # fmt: skip
    assert list(in_words(BROKEN))[-2:] == ["✕ 1 event <lost>", "✕ it does not add up; repeat with --seed 7"]


def test_the_page_shows_every_injury() -> None:
    """The timeline has a row for each target and a bar for each injury, which says what it was; so does the table."""
    html = page(REPORT, "today")
    assert "Everything adds up" in html
    assert html.count("<title>1. kill -9 of the daemon, at 1.5 s; everything ran again after 2.2 s</title>") == 2
    assert html.count("<title>2. the line to Redis is reset, at 4.0 s; everything ran again after nobody knows") == 1
    assert re.findall(r'text-anchor="end"[^>]*>([^<]+)<', html)[2:] == ["daemon", "line to Redis"]
    assert "4 acknowledged in second 0" in html
    assert ">the line to Redis is reset</span></td>" in html


def test_injuries_that_overlap_are_drawn_one_below_the_other() -> None:
    """One that strikes before everything runs again after another has a row of its own; a later one shares a row."""
    first, second, third = (Struck(number, "kill", "daemon", "", at, 0.1, 3.0) for number, at in enumerate((1, 2, 4.5)))
    assert side_by_side([first, second, third]) == [[first, third], [second]]


def test_the_page_says_what_does_not_add_up() -> None:
    """What is lost or doubled is marked, what objects is listed as text."""
    html = page(BROKEN, "today")
    assert "It does not add up" in html
    assert "1 event &lt;lost&gt;" in html
    assert html.count('<li class="err">') == 2


@pytest.mark.parametrize(
    ("effects", "outcomes", "found"),
    [
        (["a 1 1", "a 1 2"], [(1, 1, "crashed"), (2, 1, "succeeded")], set()),
        (["a 1 1", "a 1 2"], [(1, 1, "succeeded"), (2, 1, "succeeded")], {"a"}),
        (["a 1 1", "a 1 2"], [(1, 1, "succeeded"), (2, 1, "crashed")], {"a"}),
        (["a 1 1", "a 2 2"], [(1, 1, "succeeded"), (2, 2, "succeeded")], set()),
    ],
)
def test_a_doubled_outcome_is_found(effects: list[str], outcomes: list[tuple[int, int, str]], found: set[str]) -> None:
    """Two good outcomes of one run, or an effect after the good one, are found; crashes and replays double nothing."""
    had = Effects(tuple(map(effect_on, effects)))
    attempts: Any = {"a": [{"lease_token": token, "run": run, "outcome": word} for token, run, word in outcomes]}
    assert suspects(had) == ({"a"} if effects[1].startswith("a 1") else set())
    assert doubled(had, attempts) == found
