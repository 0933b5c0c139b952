"""The word for the daemon's state: the most urgent truth, its cause, its page."""

from dataclasses import replace

import pytest

from replayforge.domain.admission import Pause
from replayforge.domain.lifecycle import State
from replayforge.domain.reports import Group, Ledger, Node
from replayforge.engine.report.convergence import Convergence
from replayforge.engine.report.daemon_status import HealthCheck, ServiceStatus
from replayforge.web.pages.health import Signs, judge

SECOND = 1_000_000
NOW = 10_000 * SECOND
LEDGER = Ledger(5, 0, 0, 0, 5, dict.fromkeys(State, 0) | {State.SUCCEEDED: 5}, 0)
FINE = Convergence(True, LEDGER, [], 0, 0.0, [], [])
GONE = Node("far-away", "log", "i", "host", 7, 0, durable_offset=10, projected_offset=7)
PAUSE = Pause("bank.*", "it is down", "ann", NOW - SECOND)
WELL = Signs("", [HealthCheck("store", "ok", 1.0), HealthCheck("stream", "ok", 1.0)], [], FINE, [], False, 0, NOW)


def service(state: str, ago_seconds: float, name: str = "janitor") -> ServiceStatus:
    return ServiceStatus(name, state, 0, last_error="x", last_error_at_us=NOW - int(ago_seconds * SECOND))


def letters(ago_seconds: float) -> list[Group]:
    return [Group("TimeoutError: N", 28, 0, NOW - int(ago_seconds * SECOND), 2, "id")]


def with_states(**counts: int) -> Convergence:
    states = LEDGER.states | {State(name): number for name, number in counts.items()}
    records = sum(states.values())
    return replace(FINE, ledger=replace(LEDGER, states=states, records=records))


CASES: list[tuple[Signs, str, str, str]] = [
    (WELL, "Healthy", "everything that was due has ended", "/runtime"),
    (replace(WELL, report=replace(FINE, backlog=12)), "Healthy", "12 events on the way", "/runtime"),
    (replace(WELL, unready_because="disk full"), "Down", "disk full", "/runtime#log"),
    (replace(WELL, services=[service("failed", 500)]), "Down", "janitor was given up", "/runtime#supervisor"),
    (
        replace(WELL, checks=[HealthCheck("store", "degraded", 0, "no answer")]),
        "Attention",
        "no answer",
        "/runtime#store",
    ),
    (
        replace(WELL, unclean_start=True, started_at_us=NOW - 4 * SECOND),
        "Recovering",
        "had died and was started again at 02:46:36",
        "/runtime#recovery",
    ),
    (
        replace(WELL, services=[service("running", 3)]),
        "Recovering",
        "janitor crashed at 02:46:37 and is running",
        "/runtime#supervisor",
    ),
    (replace(WELL, services=[service("running", 90)]), "Healthy", "ended", "/runtime"),
    # The clock was set back since: how long ago it was cannot be said, but it does not stay recent until it is made up.
    (replace(WELL, services=[service("running", -3600)]), "Healthy", "ended", "/runtime"),
    (replace(WELL, unclean_start=True, started_at_us=NOW + 3600 * SECOND), "Healthy", "ended", "/runtime"),
    (
        replace(WELL, report=replace(FINE, ledger=replace(LEDGER, records=7))),
        "Attention",
        "2 acknowl",
        "/runtime#ledger",
    ),
    (
        replace(WELL, report=replace(FINE, gone=[GONE])),
        "Attention",
        "3 accepted events lie on far-away",
        "/runtime#nodes",
    ),
    (replace(WELL, report=with_states(held=1)), "Attention", "1 event held", "/in-doubt"),
    (replace(WELL, report=replace(FINE, oldest_queued_seconds=75.0)), "Attention", "75 s", "/events?status=queued"),
    (
        replace(WELL, report=with_states(dead_lettered=35), dead_letters=letters(60)),
        "Attention",
        "35 dead letters, the last at 02:45:40 mostly “TimeoutError: N”",
        "/dead-letters",
    ),
    (replace(WELL, report=with_states(dead_lettered=35), dead_letters=letters(4000)), "Healthy", "ended", "/runtime"),
    (
        replace(WELL, report=replace(FINE, pauses=[PAUSE, PAUSE])),
        "Attention",
        "the handler bank.* and 1 other paused at 02:46:39 by ann: it is down",
        "/handlers",
    ),
    (
        replace(WELL, report=replace(FINE, pauses=[PAUSE, replace(PAUSE, pattern="*")])),
        "Attention",
        "everything paused",
        "/handlers",
    ),
    (replace(WELL, report=replace(FINE, broken=["bank.*"])), "Attention", "for bank.* fails", "/handlers"),
    (
        replace(WELL, report=None, checks=[HealthCheck("store", "degraded", 0, "gone")]),
        "Attention",
        "gone",
        "/runtime#store",
    ),
]


@pytest.mark.parametrize(("signs", "word", "cause", "link"), CASES)
def test_the_word_its_cause_and_its_page(signs: Signs, word: str, cause: str, link: str) -> None:
    """Each state of things has its word, says why, and leads to where more is known."""
    health = judge(signs)
    assert (health.word, health.link) == (word, link)
    said = " ".join(filter(None, (health.cause, health.at and f"at {health.at[11:19]}", health.rest)))
    assert cause in said.replace("1 min 15 s", "75 s")
