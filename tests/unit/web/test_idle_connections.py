"""Which connection makes room for a newcomer, and that finding it takes no search; the cap for each address."""

import asyncio

import pytest
from aiohttp import web

from replayforge.telemetry import Telemetry
from replayforge.web.http.connection import FIRST_WORD_SECONDS, Connection, ConnectionLimits, Port
from replayforge.web.http.idle_connections import LOOKS_MAX, address_of
from tests.support.memory_transport import MemoryTransport, settle

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


class Entrance:
    """A port, and a clock that the test moves."""

    def __init__(self, **limits: int) -> None:
        self.loop = asyncio.get_running_loop()
        self.later_seconds = 0.0
        server = web.Server(self.answer)
        self.port = Port(server.request_handler, server.request_factory, ConnectionLimits(**limits), Telemetry())
        self.held = asyncio.Event()

    async def answer(self, request: web.BaseRequest) -> web.Response:
        if request.path == "/held":
            await self.held.wait()
        return web.Response(text="answered")

    async def connect(self, peer: str | None = None) -> MemoryTransport:
        line = MemoryTransport(peer)
        line.protocol = self.port()
        line.protocol.connection_made(line)
        await settle()
        return line

    async def ask(self, line: MemoryTransport, path: bytes = b"/") -> None:
        assert line.protocol is not None
        line.protocol.data_received(GET.replace(b"/ ", path + b" ", 1))
        await settle()


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count how often anybody looks whether a connection is idle."""
    count = [0]
    look = Connection.awaits_request

    def counted(self: Connection) -> bool:
        count[0] += 1
        return look(self)

    monkeypatch.setattr(Connection, "awaits_request", counted)
    return count


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every connection have had its time for a first word at once."""
    monkeypatch.setattr("replayforge.web.http.connection.FIRST_WORD_SECONDS", -1.0)


async def test_a_newcomer_costs_the_same_however_many_there_are(looks: list[int], patience: None) -> None:
    """Among many idle connections the longest idle one is found by one look, newcomer after newcomer."""
    entrance = Entrance(connections_max=500)
    lines = [await entrance.connect() for _ in range(500)]
    looks[0] = 0
    lines += [await entrance.connect() for _ in range(200)]
    assert looks[0] <= 2 * 200
    assert [line.closed for line in lines] == [True] * 200 + [False] * 500
    assert entrance.port.open == 500


async def test_connections_at_work_are_passed_over_a_few_at_a_time(looks: list[int], patience: None) -> None:
    """Where all are at work a newcomer hears so after a few looks; none that works is closed."""
    entrance = Entrance(connections_max=60)
    lines = [await entrance.connect() for _ in range(60)]
    for line in lines:
        await entrance.ask(line, b"/held")
    looks[0] = 0
    refused = await entrance.connect()
    assert refused.said[9:12] == b"503"
    assert looks[0] <= 2 * LOOKS_MAX
    assert not any(line.closed for line in lines)
    entrance.held.set()
    await settle()
    assert (await entrance.connect()).said == b""
    assert sum(line.closed for line in lines) == 1


async def test_who_has_just_come_keeps_the_place() -> None:
    """In its first second a connection is not closed for another one, but one that was answered is."""
    assert FIRST_WORD_SECONDS >= 1.0
    entrance = Entrance(connections_max=3)
    lines = [await entrance.connect() for _ in range(3)]
    assert (await entrance.connect()).said[9:12] == b"503"
    await entrance.ask(lines[1])
    await settle()
    newcomer = await entrance.connect()
    assert (newcomer.said, [line.closed for line in lines]) == (b"", [False, True, False])


async def test_the_order_is_that_of_the_last_answers(patience: None) -> None:
    """Who has never asked goes first, then whoever was answered the longest time ago."""
    entrance = Entrance(connections_max=4)
    lines = [await entrance.connect() for _ in range(4)]
    for asks in (0, 1, 2, 0):
        await entrance.ask(lines[asks])
    for gone in (3, 1, 2, 0):
        newcomer = await entrance.connect()
        await entrance.ask(newcomer)
        assert lines[gone].closed


async def test_one_address_has_its_share(patience: None) -> None:
    """Beyond the cap of its address a newcomer takes the place of that address's longest idle connection only."""
    entrance = Entrance(connections_max=100, connections_per_address_max=2)
    other = await entrance.connect("192.0.2.9")
    lines = [await entrance.connect("192.0.2.1") for _ in range(3)]
    assert [line.closed for line in (other, *lines)] == [False, True, False, False]
    for line in lines[1:]:
        await entrance.ask(line, b"/held")
    assert (await entrance.connect("192.0.2.1")).said[9:12] == b"503"
    assert (await entrance.connect("192.0.2.2")).said == b""
    entrance.held.set()
    await settle()
    for line in (other, *lines):
        line.close()
    await settle()
    assert entrance.port.addresses.keys() == {"192.0.2.2"}


async def test_this_machine_has_no_cap(patience: None) -> None:
    """Behind a proxy on the same machine everybody comes from there."""
    entrance = Entrance(connections_max=100, connections_per_address_max=2)
    lines = [await entrance.connect(peer) for peer in ("127.0.0.1", "::1", "::ffff:127.0.0.9") for _ in range(9)]
    assert not any(line.closed for line in lines)
    assert entrance.port.addresses == {}


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("127.0.0.1", None),
        ("::1", None),
        (None, None),
    ],
)
def test_where_a_connection_comes_from(peer: str | None, address: str | None) -> None:
    """An address of IPv4 stands for itself, one of IPv6 for its network, and this machine for nobody."""
    assert address_of(MemoryTransport(peer)) == address
