"""How the last write went: only what reached the database says whether the next one may."""

import pytest

from replayforge.domain.errors import ReplayForgeError, Unavailable, Unstorable
from replayforge.stores.driver import Writes
from replayforge.stores.transactions import LeaseLost


@pytest.mark.parametrize(
    ("error", "changed", "stands"),
    [
        (None, True, False),
        (Unstorable("too long"), False, False),
        (None, False, True),
        (LeaseLost(), False, True),
        (LeaseLost(), True, True),
    ],
)
def test_an_error_stands_until_a_write_has_reached_the_database(
    error: ReplayForgeError | None, changed: bool, stands: bool
) -> None:
    """A transaction that is rolled back because a lease is lost wrote nothing, whatever it had changed by then."""
    writes = Writes()
    writes.note(Unavailable("the disk is full"))
    writes.note(error, changed=changed)
    assert (writes.error is not None) == stands
