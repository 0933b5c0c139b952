"""A workflow with everything in it, killed at every crash point on its way: each step's effect as often as it must."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from replayforge import crashpoints
from replayforge.testing import Forge
from tests.crash.test_crash_points import OF_WORKFLOWS
from tests.data.everything_handlers import handlers
from tests.support.lives import Lives
from tests.support.slow import the_rest_slow

# Every point on the road of a workflow, and how often it is passed at least.
POINTS = {
    "dispatch.committed": 4,
    "claim.committed": 3,
    "attempt.started": 6,
    "attempt.finished": 6,
    "step.started": 13,
    "step.returned": 12,
    "step.committed": 14,
    "child.appended": 2,
    "park.committed": 3,
    "signal.matched": 1,
    "wake.committed": 1,
    "promote.committed": 1,
    "settle.committed": 6,
}
PASSES_MAX = 40
PAYLOAD = {"n": 1, "seconds": 3600}
SETTINGS = {"retry.jitter": 1}


@pytest.fixture(autouse=True, scope="module")
def sink(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The file in which the handlers note their effects."""
    path = tmp_path_factory.mktemp("effects") / "effects.txt"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EFFECTS", str(path))
        yield path


def effects(sink: Path) -> Counter[str]:
    """Return how often each effect has happened since the last time, and forget it."""
    lines = sink.read_text().splitlines()
    sink.unlink()
    return Counter(line.partition("\t")[2] for line in lines)


async def play(forge: Forge, *points: str) -> tuple[Any, list[str]]:
    """Play the workflow to its end with a crash at one point after the other; returns its result and where it died."""
    async with forge:
        lives = Lives(forge, points)
        order = await lives.send("order", PAYLOAD)
        await lives.advance(hours=2)
        confirmed = await lives.send("confirmed", PAYLOAD)
        await lives.advance(hours=50)
        others = [*await forge.events("mail"), *await forge.events("bill")]
        assert [(one.event_type, one.status) for one in others] == [("mail", "succeeded"), ("bill", "succeeded")]
        assert (order.status, confirmed.status) == ("succeeded", "succeeded"), (order.reason, order.last_error)
        found = await forge.do(forge.daemon.convergence.read())
        assert (found.converged, found.ledger.lost) == (True, 0)
        return order.result, lives.deaths


def test_every_point_that_only_workflows_come_to_is_here() -> None:
    assert {point for point in crashpoints.POINTS if point.startswith(OF_WORKFLOWS)} <= POINTS.keys()


@pytest.fixture(scope="module")
def undisturbed(sink: Path) -> tuple[Any, Counter[str]]:
    """What comes of the workflow without a crash, and how often each effect happens then."""
    result, deaths = asyncio.run(play(Forge(handlers, settings=SETTINGS)))
    assert deaths == []
    return result, effects(sink)


@pytest.mark.parametrize("passes", the_rest_slow([1, PASSES_MAX]))
@pytest.mark.parametrize("point", POINTS)
async def test_a_crash_at_any_point_repeats_nothing_that_was_recorded(
    point: str, passes: int, undisturbed: tuple[Any, Counter[str]], sink: Path
) -> None:
    expected, once = undisturbed
    crashes = 0
    for nth in range(1, passes + 1):
        result, deaths = await play(Forge(handlers, settings=SETTINGS), f"{point}:{nth}")
        happened = effects(sink)
        if not deaths:  # the workflow does not come here so often
            break
        assert len(deaths) == 1
        crashes += 1
        assert result == expected
        again = happened - once
        assert happened.keys() == once.keys()
        assert max(again.values(), default=0) <= 1
        if not point.startswith(("step.started", "step.returned")):  # but for those side by side, which end one by one
            assert all(name.startswith("label") for name in again), (nth, again)
    assert crashes >= min(passes, POINTS[point]), f"the workflow came to {point} {crashes} times"
