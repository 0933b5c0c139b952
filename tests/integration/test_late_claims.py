"""A claim is committed and its answer is late: what it took is nobody's to hand back meanwhile."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from replayforge.domain.admission import Admission
from replayforge.domain.event import Entry, Event
from replayforge.engine.care import janitor
from replayforge.engine.handlers.handlers import Context, Handlers
from replayforge.stores.transactions import Claim
from tests.support.house import open_house


async def test_the_sweep_leaves_alone_what_a_claim_under_way_has_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However late the answer of a claim comes, the event is not handed back before: it is handed out and run once."""
    monkeypatch.setattr(janitor, "ORPHANED_AFTER_SECONDS", 0.0)
    handlers, calls = Handlers(), Counter[str]()

    @handlers.on("*")
    async def count(event: Event, context: Context) -> None:
        calls[event.id] += 1

    async with open_house(tmp_path, handlers) as house:
        claims, held, answered = house.daemon.store.claim, asyncio.Event(), asyncio.Event()
        house.daemon.buffer.reserve = no_room  # type: ignore[method-assign]  # so that it comes by the stream

        async def answer_late(entries: Sequence[Entry], now_us: int, admission: Admission) -> Claim:
            claim = await claims(entries, now_us, admission)
            held.set()
            await answered.wait()
            return claim

        house.daemon.store.claim = answer_late  # type: ignore[method-assign,assignment]
        event_id = await house.send()
        await held.wait()
        assert [await house.daemon.janitor.sweep() for _ in range(3)] == [0, 0, 0]
        answered.set()
        event = await house.reaches(event_id, "succeeded")
        assert (calls[event_id], event["starts"]) == (1, 1)


def no_room(count: int, *, fresh: bool = True) -> int:
    """Claim nothing as it is inserted."""
    return 0
