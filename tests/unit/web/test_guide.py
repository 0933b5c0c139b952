"""The guide as HTML: headings that can be linked to, and links that lead somewhere."""

import re
from importlib import resources

import pytest

from replayforge.web.pages.guide import TITLES, anchor, rendered


def test_every_document_of_the_package_is_in_the_guide() -> None:
    """What lies in docs/ is shown, and nothing else is offered."""
    files = {path.name.removesuffix(".md") for path in resources.files("replayforge").joinpath("docs").iterdir()}
    assert files == set(TITLES)


@pytest.mark.parametrize("name", TITLES)
def test_documents_are_headed_tables_and_links(name: str) -> None:
    """A document has one first heading, each heading an anchor of its own, and links lead to documents of the guide."""
    html = rendered(name, "/forge")
    anchors = re.findall(r'<h\d id="([^"]+)"', html)
    assert html.count("<h1 ") == 1
    assert len(set(anchors)) == len(anchors) == len(re.findall(r"<h\d", html))
    for target in re.findall(r'href="([^"]+)"', html):
        assert target.removeprefix("/forge/guide/") in TITLES or target.startswith("https://")


def test_anchors_are_words_with_hyphens() -> None:
    """Whatever stands in a heading, its anchor is letters, digits and single hyphens."""
    assert anchor("… add a column, or two") == "add-a-column-or-two"
