"""The measure that other tests rely on, measured."""

import asyncio
import time

import pytest

from tests.support.turns import turns_measured


def compute(seconds: float) -> None:
    began = time.thread_time()
    while time.thread_time() - began < seconds:
        continue


async def test_a_long_computation_is_seen_and_named() -> None:
    """What computes for a tenth of a second in one turn is measured, and its function stands in the stack."""
    async with turns_measured() as turns:
        await asyncio.sleep(0)
        compute(0.1)
        await asyncio.sleep(0)
    assert turns.longest_seconds >= 0.1
    with pytest.raises(AssertionError, match="compute"):
        turns.assert_shorter_than(0.05)


async def test_short_turns_add_up_to_nothing() -> None:
    """The same computation with a turn of the loop after each small part is not a long turn."""
    async with turns_measured() as turns:
        for _ in range(50):
            compute(0.002)
            await asyncio.sleep(0)
    turns.assert_shorter_than(0.05)
