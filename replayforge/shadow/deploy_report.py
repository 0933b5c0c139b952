"""The report of a deploy check: which open runs the code continues, grouped by what breaks the others."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from replayforge.domain.code_change import BREAKING, CodeChange, Fate
from replayforge.report_page import Cell, Figure, Section, Summary, render, table, tiles
from replayforge.shadow.fates import GRAVITY
from replayforge.shadow.report import CHANGED_EXIT_CODE, SAME_EXIT_CODE, UNDECIDABLE_EXIT_CODE
from replayforge.stores.code_changes import OpenRun

GROUPS_SHOWN = 20
IDS_SHOWN = 3
BREAKS, STOPS, GOES_ON = "err", "warn", "ok"


def deploy_report(runs: Sequence[OpenRun], changes: Sequence[CodeChange]) -> dict[str, Any]:
    """Return the report as JSON values: how many runs meet which fate, and groups of those that meet it alike."""
    counts = Counter(change.fate for change in changes)
    return {
        "runs": len(runs),
        "verdicts": {fate: counts[fate] for fate in Fate},
        "groups": list(groups_of(runs, changes)),
    }


def groups_of(runs: Sequence[OpenRun], changes: Sequence[CodeChange]) -> Iterator[dict[str, Any]]:
    """Yield the groups of runs that are not just continued, the gravest and largest first."""
    members: dict[CodeChange, list[OpenRun]] = {}
    for run, change in zip(runs, changes, strict=True):
        if change.fate is not Fate.CONTINUES:
            members.setdefault(change, []).append(run)
    for change, own in sorted(members.items(), key=lambda item: (-GRAVITY.index(item[0].fate), -len(item[1]))):
        first = own[0].event
        yield {
            "verdict": change.fate,
            "step": change.step,
            "kind": change.kind,
            "before": change.before,
            "after": change.after,
            "sentence": change.words,
            "count": len(own),
            "first": {"id": first.id, "workflow_id": first.workflow_id},
            "ids": [one.event.id for one in own],
        }


def exit_code(report: dict[str, Any]) -> int:
    """Return 0 where all runs go on, 1 where some would break, 2 where that cannot be said of some."""
    counts = report["verdicts"]
    if any(counts[fate] for fate in BREAKING):
        return CHANGED_EXIT_CODE
    return UNDECIDABLE_EXIT_CODE if counts[Fate.UNDECIDABLE] else SAME_EXIT_CODE


def in_words(report: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of the report."""
    yield headline(report)
    for group in report["groups"][:GROUPS_SHOWN]:
        more = "" if group["count"] <= IDS_SHOWN else " …"
        yield f"  {group['count']:,} {words_of(group['verdict'])}: {group['sentence']}"
        yield f"    first: {group['first']['workflow_id']} ({', '.join(group['ids'][:IDS_SHOWN])}{more})"
    if (left := len(report["groups"]) - GROUPS_SHOWN) > 0:
        yield f"  … and {left:,} groups more; --json and --html name them all"


def headline(report: dict[str, Any]) -> str:
    """Return how many runs meet which fate, in one line."""
    counts, runs = report["verdicts"], report["runs"]
    told = ", ".join(f"{counts[fate]:,} {words_of(fate)}" for fate in Fate if counts[fate])
    return f"{runs:,} open run{'' if runs == 1 else 's'} with a journal{f': {told}' if told else ''}"


def words_of(fate: str) -> str:
    """Return a fate as people say it."""
    return fate.replace("_", " ")


def as_page(report: dict[str, Any], made: str) -> str:
    """Return the report as one HTML file."""
    counts, code = report["verdicts"], exit_code(report)
    level, word = ((GOES_ON, "All go on"), (BREAKS, "Some would break"), (STOPS, "Cannot be said of some"))[code]
    figures = [Figure(f"{counts[fate]:,}", words_of(fate), level_of(fate)) for fate in Fate if counts[fate]]
    rows = [
        (
            words_of(group["verdict"]),
            Cell(group["step"]),
            Cell(group["before"]),
            Cell(group["after"]),
            Cell(f"{group['count']:,}", is_number=True),
            Cell(", ".join(group["ids"])),
        )
        for group in report["groups"]
    ]
    heads = ("What", "Step", "Recorded", "With this code", "Runs", "Ids")
    sections = [Section("", tiles(figures)), Section("What is not just continued", table("Groups", heads, rows))]
    return render("Deploy check", Summary(level, word, headline(report)), sections if rows else sections[:1], made)  # type: ignore[arg-type]


def level_of(fate: Fate) -> Any:
    """Return how grave a fate is."""
    return BREAKS if fate in BREAKING else STOPS if fate is Fate.UNDECIDABLE else GOES_ON
