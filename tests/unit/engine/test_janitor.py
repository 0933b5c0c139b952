"""When chores are done."""

import random

from replayforge.engine.care.janitor import JITTER, Chore


async def nothing() -> int:
    return 0


def test_chores_that_are_nearly_due_go_along() -> None:
    """Eight chores of a second are done at one waking, whatever their jitter, and each often enough."""
    rng = random.Random(1)
    chores = [Chore(f"chore {number}", 1.0, nothing) for number in range(8)]
    now, wakings, done = 0.0, 0, 0
    while now < 60:
        for chore in chores:
            if chore.is_due(now):
                chore.due_at = now + chore.interval_seconds * rng.uniform(1 - JITTER, 1 + JITTER)
                done += 1
        wakings += 1
        now = min(chore.due_at for chore in chores)
    assert wakings <= 60 / (1 - JITTER) + 1
    assert 60 * len(chores) <= done <= 60 / (1 - JITTER) * len(chores) + len(chores)
