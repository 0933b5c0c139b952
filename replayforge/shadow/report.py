"""The report of a comparison: groups of what differs alike, as JSON and in words."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import msgspec

from replayforge.shadow.comparing import Comparison
from replayforge.shadow.verdicts import ERROR, GRAVITY, UNDECIDABLE, Difference, ShadowVerdict, gravest, step_of

GROUPS_SHOWN = 20
VALUE_CHARACTERS = 60
ERROR_CHARACTERS = 200
SAME_EXIT_CODE, CHANGED_EXIT_CODE, UNDECIDABLE_EXIT_CODE = 0, 1, 2
WORDS = {
    ShadowVerdict.RESULT_CHANGED: "result changed",
    ShadowVerdict.ARGUMENTS_CHANGED: "step arguments changed",
    ShadowVerdict.NEW_STEP: "new step",
    ShadowVerdict.STEP_VANISHED: "recorded step vanished",
    ShadowVerdict.RAISES: "now raises",
    ShadowVerdict.CURED: "cured",
    ShadowVerdict.EFFECT: "effect outside a step",
    ShadowVerdict.NOT_REPRODUCIBLE: "not reproducible",
}


def report_of(comparison: Comparison) -> dict[str, Any]:
    """Return the report as JSON values: how many runs came to which verdict, and groups of what differs alike.

    Dead letters that stay as they are make groups as well, by their errors: why they are not cured.
    """
    counts = Counter(gravest(comparison.found[run.id]) for run in comparison.runs)
    return {
        "runs": len(comparison.runs),
        "verdicts": {verdict: counts[verdict] for verdict in ShadowVerdict},
        "groups": list(groups_of(comparison)),
    }


def groups_of(comparison: Comparison) -> Iterator[dict[str, Any]]:
    """Yield the groups, the gravest and largest first; a run is in each group of what differs in it."""
    members: dict[Difference, list[int]] = {}
    for at, run in enumerate(comparison.runs):
        for difference in comparison.told(run):
            members.setdefault(difference, []).append(at)
    order = sorted(members.items(), key=lambda item: (-GRAVITY.index(item[0].verdict), -len(item[1])))
    for difference, own in order:
        first = comparison.runs[own[0]].event
        yield {
            "verdict": difference.verdict,
            "pointer": difference.pointer,
            "before": raw(difference.before),
            "after": raw(difference.after),
            "count": len(own),
            "first": {"id": first.id, "workflow_id": first.workflow_id},
            "ids": [comparison.runs[at].id for at in own],
        }


def raw(text: str | None) -> msgspec.Raw | None:
    """Return JSON as it is."""
    return None if text is None else msgspec.Raw(text.encode())


def exit_code(report: dict[str, Any]) -> int:
    """Return 0 where all is the same, 1 where anything is another, 2 where that cannot be said."""
    counts = report["verdicts"]
    if any(counts[one] for one in ShadowVerdict if one is not ShadowVerdict.SAME and one not in UNDECIDABLE):
        return CHANGED_EXIT_CODE
    return UNDECIDABLE_EXIT_CODE if any(counts[one] for one in UNDECIDABLE) else SAME_EXIT_CODE


def in_words(report: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of the report."""
    yield summary_in_words(report)
    for group in report["groups"][:GROUPS_SHOWN]:
        yield f"  {group_in_words(group)}"
    if (more := len(report["groups"]) - GROUPS_SHOWN) > 0:
        yield f"  … and {more:,} groups more; --json and --html name them all"


def summary_in_words(report: dict[str, Any]) -> str:
    """Return how many runs came to which verdict."""
    runs, counts = report["runs"], report["verdicts"]
    told = [f"{counts[one]:,} {words_of(one)}" for one in ShadowVerdict if counts[one]]
    return f"{runs:,} run{'' if runs == 1 else 's'}: {', '.join(told)}" if runs else "no recorded run fits"


def words_of(verdict: ShadowVerdict) -> str:
    """Return a verdict as people say it."""
    return WORDS.get(verdict, verdict)


def group_in_words(group: dict[str, Any]) -> str:
    """Return a group in one line."""
    count, first = group["count"], group["first"]
    told = change_in_words(group)
    if group["verdict"] != ShadowVerdict.SAME:
        told = f"{WORDS[group['verdict']]}: {told}"
    return f"{count:,} run{'' if count == 1 else 's'}: {told}; first: {first['workflow_id']} ({first['id']})"


def change_in_words(group: dict[str, Any]) -> str:
    """Return where something differs, and how."""
    place, before, after = group["pointer"], short(group["before"]), short(group["after"])
    match group["verdict"]:
        case ShadowVerdict.SAME:
            return f"still {plain(group['after'])}{stop_in_words(place)}"
        case ShadowVerdict.NEW_STEP:
            return f"{place} would begin: {after}" + (f", recorded as {before}" if before else "")
        case ShadowVerdict.STEP_VANISHED:
            return f"{place} {before} is not asked for any more"
        case ShadowVerdict.CURED:
            return f"{plain(group['before'])} is over, as far as recorded"
        case ShadowVerdict.EFFECT | ShadowVerdict.NOT_REPRODUCIBLE:
            return plain(group["after"])
        case ShadowVerdict.RAISES:
            return f"{plain(group['before']) or 'no error'} -> {plain(group['after'])}"
        case _:
            return f"{place} {before or 'nothing'} -> {after or 'nothing'}"


def stop_in_words(place: str) -> str:
    """Say at which step a dead letter stays one, if it does at one, and why another function of it changes nothing."""
    if place == ERROR:
        return ""
    return f": stopped at the step {step_of(place)}, recorded as failed; shadow does not call steps"


def short(value: msgspec.Raw | None) -> str:
    """Return JSON as far as it fits into a line."""
    return cut("" if value is None else bytes(value).decode(), VALUE_CHARACTERS)


def plain(value: msgspec.Raw | None) -> str:
    """Return what is wrong, as it was said."""
    return "" if value is None else cut(str(msgspec.json.decode(value)), ERROR_CHARACTERS)


def cut(text: str, characters: int) -> str:
    """Return a text as far as it fits."""
    return text if len(text) <= characters else f"{text[: characters - 1]}…"
