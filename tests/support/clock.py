"""A clock that moves, or is set, only when a test says so."""


class FakeClock:
    def __init__(self, now_us: int = 1_763_800_000_000_000) -> None:
        self.wall_us = now_us
        self.monotonic_seconds = 1000.0

    def now_us(self) -> int:
        return self.wall_us

    def monotonic(self) -> float:
        return self.monotonic_seconds

    def elapsed(self) -> float:
        return self.monotonic_seconds

    def set_by(self, seconds: float) -> None:
        """Set the wall clock; no time passes."""
        self.wall_us += round(seconds * 1_000_000)

    def advance(self, seconds: float) -> None:
        self.wall_us += round(seconds * 1_000_000)
        self.monotonic_seconds += seconds
