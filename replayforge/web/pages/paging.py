"""Lists in pages: how long one is, and the link to the next."""

from aiohttp import web

from replayforge.web.pages import words

PAGE_SIZE = 50


def older(request: web.Request, cursors: list[int]) -> str:
    """Return the link to the next page of a list that was fetched with one item more than it shows, or nothing."""
    if len(cursors) <= PAGE_SIZE:
        return ""
    return goes_on_at(request, cursors[PAGE_SIZE - 1])


def goes_on_at(request: web.Request, cursor: int) -> str:
    """Return the link to the page of the same list that begins at a cursor."""
    kept = {name: value for name, value in request.query.items() if name != "cursor"}
    return words.link(request.path, kept | {"cursor": cursor})
