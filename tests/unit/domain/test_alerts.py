"""When each alert stands, and what is written down of it next."""

from typing import Any

import pytest
from msgspec.structs import replace as changed

from replayforge.domain.admission import EVERYTHING, Pause
from replayforge.domain.alerts import (
    Alert,
    AlertRule,
    Condition,
    Here,
    Said,
    Sight,
    changes,
    delivered,
    standing,
    undelivered,
)
from replayforge.domain.lifecycle import State
from replayforge.domain.reports import Ledger, NewError

NOW_US = 10_000_000_000
HERE = Here("here", {"here", "peer"}, NOW_US)


def ledger(inserted: int = 3, unreadable: int = 0, gaps: int = 0, **states: int) -> Ledger:
    counts = {State(name): count for name, count in states.items()}
    retired = 3 - sum(states.values())
    return Ledger(
        records=3, unprojected=0, not_events=0, copies=0, inserted=inserted, states=counts, retired=retired,
        unreadable=unreadable, gaps=gaps,
    )  # fmt: skip


def sight(**options: Any) -> Sight:
    given: dict[str, Any] = {
        "node": "here", "now_us": NOW_US, "ledger": ledger(), "oldest_queued_seconds": 0.0, "pauses": (),
        "new_errors": {60: ()}, "disk_free_bytes": 100, "accepts_for_disk": True,
    }  # fmt: skip
    return Sight(**given | options)


def pause(pattern: str, seconds_ago: int) -> Pause:
    return Pause(pattern, "the bank is down", "me", NOW_US - seconds_ago * 1_000_000)


LOST = Ledger(records=3, unprojected=0, not_events=0, copies=0, inserted=2, states={}, retired=2)


@pytest.mark.parametrize(
    ("condition", "threshold", "seen", "subjects"),
    [
        (Condition.DEAD_LETTERS, 1, sight(ledger=ledger(dead_lettered=2)), [""]),
        (Condition.DEAD_LETTERS, 2, sight(ledger=ledger(dead_lettered=2)), []),
        (Condition.HELD, 0, sight(ledger=ledger(held=1)), [""]),
        (Condition.HELD, 0, sight(ledger=ledger(dead_lettered=1)), []),
        (Condition.OLDEST_WAITING, 60, sight(oldest_queued_seconds=61.0), [""]),
        (Condition.OLDEST_WAITING, 60, sight(oldest_queued_seconds=60.0), []),
        (Condition.LEDGER_NOT_CLEAN, 0, sight(), []),
        (Condition.LEDGER_NOT_CLEAN, 0, sight(ledger=LOST), ["lost"]),
        (Condition.LEDGER_NOT_CLEAN, 0, sight(ledger=ledger(unreadable=1, gaps=2)), ["unreadable", "gaps"]),
        (Condition.DISK_LOW, 101, sight(), ["here"]),
        (Condition.DISK_LOW, 100, sight(), []),
        (Condition.DISK_LOW, 0, sight(accepts_for_disk=False), ["here"]),
        (Condition.HANDLER_PAUSED, 60, sight(pauses=[pause("a", 61), pause("b", 60)]), ["a"]),
        (Condition.HANDLER_PAUSED, 60, sight(pauses=[pause(EVERYTHING, 61)]), [EVERYTHING]),
        (Condition.NEW_ERROR_SIGNATURE, 60, sight(new_errors={60: [NewError("new", 2, NOW_US)], 70: []}), ["new"]),
        (Condition.NEW_ERROR_SIGNATURE, 60, sight(new_errors={60: None}), None),
    ],
)
def test_when_each_stands(condition: Condition, threshold: float, seen: Sight, subjects: list[str] | None) -> None:
    """Above its threshold and not at it, once for each subject, with words; what cannot be told is not judged."""
    found = standing(AlertRule("one", condition, threshold), seen)
    assert (found if found is None else list(found)) == subjects
    assert all(words.endswith((".", "new", "down")) for words in (found or {}).values())


RULE = AlertRule("one", Condition.DEAD_LETTERS, 0)
BEGUN = Alert("one", "", 4, "id", "here", "words", 1, None, Said.BEGAN, 0, 0, None)
ENDED = changed(BEGUN, ended_at_us=2, said=Said.ENDED)


def following(known: Alert | None, found: dict[str, str], rule: AlertRule = RULE) -> list[Alert]:
    subjects = {} if known is None else {known.subject: known}
    return list(changes(rule, subjects, found, HERE, lambda: "new"))


def test_what_follows_from_what_stands() -> None:
    """It begins once, ends once, begins anew under another id, and not before its end was said."""
    (begun,) = following(None, {"": "words"})
    assert (begun.version, begun.id, begun.owner, begun.began_at_us, begun.unsaid) == (
        0,
        "new",
        "here",
        NOW_US,
        "began",
    )
    assert following(BEGUN, {"": "other words"}) == []
    (ended,) = following(BEGUN, {})
    assert (ended.ended_at_us, ended.version, ended.id, ended.unsaid) == (NOW_US, 4, "id", "ended")
    assert following(ended, {}) == []
    assert following(ended, {"": "words"}) == []
    (again,) = following(ENDED, {"": "words"})
    assert (again.version, again.id, again.ended_at_us, again.unsaid) == (4, "new", None, "began")
    assert ENDED.unsaid is None


def test_an_alert_is_left_to_the_node_that_began_it_while_that_lives() -> None:
    """Of one that is gone somebody else ends it, and says what was not said; a disk only its own node can judge."""
    assert following(changed(BEGUN, owner="peer"), {}) == []
    (taken,) = following(changed(BEGUN, owner="gone"), {})
    assert (taken.owner, taken.ended_at_us) == ("here", NOW_US)
    unsaid = changed(BEGUN, owner="gone", said=Said.NOTHING)
    assert following(unsaid, {"": "words"}) == [changed(unsaid, owner="here")]
    disk = AlertRule("one", Condition.DISK_LOW, 0)
    assert following(changed(BEGUN, owner="gone", subject="gone"), {}, disk) == []
    assert len(following(changed(BEGUN, subject="here"), {}, disk)) == 1


def test_tries_go_farther_apart_and_a_delivery_forgets_them() -> None:
    """The beginning is said before the end, whatever has happened meanwhile."""
    alert = changed(BEGUN, said=Said.NOTHING, ended_at_us=5)
    assert alert.message_id == "id.began"
    waits = []
    for _ in range(12):
        alert = undelivered(alert, "away", NOW_US)
        waits.append((alert.due_at_us - NOW_US) // 1_000_000)
    assert (waits[:3], waits[-1], alert.failures, alert.last_error) == ([1, 2, 4], 300, 12, "away")
    alert = delivered(alert)
    assert (alert.said, alert.failures, alert.last_error, alert.message_id) == (Said.BEGAN, 0, None, "id.ended")
    assert delivered(alert).unsaid is None
