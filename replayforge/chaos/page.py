"""The report of chaos as one HTML page: the timeline of injuries, the ledger, and what was lost or doubled."""

import statistics
from collections.abc import Iterable, Iterator, Sequence

from markupsafe import Markup

from replayforge.chaos.injury import WORDS, Injured, InjuryKind
from replayforge.chaos.probes import Struck
from replayforge.chaos.report import ChaosReport
from replayforge.client.terminal import counted
from replayforge.demo.story import span_in_words
from replayforge.report_page import Cell, Figure, Section, Summary, items, note, render, table, tiles

WIDTH, LEFT, TOP, LOAD = 960, 130, 8, 60
ROW, BAR, GAP = 9, 6, 10  # of one injury, and between targets
TICKS_SECONDS = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600)
TICKS_MAX = 12
SVG = Markup(
    '<div class="scroll" tabindex="0" role="region" aria-label="{label}"><svg viewBox="0 0 {width} {height}"'
    ' style="display:block;width:100%;min-width:44rem;font-size:11px" role="img" aria-label="{label}">\n{inside}'
    "</svg></div>\n"
)
RECT = Markup(
    '<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" style="fill:var(--{colour})">'
    "<title>{title}</title></rect>\n"
)
WORD = Markup('<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" style="fill:var(--muted)">{words}</text>\n')
RULE = Markup('<line x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{bottom}" style="stroke:var(--line)"/>\n')
Row = Sequence[Cell | Markup | str]
LEGEND = (
    "Red: what was done lasts. Amber: until everything ran again, that is until an event sent as it struck had ended,"
    " and whatever workers held at that moment had ended or was parked. Above: events acknowledged each second."
)


def page(report: ChaosReport, made: str) -> str:
    """Return the whole file; `made` says when it was made."""
    return render("Chaos", summary(report), sections(report), f"--seed {report.seed} · {made}")


def summary(report: ChaosReport) -> Summary:
    """Say whether everything adds up."""
    injured = f"{report.events:,} events and {counted(len(report.injuries), 'injury', 'injuries')}"
    where = f"on {report.relies_on}, in {span_in_words(report.seconds)}"
    if report.ok:
        return Summary("ok", "Everything adds up", f"{injured} {where}; nothing is lost, nothing is doubled")
    return Summary("err", "It does not add up", f"{injured} {where}; repeat with --seed {report.seed}")


def sections(report: ChaosReport) -> Iterator[Section]:
    """Yield what stands on the page."""
    yield Section("", tiles(figures(report)))
    if report.objections:
        yield Section("What does not add up", items(report.objections))
    yield Section("Timeline of injuries", timeline(report) + note(LEGEND))
    yield Section("By kind", kinds(report))
    yield Section("Ledger", ledger(report), "as the daemon said, and the offline check agreed" if report.ok else "")
    yield Section("Every injury", injuries(report), counted(len(report.injuries), "injury", "injuries"))


def figures(report: ChaosReport) -> Iterator[Figure]:
    """Yield the figures above everything."""
    yield Figure(f"{report.acknowledged:,}", "acknowledged")
    yield Figure(f"{report.lost:,}", "lost", "err" if report.lost else "ok")
    yield Figure(f"{report.doubled_outcomes:,}", "doubled outcomes", "err" if report.doubled_outcomes else "ok")
    yield Figure(f"{report.effects_again:,}", f"of {report.effects:,} effects had again, as at-least-once allows")
    yield Figure(f"{report.steps_again:,}", f"of {report.steps:,} steps done again after a crash")
    yield Figure(f"{report.sent_again:,}", "sent twice, known by their keys")
    if report.start_seconds:
        yield Figure(span_in_words(statistics.median(report.start_seconds)), "until it listens again, median")


def timeline(report: ChaosReport) -> Markup:
    """Draw when each injury struck, how long it lasted, and when everything ran again."""
    scale, y = (WIDTH - LEFT - 10) / max(report.seconds, 1.0), float(TOP + LOAD + GAP)
    parts: list[Markup] = []
    for target in Injured:
        rows = side_by_side([one for one in report.injuries if one.target == target])
        if rows:
            parts.append(WORD.format(x=LEFT - 8, y=y + BAR + 2, anchor="end", words=target.value))
        for row in rows:
            parts += [bar for one in row for bar in bars(one, scale, y)]
            y += ROW
        y += GAP if rows else 0
    below = [*ticks(report.seconds, scale, y), *load(report.acknowledged_each_second, scale)]
    label = "When each injury struck, and when everything ran again"
    return SVG.format(label=label, width=WIDTH, height=y + 20, inside=Markup().join(below + parts))


