"""Text for a terminal, which shows it and never obeys it."""

import contextlib
import re
from http import HTTPStatus
from typing import Any

import click

# What could move the cursor, ring, or turn the reading direction of a terminal.
UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
NOTHING = "–"


def plain(value: Any) -> str:
    """Return a value as text that a terminal shows and never obeys."""
    text = NOTHING if value is None or value == "" else str(value)
    return UNPRINTABLE.sub(spelled_out, text)


def first_line(text: str | None) -> str:
    """Return the sentence an error begins with; a traceback may follow it."""
    return plain((text or "").partition("\n")[0].rstrip())


def printable(text: str) -> str:
    """Return sentences, of one line or several, as text that a terminal shows and never obeys."""
    return "\n".join(UNPRINTABLE.sub(spelled_out, line) for line in text.split("\n"))


def spelled_out(match: re.Match[str]) -> str:
    """Write a character by its number."""
    return f"\\x{ord(match[0]):02x}"


def counted(number: int, noun: str, plural: str = "") -> str:
    """Write a number with its noun."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def with_way_in(error: Exception) -> str:
    """Return what an error says, and how a command is given its key where the daemon wanted one."""
    wanted = getattr(error, "status", None) == HTTPStatus.UNAUTHORIZED
    return f"{error} A command takes its key from --api-key or REPLAYFORGE_API_KEY." if wanted else str(error)


def complain(text: str) -> None:
    """Tell a person something on stderr; where that is closed or full, nobody is there to be told."""
    with contextlib.suppress(OSError, ValueError):
        click.echo(printable(text), err=True)
