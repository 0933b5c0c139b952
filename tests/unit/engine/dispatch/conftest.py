"""A dispatcher over a real log and store, with two workers that a test plays."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from replayforge.engine.dispatch.dispatcher import Dispatcher
from tests.support.dispatch_parts import Parts, dispatch_parts, dispatching


@pytest.fixture
async def parts(tmp_path: Path) -> AsyncIterator[Parts]:
    async with dispatch_parts(tmp_path, workers=2) as parts:
        yield parts


@pytest.fixture
async def dispatcher(parts: Parts) -> AsyncIterator[Dispatcher]:
    async with dispatching(parts) as dispatcher:
        yield dispatcher
