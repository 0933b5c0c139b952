"""A telemetry listener for tests: wait for a milestone instead of sleeping."""

import asyncio
from collections import Counter
from typing import Any

from replayforge.telemetry import Telemetry


class Probe:
    """Records every telemetry event and lets a test await the n-th of a kind."""

    def __init__(self, telemetry: Telemetry) -> None:
        self.counts: Counter[str] = Counter()
        self.telemetry_events: list[tuple[str, int, dict[str, Any]]] = []
        self.changed = asyncio.Event()
        self.loop = asyncio.get_running_loop()
        telemetry.listen(self.listen)

    def forget(self) -> None:
        """Count from nothing again."""
        self.counts.clear()
        self.telemetry_events.clear()

    def listen(self, name: str, count: int, fields: dict[str, Any]) -> None:
        self.counts[name] += count
        self.telemetry_events.append((name, count, fields))
        self.loop.call_soon_threadsafe(self.changed.set)

    async def saw(self, name: str, count: int = 1, timeout_seconds: float = 20) -> None:
        """Return once `name` has happened `count` times in all; raises TimeoutError with what did happen."""
        try:
            async with asyncio.timeout(timeout_seconds):
                while self.counts[name] < count:
                    self.changed.clear()
                    await self.changed.wait()
        except TimeoutError:
            raise TimeoutError(f"waited for {count} x {name}, saw {dict(self.counts)}") from None

    def fields(self, name: str) -> list[dict[str, Any]]:
        return [fields for happened, _, fields in self.telemetry_events if happened == name]
