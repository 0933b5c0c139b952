"""Which connection goes when there are too many: the one that has been idle the longest, found without a search."""

import asyncio
import ipaddress
from collections import OrderedDict
from typing import Protocol

# Connections that turn out to be at work are passed over; after so many of them a newcomer has no place.
LOOKS_MAX = 8
IPV6_NETWORK_BITS = 64


class Idling(Protocol):
    """A connection, as far as it matters here."""

    def awaits_request(self) -> bool:
        """Tell whether nothing is being answered."""
        ...

    def has_had_time(self) -> bool:
        """Tell whether it could have said its first word by now."""
        ...


class IdleConnections:
    """Connections on which nothing happens, longest first; whatever is done here takes the same time for any number.

    Those that have never said a word go before those that wait between two requests, but not in the time that every
    connection has for its first word.
    """

    def __init__(self) -> None:
        self.silent: OrderedDict[Idling, None] = OrderedDict()
        self.between: OrderedDict[Idling, None] = OrderedDict()

    def came(self, connection: Idling) -> None:
        """Note a new connection."""
        self.silent[connection] = None

    def asks(self, connection: Idling) -> None:
        """Note that a request has come in."""
        self.silent.pop(connection, None)
        self.between.pop(connection, None)

    def was_answered(self, connection: Idling) -> None:
        """Note that the last request is answered."""
        self.between[connection] = None
        self.between.move_to_end(connection)

    def longest(self) -> Idling | None:
        """Return the connection that has been idle the longest, or None when there seems to be none."""
        for waiting in (self.silent, self.between):
            for _ in range(min(LOOKS_MAX, len(waiting))):
                connection = next(iter(waiting))
                if not connection.has_had_time():
                    break  # all others are younger still
                if connection.awaits_request():
                    return connection
                waiting.move_to_end(connection)
        return None


class AddressConnections:
    """The connections of one address, or of one network that is handed out as a whole."""

    def __init__(self) -> None:
        self.open = 0
        self.idle = IdleConnections()

    def enter(self, connection: Idling) -> None:
        """Count a new connection."""
        self.open += 1
        self.idle.came(connection)

    def leave(self) -> bool:
        """Count a connection less; True when it was the last one."""
        self.open -= 1
        return not self.open


def address_of(transport: asyncio.BaseTransport) -> str | None:
    """Return where a connection comes from; None for this machine itself, where proxies stand before all others.

    Of IPv6 it is the network that a single customer has at least.
    """
    peer = transport.get_extra_info("peername")
    if not isinstance(peer, tuple):
        return None
    address = ipaddress.ip_address(str(peer[0]).partition("%")[0])
    mapped = getattr(address, "ipv4_mapped", None)
    address = mapped or address
    if address.is_loopback:
        return None
    if address.version == 4:
        return str(address)
    return str(ipaddress.ip_network((int(address), IPV6_NETWORK_BITS), strict=False))
