"""What chaos sends beside the demo's workload: probes, which tell that everything runs again, and what hangs."""

import asyncio
from typing import Any

from replayforge.chaos.injury import HANG_SECONDS, Injury, InjuryKind
from replayforge.demo.simulated_work import note_effect
from replayforge.domain.event import Event
from replayforge.engine.handlers.context import Context
from replayforge.engine.handlers.registry import Handlers

PROBE = "chaos.probe"
HANG = "chaos.hang"
FOR_EVER_SECONDS = 3600.0

handlers = Handlers()


@handlers.on(PROBE)
async def answer(event: Event, context: Context) -> dict[str, Any]:
    """Have an effect, and no more."""
    note_effect(context)
    return {"probed": event.workflow_id}


@handlers.on(HANG, timeout_seconds=HANG_SECONDS)
async def hang(event: Event, context: Context) -> dict[str, Any]:
    """Hang in the first attempt, until the time-out ends it."""
    if event.attempt == 1:
        await asyncio.sleep(FOR_EVER_SECONDS)
    note_effect(context)
    return {"attempt": event.attempt}


def events_of(injury: Injury, workers: int) -> list[tuple[str, dict[str, Any]]]:
    """Return the events, as type and payload, that an injury is made of; those that hang are at most one a worker."""
    if injury.kind is InjuryKind.HANDLER_HANG:
        return [(HANG, {})] * (1 + int(injury.choice * workers))
    if injury.kind is InjuryKind.LOOP_HANG:
        return [(PROBE, {"_force_hang": injury.lasts_seconds})]
    return []
