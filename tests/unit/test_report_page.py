"""A report is one file: everything in it, and nothing of what was reported taken for HTML."""

import re

from markupsafe import Markup

from replayforge.report_page import (
    Cell,
    Figure,
    Section,
    Summary,
    details,
    items,
    note,
    render,
    table,
    text,
    tiles,
)

HOSTILE = "<script>alert('x')</script> & \"quoted\" {braces}"


def page() -> str:
    """A report with everything that one may have."""
    rows: list[list[Cell | Markup | str]] = [
        [HOSTILE, Cell(HOSTILE, "err", HOSTILE), Cell("1,204", is_number=True), Markup("<b>own</b>")]
    ]
    sections = [
        Section("", tiles([Figure(HOSTILE, HOSTILE, "warn")])),
        Section(HOSTILE, table(HOSTILE, ["Handler", HOSTILE, "Events", "More"], rows), HOSTILE),
        Section("More", note(HOSTILE) + items([HOSTILE]) + details(HOSTILE, text(HOSTILE, HOSTILE))),
    ]
    return render(HOSTILE, Summary("err", HOSTILE, HOSTILE), sections, HOSTILE)


def test_nothing_that_is_reported_becomes_html() -> None:
    """Names and errors of others stand in it as text; what the caller made as HTML stays HTML."""
    html = page()
    assert "<script" not in html
    assert "<b>own</b>" in html
    assert html.count("&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt; &amp; &#34;quoted&#34; {braces}") == 20


def test_a_report_asks_for_no_second_file() -> None:
    """Its style, that of the status page, and its icon are inside, and it may load nothing."""
    html = page()
    assert re.findall(r"(?:src|href|url)\s*[=(]\s*[\"']?(?!data:|[\"'])\S+", html) == []
    assert "--card: #171a21" in html
    assert ".mark.ok" in html
    assert "default-src 'none'; style-src 'unsafe-inline'; img-src data:" in html
