"""A report as one HTML file that needs no server, no script and no second file, and looks like the status page."""

from base64 import b64encode
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from markupsafe import Markup, escape

from replayforge.static_files import static_root

Level = Literal["ok", "warn", "err", "muted", ""]
STYLES = ("base", "parts", "charts", "report")
PAGE = Markup("""<!doctype html>
<html lang="en" data-theme="auto">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<title>{title} · ReplayForge</title>
<link rel="icon" href="data:image/svg+xml;base64,{icon}">
<style>
{styles}</style>
</head>
<body class="report">
<header class="top"><span class="brand">ReplayForge</span><span class="muted">{made}</span></header>
<main>
<h1>{title}</h1>
<p class="health {level}"><span><strong>{word}</strong>: <bdi>{words}</bdi></span></p>
{sections}</main>
</body>
</html>
""")
SECTION = Markup("""<section class="card" aria-labelledby="section-{number}">
<h2 id="section-{number}">{title} <small>{note}</small></h2>
{body}</section>
""")


@dataclass(frozen=True, slots=True)
class Summary:
    """The line above everything: good, doubtful or bad, in a word, and the sentence that says why."""

    level: Level
    word: str
    words: str


@dataclass(frozen=True, slots=True)
class Section:
    """A card of a report; the body is made by the functions below, or is HTML or SVG of the caller's own.

    Without a title it is no card: figures stand so.
    """

    title: str
    body: Markup
    note: str = ""


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure with what it counts; the level gives it its colour."""

    value: str
    label: str
    level: Level = ""


@dataclass(frozen=True, slots=True)
class Cell:
    """What stands in a cell of a table; a level makes it a mark, with more said when one points at it."""

    text: str
    level: Level = ""
    title: str = ""
    is_number: bool = False


def render(title: str, summary: Summary, sections: Iterable[Section], made: str = "") -> str:
    """Return the whole file; `made` says of what the report is and when it was made."""
    root = static_root()
    styles = "".join((root / "css" / f"{name}.css").read_text() for name in STYLES)
    icon = b64encode((root / "icon.svg").read_bytes()).decode()
    shown = Markup().join(section_of(one, number) for number, one in enumerate(sections))
    page = PAGE.format(
        title=title,
        icon=icon,
        styles=Markup(styles),  # noqa: S704  (the package's own files)
        made=made,
        level=summary.level,
        word=summary.word,
        words=summary.words,
        sections=shown,
    )
    return str(page)


def section_of(section: Section, number: int) -> Markup:
    """Return a section as it stands on the page."""
    if not section.title:
        return section.body
    return SECTION.format(number=number, title=section.title, note=section.note, body=section.body)


def tiles(figures: Iterable[Figure]) -> Markup:
    """Return figures side by side."""
    tile = Markup(
        '<li class="{}"><div class="tile"><span class="value">{}</span> <span class="label">{}</span></div></li>\n'
    )
    return Markup('<ul class="tiles">\n{}</ul>\n').format(
        Markup().join(tile.format(one.level, one.value, one.label) for one in figures)
    )


def table(caption: str, headings: Sequence[str], rows: Iterable[Sequence[Cell | Markup | str]]) -> Markup:
    """Return a table; the first cell of each row heads it."""
    heads = Markup().join(Markup('<th scope="col">{}</th>').format(one) for one in headings)
    return Markup(
        '<div class="scroll" tabindex="0" role="region" aria-label="{caption}"><table>'
        '<caption class="hidden">{caption}</caption>\n<thead><tr>{heads}</tr></thead>\n'
        "<tbody>\n{rows}</tbody></table></div>\n"
    ).format(caption=caption, heads=heads, rows=Markup().join(map(row_of, rows)))


def row_of(cells: Sequence[Cell | Markup | str]) -> Markup:
    """Return a row of a table."""
    head, *others = cells
    row = Markup('<tr><th scope="row">{}</th>{}</tr>\n')
    return row.format(inside_of(head), Markup().join(map(data_of, others)))


def data_of(cell: Cell | Markup | str) -> Markup:
    """Return a cell after the first."""
    is_number = isinstance(cell, Cell) and cell.is_number
    return Markup("<td{}>{}</td>").format(Markup(' class="num"') if is_number else "", inside_of(cell))


def inside_of(cell: Cell | Markup | str) -> Markup:
    """Return what stands in a cell."""
    if not isinstance(cell, Cell):
        return escape(cell)
    if not (cell.level or cell.title):
        return Markup("<bdi>{}</bdi>").format(cell.text)
    return Markup('<span class="mark {}" title="{}">{}</span>').format(cell.level, cell.title, cell.text)


def note(words: str) -> Markup:
    """Return a sentence of explanation."""
    return Markup('<p class="note">{}</p>\n').format(words)


def items(sentences: Iterable[str]) -> Markup:
    """Return sentences one below the other."""
    return Markup("<ul>{}</ul>\n").format(Markup().join(Markup("<li>{}</li>\n").format(one) for one in sentences))


def text(lines: str, label: str) -> Markup:
    """Return text as it is: code, a difference, what was said."""
    return Markup('<pre class="text" tabindex="0" aria-label="{}"><bdi>{}</bdi></pre>\n').format(label, lines)


def details(words: str, body: Markup) -> Markup:
    """Return what is seen when somebody asks for it."""
    return Markup("<details><summary>{}</summary>\n{}</details>\n").format(words, body)
