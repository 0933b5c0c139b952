"""The ledger put together from logs and store, and what is said of it."""

from dataclasses import replace

import pytest

from replayforge.domain.admission import EVERYTHING, Pause
from replayforge.domain.lifecycle import State
from replayforge.domain.reports import Ledger, LogCursor
from replayforge.engine.report.convergence import (
    OLDEST_QUEUED_SECONDS_MAX,
    backlog_of,
    compute_ledger,
    ledger_issues,
    paused_in_words,
)

STATES = dict.fromkeys(State, 0)
BALANCED = Ledger(5, 0, 0, 0, 5, STATES | {State.SUCCEEDED: 5}, 0)
PAUSE = Pause("bank.*", "it is down", "ann", 0)


def cursor(log_id: str, offset: int) -> LogCursor:
    return LogCursor(log_id, offset, inserted=offset, copies=0, not_events=0, updated_at_us=0)


def test_a_log_without_a_cursor_has_no_row_yet() -> None:
    """What was made durable before the first transaction of a new store is not yet projected, and not lost."""
    ledger = compute_ledger("own", 7, [], {})
    assert (ledger.records, ledger.unprojected, ledger.lost) == (7, 7, 0)


def test_the_logs_of_other_daemons_count_up_to_where_they_said_they_end() -> None:
    """What a peer has accepted and not projected is open; a peer that reported less than its cursor has is believed
    its cursor."""
    cursors = [cursor("own", 10), cursor("ahead", 20), cursor("behind", 30)]
    ledger = compute_ledger("own", 12, cursors, {State.SUCCEEDED: 60}, {"ahead": 25, "behind": 29})
    assert (ledger.records, ledger.unprojected, ledger.lost) == (12 + 25 + 30, 2 + 5, 0)


def test_the_backlog_is_what_is_due_and_not_paused() -> None:
    """Queued and running events, retries that are due soon, but none that waits for a paused handler, and nothing that
    is parked or kept."""
    apart = {State.RETRYING: 9, State.WAITING: 7, State.KEPT: 8}
    ledger = replace(BALANCED, states=STATES | {State.QUEUED: 5, State.PROCESSING: 1} | apart)
    assert backlog_of(ledger, {State.RETRYING: 2}, {"bank.*": 3}) == 5
    assert backlog_of(ledger, {}, {"bank.*": 90}) == 0, "counted a moment apart, and never below nothing"


@pytest.mark.parametrize(
    ("ledger", "oldest_seconds", "said"),
    [
        (BALANCED, OLDEST_QUEUED_SECONDS_MAX, []),
        (BALANCED, OLDEST_QUEUED_SECONDS_MAX + 1, ["oldest queued event has waited 61 s"]),
        (replace(BALANCED, records=6), 0, ["1 acknowledged events have no row"]),
        (replace(BALANCED, records=4), 0, ["1 events more than its cursors say"]),
        (replace(BALANCED, unprojected=2, records=7), 0, ["2 accepted events wait for their rows"]),
        (replace(BALANCED, unreadable=1, gaps=2, not_events=3, records=8), 0, ["1 records", "2 records"]),
        (
            replace(BALANCED, records=8, states=BALANCED.states | {State.HELD: 1, State.DEAD_LETTERED: 2}),
            0,
            ["2 dead letters", "1 event is held"],
        ),
    ],
)
def test_what_the_ledger_shows_is_said(ledger: Ledger, oldest_seconds: float, said: list[str]) -> None:
    """Every way in which the ledger may be out of order has its sentence, and a ledger in order has none."""
    issues = ledger_issues(ledger, oldest_seconds)
    assert len(issues) == len(said)
    assert all(words in issue for words, issue in zip(said, issues, strict=True)), issues


def test_a_pause_tells_how_many_events_it_defers() -> None:
    """The pause of one handler tells of its own events, the pause of everything of all."""
    paused = {"bank.*": 3, "mail": 4}
    assert "3 events wait for it" in paused_in_words(PAUSE, paused)
    assert "7 events wait" in paused_in_words(replace(PAUSE, pattern=EVERYTHING), paused)
    assert "0 events wait for it" in paused_in_words(replace(PAUSE, pattern="none"), paused)
