"""Which network addresses an endpoint may have: all that a name stands for is checked, and nothing else is dialled."""

import asyncio
import re
import socket
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from threading import Thread

from aiohttp.abc import AbstractResolver, ResolveResult

from replayforge.domain.retry import Permanent

Address = IPv4Address | IPv6Address
LookUp = Callable[[str], Awaitable[Sequence[str]]]

LOOPBACK = IPv4Address("127.0.0.1")
PRIVATE_RANGES = "127.0.0.0/8 10.0.0.0/8 172.16.0.0/12 192.168.0.0/16 100.64.0.0/10 ::1/128 fc00::/7"
# Link-local and services of clouds that hand out credentials to whoever asks, some of them in private networks; then
# what only carries to other addresses or belongs to protocols.
FORBIDDEN_RANGES = "169.254.0.0/16 100.100.100.200/32 fd00:ec2::/32 192.0.0.0/24 192.88.99.0/24 2002::/16"
PRIVATE = [ip_network(text) for text in PRIVATE_RANGES.split()]
FORBIDDEN = [ip_network(text) for text in FORBIDDEN_RANGES.split()]
GLOBAL_UNICAST = ip_network("2000::/3")
NAT64 = ip_network("64:ff9b::/96")
NUMBER = re.compile(r"\d+|0x[0-9a-f]*", re.IGNORECASE)


class Denied(Permanent):
    """The name stands for an address that the endpoint may not have."""


def objection(address: Address, *, allow_private: bool) -> str:
    """Return what keeps an endpoint from having the address, as the end of a sentence; empty when nothing does."""
    address = meant_by(address)
    private = any(address in network for network in PRIVATE)
    if any(address in network for network in FORBIDDEN) or not (private or is_public(address)):
        return "is one that no endpoint may have"
    if private and not allow_private:
        return "is private; set allow_private = true in its table of the configuration if that is meant"
    return ""


def meant_by(address: Address) -> Address:
    """Return the IPv4 address that an IPv6 address carries to, or the address itself."""
    if isinstance(address, IPv4Address):
        return address
    if address in NAT64:
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or address


def is_public(address: Address) -> bool:
    """Tell whether the address is one machine's on the internet."""
    return address.is_global and not address.is_multicast and (address.version == 4 or address in GLOBAL_UNICAST)


def written_address(host: str) -> Address | None:
    """Return the address that a host is written as, or None when it is a name that must be looked up.

    Raises ValueError for an address in an old form, such as 127.1 or 0x7f000001, which programs read differently.
    """
    name = host.rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return LOOPBACK
    try:
        return ip_address(host)
    except ValueError:
        if ":" in name or NUMBER.fullmatch(name.rpartition(".")[2]):
            raise
        return None


async def look_up(host: str) -> Sequence[str]:
    """Ask the system for the addresses of a name, in a daemon thread, which never holds up the exit of the process.

    Raises OSError when there is no answer.
    """
    answer: Future[Sequence[str]] = Future()
    answer.set_running_or_notify_cancel()

    def ask() -> None:
        try:
            found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
            answer.set_result([str(address[0]) for *_, address in found])
        except (OSError, ValueError) as error:
            answer.set_exception(error if isinstance(error, OSError) else OSError(str(error)))

    Thread(target=ask, name=f"look up {host}", daemon=True).start()
    return await asyncio.wrap_future(answer)


class CheckedResolver(AbstractResolver):
    """Looks a name up once for each connection and hands out only addresses that were checked.

    The connection is made to what `resolve` returned, so a second answer of the name server is never used.
    """

    def __init__(self, look_up: LookUp, *, allow_private: bool) -> None:
        self.look_up = look_up
        self.allow_private = allow_private

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Return every address of the name; raises Denied when one of them may not be had, OSError when it has none."""
        texts = await self.look_up(host)
        if not texts:
            raise OSError(f"{host} has no address.")
        addresses = [ip_address(text) for text in texts]
        for address in addresses:
            if reason := objection(address, allow_private=self.allow_private):
                raise Denied(f"{host} stands for {address}, which {reason}.")
        return [resolved(host, address, port) for address in addresses]

    async def close(self) -> None:
        """Nothing is held open."""


def resolved(host: str, address: Address, port: int) -> ResolveResult:
    """Put an address into the form that aiohttp connects to without asking anybody again."""
    return ResolveResult(
        hostname=host,
        host=str(address),
        port=port,
        family=socket.AF_INET if address.version == 4 else socket.AF_INET6,
        proto=socket.IPPROTO_TCP,
        flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
    )
