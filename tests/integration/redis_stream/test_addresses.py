"""Every kind of URL leads to a working stream: password, unix socket, TLS, and Sentinel over a failover."""

import shutil
import subprocess
from pathlib import Path

import pytest

from replayforge.domain.errors import Unavailable
from replayforge.domain.event import Entry
from replayforge.streams.redis_link import parse_sentinel_url
from tests.integration.redis_stream.conftest import OpenStream
from tests.support.polling import persist
from tests.support.ports import free_port
from tests.support.redis_server import RedisSentinel, RedisServer, redis_binaries

ENTRIES = [Entry(f"event-{number}", 1) for number in range(10)]


async def carries_entries(open_stream: OpenStream, url: str) -> bool:
    async with open_stream(url) as stream:
        await stream.publish(ENTRIES)
        return [delivery.entry for delivery in await stream.read(10, 1)] == ENTRIES


async def test_password_and_database(binary: str, tmp_path: Path, open_stream: OpenStream) -> None:
    """A password with odd characters and a database number are taken from the URL."""
    with RedisServer(binary, tmp_path, "--requirepass", "p@ss:w/rd") as server:
        assert await carries_entries(open_stream, f"redis://:p%40ss%3Aw%2Frd@127.0.0.1:{server.port}/3")
        assert server.admin.info("keyspace").keys() == {"db3"}


async def test_unix_socket(binary: str, tmp_path: Path, open_stream: OpenStream) -> None:
    """A unix socket serves as well as a port."""
    socket = tmp_path / "redis.sock"
    with RedisServer(binary, tmp_path, "--unixsocket", str(socket)):
        assert await carries_entries(open_stream, f"unix://{socket}")


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """A certificate of its own authority for 127.0.0.1, and its key."""
    if not shutil.which("openssl"):
        pytest.skip("no openssl on PATH to make a certificate with")
    certificate, key = tmp_path / "redis.crt", tmp_path / "redis.key"
    request = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=redis -addext subjectAltName=IP:127.0.0.1"
    subprocess.run([*request.split(), "-keyout", key, "-out", certificate], check=True, capture_output=True)
    return certificate, key


def started_with_tls(directory: Path, certificate: tuple[Path, Path]) -> tuple[RedisServer, int]:
    """Start the first server at hand that was built with TLS, and return it with its TLS port."""
    files = ("--tls-cert-file", str(certificate[0]), "--tls-key-file", str(certificate[1]))
    for name, binary in redis_binaries().items():
        port = free_port()
        (directory / name).mkdir()
        flags = ("--tls-port", str(port), "--tls-auth-clients", "no", *files)
        server = RedisServer(binary, directory / name, *flags)
        try:
            server.start()
        except Unavailable:
            continue
        return server, port
    pytest.skip("no redis-server at hand was built with TLS")


async def test_tls(tmp_path: Path, certificate: tuple[Path, Path], open_stream: OpenStream) -> None:
    """A rediss URL checks the certificate against the authority it names."""
    server, port = started_with_tls(tmp_path, certificate)
    with server:
        assert await carries_entries(open_stream, f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={certificate[0]}")


async def test_sentinel_failover(server: RedisServer, binary: str, tmp_path: Path, open_stream: OpenStream) -> None:
    """Through Sentinels the stream follows the primary's name to the server that was promoted, and says wiped."""
    for name in ("replica", "sentinel"):
        (tmp_path / name).mkdir()
    replica = RedisServer(binary, tmp_path / "replica")
    sentinel = RedisSentinel(binary, tmp_path / "sentinel", server.port)
    with replica:
        replica.command("REPLICAOF", "127.0.0.1", server.port)
        await persist(lambda: is_online(server))  # before the Sentinel starts, for it asks for replicas every 10 s
        with sentinel:
            async with open_stream(f"redis+sentinel://127.0.0.1:{sentinel.port}/main/0") as stream:
                await stream.publish(ENTRIES)
                await persist(lambda: has_entries(replica, stream.key))
                server.kill()
                deliveries = await persist(lambda: stream.read(10, 0))
                assert [delivery.entry for delivery in deliveries] == ENTRIES
                assert stream.wiped.is_set()
                await stream.publish(ENTRIES)
                assert replica.command("XLEN", stream.key) == 20


async def has_entries(server: RedisServer, key: str) -> bool:
    return bool(server.command("XLEN", key) == len(ENTRIES))


async def is_online(primary: RedisServer) -> bool:
    return bool(primary.admin.info("replication").get("slave0", {}).get("state") == "online")


def test_sentinel_url() -> None:
    """A Sentinel URL names the hosts, the primary, the database, both passwords and the TLS settings."""
    address = parse_sentinel_url(
        "rediss+sentinel://user:p%40ss@one:1,two/main/2?sentinel_password=other&ssl_ca_certs=/etc/ca.pem"
    )
    assert address.hosts == (("one", 1), ("two", 26379))
    assert (address.primary, address.db) == ("main", 2)
    assert (address.username, address.password, address.sentinel_password) == ("user", "p@ss", "other")
    assert address.tls == {"ssl": True, "ssl_ca_certs": "/etc/ca.pem"}
    assert parse_sentinel_url("redis+sentinel://one/main").tls == {}
