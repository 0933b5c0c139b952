"""What came of an action on several events, in words."""

import pytest

from replayforge.cli.actions import act_on_each
from replayforge.client.http import Reply


def test_a_cancel_that_is_only_asked_for_is_counted_apart(capsys: pytest.CaptureFixture[str]) -> None:
    answers = {"parked": b'{"status": "cancelled"}', "running": b'{"status": "cancel_requested"}'}
    assert act_on_each("cancelled", list(answers), lambda one: Reply(200, answers[one])) == 0
    assert capsys.readouterr().out == "cancelled 1 of 2; 1 asked to end at the next step\n"
