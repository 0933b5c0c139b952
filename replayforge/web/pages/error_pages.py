"""Problems as people see them: a page with a way on instead of JSON, for browsers on pages only."""

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler

from replayforge.web.http.context import context_of
from replayforge.web.http.problems import CONTENT_TYPE
from replayforge.web.pages.rendering import PageTemplate, show, show_bare
from replayforge.web.pages.views import ErrorView
from replayforge.web.pages.words import link

API_PREFIXES = ("/api/", "/forgelog/", "/health", "/metrics", "/openapi.json", "/static/")
STRANGER = frozenset({401, 403, 421})


@web.middleware
async def for_people(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Let the answer pass, but show a browser that asked for a page its problem as a page."""
    response = await handler(request)
    if response.content_type != CONTENT_TYPE or not isinstance(response, web.Response) or not wants_page(request):
        return response
    if response.status == 401 and request.method in ("GET", "HEAD"):
        return to_login(request, response)
    return await as_page(request, response)


def wants_page(request: web.Request) -> bool:
    """Tell whether a person waits for the answer: a browser, and none of the paths that programs use."""
    path = request.path.removeprefix(context_of(request).base_path)
    return "text/html" in request.headers.get("Accept", "") and not path.startswith(API_PREFIXES)


def to_login(request: web.Request, response: web.Response) -> web.Response:
    """Send a browser without a key to where it can show one."""
    base = context_of(request).base_path
    target = link(f"{base}/login", {"next": request.path_qs})
    return web.Response(status=303, headers={"Location": target, "Cache-Control": "no-store"} | kept(response))


async def as_page(request: web.Request, response: web.Response) -> web.Response:
    """Return the page of a problem; a stranger sees nothing of the daemon around it."""
    problem = msgspec.json.decode(response.body if isinstance(response.body, bytes) else b"{}")
    no_route = response.status == 404 and request.match_info.http_exception is not None
    view = ErrorView(
        status=response.status,
        heading="There is no such page" if no_route else str(problem.get("title", response.reason)),
        detail=f"Nothing lives at {request.path}." if no_route else str(problem.get("detail", "")),
        request_id=str(problem.get("request_id", "")),
        search=response.status == 404,
        help="" if no_route else str(problem.get("type", "")).rpartition(":")[2],
    )
    page = PageTemplate("error.html", view.heading, status=response.status)
    shown = await (show_bare if response.status in STRANGER else show)(request, page, view)
    shown.headers.update(kept(response))
    return shown


def kept(response: web.Response) -> dict[str, str]:
    """Return the headers of the problem that its page keeps."""
    left_out = {"content-type", "content-length", "cache-control"}
    return {name: value for name, value in response.headers.items() if name.lower() not in left_out}
