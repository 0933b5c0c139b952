"""The memory that all request bodies share: what has come in of them and is not done with is counted, up to a limit."""

from dataclasses import dataclass

from replayforge.domain.errors import Overloaded

BODIES_BYTES_MAX = 256 << 20
# Small bodies may take the last part of it: whoever sends bulk requests, and stops halfway, does not keep out events.
SMALL_BYTES_MAX = 64 << 10
LAST_PART = 16


class BodyBudget:
    """How many bytes of bodies are in memory: being read, being parsed, or waiting for the log."""

    def __init__(self, bytes_max: int = BODIES_BYTES_MAX) -> None:
        self.bytes_max = bytes_max
        self.taken = 0

    def has_room(self, held: int, size: int) -> bool:
        """Tell whether a request that holds some bytes may hold `size` more."""
        if self.taken == held:  # alone: its own limits bound it, and there is nothing that it could wait for
            return True
        reserve = 0 if held + size <= SMALL_BYTES_MAX else self.bytes_max // LAST_PART
        return self.taken + size <= self.bytes_max - reserve


@dataclass(slots=True)
class Share:
    """What one request holds of the budget; all of it is given back when the request has been dealt with."""

    budget: BodyBudget
    held: int = 0

    def take(self, size: int) -> None:
        """Hold so many bytes more; raises Overloaded when there is no room for them."""
        if not self.budget.has_room(self.held, size):
            raise Overloaded("Too many bytes of request bodies are in memory; send it again in a moment.")
        self.held += size
        self.budget.taken += size

    def give_back(self, size: int) -> None:
        """Hold so many bytes less."""
        self.held -= size
        self.budget.taken -= size
