"""Reads bodies within their limits: each within its own, and all of them within what they share."""

import contextlib
from collections.abc import AsyncIterator

from aiohttp import web

from replayforge.domain.document import COMMAS_MAX
from replayforge.turns import computed
from replayforge.web.http.body_budget import SMALL_BYTES_MAX, Share
from replayforge.web.http.problems import HttpProblem

PART_BYTES = 64
LINE_WORK_BYTES = 4  # to cut off a line takes as long as to judge so many bytes
SHARE: web.RequestKey[Share] = web.RequestKey("share", Share)


async def read_body(request: web.Request, bytes_max: int) -> bytes:
    """Return the body; raises 413 before more than `bytes_max` is in memory, Overloaded when all bodies are too much.

    It counts until the request has been dealt with, whatever becomes of it meanwhile.
    """
    length = request.content_length
    if (length or 0) > bytes_max:
        raise too_large(bytes_max)
    share, body = request[SHARE], bytearray()
    try:
        while piece := await request.content.readany():
            if len(body) + len(piece) > bytes_max:
                raise too_large(bytes_max)
            share.take(len(piece))
            if len(piece) == length:
                return piece
            body += piece
        return bytes(body)
    finally:
        # An error of the connection is kept by the stream, and keeps this frame, until somebody looks for cycles.
        body.clear()


async def read_lines(request: web.Request, line_bytes_max: int) -> AsyncIterator[list[bytes]]:
    """Yield the lines of a body in the chunks they arrive in, but empty ones; raises 413 for a line beyond the limit.

    What was yielded counts until the next chunk is asked for.
    """
    share, rest = request[SHARE], bytearray()
    async for chunk in request.content.iter_any():
        share.take(len(chunk))
        first, lines, last = await computed(cut_lines, chunk, size=LINE_WORK_BYTES * chunk.count(b"\n"))
        if max(len(rest) + len(first), *map(len, lines), len(last or b"")) > line_bytes_max:
            raise too_large(line_bytes_max)
        rest += first
        if last is None:
            continue
        lines = [*([bytes(rest)] if rest.strip() else []), *lines]
        if lines:
            yield lines
        rest = bytearray(last)
        share.give_back(share.held - len(rest))
    if rest.strip():
        yield [bytes(rest)]


def cut_lines(chunk: bytes) -> tuple[bytes, list[bytes], bytes | None]:
    """Return what a chunk has of a line that began before, its whole lines without the empty ones, and what it has of
    one that goes on behind it, or None where it has no end of a line."""
    first, *others = chunk.split(b"\n")
    if not others:
        return first, [], None
    *lines, last = others
    return first, [line for line in lines if line.strip()], last


@contextlib.asynccontextmanager
async def parsing(request: web.Request, body: bytes) -> AsyncIterator[None]:
    """Count what the parser makes of an array while it does so: a copy, and a little for each of its parts."""
    commas = await computed(body.count, b",", size=len(body))
    share, size = request[SHARE], len(body) + PART_BYTES * min(commas, COMMAS_MAX)
    if size > SMALL_BYTES_MAX:
        share.take(size)
    try:
        yield
    finally:
        if size > SMALL_BYTES_MAX:
            share.give_back(size)


def too_large(bytes_max: int) -> HttpProblem:
    """Return the problem of a body, or one event, that is too large."""
    return HttpProblem("too-large", f"At most {bytes_max:,} bytes are accepted.")
