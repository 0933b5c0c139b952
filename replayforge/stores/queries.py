"""Loads the book of SQL of a dialect: every statement has a name and a sentence, and both books have the same names."""

import re
from functools import cache
from importlib import resources

from replayforge.domain.errors import Corrupt

HEADING = re.compile(r"^-- (fragment )?([a-z_]+) --$", re.MULTILINE)
DIALECTS = ("sqlite", "postgres")


def load_book(dialect: str) -> dict[str, str]:
    """Return name -> SQL for the dialect; raises Corrupt when the books of the dialects do not have the same names."""
    for other in DIALECTS:
        if book_exists(other) and list(parse_book(other)) != list(parse_book(dialect)):
            raise Corrupt(f"The SQL books of {dialect} and {other} do not hold the same names in the same order.")
    return parse_book(dialect)


def book_exists(dialect: str) -> bool:
    """Tell whether the package carries a book for the dialect."""
    return resources.files(__package__).joinpath("sql", f"{dialect}.sql").is_file()


@cache
def parse_book(dialect: str) -> dict[str, str]:
    """Split the dialect's file at its headings and put fragments where statements name them."""
    text = resources.files(__package__).joinpath("sql", f"{dialect}.sql").read_text(encoding="utf-8")
    headings = list(HEADING.finditer(text))
    ends = [heading.start() for heading in headings[1:]] + [len(text)]
    fragments: dict[str, str] = {}
    book: dict[str, str] = {}
    for heading, end in zip(headings, ends, strict=True):
        body = without_comments(text[heading.end() : end])
        for name, fragment in fragments.items():
            body = body.replace(f"{{{name}}}", fragment)
        (fragments if heading[1] else book)[heading[2]] = body
    return book


def without_comments(text: str) -> str:
    """Return the SQL without its comment lines."""
    return "\n".join(line for line in text.splitlines() if not line.startswith("--")).strip()
