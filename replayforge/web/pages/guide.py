"""The guide: the package's own documents, rendered on the server and readable without a network."""

from dataclasses import dataclass
from functools import cache
from importlib import resources
from itertools import pairwise

from aiohttp import web
from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup

from replayforge.domain.errors import NotFound
from replayforge.web.http.context import context_of
from replayforge.web.pages.rendering import PageTemplate, show

TITLES = {
    "architecture": "Architecture",
    "workflows": "Workflows",
    "glossary": "Glossary",
    "contributing": "Contributing",
    "webhooks": "Webhooks",
    "schedules": "Schedules",
    "testing": "Testing",
    "http_steps": "Steps over HTTP",
    "metrics": "Metrics",
}


@dataclass(frozen=True, slots=True)
class GuideView:
    """One document as HTML of ours, and the (name, title) of all of them; `chosen` is the one that is shown."""

    chosen: str
    documents: list[tuple[str, str]]
    body: Markup


async def guide(request: web.Request) -> web.Response:
    """Show a document; without a name the first one."""
    name = request.match_info.get("name", next(iter(TITLES)))
    if name not in TITLES:
        raise NotFound(f"The guide has no document {name!r}.")
    body = Markup(rendered(name, context_of(request).base_path))  # noqa: S704 - our own files, with HTML turned off
    page = PageTemplate("guide.html", TITLES[name], "guide")
    return await show(request, page, GuideView(name, list(TITLES.items()), body))


@cache
def rendered(name: str, base_path: str) -> str:
    """Return a document as HTML: headings can be linked to, and links between documents lead to their pages."""
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = markdown.parse(resources.files("replayforge").joinpath("docs", f"{name}.md").read_text(encoding="utf-8"))
    for token, following in pairwise(tokens):
        adapt(token, following, base_path)
    return str(markdown.renderer.render(tokens, markdown.options, {}))


def adapt(token: Token, following: Token, base_path: str) -> None:
    """Give a heading its anchor, let wide blocks be scrolled by the keyboard, and point links to pages."""
    if token.type == "heading_open":
        token.attrSet("id", anchor(following.content))
    elif token.type in ("table_open", "fence"):
        token.attrSet("tabindex", "0")
    for child in token.children or ():
        target = str(child.attrGet("href") or "")
        if target.endswith(".md") and "/" not in target:
            child.attrSet("href", f"{base_path}/guide/{target.removesuffix('.md')}")


def anchor(heading: str) -> str:
    """Return what a heading goes by in a link: its words in small letters, with hyphens between them."""
    return "-".join("".join(letter if letter.isalnum() else " " for letter in heading.lower()).split())
