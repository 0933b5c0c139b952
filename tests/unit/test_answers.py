"""An answer of one piece says what aiohttp's own says, byte by byte."""

import asyncio
import re

import pytest
from aiohttp import web

from replayforge.aiohttp_internals import ServerConnection
from replayforge.web.http.answers import WholeAnswer, complete
from tests.support.memory_transport import MemoryTransport, settle

DATE = re.compile(rb"Date: [A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT")
HEADERS = {"Location": "/api/events/1", "Idempotency-Key-Remembered": "so long", "Content-Type": "application/json"}


async def said(version: str, connection_header: str, response: web.StreamResponse) -> tuple[bytes, bool]:
    """Return what a client of that version hears, and whether the connection stays."""

    async def answer(_: web.BaseRequest) -> web.StreamResponse:
        complete(response, "the-request")
        return response

    server = web.Server(answer)
    connection, line = ServerConnection(server, asyncio.get_running_loop(), access_log=None), MemoryTransport()
    line.protocol = connection
    connection.connection_made(line)
    connection.data_received(
        f"POST / HTTP/{version}\r\nHost: x\r\n{connection_header}Content-Length: 0\r\n\r\n".encode()
    )
    await settle()
    stays = not line.closed
    connection.force_close()
    await settle()
    heard, dates = DATE.subn(b"Date: then", line.said)
    assert dates == 1
    return heard, stays


@pytest.mark.parametrize("connection_header", ["", "Connection: close\r\n", "Connection: keep-alive\r\n"])
@pytest.mark.parametrize("version", ["1.1", "1.0"])
@pytest.mark.parametrize("status", [200, 201])
async def test_it_says_what_aiohttp_says(version: str, connection_header: str, status: int) -> None:
    """Both versions, whether or not the connection stays, and it does so or not as it says."""
    theirs = web.Response(body=b'{"a":1}', status=status, headers=HEADERS)
    ours = WholeAnswer(b'{"a":1}', status=status, headers=HEADERS)
    heard = await said(version, connection_header, ours)
    assert heard == await said(version, connection_header, theirs)
    assert b"the-request" in heard[0]


async def test_it_is_said_once() -> None:
    """Further headers come too late, and it keeps nothing."""
    answer = WholeAnswer(b"body", status=200, headers={})
    assert not answer.prepared
    heard, _ = await said("1.1", "", answer)
    assert heard.endswith(b"\r\n\r\nbody")
    assert answer.prepared
    assert answer.body == b""


@pytest.mark.parametrize("value", ["a\r\nSet-Cookie: b", "a\nb", "a\0b"])
def test_no_value_begins_another_line(value: str) -> None:
    """Whatever would be read as another header is refused."""
    with pytest.raises(ValueError, match="X-Name"):
        WholeAnswer(b"", status=200, headers={"X-Name": value}).head((1, 1), 0)
