"""A proof as text: what is red and why, line by line, and the sentence that sums it up."""

from collections.abc import Iterator

from replayforge.client.terminal import counted
from replayforge.prove.judging import RED, CrashCell, CrashMark, Doubled
from replayforge.prove.proof import BAD, CLEAN, Proof, Row

GLYPHS = {
    CrashMark.CONVERGED: "✓",
    CrashMark.HELD: "?",
    CrashMark.NOT_REACHED: "–",
    CrashMark.DOUBLED: "✕",
    CrashMark.FAILED: "✕",
}
WORDS = {
    CrashMark.CONVERGED: "clean",
    CrashMark.HELD: "held, in doubt",
    CrashMark.NOT_REACHED: "not reached this time",
    CrashMark.DOUBLED: "doubled",
    CrashMark.FAILED: "does not converge",
}
VERDICTS = {CLEAN: "Clean", BAD: "Not clean"}
NOTHING_SEEN = "it called nobody over HTTP and took no step: what it does by other means is not counted"


def lines_of(proof: Proof) -> Iterator[str]:
    """Yield the whole report."""
    for row in proof.rows:
        yield f"{row.name}  ({row.sample})"
        yield from (f"  {line}" for line in lines_of_row(row))
    for name, place in proof.no_sample.items():
        yield f"{name}  no sample: nothing was tried with it ({place}); give an event with --event"
    yield ("✓ " if proof.exit_code == CLEAN else "? " if proof.exit_code != BAD else "✕ ") + summary(proof)


def lines_of_row(row: Row) -> Iterator[str]:
    """Yield what a sample has shown."""
    fine = [cell for cell in row.cells if cell.mark is CrashMark.CONVERGED]
    if fine:
        yield f"✓ {len(fine)} of {counted(len(row.cells), 'trial')}: converged, nothing doubled{starts_in_words(fine)}"
    for cell in row.cells:
        if cell.mark is not CrashMark.CONVERGED:
            yield f"{GLYPHS[cell.mark]} {cell.name}: {details_of(cell)}"
    yield from (f"? {doubt}" for doubt in row.doubts)
    if row.cells and not row.effects and not row.steps:
        yield f"· {NOTHING_SEEN}"


def starts_in_words(cells: list[CrashCell]) -> str:
    """Say how often handlers ran again."""
    again = sum(cell.extra_starts for cell in cells)
    known = sum(cell.known_again for cell in cells)
    told = f"; {counted(again, 'start')} more than without" if again else ""
    return told + (f"; {counted(known, 'call')} repeated that the receiver can tell by the key" if known else "")


def details_of(cell: CrashCell) -> str:
    """Say in one line what a cell found."""
    found = [*map(in_words, cell.doubled), *cell.objections, *cell.held]
    return "; ".join(found) or WORDS[cell.mark]


def in_words(doubled: Doubled) -> str:
    """Say which effect was doubled, where, and what helps."""
    again = "twice" if doubled.times == 1 else f"{doubled.times} times too often"
    where = f", {doubled.place} in {doubled.function}" if doubled.place else ""
    deeper = f" (the call itself: {doubled.innermost})" if doubled.innermost else ""
    return f"{doubled.call} happened {again}{where}{deeper}: {doubled.remedy}"


def summary(proof: Proof) -> str:
    """Sum it up in one sentence."""
    cells = [cell for row in proof.rows for cell in row.cells]
    red = [cell for cell in cells if cell.mark in RED]
    held = sum(cell.mark is CrashMark.HELD for cell in cells)
    parts = [f"{counted(len(cells), 'trial')} of {counted(len(proof.rows), 'sample')}"]
    parts.append(
        f"{len(red)} of them doubled an effect or did not converge" if red else "all converged, nothing doubled"
    )
    parts += [f"{counted(held, 'event')} held in doubt"] if held else []
    parts += [f"{counted(len(proof.no_sample), 'handler')} without a sample"] if proof.no_sample else []
    unsure = sum(bool(row.doubts) for row in proof.rows)
    parts += [f"{counted(unsure, 'sample')} that cannot prove all"] if unsure else []
    return f"{', '.join(parts)}; {proof.seconds:.0f} s"
