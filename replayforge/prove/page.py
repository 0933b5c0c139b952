"""A proof as one HTML file: the matrix of samples and crash points, and what every mark in it means."""

from collections.abc import Iterator, Sequence

from markupsafe import Markup

from replayforge.client.terminal import counted
from replayforge.crashpoints import POINTS
from replayforge.prove.in_words import GLYPHS, NOTHING_SEEN, VERDICTS, WORDS, details_of, in_words, summary
from replayforge.prove.judging import CrashCell, CrashMark
from replayforge.prove.proof import BAD, Proof, Row
from replayforge.report_page import Cell as TableCell
from replayforge.report_page import Figure, Level, Section, Summary, items, note, render, table, tiles

LEVELS: dict[CrashMark, Level] = {
    CrashMark.CONVERGED: "ok",
    CrashMark.HELD: "warn",
    CrashMark.NOT_REACHED: "muted",
    CrashMark.DOUBLED: "err",
    CrashMark.FAILED: "err",
}


def page_of(proof: Proof) -> str:
    """Return the file."""
    level: Level = "err" if proof.exit_code == BAD else "warn" if proof.exit_code else "ok"
    word = VERDICTS.get(proof.exit_code, "Undecided")
    sections = [Section("", tiles(figures(proof)))]
    if findings := list(findings_of(proof)):
        sections.append(Section("What to do", items(findings)))
    if proof.rows:
        sections.append(Section("Matrix", matrix(proof), "each a crash of a real daemon"))
        sections.append(Section("Trial by trial", crashes(proof), "what is not clean, and what ran again"))
    title = f"Proof of {', '.join(proof.modules)}"
    return render(title, Summary(level, word, summary(proof)), sections, f"replayforge prove, {proof.made_at}")


def figures(proof: Proof) -> Iterator[Figure]:
    """Yield the figures at the top."""
    cells = [cell for row in proof.rows for cell in row.cells]
    yield Figure(f"{len(proof.rows)}", "samples")
    yield Figure(f"{len(cells)}", "trials")
    for mark, label in (
        (CrashMark.CONVERGED, "clean"),
        (CrashMark.DOUBLED, "doubled an effect"),
        (CrashMark.FAILED, "did not converge"),
        (CrashMark.HELD, "held in doubt"),
    ):
        number = sum(cell.mark is mark for cell in cells)
        yield Figure(f"{number}", label, LEVELS[mark] if number else "")
    yield Figure(f"{sum(cell.extra_starts for cell in cells)}", "starts more than without")
    yield Figure(f"{len(proof.no_sample)}", "handlers without a sample", "warn" if proof.no_sample else "")


def findings_of(proof: Proof) -> Iterator[str]:
    """Yield each thing that is to be done, once."""
    found: dict[str, list[str]] = {}
    for row in proof.rows:
        for cell in row.cells:
            for words in (*map(in_words, cell.doubled), *cell.objections):
                found.setdefault(f"{row.name}: {words}", []).append(cell.name)
        for doubt in row.doubts:
            found.setdefault(f"{row.name}: {doubt}", [])
    for words, points in found.items():
        yield words + (f" (at {', '.join(points)})" if points else "")
    for name, place in proof.no_sample.items():
        yield f"{name}: no sample; nothing was tried with it ({place})"


def matrix(proof: Proof) -> Markup:
    """Return points against samples; several passes of one point share a cell, the gravest before."""
    reached = {cell.point for row in proof.rows for cell in row.cells}
    rows: list[list[TableCell | Markup | str]] = [
        [point, *(shared([cell for cell in row.cells if cell.point == point]) for row in proof.rows), words]
        for point, words in POINTS.items()
        if point in reached
    ]
    headings = ["Died at", *(row.name for row in proof.rows), "What was so at that moment"]
    return table("Crash points and samples", headings, rows)


def shared(cells: Sequence[CrashCell]) -> TableCell:
    """Return the mark of all passes of one point."""
    if not cells:
        return TableCell("·", "muted", "not on its way")
    order = [CrashMark.DOUBLED, CrashMark.FAILED, CrashMark.HELD, CrashMark.CONVERGED, CrashMark.NOT_REACHED]
    worst = min((cell.mark for cell in cells), key=order.index)
    number = sum(cell.mark is worst for cell in cells)
    share = "" if len(cells) == 1 else f" {number} of {len(cells)}"
    said = "\n".join(f"{cell.name}: {details_of(cell)}" for cell in cells)
    return TableCell(f"{GLYPHS[worst]} {WORDS[worst]}{share}", LEVELS[worst], said)


def crashes(proof: Proof) -> Markup:
    """Return a line for each crash that showed something."""
    rows: list[list[TableCell | Markup | str]] = [
        [
            row.name,
            TableCell(cell.name, "muted"),
            TableCell(f"{GLYPHS[cell.mark]} {WORDS[cell.mark]}", LEVELS[cell.mark]),
            details_of(cell) if cell.mark is not CrashMark.CONVERGED else "",
            again(cell),
        ]
        for row in proof.rows
        for cell in row.cells
        if cell.mark is not CrashMark.CONVERGED or cell.extra_starts or cell.steps_again
    ]
    shown = table("Crashes", ["Handler", "Died at", "", "What was found", "Ran again"], rows)
    unseen = [row.name for row in proof.rows if unseen_by(row)]
    return shown + (note(f"{', '.join(unseen)}: {NOTHING_SEEN}.") if unseen else Markup())


def again(cell: CrashCell) -> str:
    """Say what ran again after a crash."""
    parts = [counted(cell.extra_starts, "start")] if cell.extra_starts else []
    parts += [f"step {step}" for step in cell.steps_again]
    parts += [f"{counted(cell.known_again, 'call')} with the same key"] if cell.known_again else []
    return ", ".join(parts)


def unseen_by(row: Row) -> bool:
    """Whether nothing of what a sample's handlers do was seen."""
    return bool(row.cells) and not row.effects and not row.steps
