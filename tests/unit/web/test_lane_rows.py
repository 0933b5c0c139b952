"""The words of the page of the lanes: what holds, whose key it is, and what the next event waits for."""

import tomllib

import msgspec
import pytest

from replayforge.config import Config
from replayforge.domain.lane import LaneReport, parse_rate, rules_for, turn_of
from replayforge.web.pages.lane_pages import EXAMPLE, key_row, rate_in_words, rules_in_words

DEAD = LaneReport('["order.*","crm","c-1"]', 1, 1, 1, 0, 0, 0, 0, 10_000, 0, 0, "evt-1", "dead_lettered")


@pytest.mark.parametrize(
    ("rate", "words"),
    [("5/s", "5 starts a second"), ("1/s", "1 start a second"), ("100/min", "1.67 starts a second"),
     ("10/min", "10 starts a minute"), ("7/h", "7 starts an hour")],
)  # fmt: skip
def test_a_rate_is_a_number_that_one_can_read(rate: str, words: str) -> None:
    assert rate_in_words(parse_rate(rate)) == words


def test_the_example_says_what_it_does() -> None:
    """The ten lines that are shown where there are no lanes are a configuration, and mean what its comments say."""
    first, second = msgspec.convert(tomllib.loads(EXAMPLE), Config).lanes
    assert rules_in_words(first.rules()) == [
        "one after another, in the order they came",
        "a dead letter blocks its key until it is replayed or discarded",
    ]
    assert rules_in_words(second.rules()) == [
        "at most 2 at once", "at most 5 starts a second, retries included", "keys take turns",
    ]  # fmt: skip
    skip = rules_for(order="strict", on_dead="skip", concurrency=None, rate=None, fair=True)
    assert rules_in_words(skip)[1] == "a dead letter lets those behind it go on"


def test_a_key_behind_a_dead_letter_names_it() -> None:
    """The sentence can be taken apart at the event that it names, which may be replayed or discarded."""
    row = key_row(DEAD)
    assert (row.key, row.subscriber, row.blocked, row.dead_id) == ("c-1", "crm", "10,000+", "evt-1")
    assert row.turn is not None
    assert (row.turn.before, row.turn.event_id) == ("It waits in its lane behind the dead letter ", "evt-1")


def test_a_key_that_nobody_waits_in_waits_for_nothing() -> None:
    """Nor is anything offered where the head runs; a value that is missing, or very long, is said so."""
    row = key_row(DEAD._replace(lane='["*",null,null]', blocked=0, running=1, head_state="processing"))
    assert (row.key, row.turn, row.dead_id) == ("without this value", None, "")
    assert key_row(DEAD._replace(lane='["*",null,17]')).key == "17"
    assert key_row(DEAD._replace(lane=f'["*",null,"{"x" * 200}"]')).key.endswith("x…")


def test_a_lane_that_is_full_says_how_many_are_before() -> None:
    """One or several that run, where these count; the event that stands first is not necessarily the one that runs."""
    one = DEAD._replace(strict=0, counts_running=1, released=0, running=1, head_state="retrying")
    two = one._replace(width=2, running=2)
    words = [turn_of("", lane).words for lane in (one, two)]
    assert words[0].endswith("1 event of it is running or about to, and no more may be at once.")
    assert "2 events of it are running" in words[1]
