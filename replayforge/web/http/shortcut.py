"""A fast path for the most frequent requests, events and webhooks: past routing and pages, not past the guard."""

from collections.abc import Awaitable, Callable

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from replayforge.aiohttp_internals import set_match_info
from replayforge.web.http.guard import guard

# What answers POSTs to which paths; an application without it has no short way.
SHORT_WAYS: web.AppKey[dict[str, Handler]] = web.AppKey("short_ways", dict)


class Shortcut:
    """Answers requests as an application does.

    An event is checked and answered by the same functions on either way, `guard` and the handler; what it is spared is
    the search for its route and the middleware that shows problems to people as pages. What is not quite as usual takes
    the long way: a daemon below a base path, a client that waits for leave to send its body.
    `tests/integration/test_shortcut.py` sends one table of requests both ways.
    """

    def __init__(self, app: web.Application, handle: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> None:
        self.app = app
        self.handle = handle
        self.handlers = app.get(SHORT_WAYS, {})
        self.matches: dict[str, web.UrlMappingMatchInfo] = {}

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        """Answer one request."""
        path = request.rel_url.raw_path
        handler = self.handlers.get(path)
        if handler is None or request.method != hdrs.METH_POST or hdrs.EXPECT in request.headers:
            return await self.handle(request)
        match = self.matches.get(path)
        if match is None:  # one of a path without parameters is empty, and so false
            match = await self.found(request, path)
        set_match_info(request, match)
        return await guard(request, handler)

    async def found(self, request: web.Request, path: str) -> web.UrlMappingMatchInfo:
        """Return the route of this path as the application finds it; all requests for it share what is found."""
        match = await self.app.router.resolve(request)
        match.add_app(self.app)
        match.freeze()
        self.matches[path] = match
        return match
