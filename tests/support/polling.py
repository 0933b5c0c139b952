"""What a caller does after Unavailable: back off, and make the same call again."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from time import monotonic
from typing import TypeVar

from replayforge.domain.errors import Unavailable

T = TypeVar("T")


async def back_off(seconds: float = 0.05) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await asyncio.Event().wait()


async def persist(call: Callable[[], Awaitable[T]], timeout_seconds: float = 15) -> T:
    """Make the call until it succeeds with something true, and return that; less often the longer it takes."""
    last: object = "nothing"
    began = monotonic()
    try:
        async with asyncio.timeout(timeout_seconds):
            while True:
                try:
                    last = outcome = await call()
                except Unavailable as error:
                    last = error
                else:
                    if outcome:
                        return outcome
                await back_off(min(max((monotonic() - began) / 10, 0.02), 0.1))
    except TimeoutError:
        raise TimeoutError(f"gave up after {timeout_seconds} s; the last outcome was {last!r}") from None
