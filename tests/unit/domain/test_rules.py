"""The pure rules: lifecycle, retry, what follows from an attempt or a crash, error signatures, time."""

import random
import re
from importlib import resources

import pytest

from replayforge.domain.clock import format_time, parse_time, to_us
from replayforge.domain.lifecycle import (
    ATTEMPT_SPENDING,
    OPEN,
    TERMINAL,
    TRANSITIONS,
    Outcome,
    Reason,
    State,
    sources_of,
)
from replayforge.domain.poison import Isolation
from replayforge.domain.reclaim import CRASHES_MAX, InFlight, after_crash
from replayforge.domain.retry import Retry, RetryPolicy
from replayforge.domain.verdict import Result, error_signature, judge

POLICY = RetryPolicy(max_attempts=3)


# Lifecycle


@pytest.mark.parametrize("dialect", ["sqlite", "postgres"])
def test_lifecycle_stands_in_sql_as_it_stands_here(dialect: str) -> None:
    """The CHECK of each dialect holds exactly the transitions of the table."""
    folder = resources.files("replayforge.stores").joinpath("sql", dialect)
    text = folder.joinpath("0001_initial.sql").read_text(encoding="utf-8")
    check = text[text.index("CONSTRAINT lifecycle") :]
    written = set(re.findall(r"(\w+)>(\w+)", check[: check.index("previous_state")]))
    assert written == {(source, target) for source, targets in TRANSITIONS.items() for target in targets}


def test_states_are_open_terminal_or_received() -> None:
    """Every state is in the table, and is received, open or terminal, never two of them."""
    assert set(TRANSITIONS) == set(State)
    assert OPEN | TERMINAL | {State.RECEIVED} == set(State)
    assert set() == OPEN & TERMINAL
    assert sources_of(State.RECEIVED) == set()


def test_every_state_can_reach_an_end() -> None:
    """From every state some way leads to succeeded."""
    reaching = {State.SUCCEEDED}
    while more := {state for state in State if TRANSITIONS[state] & reaching} - reaching:
        reaching |= more
    assert reaching == set(State)


def test_only_failures_spend_attempts() -> None:
    """Crashes and interruptions spend no attempt."""
    assert {Outcome.FAILED, Outcome.TIMED_OUT} == ATTEMPT_SPENDING


# What follows from an attempt

JUDGEMENTS = {
    "success": (Result(Outcome.SUCCEEDED), 0, State.SUCCEEDED, 0, None),
    "success on the last attempt": (Result(Outcome.SUCCEEDED), 2, State.SUCCEEDED, 2, None),
    "first failure": (Result(Outcome.FAILED), 0, State.RETRYING, 1, None),
    "second failure": (Result(Outcome.FAILED), 1, State.RETRYING, 2, None),
    "last failure": (Result(Outcome.FAILED), 2, State.DEAD_LETTERED, 3, Reason.ATTEMPTS_EXHAUSTED),
    "beyond the last": (Result(Outcome.FAILED), 7, State.DEAD_LETTERED, 8, Reason.ATTEMPTS_EXHAUSTED),
    "time-out": (Result(Outcome.TIMED_OUT), 0, State.RETRYING, 1, None),
    "last time-out": (Result(Outcome.TIMED_OUT), 2, State.DEAD_LETTERED, 3, Reason.ATTEMPTS_EXHAUSTED),
    "permanent": (Result(Outcome.FAILED, permanent=True), 0, State.DEAD_LETTERED, 1, Reason.PERMANENT),
    "interrupted": (Result(Outcome.INTERRUPTED), 2, State.QUEUED, 2, None),
}


@pytest.mark.parametrize(("result", "spent", "state", "count", "reason"), JUDGEMENTS.values(), ids=JUDGEMENTS.keys())
def test_judgements(result: Result, spent: int, state: State, count: int, reason: Reason | None) -> None:
    """An attempt that ran to an end leads to the state of the table, and spends what it must."""
    verdict = judge(result, attempt_count=spent, crashes=1, policy=POLICY, now_us=1000, rng=random.Random(1))
    assert (verdict.state, verdict.attempt_count, verdict.reason, verdict.crashes) == (state, count, reason, 1)
    assert (verdict.due_at_us is not None) == (state is State.RETRYING)
    assert verdict.state in TRANSITIONS[State.PROCESSING]


def test_an_attempt_that_does_not_count_spends_none_and_never_exhausts() -> None:
    """With nothing spent it waits as after the first failure, unless it says how long."""
    for spent in (0, POLICY.max_attempts - 1, POLICY.max_attempts):
        result = Result(Outcome.FAILED, counts=False)
        verdict = judge(result, attempt_count=spent, crashes=0, policy=POLICY, now_us=0, rng=random.Random(1))
        assert (verdict.state, verdict.attempt_count) == (State.RETRYING, spent)
        assert verdict.due_at_us


def test_asked_delay_is_taken_as_it_is() -> None:
    """A delay that the handler asked for is neither grown nor jittered; zero means now."""
    for seconds in (0.0, 12.5, 100_000.0):
        result = Result(Outcome.FAILED, retry_after_seconds=seconds)
        verdict = judge(result, attempt_count=0, crashes=0, policy=POLICY, now_us=1000, rng=random.Random(1))
        assert verdict.due_at_us == 1000 + to_us(seconds)


