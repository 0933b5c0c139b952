"""The simulated work of the demo's handlers: it takes time, fails for its share, and has an effect to be counted."""

import asyncio
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from replayforge.engine.handlers.context import Context

# Where handlers write one line for each effect they have, so that somebody outside can count them.
EFFECTS_VARIABLE = "REPLAYFORGE_DEMO_EFFECTS"


class TemporaryFault(Exception):
    """Work failed in a way that another attempt may mend."""


@dataclass(frozen=True, slots=True)
class Work:
    """What a handler or a step does: its name, whose work it is, how long it takes, how often it fails and what it
    says then."""

    name: str
    service: str
    delay_ms_min: int
    delay_ms_max: int
    fail_share: float = 0.0
    error: str = ""

    async def take(self, luck: float, spread: float) -> None:
        """Take the time, and fail for the share of attempts; both numbers are from 0 to 1."""
        await asyncio.sleep((self.delay_ms_min + spread * (self.delay_ms_max - self.delay_ms_min)) / 1000)
        if luck < self.fail_share:
            raise TemporaryFault(self.error)


def note_effect(context: Context, step: str = "") -> None:
    """Have the effect that a handler, or a step of it, is for: a line with event, run, lease token and step."""
    path = os.environ.get(EFFECTS_VARIABLE)
    if path:
        append_line(Path(path), f"{context.event.id} {context.event.run} {context.lease_token} {step}".rstrip() + "\n")


def append_line(path: Path, line: str) -> None:
    """Append a line in one write, which a kill leaves whole or not there at all."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)


def chance(name: str, salt: str) -> float:
    """Return a number from 0 to 1 that looks random and is always the same for the same name and salt."""
    return int.from_bytes(hashlib.blake2b(f"{name}/{salt}".encode(), digest_size=7).digest()) / 2**56
