"""Saturation: a process that has used up a processor knows it, and how many rows it made meanwhile."""

import pytest

from replayforge.engine.dispatch import saturation


def test_it_is_measured_by_what_was_used_since_the_last_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once a second; in between the last measurement holds."""
    used = iter([100.0, 100.95, 101.4])
    monkeypatch.setattr(saturation, "process_time", lambda: next(used))
    measured = saturation.Saturation()
    seen = []
    for now, rows in ((1000.0, 0), (1000.9, 500), (1001.0, 1000), (1001.5, 5000), (1003.0, 1200)):
        seen.append((measured.measure(now, rows), measured.rows_per_second))
    assert seen == [(False, 0.0), (False, 0.0), (True, 500.0), (True, 500.0), (False, 300.0)]