def side_by_side(injuries: Iterable[Struck]) -> list[list[Struck]]:
    """Return injuries in as few rows as show each of them: none begins before the one to its left is over."""
    rows: list[list[Struck]] = []
    for one in injuries:
        free = next((row for row in rows if over_at(row[-1]) < one.at_seconds), None)
        if free is None:
            rows.append([one])
        else:
            free.append(one)
    return rows


def over_at(one: Struck) -> float:
    """Return when everything ran again after an injury, in seconds of the run."""
    return one.at_seconds + max(one.lasted_seconds, one.ran_again_seconds or 0.0)


def ticks(seconds: float, scale: float, bottom: float) -> Iterator[Markup]:
    """Yield the marks of time."""
    step = next((one for one in TICKS_SECONDS if seconds / one <= TICKS_MAX), TICKS_SECONDS[-1])
    for at in range(0, int(seconds) + 1, step):
        x = LEFT + at * scale
        yield RULE.format(x=x, top=TOP, bottom=bottom)
        yield WORD.format(x=x, y=bottom + 14, anchor="middle", words=f"{at} s")


def load(each_second: Sequence[int], scale: float) -> Iterator[Markup]:
    """Yield how many events were acknowledged each second."""
    most = max(each_second, default=0) or 1
    yield WORD.format(x=LEFT - 8, y=TOP + LOAD / 2, anchor="end", words="acknowledged")
    yield WORD.format(x=LEFT - 8, y=TOP + LOAD / 2 + 13, anchor="end", words=f"at most {most:,} a second")
    for second, count in enumerate(each_second):
        height = (LOAD - 8) * count / most
        title = f"{count:,} acknowledged in second {second}"
        yield RECT.format(x=LEFT + second * scale, y=TOP + LOAD - height, width=max(scale - 0.5, 0.5), height=height,
                          colour="bar", title=title)  # fmt: skip


def bars(one: Struck, scale: float, y: float) -> Iterator[Markup]:
    """Yield what stands for an injury on the row of its target."""
    x, title = LEFT + one.at_seconds * scale, in_one_line(one)
    if one.ran_again_seconds is not None:
        yield RECT.format(x=x, y=y + 2, width=one.ran_again_seconds * scale, height=BAR - 4, colour="warn", title=title)
    yield RECT.format(x=x, y=y, width=max(one.lasted_seconds * scale, 2), height=BAR, colour="err", title=title)


def in_one_line(one: Struck) -> str:
    """Say what an injury was, and how soon everything ran again."""
    return f"{one.number}. {one.words}, at {one.at_seconds:.1f} s; everything ran again after {again(one)}"


def again(one: Struck) -> str:
    """Say how soon everything ran again."""
    return "nobody knows" if one.ran_again_seconds is None else span_in_words(one.ran_again_seconds)


def wide(words: str) -> Markup:
    """Return words that are not broken into many lines where there is little room."""
    return Markup('<span style="display:block;min-width:11rem">{}</span>').format(words)


def to_the_right(heading: str) -> Markup:
    """Return the heading of numbers."""
    return Markup('<span style="display:block;text-align:right">{}</span>').format(heading)


def kinds(report: ChaosReport) -> Markup:
    """Return what was done how often, and how soon everything ran again."""
    rows: list[Row] = []
    for kind, struck in report.by_kind.items():
        spans = [one.ran_again_seconds for one in struck if one.ran_again_seconds is not None]
        found = [span_in_words(measure(spans)) if spans else "nobody knows" for measure in (statistics.median, max)]
        numbers = [Cell(text, is_number=True) for text in (f"{len(struck):,}", *found)]
        rows.append([wide(WORDS[InjuryKind(kind)]), *numbers])
    return table(
        "Injuries by kind", ["What", *map(to_the_right, ("Times", "Ran again after (median)", "At most"))], rows
    )


def ledger(report: ChaosReport) -> Markup:
    """Return what became of everything that was accepted."""
    rows: list[Row] = [
        [name.replace("_", " "), Cell(f"{count:,}", is_number=True)] for name, count in report.ledger.items()
    ]
    return (
        table("Ledger", ["Events", to_the_right("Count")], rows)
        if rows
        else note("It was not read: not everything has ended.")
    )


def injuries(report: ChaosReport) -> Markup:
    """Return all injuries in their order."""
    rows: list[Row] = [
        [
            Cell(str(one.number)), f"{one.at_seconds:.1f} s", wide(one.words), Cell(f"{one.in_hand:,}", is_number=True),
            Cell(span_in_words(one.lasted_seconds), is_number=True),
            Cell(again(one), "err" if one.ran_again_seconds is None else "", is_number=True),
        ]
        for one in report.injuries
    ]  # fmt: skip
    headings = ["Number", "At", "What", *map(to_the_right, ("Events in hand", "Lasted", "Ran again after"))]
    return table("Every injury", headings, rows)
