"""One client of one Redis: built from a URL, its errors turned into ours, its connections dropped after a failure."""

from asyncio import timeout
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from replayforge.domain.errors import Refused, Unavailable

CONNECTIONS_MAX = 8
CLOSE_SECONDS_MAX = 1.0
PLAIN_SCHEMES = ("redis", "rediss", "unix")
SENTINEL_SCHEMES = ("redis+sentinel", "rediss+sentinel")
WRONG_TYPE = "WRONGTYPE"  # somebody else has written under the name of a key of ours
GROUP_GONE = ("NOGROUP", "UNBLOCKED", "no such key", WRONG_TYPE)


class GroupGone(Unavailable):
    """Redis no longer has the stream or its consumer group."""


@dataclass(frozen=True, slots=True)
class SentinelAddress:
    """What a Sentinel URL says.

    redis+sentinel://[user:password@]host[:port],host[:port]/primary-name[/db][?sentinel_password=...], with
    rediss+sentinel for TLS, where every `ssl_` parameter of redis-py may follow, as in a plain rediss URL.
    """

    hosts: tuple[tuple[str, int], ...]
    primary: str
    db: int
    tls: dict[str, object]
    username: str | None
    password: str | None
    sentinel_password: str | None


class RedisLink:
    """A client that never retries by itself and gives no call longer than `call_seconds_max`.

    After a failure its idle connections are closed, so that the next call connects, and resolves, anew. The
    watchdog: after a call that used up its time the client itself is thrown away, whatever it hangs on.
    """

    def __init__(self, url: str, call_seconds_max: float) -> None:
        self.url = url
        self.call_seconds_max = call_seconds_max
        self.client = build_client(url)

    @asynccontextmanager
    async def calling(self) -> AsyncIterator[Redis]:
        """Lend the client; inside, everything Redis or the network does wrong becomes Unavailable."""
        try:
            async with timeout(self.call_seconds_max):
                yield self.client
        except TimeoutError:
            await self.rebuild()
            raise Unavailable(f"Redis did not answer within {self.call_seconds_max:g} s") from None
        except (RedisError, OSError) as error:
            if any(word in str(error) for word in GROUP_GONE):
                raise GroupGone from error
            await self.disconnect(inuse_connections=False)
            raise Unavailable(f"Redis: {error}") from error

    async def rebuild(self) -> None:
        """Begin again with a new client, whatever state the old one is in."""
        await self.close()
        self.client = build_client(self.url)

    async def close(self) -> None:
        """Close every connection, those in use too; a later call would connect again."""
        await self.disconnect(inuse_connections=True)

    async def disconnect(self, *, inuse_connections: bool) -> None:
        """Close connections, for a short while politely; what cannot be closed is dead already."""
        with suppress(RedisError, OSError, TimeoutError):
            async with timeout(CLOSE_SECONDS_MAX):
                await self.client.connection_pool.disconnect(inuse_connections=inuse_connections)


def build_client(url: str) -> Redis:
    """Return a client for a plain, TLS, unix-socket or Sentinel URL; raises Refused for anything else."""
    settings = {
        "decode_responses": True,
        "protocol": 2,  # the answers have had one shape in every client and server since 6.2
        "retry": Retry(NoBackoff(), 0),  # a timed-out XADD sent again is an entry twice, and hides the outage
        "socket_timeout": None,  # RedisLink.calling limits the whole call, connecting included
    }
    scheme = urlsplit(url).scheme
    try:
        if scheme in SENTINEL_SCHEMES:
            return sentinel_client(parse_sentinel_url(url), settings)
        if scheme in PLAIN_SCHEMES:
            return Redis.from_pool(
                BlockingConnectionPool.from_url(url, max_connections=CONNECTIONS_MAX, timeout=None, **settings)
            )
    except ValueError as error:
        raise Refused(f"the Redis URL cannot be read: {error}") from None
    raise Refused(f"the Redis URL must begin with one of {', '.join((*PLAIN_SCHEMES, *SENTINEL_SCHEMES))}://")


def sentinel_client(address: SentinelAddress, settings: dict[str, object]) -> Redis:
    """Return a client that asks the Sentinels for the primary each time it connects."""
    sentinel_settings = {**settings, **address.tls, "password": address.sentinel_password}
    sentinel: Any = Sentinel(list(address.hosts), sentinel_kwargs=sentinel_settings, **settings)  # type: ignore[no-untyped-call]
    client: Redis = sentinel.master_for(
        address.primary, db=address.db, username=address.username, password=address.password, **address.tls
    )
    return client


def parse_sentinel_url(url: str) -> SentinelAddress:
    """Read a Sentinel URL; raises ValueError with what is missing."""
    parts = urlsplit(url)
    credentials, _, hosts = parts.netloc.rpartition("@")
    username, _, password = credentials.partition(":")
    primary, _, db = parts.path.strip("/").partition("/")
    options = dict(parse_qsl(parts.query))
    tls = {"ssl": True, **{name: value for name, value in options.items() if name.startswith("ssl_")}}
    if not hosts or not primary:
        raise ValueError("a Sentinel URL is redis+sentinel://host:26379,host:26379/primary-name")
    return SentinelAddress(
        hosts=tuple(parse_host(host) for host in hosts.split(",")),
        primary=unquote(primary),
        db=int(db or 0),
        tls=tls if parts.scheme.startswith("rediss") else {},
        username=unquote(username) or None,
        password=unquote(password) or None,
        sentinel_password=options.get("sentinel_password"),
    )


def parse_host(text: str) -> tuple[str, int]:
    """Read `host` or `host:port`; 26379 is the port of Sentinels."""
    host, _, port = text.partition(":")
    return host, int(port or 26379)
