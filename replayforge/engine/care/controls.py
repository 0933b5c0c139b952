"""Keeps suspects aside until the daemon has lived long enough without them, and then has them run again."""

from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from math import ceil

from replayforge.domain.clock import Clock
from replayforge.domain.poison import Isolation, Suspicion, control_seconds, released, uncontrolled
from replayforge.domain.reports import Node
from replayforge.stores.store import Store
from replayforge.stores.suspicions import Change, Suspect
from replayforge.telemetry import Telemetry

STEP_SECONDS_MAX = 3.0


class Controls:
    """The control of each suspect that died alone: it waits, and if the daemon dies meanwhile, it was not the cause.

    `lived_seconds` is for how long this daemon has lived; the time of a process that was stopped does not count.
    `others` gives the other daemons, those that live and those that are gone.
    """

    def __init__(
        self,
        store: Store,
        look_for_suspects: Callable[[], None],
        others: Callable[[], Awaitable[tuple[list[Node], list[Node]]]],
        clock: Clock,
        telemetry: Telemetry,
        *,
        least_seconds: float,
    ) -> None:
        self.store = store
        self.look_for_suspects = look_for_suspects
        self.others = others
        self.clock = clock
        self.telemetry = telemetry
        self.least_seconds = least_seconds
        self.lived_seconds = 0.0
        self.looked_at = clock.monotonic()
        self.set_aside: Sequence[Suspect] = ()
        self.gone: frozenset[str] = frozenset()

    async def look(self) -> int:
        """End the controls that are over, and say so when something is to run alone; returns how many wait."""
        now = self.clock.monotonic()
        self.lived_seconds += min(now - self.looked_at, STEP_SECONDS_MAX)
        self.looked_at = now
        self.set_aside = await self.store.set_aside()
        if any(not self.is_ours(suspect) for suspect in self.set_aside):
            living, gone = await self.others()
            self.gone = frozenset(node.name for node in gone) - {node.name for node in living}
        if self.decide(self.set_aside):
            ended = await self.store.end_controls(self.decide)
            self.telemetry.emit("suspect.released", ended)
            self.set_aside = await self.store.set_aside()
        if await self.store.next_suspect() is not None:
            self.look_for_suspects()
        return len(self.set_aside)

    def decide(self, suspects: Sequence[Suspect]) -> list[Change]:
        """Return those that may run again; the last death of one whose daemon never came back proves nothing."""
        changes: list[Change] = []
        for suspect in suspects:
            if self.is_ours(suspect) and self.seconds_left(suspect.known) <= 0:
                changes.append((suspect, Isolation.RUNS_ALONE, released(suspect.known)))
            elif not self.is_ours(suspect) and suspect.known.node in self.gone:
                changes.append((suspect, Isolation.RUNS_ALONE, uncontrolled(suspect.known)))
        return changes

    def is_ours(self, suspect: Suspect) -> bool:
        """Tell whether it is this daemon that has to live without the suspect."""
        return not self.store.shared or suspect.known.node == self.store.node

    def seconds_left(self, known: Suspicion) -> float:
        """Return for how long this daemon has to live yet before the suspect runs again."""
        return control_seconds(known.alone, self.least_seconds) - self.lived_seconds

    def in_words(self) -> list[str]:
        """Say how many events wait, and for how long."""
        ours = [self.seconds_left(suspect.known) for suspect in self.set_aside if self.is_ours(suspect)]
        others: dict[str, int] = defaultdict(int)
        for suspect in self.set_aside:
            if not self.is_ours(suspect):
                others[suspect.known.node] += 1
        words = [f"{are(count)} set aside after a crash of node {node}." for node, count in others.items()]
        if ours:
            again = "it runs" if len(ours) == 1 else "they run"
            words.insert(0, f"{are(len(ours))} set aside after a crash; {again} again in {max(1, ceil(max(ours)))} s.")
        return words


def are(count: int) -> str:
    """Begin a sentence about so many events."""
    return "1 event is" if count == 1 else f"{count:,} events are"
