"""The desk of a daemon compares for one person at a time, and keeps the last reports."""

import asyncio
from pathlib import Path

import pytest

from replayforge.domain.errors import Conflict, NotFound, Rejected
from replayforge.shadow.desk import ShadowDesk
from replayforge.shadow.replayed import Job


async def test_one_comparison_at_a_time_and_the_next_when_it_has_ended(tmp_path: Path) -> None:
    """Who comes second hears so at once; a file that is not there is said by its name, and blocks nobody."""
    desk, file = ShadowDesk(Job(())), tmp_path / "handlers.py"
    first, second = await asyncio.gather(
        desk.compare(str(file), []), desk.compare(str(file), []), return_exceptions=True
    )
    assert isinstance(first, Rejected)
    assert str(first) == f"The handler file {file} does not exist."
    assert isinstance(second, Conflict)
    file.write_text("from replayforge import Handlers\n\nhandlers = Handlers()\n")
    kept = await desk.compare(str(file), [])
    assert desk.find(kept.id) is kept
    with pytest.raises(NotFound):
        desk.find("another")
