"""Deadlines: each is kept, however many looks it is away, and no timer is left when nothing runs."""

import asyncio

from replayforge.engine.run.deadlines import LOOK_SECONDS, Deadlines


class Run:
    """Something with a deadline."""

    def __init__(self) -> None:
        self.over = asyncio.Event()

    def time_out(self) -> None:
        self.over.set()


async def test_a_deadline_several_looks_away_is_kept_and_one_that_ended_is_not() -> None:
    """The first looks end nothing that is not due; what has ended is left alone; then nobody looks any more."""
    deadlines, loop, late, ended = Deadlines(), asyncio.get_running_loop(), Run(), Run()
    due = loop.time() + 3 * LOOK_SECONDS
    deadlines.begin(late, due, loop)
    deadlines.begin(ended, due - LOOK_SECONDS, loop)
    deadlines.end(ended)
    async with asyncio.timeout(20):
        await late.over.wait()
    assert loop.time() >= due
    assert not ended.over.is_set()
    deadlines.look(loop)
    assert deadlines.timer is None
