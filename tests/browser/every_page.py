"""Which pages there are, by the table of paths: one that is new is examined as all others are."""

import re

from replayforge.web import status_page

# What is opened of each path, at a daemon that has one of everything; what some test looks at besides, it adds.
PAGES = {
    "/": "/",
    "/events": "/events",
    "/events/{id}": "/events/{event}",
    "/workflows": "/workflows",
    "/workflows/{id}": "/workflows/{workflow}",
    "/dead-letters": "/dead-letters",
    "/replays": "/replays",
    "/replays/new": "/replays/new",
    "/replays/{id}": "/replays/{job}",
    "/handlers": "/handlers",
    "/handlers/pause": "/handlers/pause?pattern=bad.*",
    "/sources": "/sources",
    "/sources/pause": "/sources/pause?name=hooks",
    "/sources/{name}/refusals": "/sources/hooks/refusals",
    "/schedules": "/schedules",
    "/schedules/pause": "/schedules/pause?name=nightly",
    "/lanes": "/lanes",
    "/in-doubt": "/in-doubt",
    "/shadow/new": "/shadow/new?id={event}",
    "/runtime": "/runtime",
    "/send": "/send",
    "/confirm/{verb}": "/confirm/discard?id={event}",
    "/docs": "/docs",
    "/guide": "/guide",
    "/guide/{name}": "/guide/contributing",
}
# Where there is nothing to look at: files, parts, what leads elsewhere, what only a daemon with keys shows, and the
# report of a comparison, which somebody has to make.
BESIDE = {
    "/events/{id}/{part}",
    "/search",
    "/lookup",
    "/login",
    "/shadow/{id}",
    "/guide/grafana.json",
    "/openapi.json",
    "/api/stream",
    "/static/{digest}/{path}",
}


def paths_in_table() -> set[str]:
    """Return every path of the status page that is answered to GET, without the form of its names."""
    routes = [route.definition for route in status_page.routes()]
    return {re.sub(r"{(\w+):[^{}]*}", r"{\1}", route.path) for route in routes if route.method == "GET"}


def every_page(event: str, workflow: str, job: str) -> list[str]:
    """Return a path of every page."""
    return [path.format(event=event, workflow=workflow, job=job) for path in PAGES.values()]
