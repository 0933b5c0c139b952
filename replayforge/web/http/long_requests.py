"""Requests that stay open for long: each ends with its client, and once whoever sent it may not come in any more."""

import asyncio
import contextlib
from asyncio import current_task, get_running_loop
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from replayforge.web.http.connection import given_up_with_client
from replayforge.web.http.context import CONTEXT
from replayforge.web.http.guard import check_access
from replayforge.web.http.problems import HttpProblem


@dataclass(slots=True, eq=False)
class LongRequest:
    """A request that is open, whoever carries it out, and why it may stay no longer."""

    request: web.Request
    task: asyncio.Task[Any]
    refusal: HttpProblem | None = None


class LongRequests:
    """Those that are open. Each came in by a key, a session or without either, which may end while it waits."""

    def __init__(self) -> None:
        self.open: set[LongRequest] = set()
        self.loop: asyncio.AbstractEventLoop | None = None

    async def begin(self, app: web.Application) -> None:
        """Hear from now on that keys were replaced and sessions ended."""
        self.loop = get_running_loop()
        app[CONTEXT].access.listeners.append(self.look_soon)
        app[CONTEXT].sessions.listeners.append(self.look_soon)

    def look_soon(self) -> None:
        """Look at all of them again; safe in any thread."""
        if self.loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop may be closing already
                self.loop.call_soon_threadsafe(self.look)

    def look(self) -> None:
        """End those that would not be let in now."""
        for one in [one for one in self.open if one.refusal is None]:
            try:
                check_access(one.request, one.request.app[CONTEXT])
            except HttpProblem as refusal:
                one.refusal = refusal
                one.task.cancel()


LONG_REQUESTS: web.AppKey[LongRequests] = web.AppKey("long_requests", LongRequests)


def install(app: web.Application) -> None:
    """Prepare an application for requests that stay open."""
    app[LONG_REQUESTS] = LongRequests()
    app.on_startup.append(app[LONG_REQUESTS].begin)


@contextlib.contextmanager
def long_request(request: web.Request) -> Iterator[None]:
    """Cancel what is awaited inside when the client goes away; only for what nobody but the client waits for.

    Raises the problem of a request that may not come in, once it may not any more; an answer that has begun is broken
    off.
    """
    task = current_task()
    assert task is not None
    one = LongRequest(request, task)
    requests = request.config_dict[LONG_REQUESTS]
    requests.open.add(one)
    try:
        with given_up_with_client(request):
            yield
    except asyncio.CancelledError:
        if one.refusal is None or request.writer.output_size > 0 or task.uncancel():
            raise
        raise one.refusal from None
    finally:
        requests.open.discard(one)
