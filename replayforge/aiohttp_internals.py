"""The private names of aiohttp that the daemon stands on: all of them, and no other module uses any.

They are read when this module is imported, so an aiohttp without one of them is found out before the port opens, and
`tests/unit/test_aiohttp_internals.py` says what each of them has to do. pyproject.toml pins aiohttp's minor version;
whoever lifts it runs that test first.

What aiohttp offers in public was taken wherever it does the same. `web.Server` is the documented protocol factory, and
calling it is all that a site does, so a server of ours may hand out connections of ours (`__call__`), each with its own
limits as keyword arguments of `web.RequestHandler`. `web.ServerRunner` serves any `web.Server`, so nothing has to be
overridden in `web.AppRunner`: that one starts an application, and its `server` has the `request_handler` (the whole
application as one function) and the `request_factory` to build another server from. A handler of a `web.Server` gets a
request before any route or middleware: what is answered there, out of `request.method`, `request.rel_url.raw_path` and
the body, needs no private name at all. The one below, `set_match_info`, is for functions that ask for `request.app`;
with a `web.BaseRequest` and the daemon's own context handed in it would not be needed.

What aiohttp does not offer: to see a request when it comes in rather than when its turn has come, to answer an error
in its turn, to know whether a connection rests, to go on reading only where reading was held, and to have the answers
of endpoints read by a protocol of ours.
"""

import functools
from asyncio import AbstractEventLoop
from collections.abc import Callable
from typing import Any

import aiohttp
from aiohttp import web
from aiohttp.client_proto import ResponseHandler
from aiohttp.streams import EMPTY_PAYLOAD
from aiohttp.web_protocol import RequestHandler, _ErrInfo

ParserError = _ErrInfo  # what stands in the queue where the parser found no request; `exc` says why


class ServerConnection(RequestHandler):
    """aiohttp's connection of a client, with names for what it keeps to itself.

    `queued` holds the head and the body of each request that has come in and is not being answered yet, in order.
    """

    __slots__ = ("queued",)

    def __init__(self, server: web.Server, loop: AbstractEventLoop, **options: Any) -> None:
        super().__init__(server, loop=loop, **options)
        self.queued = self._messages

    def awaits_request(self) -> bool:
        """Tell whether everything that has come in is answered."""
        return self._waiter is not None and not self._waiter.done()

    def holds_reading(self) -> bool:
        """Tell whether it is we who keep the client waiting, because what it sent has not been used yet."""
        return self._reading_paused or self._buffer_paused

    def resume_reading(self, resume_parser: bool = True) -> None:  # as aiohttp calls it
        """Read on, if it is for a body that reading was held; aiohttp asks for it at each piece and each end of one.

        Where nothing was held, the parser has nothing left to be fed and the transport reads already.
        """
        if self._reading_paused:
            super().resume_reading(resume_parser)

    def is_closing(self) -> bool:
        """Tell whether nothing more is taken in, because the connection closes after its next answer."""
        return self._close

    def is_upgraded(self) -> bool:
        """Tell whether the last request asks for another protocol, so that what follows it is not HTTP."""
        return self._upgraded

    def linger_no_more(self) -> None:
        """Read nothing of a body that is answered before it is whole."""
        self._lingering_time = 0.0

    def answer_error(self, error: Exception) -> None:
        """Call `handle_error` once everything before it is answered, and close."""
        self.queued.append((ParserError(0, error, ""), EMPTY_PAYLOAD))
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def set_match_info(request: web.Request, match: web.UrlMappingMatchInfo) -> None:
    """Tell a request its route and application, which otherwise only the application itself does."""
    request._match_info = match


def read_answers_with(
    connector: aiohttp.TCPConnector, protocol: Callable[[AbstractEventLoop], ResponseHandler], loop: AbstractEventLoop
) -> None:
    """Have every new connection of a connector read by a protocol of ours."""
    connector._factory = functools.partial(protocol, loop)
