"""How answers look on a terminal: tables that line up, states as glyph and word, times as distances from now."""

import shutil
import sys
from collections.abc import Sequence
from typing import Any

import click

from replayforge.client.terminal import NOTHING, plain
from replayforge.domain.clock import MICROSECONDS_PER_SECOND, SystemClock, parse_time
from replayforge.domain.signs import OUTCOMES, STATES, STEP_STATES

SIGNS = STEP_STATES | STATES | OUTCOMES
COLOURS = {"✓": "green", "✕": "red", "⧖": "red", "⚡": "red", "↻": "yellow", "‖": "yellow", "◐": "cyan"}
SPANS = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))


def state(name: Any) -> str:
    """Write a state, or the outcome of an attempt, as glyph and word."""
    sign = SIGNS.get(str(name))
    return f"• {plain(name)}" if sign is None else f"{sign.glyph} {sign.words}"


def relative(text: str | None, now_us: int | None = None) -> str:
    """Write a time as its distance from now, such as "3 min ago" or "in 8 s"."""
    if not text:
        return NOTHING
    try:
        distance_us = parse_time(text) - (SystemClock().now_us() if now_us is None else now_us)
    except ValueError:
        return plain(text)
    spoken = span(abs(distance_us) / MICROSECONDS_PER_SECOND)
    if spoken == "0 s":
        return "now"
    return f"in {spoken}" if distance_us > 0 else f"{spoken} ago"


def span(seconds: float) -> str:
    """Write a duration in its largest whole unit."""
    for size, unit in SPANS:
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return "0 s"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows under heads, the columns lined up; on a terminal the last column is cut to fit."""
    widths = [max(len(cell) for cell in column) for column in zip(heads, *rows, strict=True)]
    room = shutil.get_terminal_size().columns - sum(widths[:-1]) - 2 * len(widths[:-1])
    last = max(room, 10) if sys.stdout.isatty() else widths[-1]
    click.echo(click.style(line(heads, widths, last), bold=True))
    for row in rows:
        click.echo(line(row, widths, last))


def line(cells: Sequence[str], widths: Sequence[int], last_width: int) -> str:
    """Lay one row out."""
    padded = [cell.ljust(width) for cell, width in zip(cells[:-1], widths[:-1], strict=True)]
    text = cells[-1]
    padded.append(text if len(text) <= last_width else text[: last_width - 1] + "…")
    return "  ".join(coloured(cell) for cell in padded).rstrip()


def coloured(cell: str) -> str:
    """Give a cell that begins with the glyph of a state its colour."""
    colour = COLOURS.get(cell[:1])
    return click.style(cell, fg=colour) if colour and cell[1:2] == " " else cell


def facts(pairs: Sequence[tuple[str, str]]) -> None:
    """Print names and values, the values lined up."""
    width = max(len(name) for name, _ in pairs)
    for name, value in pairs:
        click.echo(f"{name.ljust(width)}  {coloured(value)}")


def verbatim(body: bytes) -> None:
    """Print an answer of the daemon byte for byte, for programs to read."""
    click.echo(body.rstrip(b"\n"))
