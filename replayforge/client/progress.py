"""A progress bar where there is a terminal to draw on, and only what has to be said where there is none."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from replayforge.client.terminal import complain, printable


@dataclass(frozen=True, slots=True)
class Bar:
    """Work that is going on: `advance` moves the bar on by so much, `say` prints a line that does not disturb it."""

    advance: Callable[[int], None]
    say: Callable[[str], None]


@contextmanager
def progress_bar(label: str, total: int | None, *, in_bytes: bool = False) -> Iterator[Bar]:
    """Show how far the work inside has come; on a terminal only, and on stderr, so that results stay clean."""
    if not sys.stderr.isatty():
        yield Bar(advance=ignore, say=complain)
        return
    from rich.console import Console  # slow to load, and only terminals need it
    from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True, soft_wrap=True, markup=False, highlight=False)
    amount = DownloadColumn() if in_bytes else MofNCompleteColumn()
    columns = (TextColumn("{task.description}"), BarColumn(), amount, TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(label, total=total)
        yield Bar(
            advance=lambda amount: progress.advance(task, amount),
            say=lambda text: console.print(printable(text)),
        )


def ignore(amount: int) -> None:
    """Draw nothing."""
