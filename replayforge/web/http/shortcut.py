"""The short way of single events, which come most often: from the connection to the guard, past routes."""

from collections.abc import Awaitable, Callable

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from replayforge.aiohttp_internals import set_match_info
from replayforge.web.http.guard import guard

PATH = "/api/events"
# What answers single events; an application without it has no short way.
EVENT_HANDLER: web.AppKey[Handler] = web.AppKey("event_handler")


class Shortcut:
    """Answers requests as an application does.

    An event is checked and answered by the same functions on either way; what it is spared is the search for its route
    and the middleware that shows problems to people as pages. What is not quite as usual takes the long way: a daemon
    below a base path, a client that waits for leave to send its body.
    """

    def __init__(self, app: web.Application, handle: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> None:
        self.app = app
        self.handle = handle
        self.post_event = app.get(EVENT_HANDLER)
        self.match: web.UrlMappingMatchInfo | None = None

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        """Answer one request."""
        if request.method != hdrs.METH_POST or request.rel_url.raw_path != PATH or self.post_event is None:
            return await self.handle(request)
        if hdrs.EXPECT in request.headers:
            return await self.handle(request)
        set_match_info(request, self.match or await self.found(request))
        return await guard(request, self.post_event)

    async def found(self, request: web.Request) -> web.UrlMappingMatchInfo:
        """Return the route of this path as the application finds it; all requests for it share what is found."""
        match = await self.app.router.resolve(request)
        match.add_app(self.app)
        match.freeze()
        self.match = match
        return match
