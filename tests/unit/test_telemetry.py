"""Telemetry: who listens hears what it asked for, all of it, and nothing else."""

from typing import Any

import pytest

from replayforge.telemetry import CATALOG, LOUD, Telemetry


def test_a_listener_hears_the_names_that_it_asked_for() -> None:
    """With its count and its fields; one that asked for nothing in particular hears all."""
    telemetry, heard, all_heard = Telemetry(), [], []

    def listen(name: str, count: int, fields: dict[str, Any]) -> None:
        heard.append((name, count, fields))

    telemetry.listen(listen, ["event.claimed", "event.replayed"])
    telemetry.listen(lambda name, count, fields: all_heard.append(name))
    telemetry.emit("event.claimed", 3)
    telemetry.emit("attempt.started")
    telemetry.emit("event.replayed", event_id="one")
    assert heard == [("event.claimed", 3, {}), ("event.replayed", 1, {"event_id": "one"})]
    assert all_heard == ["event.claimed", "attempt.started", "event.replayed"]
    assert telemetry.counts == {"event.claimed": 3, "attempt.started": 1, "event.replayed": 1}


def test_who_listens_for_a_while_hears_nothing_later() -> None:
    telemetry, heard = Telemetry(), []
    with telemetry.heard_by(lambda name, count, fields: heard.append(name), LOUD):
        telemetry.emit("daemon.started")
        telemetry.emit("event.claimed")
    telemetry.emit("daemon.started")
    assert heard == ["daemon.started"]
    assert not any(telemetry.listeners.values())


def test_names_are_those_of_the_catalog() -> None:
    """Neither told nor listened to otherwise; what is worth a line is what is not for debugging."""
    telemetry = Telemetry()
    with pytest.raises(KeyError):
        telemetry.emit("event.invented")
    with pytest.raises(KeyError):
        telemetry.listen(lambda name, count, fields: None, ["event.invented"])
    assert all((CATALOG[name].level == "debug") is (name not in LOUD) for name in CATALOG)
