"""The signs that stand for states, on pages and terminals."""

from replayforge.cli import output
from replayforge.domain.bulk_replay import JobState
from replayforge.domain.lifecycle import Outcome, State
from replayforge.domain.signs import JOB_STATES, OUTCOMES, STATES


def test_every_state_and_outcome_has_a_sign() -> None:
    """Nothing that can be shown is without a glyph and words, and no two of a kind share either."""
    for signs, kind in ((STATES, State), (OUTCOMES, Outcome), (JOB_STATES, JobState)):
        assert list(signs) == list(kind)
        assert len({sign.glyph for sign in signs.values()}) == len({sign.words for sign in signs.values()}) == len(kind)


def test_terminal_colours_only_what_is_a_sign() -> None:
    """A colour belongs to the glyph of a state or an outcome, or it would never be seen."""
    assert set(output.COLOURS) <= {sign.glyph for sign in (STATES | OUTCOMES).values()}
    assert output.state(Outcome.TIMED_OUT) == "⧖ timed out"
    assert output.state("of another version") == "• of another version"
