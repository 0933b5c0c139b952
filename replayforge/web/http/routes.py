"""Paths as applications register them: none without the role that it needs."""

from collections.abc import Iterable
from dataclasses import dataclass

from aiohttp import web
from aiohttp.typedefs import Handler

from replayforge.domain.api_keys import Role

METRICS, INGEST, READ, OPERATE, ADMIN = Role
EVERYBODY = None  # needs no key: it says nothing of what the daemon holds, or proves by itself who sends it
# What the handler of each path needs.
NEEDS: web.AppKey[dict[Handler, Role | None]] = web.AppKey("needs", dict)


@dataclass(frozen=True, slots=True)
class Route:
    """A method and a path, who answers it, and the role that a key must include to be answered."""

    definition: web.RouteDef
    needs: Role | None


def get(path: str, handler: Handler, needs: Role | None, *, allow_head: bool = True) -> Route:
    """Return a route for GET, and for HEAD."""
    return Route(web.get(path, handler, allow_head=allow_head), needs)


def post(path: str, handler: Handler, needs: Role | None) -> Route:
    """Return a route for POST."""
    return Route(web.post(path, handler), needs)


def add_routes(app: web.Application, routes: Iterable[Route]) -> None:
    """Register routes; raises ValueError where one handler would need two roles, for it is found by the handler."""
    if NEEDS not in app:
        app[NEEDS] = {}
    for route in routes:
        if app[NEEDS].setdefault(route.definition.handler, route.needs) != route.needs:
            raise ValueError(f"{route.definition.path} needs another role than its handler does elsewhere")
        app.router.add_routes([route.definition])


def need_of(request: web.Request) -> Role | None:
    """Return the role that a request needs; what nobody has declared is an administrator's."""
    return request.app[NEEDS].get(request.match_info.handler, ADMIN)
