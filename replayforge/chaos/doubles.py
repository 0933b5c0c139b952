"""Finds outcomes committed twice: compares repeated effects with the attempts that caused them."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

from replayforge.client.http import ClientConnection
from replayforge.client.terminal import counted
from replayforge.demo.oracle import NAMED_MAX, Effects
from replayforge.domain.lifecycle import Outcome

Attempts = Mapping[str, list[Mapping[str, Any]]]


def suspects(effects: Effects) -> set[str]:
    """Return the events that had an effect more than once in one run: only they can have two outcomes."""
    had = Counter((one.event_id, one.run, one.step) for one in effects.had)
    return {event_id for (event_id, _, _), times in had.items() if times > 1}


def attempts_of(client: ClientConnection, event_ids: set[str]) -> Attempts:
    """Ask the daemon for the attempts of events."""
    return {event_id: client.get("api", "events", event_id).document()["attempts"] for event_id in sorted(event_ids)}


def doubled(effects: Effects, attempts: Attempts) -> set[str]:
    """Return the events of which a run succeeded twice, or had an effect after the attempt that succeeded."""
    last: defaultdict[tuple[str, int], int] = defaultdict(int)
    for one in effects.had:
        last[one.event_id, one.run] = max(last[one.event_id, one.run], one.token)
    return {event_id for event_id, some in attempts.items() if succeeded_twice(some) or went_on(event_id, some, last)}


def succeeded_twice(attempts: list[Mapping[str, Any]]) -> bool:
    """Tell whether a run has two good outcomes."""
    good = Counter(one["run"] for one in attempts if one["outcome"] == Outcome.SUCCEEDED)
    return any(times > 1 for times in good.values())


def went_on(event_id: str, attempts: list[Mapping[str, Any]], last: Mapping[tuple[str, int], int]) -> bool:
    """Tell whether a run had an effect under a later token than that of its good outcome."""
    good = [one for one in attempts if one["outcome"] == Outcome.SUCCEEDED]
    return any(last.get((event_id, one["run"]), 0) > one["lease_token"] for one in good)


def objections_to_doubles(event_ids: set[str]) -> Iterator[str]:
    """Yield whose outcomes are doubled."""
    if event_ids:
        yield f"{counted(len(event_ids), 'event')} with two outcomes: {', '.join(sorted(event_ids)[:NAMED_MAX])}"
