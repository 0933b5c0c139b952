"""What a daemon that was killed inside somebody else's process leaves behind."""

import gc
import inspect
from collections.abc import Generator

from replayforge.testing.life import leave


class Stays:
    """What never comes."""

    def __await__(self) -> Generator[None, None, None]:
        yield


def test_what_a_killed_daemon_has_left_never_runs_again() -> None:
    """No `finally` block of it runs when nobody has it any more; what had not begun is closed."""
    ran: list[str] = []

    async def stand() -> None:
        try:
            await Stays()
        finally:
            ran.append("finally")

    standing, fresh = stand(), stand()
    standing.send(None)
    for coroutine in (standing, fresh):
        leave(coroutine)
    assert inspect.getcoroutinestate(fresh) == inspect.CORO_CLOSED
    del standing, coroutine
    gc.collect()
    assert ran == []
