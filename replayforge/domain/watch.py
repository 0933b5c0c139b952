"""Telling who is silent by no clock but one's own: by counted beats, which an observer sees change."""

from collections.abc import Hashable, Mapping
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)


class Watch(Generic[Key]):
    """What one observer has seen of the beats of others, and since when each stands still.

    Only time that was watched counts: when more than `step_seconds` pass between two looks, the observer itself stood
    still, and so, perhaps, did those it observes. Whoever was never seen before is silent from now on at the earliest.
    """

    def __init__(self, step_seconds: float) -> None:
        self.step_seconds = step_seconds
        self.looked_at = 0.0
        self.seen: dict[Key, tuple[Hashable, float]] = {}

    def look(self, beats: Mapping[Key, Hashable], now: float) -> None:
        """Take in the beats as they are, at `now` on the observer's monotonic clock."""
        unwatched = max(0.0, now - self.looked_at - self.step_seconds)
        seen: dict[Key, tuple[Hashable, float]] = {}
        for key, beat in beats.items():
            before = self.seen.get(key)
            seen[key] = (beat, now if before is None or before[0] != beat else min(now, before[1] + unwatched))
        self.seen, self.looked_at = seen, now

    def silent_seconds(self, key: Key) -> float | None:
        """Return for how long a beat had not changed at the last look; None for one that was not there."""
        found = self.seen.get(key)
        return None if found is None else self.looked_at - found[1]

    def silent(self, seconds: float) -> list[Key]:
        """Return those whose beat had not changed for at least so long."""
        return [key for key, (_, since) in self.seen.items() if self.looked_at - since >= seconds]

    def forget(self) -> None:
        """Begin anew, because nobody could be heard for a while."""
        self.seen = {}