@pytest.mark.parametrize("spent", [1, 2, 3, 9, 10, 64, 10_000])
def test_backoff_doubles_up_to_its_limit(spent: int) -> None:
    """The delay is min(max, base x factor^(n-1)), times a number between jitter and 1."""
    policy, rng = RetryPolicy(), random.Random(7)
    full = min(900.0, 2 * 2.0 ** min(spent - 1, 60))
    delays = [policy.delay_seconds(spent, rng) for _ in range(500)]
    assert all(full / 2 <= delay <= full for delay in delays)
    assert max(delays) - min(delays) > full / 4


@pytest.mark.parametrize("after", [-1, float("nan"), float("inf"), -float("inf"), 10**12])
def test_impossible_delays_are_refused(after: float) -> None:
    """A delay that is no time to wait is an error in the handler."""
    with pytest.raises(ValueError, match="seconds"):
        Retry(after=after)


# What follows from a crash


def in_flight(name: str = "event-1", crashes: int = 0, event_type: str = "test") -> InFlight:
    return InFlight(1, name, event_type, 1, 1, 2, crashes, "owner", 1000)


CRASHES = {
    "first": (0, False, State.QUEUED, 1),
    "second": (1, False, State.QUEUED, 2),
    "third": (2, False, State.DEAD_LETTERED, 3),
    "held": (0, True, State.HELD, 1),
    "held, third": (2, True, State.DEAD_LETTERED, 3),
}


@pytest.mark.parametrize(("crashes", "hold", "state", "count"), CRASHES.values(), ids=CRASHES.keys())
def test_after_a_crash(crashes: int, hold: bool, state: State, count: int) -> None:
    """The death of its worker is charged to an event, or it is held, as the table says; no attempt is spent."""
    decided = after_crash(in_flight(crashes=crashes), hold=hold)
    assert (decided.verdict.state, decided.verdict.crashes, decided.verdict.attempt_count) == (state, count, 2)
    assert decided.verdict.reason == (Reason.POISON if state is State.DEAD_LETTERED else None)
    assert decided.isolation is Isolation.FREE
    assert CRASHES_MAX == 3


# Error signatures

ALIKE = [
    ("RuntimeError: order 17 failed after 3 tries", "RuntimeError: order 98214 failed after 12 tries"),
    ("KeyError: 'customer-9'", "KeyError: 'somebody else'"),
    ("Boom: 4b3f92f9-2b47-8b22-9b89-1b6808eaace1", "Boom: 9ed1c0dc-fc8f-8ec1-84fa-5edf84f54640"),
    ("at 0x7f0badc0ffee", "at 0x1"),
    ("commit deadbeef01", "commit 0123456789abcdef"),
    ('no "x" in `y`', 'no "z" in `w`'),
    ("first line 1\nsecond", "first line 2\nother"),
]
UNLIKE = [
    ("ValueError: bad", "TypeError: bad"),
    ("connection refused", "connection reset"),
    ("face the facts", "deface the facts"),
]


@pytest.mark.parametrize(("one", "other"), ALIKE)
def test_like_errors_have_one_signature(one: str, other: str) -> None:
    """Errors that differ in numbers, ids, addresses or quoted parts have the same signature."""
    assert error_signature(one) == error_signature(other)


@pytest.mark.parametrize(("one", "other"), UNLIKE)
def test_unlike_errors_have_two(one: str, other: str) -> None:
    """Errors that differ in their words have different signatures."""
    assert error_signature(one) != error_signature(other)


@pytest.mark.parametrize("error", ["", "  \n ", "x" * 100_000, "'" * 100_000, "9" * 100_000, "\n\nlate"])
def test_signatures_are_short_and_never_empty(error: str) -> None:
    """Any text has a signature of one line and at most 200 characters."""
    signature = error_signature(error)
    assert 1 <= len(signature) <= 200
    assert "\n" not in signature


# Time

TIMES = {
    "1970-01-01T00:00:00Z": 0,
    "1970-01-01T00:00:01.000001Z": 1_000_001,
    "2026-11-22T10:00:00Z": 1_795_341_600_000_000,
    "2026-11-22T12:00:00+02:00": 1_795_341_600_000_000,
    "1969-12-31T23:59:59.999999Z": -1,
    "0001-01-01T00:00:00Z": -62_135_596_800_000_000,
    "9999-12-31T23:59:59.999999Z": 253_402_300_799_999_999,
}


@pytest.mark.parametrize(("text", "at_us"), TIMES.items())
def test_times_are_read_exactly(text: str, at_us: int) -> None:
    """A time is read to the microsecond, in any zone, and written back as the same moment."""
    assert parse_time(text) == at_us
    assert parse_time(format_time(at_us)) == at_us


@pytest.mark.parametrize(
    "text", ["", "now", "2026-13-01", "9999-12-31T23:59:59-01:00", "0001-01-01T00:00:00+01:00", "1"]
)
def test_what_is_no_time(text: str) -> None:
    """What is no time, or lies outside the years 1 to 9999 in UTC, is a ValueError."""
    with pytest.raises(ValueError):
        parse_time(text)
