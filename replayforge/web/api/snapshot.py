"""The convergence that an answer tells of: read once for each request, however many parts of the answer ask."""

from aiohttp import web

from replayforge.domain.errors import Unavailable
from replayforge.engine.report.convergence import Convergence
from replayforge.web.http.context import context_of

SNAPSHOT: web.RequestKey[Convergence | Unavailable] = web.RequestKey("snapshot")


async def convergence_of(request: web.Request) -> Convergence:
    """Return whether everything has ended, as it was when this request first asked; raises Unavailable if it could not
    be told then."""
    if SNAPSHOT not in request:
        request[SNAPSHOT] = await convergence_or_error(request)
    found = request[SNAPSHOT]
    if isinstance(found, Unavailable):
        raise found
    return found


async def convergence_or_error(request: web.Request) -> Convergence | Unavailable:
    """Return the convergence, or why it cannot be told: a store that is away is asked once, too."""
    try:
        return await context_of(request).convergence.read()
    except Unavailable as away:
        return away
