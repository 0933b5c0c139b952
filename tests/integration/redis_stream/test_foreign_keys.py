"""Keys of another type under our names: moved aside whole, never deleted, and said; the stream is made beside them."""

import asyncio

import pytest

from replayforge.domain.event import Entry
from replayforge.streams.redis_stream import RedisStream
from tests.integration.redis_stream.conftest import OpenStream
from tests.support.polling import persist
from tests.support.probe import Probe
from tests.support.redis_server import RedisServer

ENTRIES = [Entry(f"event-{number}", 1) for number in range(10)]
FOREIGN = {
    "string": ("SET", "theirs"),
    "hash": ("HSET", "field", "theirs"),
    "list": ("RPUSH", "theirs"),
    "set": ("SADD", "theirs"),
    "zset": ("ZADD", "1", "theirs"),
}
STREAM = ("XADD", "*", "field", "theirs")
PLACES = [("entries", kind) for kind in FOREIGN] + [("generation", kind) for kind in FOREIGN if kind != "string"]


def plant(server: RedisServer, key: str, command: tuple[str, ...]) -> None:
    """Write somebody else's value in the place of whatever has the key."""
    verb, *values = command
    server.command("DEL", key)
    server.command(verb, key, *values)


def key_of(stream: RedisStream, place: str) -> str:
    return stream.group.entries_key if place == "entries" else stream.group.generation_key


async def carries(stream: RedisStream) -> bool:
    """Tell whether what is published is read again; the calls in between may find the stream gone."""
    try:
        await stream.publish(ENTRIES)
        return [delivery.entry for delivery in await stream.read(100, 1)] == ENTRIES
    except Exception:  # whatever it is, the caller tries again, as the daemon does
        return False


@pytest.mark.parametrize(("place", "kind"), [*PLACES, ("generation", "stream")])
@pytest.mark.parametrize("moment", ["at the start", "while it runs"])
async def test_a_key_of_another_type_is_moved_aside(
    server: RedisServer, open_stream: OpenStream, probe: Probe, place: str, kind: str, moment: str
) -> None:
    """The stream works, the foreign value is under another name, and it is said until somebody has taken it away."""
    command = FOREIGN.get(kind, STREAM)
    if moment == "at the start":
        async with open_stream(server.url) as earlier:
            key = key_of(earlier, place)
        plant(server, key, command)
    async with open_stream(server.url) as stream:
        key = key_of(stream, place)
        if moment == "while it runs":
            plant(server, key, command)
        await persist(lambda: carries(stream))
        moved = f"{key}:moved-aside:1"
        assert server.command("TYPE", moved) == kind
        assert server.command("EXISTS", f"{key}:moved-aside:2") == 0
        (said,) = probe.fields("stream.key_moved_aside")
        assert (said["key"], said["kind"], said["moved_to"]) == (key, kind, moved)
        stats = await stream.stats()
        assert stats.up
        assert any(moved in warning for warning in stats.warnings)
        server.command("DEL", moved)
        assert not any(moved in warning for warning in (await stream.stats()).warnings)


async def test_a_name_that_is_taken_is_not_written_over(server: RedisServer, open_stream: OpenStream) -> None:
    """What was moved aside before stays where it is; the next goes under the next free name."""
    async with open_stream(server.url) as stream:
        key = stream.group.entries_key
        for number in (1, 2):
            plant(server, key, ("SET", f"theirs {number}"))
            await persist(lambda: carries(stream))
            assert server.command("GET", f"{key}:moved-aside:{number}") == f"theirs {number}"
        assert len([one for one in (await stream.stats()).warnings if "moved-aside" in one]) == 2


async def test_a_waiting_reader_is_helped(stream: RedisStream, server: RedisServer) -> None:
    """A reader that waits while the key is taken reads on from the stream that is made beside it."""
    reading = asyncio.create_task(stream.read(1, 30))
    await asyncio.sleep(0)
    plant(server, stream.group.entries_key, ("SET", "theirs"))
    async with asyncio.timeout(20):
        await stream.wiped.wait()
        await persist(lambda: carries_one(stream))
        assert [delivery.entry for delivery in await reading] == ENTRIES[:1]


async def carries_one(stream: RedisStream) -> bool:
    try:
        return await stream.publish(ENTRIES[:1]) == 1
    except Exception:  # as above
        return False
