"""The guide as HTML: headings that can be linked to, and links that lead somewhere."""

import re
from importlib import resources

import pytest

from replayforge.web.pages.guide_documents import DOCUMENTS, anchor, neighbours, passages, rendered, search

OFFERED = (*DOCUMENTS, "grafana.json")


def test_every_document_of_the_package_is_in_the_guide() -> None:
    """What lies in docs/ is shown, and nothing else is offered."""
    files = {path.name for path in resources.files("replayforge").joinpath("docs").iterdir()}
    assert {name for name in files if name.endswith(".md")} == {f"{name}.md" for name in DOCUMENTS}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_documents_are_headed_tables_and_links(name: str) -> None:
    """A document has one first heading, each heading an anchor of its own, and links lead to documents of the guide."""
    html = rendered(name, "/forge")
    anchors = re.findall(r'<h\d id="([^"]+)"', html)
    assert html.count("<h1 ") == 1
    assert len(set(anchors)) == len(anchors) == len(re.findall(r"<h\d", html))
    known = {(passage.document.name, passage.anchor) for passage in passages()} | {(one, "") for one in OFFERED}
    for target in re.findall(r'href="([^"]+)"', html):
        page, _, place = target.removeprefix("/forge/guide/").partition("#")
        assert (page or name, place) in known or target.startswith(("https://", "http://127.0.0.1:8787/")), target


def test_anchors_are_words_with_hyphens() -> None:
    """Whatever stands in a heading, its anchor is letters, digits and single hyphens."""
    assert anchor("… add a column, or two") == "add-a-column-or-two"


def test_the_search_finds_passages_with_all_words_and_headings_first() -> None:
    """A word of a heading counts more than one of its text; what stands in no passage is not found."""
    hits = search("Child events")
    assert (hits[0].passage.document.name, hits[0].passage.anchor) == ("workflows", "child-events")
    assert all("child" in f"{hit.passage.heading} {hit.passage.text}".lower() for hit in hits)
    assert search("child xylophone") == search(" ") == []


def test_every_heading_is_in_the_search() -> None:
    """The passages that are looked through are those of the pages, and no fence is taken for a heading."""
    for name in DOCUMENTS:
        anchors = re.findall(r'<h\d id="([^"]+)"', rendered(name, ""))
        assert [passage.anchor for passage in passages() if passage.document.name == name] == anchors


def test_documents_are_read_in_one_order() -> None:
    """Whoever goes on from document to document sees all of them."""
    name, seen = next(iter(DOCUMENTS)), []
    while (following := neighbours(name)[1]) is not None:
        seen.append(name)
        assert neighbours(following.name)[0] == DOCUMENTS[name]
        name = following.name
    assert [*seen, name] == list(DOCUMENTS)
