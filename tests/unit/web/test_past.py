"""How long the past of a range is remembered."""

from pathlib import Path

from replayforge.domain.chronicle import RANGES
from replayforge.domain.event import EventRecord
from replayforge.engine.chronicler import Chronicler
from replayforge.stores.store import Store
from replayforge.telemetry import Telemetry
from replayforge.web.past import CHEAP_SECONDS, Memory
from tests.support.clock import FakeClock


async def test_what_was_just_written_is_not_hidden_by_what_is_remembered(tmp_path: Path) -> None:
    """Each range is remembered by itself, until this daemon writes more of the chronicle; only a costly one stays."""
    clock = FakeClock()
    store = await Store.open(f"sqlite:///{tmp_path}/store.db", node="node-1", owner="node-1/first")
    try:
        chronicler = Chronicler(store, clock, Telemetry())
        memory = Memory(chronicler, clock)
        hour, week = memory.of(RANGES["1h"]), memory.of(RANGES["7d"])
        assert memory.of(RANGES["1h"]) is hour
        assert memory.of(RANGES["7d"]) is week is not hour
        await chronicler.write()  # there is nothing to write
        assert memory.of(RANGES["1h"]) is hour
        week.cost_seconds = CHEAP_SECONDS * 2
        chronicler.note_accepted(1, {"records": [EventRecord("event-1", "app", "workflow", "test", 0)]})
        await chronicler.write()
        assert memory.of(RANGES["1h"]) is not hour
        assert memory.of(RANGES["7d"]) is week
    finally:
        await store.close()
