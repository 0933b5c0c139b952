"""The stores that the contract tests are run over, each empty at the beginning."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from replayforge.stores.store import Store
from tests.contract.store_backends import BACKENDS, StoreHouse, store_house


@pytest.fixture(params=BACKENDS)
async def house(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[StoreHouse]:
    async with store_house(request.param, tmp_path) as house:
        yield house


@pytest.fixture
async def store(house: StoreHouse) -> Store:
    return await house.join()


@pytest.fixture
async def other(house: StoreHouse, store: Store) -> Store:
    return await house.join("node-2")
