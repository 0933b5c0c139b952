"""The guide: the package's own documents, rendered on the server and readable without a network."""

from dataclasses import dataclass

from aiohttp import web
from markupsafe import Markup

from replayforge.domain.errors import NotFound
from replayforge.turns import INLINE_BYTES_MAX, computed
from replayforge.web.http.context import context_of
from replayforge.web.pages.guide_documents import (
    DOCUMENTS,
    GROUPS,
    Document,
    Hit,
    file_of,
    neighbours,
    rendered,
    search,
)
from replayforge.web.pages.rendering import PageTemplate, show

QUERY_CHARACTERS_MAX = 255


@dataclass(frozen=True, slots=True)
class ContentsView:
    """The front page: what there is, or what was found of `query`."""

    groups: dict[str, tuple[Document, ...]]
    query: str
    hits: list[Hit]


@dataclass(frozen=True, slots=True)
class GuideView:
    """One document as HTML of ours, and what is read before and after it."""

    groups: dict[str, tuple[Document, ...]]
    chosen: str
    body: Markup
    previous: Document | None
    following: Document | None


async def contents(request: web.Request) -> web.Response:
    """Show what the guide has, or, asked for something, where it speaks of that."""
    query = request.query.get("q", "").strip()[:QUERY_CHARACTERS_MAX]
    hits = await computed(search, query, size=2 * INLINE_BYTES_MAX)
    return await show(request, PageTemplate("guide.html", "Guide", "guide"), ContentsView(GROUPS, query, hits))


async def dashboard(request: web.Request) -> web.Response:
    """Answer with the dashboard for Grafana."""
    return web.Response(text=file_of("grafana.json"), content_type="application/json")


async def guide(request: web.Request) -> web.Response:
    """Show a document."""
    name = request.match_info["name"]
    if name not in DOCUMENTS:
        raise NotFound(f"The guide has no document {name!r}.")
    html = await computed(rendered, name, context_of(request).base_path, size=2 * INLINE_BYTES_MAX)
    body = Markup(html)  # noqa: S704 - our own files, with HTML turned off
    page = PageTemplate("guide_document.html", DOCUMENTS[name].title, "guide")
    return await show(request, page, GuideView(GROUPS, name, body, *neighbours(name)))
