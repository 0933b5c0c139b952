"""The report of a comparison as one HTML file, which looks like the status page and needs nothing else."""

from collections.abc import Iterator, Sequence
from typing import Any

from markupsafe import Markup

from replayforge.report_page import Cell, Figure, Level, Section, Summary, details, items, note, render, table, tiles
from replayforge.shadow.report import (
    CHANGED_EXIT_CODE,
    SAME_EXIT_CODE,
    change_in_words,
    exit_code,
    summary_in_words,
    words_of,
)
from replayforge.shadow.verdicts import ShadowVerdict

GROUPS_MAX = 200
IDS_MAX = 100
LEVELS: dict[ShadowVerdict, Level] = {
    ShadowVerdict.SAME: "ok",
    ShadowVerdict.CURED: "ok",
    ShadowVerdict.RAISES: "err",
    ShadowVerdict.EFFECT: "err",
    ShadowVerdict.NOT_REPRODUCIBLE: "muted",
}
SUMMARIES: dict[int, tuple[Level, str]] = {SAME_EXIT_CODE: ("ok", "Same"), CHANGED_EXIT_CODE: ("warn", "Changed")}


def html_of(report: dict[str, Any], made: str) -> str:
    """Return the file; `made` says of what it is and when it was made."""
    level, word = SUMMARIES.get(exit_code(report), ("warn", "Undecidable"))
    summary = Summary(level, word, summary_in_words(report))
    return render("Shadow", summary, sections(report), made)


def sections(report: dict[str, Any]) -> Iterator[Section]:
    """Yield what stands on the page: the figures, then the groups."""
    counts = report["verdicts"]
    shown = [one for one in ShadowVerdict if counts[one] or one is ShadowVerdict.SAME]
    yield Section("", tiles(Figure(f"{counts[one]:,}", words_of(one), LEVELS.get(one, "warn")) for one in shown))
    differing = [one for one in report["groups"] if one["verdict"] != ShadowVerdict.SAME]
    staying = [one for one in report["groups"] if one["verdict"] == ShadowVerdict.SAME]
    if not differing:
        yield Section("Differences", note("None: this code does with the recorded runs what was done with them."))
    else:
        said = more_in_words(differing) or "a run stands in each group of what differs"
        yield Section("Differences", table_of("What differs, the gravest first", "What differs", differing), said)
    if staying:
        letters = table_of("Dead letters that stay as they are", "Why", staying)
        yield Section("Not cured", letters, more_in_words(staying))


def table_of(caption: str, what: str, groups: Sequence[dict[str, Any]]) -> Markup:
    """Return groups as a table, as many as a page holds."""
    return table(caption, ("Runs", "Verdict", what, "First", "All of them"), map(row_of, groups[:GROUPS_MAX]))


def more_in_words(groups: Sequence[dict[str, Any]]) -> str:
    """Say how many groups are not shown."""
    left_out = len(groups) - GROUPS_MAX
    return f"and {left_out:,} groups more, which --json names" if left_out > 0 else ""


def row_of(group: dict[str, Any]) -> list[Cell | Markup | str]:
    """Return a group as a row of the table."""
    verdict, ids, first = ShadowVerdict(group["verdict"]), group["ids"], group["first"]
    more = [f"… and {len(ids) - IDS_MAX:,} more, which --json names"] if len(ids) > IDS_MAX else []
    return [
        Cell(f"{group['count']:,}"),
        Cell(words_of(verdict), LEVELS.get(verdict, "warn")),
        Markup("<code>{}</code>").format(change_in_words(group)),
        Markup('<bdi title="{}">{}</bdi>').format(first["id"], first["workflow_id"]),
        details(f"{group['count']:,}", items([*ids[:IDS_MAX], *more])),
    ]
