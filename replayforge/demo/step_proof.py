"""Whether each step of the demo's orders was done once: what is recorded, held against effects counted outside."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from replayforge.client.http import ClientConnection
from replayforge.client.terminal import counted
from replayforge.demo.oracle import NAMED_MAX, Effects
from replayforge.demo.orders import PLACED
from replayforge.domain.journal import StepKind, StepState
from replayforge.domain.lifecycle import Outcome

CUT_SHORT = (Outcome.CRASHED, Outcome.INTERRUPTED)


@dataclass(frozen=True, slots=True)
class StepsFound:
    """How many steps are recorded of how many orders, how many of these died on their way, how many effects were had a
    second time, and what does not add up."""

    orders: int
    died: int
    recorded: int
    again: int
    objections: list[str]

    def in_words(self) -> str:
        """Say it in one sentence."""
        found = f"{counted(self.recorded, 'step')} of {counted(self.orders, 'order')} are recorded"
        if self.died:
            found += f", and {counted(self.died, 'order')} went on from there after a death"
        twice = f"{self.again:,} were done twice, since a worker or the process died inside, and no other was"
        return f"{found}; {twice if self.again else 'none was done twice'}"


def look_at_steps(client: ClientConnection, effects: Effects) -> StepsFound:
    """Ask the daemon for its orders and hold them against the effects, once everything has ended or is parked."""
    ids = [event["id"] for event in client.events({"event_type": PLACED})]
    orders = [client.get("api", "events", event_id).document() for event_id in ids]
    recorded = {event_id: steps_of(order) for event_id, order in zip(ids, orders, strict=True)}
    again = effects.of_steps - len({(one.event_id, one.run, one.step) for one in effects.had if one.step})
    cut_short = attempts_cut_short(orders)
    found = list(objections_to_steps(effects, recorded, cut_short))
    died = len({event_id for event_id, _ in cut_short})
    return StepsFound(len(ids), died, sum(map(len, recorded.values())), again, found)


def steps_of(order: Mapping[str, Any]) -> set[str]:
    """Return the names of the steps of an order that have returned."""
    steps = order.get("steps", [])
    return {one["name"] for one in steps if (one["kind"], one["state"]) == (StepKind.STEP, StepState.DONE)}


def attempts_cut_short(orders: Iterable[Mapping[str, Any]]) -> set[tuple[str, int]]:
    """Return the attempts, by event and lease token, whose worker or process died under them."""
    attempts = ((order["id"], attempt) for order in orders for attempt in order["attempts"])
    return {(event_id, one["lease_token"]) for event_id, one in attempts if one["outcome"] in CUT_SHORT}


def objections_to_steps(
    effects: Effects, recorded: Mapping[str, set[str]], cut_short: set[tuple[str, int]]
) -> Iterator[str]:
    """Yield what does not add up: each recorded step had its effect, and once in a run but for attempts cut short."""
    tokens: dict[tuple[str, int, str], list[int]] = defaultdict(list)
    for one in effects.had:
        if one.step:
            tokens[one.event_id, one.run, one.step].append(one.token)
    had = {(event_id, step) for event_id, _, step in tokens}
    replayed = {event_id for event_id, run, _ in tokens if run > 1}
    done = {(event_id, step) for event_id, steps in recorded.items() for step in steps}
    wrong = {
        "recorded without an effect": done - had,
        "with an effect but not recorded": {one for one in had - done if one[0] not in replayed},
        "done twice though nobody died inside": {
            (event_id, step)
            for (event_id, _, step), all_tokens in tokens.items()
            if any((event_id, token) not in cut_short for token in all_tokens[:-1])
        },
    }
    for what, steps in wrong.items():
        if steps:
            named = ", ".join(f"{step} of {event_id}" for event_id, step in sorted(steps)[:NAMED_MAX])
            yield f"{counted(len(steps), 'step')} {what}: {named}"
