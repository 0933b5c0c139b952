"""How telemetry events are told on the overview."""

import pytest

from replayforge.web.live.live_rates import TelemetryEvent
from replayforge.web.pages.rows import activity_row


@pytest.mark.parametrize(
    ("name", "fields", "text"),
    [
        ("event.dead_lettered", {"reason": "attempts_exhausted"}, "became a dead letter: attempts exhausted"),
        ("replay.moved", {"replay": "rpl_1", "state": "running"}, "bulk replay rpl_1: running"),
        (
            "service.crashed",
            {"service": "reader", "error": "no field my_name\nsecond line"},
            "reader crashed: no field my_name",
        ),
        ("log.rolled", {}, "log rolled"),
    ],
)
def test_words_are_spaced_and_names_are_kept(name: str, fields: dict[str, str], text: str) -> None:
    """What is a word of ours reads as one; ids and errors are quoted as they are, their first line only."""
    assert activity_row(TelemetryEvent(0, name, "info", 1, fields)).text == text
