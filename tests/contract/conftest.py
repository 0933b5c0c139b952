"""The stores that the contract tests are run over, each empty at the beginning."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import pytest
import pytest_asyncio

from replayforge.stores.store import Store
from tests.contract.store_backends import BACKENDS, StoreHouse, store_house
from tests.support.kept_store import KeptStore

HERE = Path(__file__).parent
FOR_ALL: Final = "session"  # the loop of kept connections


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the tests that may get the kept store in the loop that it belongs to."""
    for item in items:
        if item.path.is_relative_to(HERE) and "kept" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.asyncio(loop_scope=FOR_ALL), append=False)


@pytest_asyncio.fixture(scope="package", loop_scope=FOR_ALL)
async def kept() -> AsyncIterator[KeptStore]:
    """One store for all tests over PostgreSQL, made when the first of them asks for it."""
    kept = KeptStore()
    yield kept
    await kept.close()


@pytest_asyncio.fixture(params=BACKENDS, loop_scope=FOR_ALL)
async def house(request: pytest.FixtureRequest, tmp_path: Path, kept: KeptStore) -> AsyncIterator[StoreHouse]:
    async with store_house(request.param, tmp_path, kept) as house:
        yield house


@pytest.fixture(params=BACKENDS)
async def new_house(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[StoreHouse]:
    """A place where no store was made yet."""
    async with store_house(request.param, tmp_path) as house:
        yield house


@pytest_asyncio.fixture(loop_scope=FOR_ALL)
async def store(house: StoreHouse) -> Store:
    return await house.join()


@pytest_asyncio.fixture(loop_scope=FOR_ALL)
async def other(house: StoreHouse, store: Store) -> Store:
    return await house.join("node-2")
