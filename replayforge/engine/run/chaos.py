"""Simulated crashes, really carried out: what the payload's flags and the configured rates ask for."""

import random
import time
from asyncio import sleep
from dataclasses import dataclass
from typing import Any

from replayforge import crashpoints
from replayforge.daemon_log import leave
from replayforge.domain.document import decode_exactly
from replayforge.domain.errors import Refused, Rejected
from replayforge.domain.event import Event
from replayforge.supervisor import SimulatedCrash
from replayforge.telemetry import Telemetry

FLAG = b'"_force_'


class ForcedFailure(Exception):
    """A failure that was asked for."""


@dataclass
class Chaos:
    """Strikes before a handler is called. Rates are probabilities for each attempt."""

    telemetry: Telemetry
    rng: random.Random
    fail_rate: float = 0.0
    crash_rate: float = 0.0
    exit_rate: float = 0.0

    def arm(self, point: str, times: int) -> None:
        """Let the process die the nth time it comes to a crash point; raises Rejected for an unknown one."""
        try:
            crashpoints.arm([f"{point}:{times}"])
        except Refused as error:
            raise Rejected(str(error)) from error

    async def inject(self, event: Event) -> None:
        """Do what the event's flags ask for, then what chance asks for; return when nothing is to happen."""
        if FLAG in event.payload_bytes and isinstance(flags := decode_exactly(event.payload_bytes), dict):
            await self.obey(event, flags)
        if self.rng.random() < self.exit_rate:
            self.exit(event)
        if self.rng.random() < self.crash_rate:
            self.crash(event)
        if self.rng.random() < self.fail_rate:
            raise ForcedFailure("a failure by chance, as --fail-rate asks for")

    async def obey(self, event: Event, flags: dict[str, Any]) -> None:
        """Carry out the flags of one payload."""
        if flags.get("_force_exit"):
            self.exit(event)
        if flags.get("_force_crash"):
            self.crash(event)
        hang = flags.get("_force_hang")
        if isinstance(hang, (int, float)) and hang > 0:
            self.telemetry.emit("crash.simulated", kind="hang", event_id=event.id)
            # Blocks the event loop on purpose: a handler that holds everything up is what this simulates.
            time.sleep(min(float(hang), 3600))  # noqa: ASYNC251
            await sleep(0)
        fail = flags.get("_force_fail")
        if fail is True or (isinstance(fail, int) and event.attempt <= fail):
            raise ForcedFailure("a failure that the payload asks for")

    def crash(self, event: Event) -> None:
        """Kill the worker coroutine."""
        self.telemetry.emit("crash.simulated", kind="worker", event_id=event.id)
        raise SimulatedCrash("the payload or --crash-rate asked for the worker to die")

    def exit(self, event: Event) -> None:
        """Kill the process, nothing flushed but the line that says so."""
        self.telemetry.emit("crash.simulated", kind="process", event_id=event.id)
        leave(crashpoints.EXIT_CODE)
