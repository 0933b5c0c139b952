"""What chaos did and found, as a value, and in words."""

import statistics
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from replayforge.chaos.injury import WORDS, InjuryKind
from replayforge.chaos.probes import Struck
from replayforge.client.terminal import counted
from replayforge.demo.story import span_in_words


class ChaosReport(msgspec.Struct, frozen=True, kw_only=True):
    """One run of chaos. `ok` says that nothing objects to it."""

    ok: bool
    seed: int
    events: int
    kills: int
    relies_on: str
    seconds: float
    injuries: Sequence[Struck]
    killed_while_starting: int
    start_seconds: Sequence[float]
    acknowledged: int
    acknowledged_each_second: Sequence[int]
    sent_again: int
    effects: int
    effects_again: int
    steps: int
    steps_again: int
    lost: int
    doubled_outcomes: int
    ledger: dict[str, Any]
    check_clean: bool
    objections: Sequence[str]

    @property
    def by_kind(self) -> dict[str, list[Struck]]:
        """The injuries, by what was done."""
        found: defaultdict[str, list[Struck]] = defaultdict(list)
        for one in self.injuries:
            found[one.kind].append(one)
        return {kind.value: found[kind.value] for kind in InjuryKind if kind.value in found}


def in_words(report: ChaosReport) -> Iterator[str]:
    """Say what was done, what came of it, and what is wrong."""
    for kind, injuries in report.by_kind.items():
        yield f"{counted(len(injuries), 'time')}: {WORDS[InjuryKind(kind)]}; {ran_again_in_words(injuries)}"
    starts = report.start_seconds or [0.0]
    yield f"it listened again after {statistics.median(starts):.2f} s (median), {max(starts):.2f} s at most"
    yield f"{report.acknowledged:,} events acknowledged; {report.sent_again:,} were sent twice and known by their keys"
    yield f"{report.effects:,} effects of handlers, {report.effects_again:,} of them a second time after a crash"
    yield f"{report.steps:,} steps of orders recorded, {report.steps_again:,} of them done a second time after a crash"
    if report.ledger:
        yield f"{ledger_in_words(report)} · doubled outcomes {report.doubled_outcomes:,}"
    for objection in report.objections:
        yield f"✕ {objection}"
    yield "✓ everything adds up" if report.ok else f"✕ it does not add up; repeat with --seed {report.seed}"


def ledger_in_words(report: ChaosReport) -> str:
    """Return the ledger as an equation."""
    ledger = report.ledger
    ended = f"succeeded {ledger['succeeded']:,} + dead_lettered {ledger['dead_lettered']:,}"
    return f"accepted {ledger['accepted']:,} = {ended} + open {ledger['open']:,} · lost {report.lost:,}"


def ran_again_in_words(injuries: Sequence[Struck]) -> str:
    """Say how soon everything ran again after some injuries."""
    spans = [one.ran_again_seconds for one in injuries if one.ran_again_seconds is not None]
    if not spans:
        return "nothing is known to have run again"
    middle, longest = span_in_words(statistics.median(spans)), span_in_words(max(spans))
    return f"everything ran again after {middle}" + (f" (median), {longest} at most" if len(spans) > 1 else "")
