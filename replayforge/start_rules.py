"""Settings each of which may be right by itself, and with which no daemon starts."""

from replayforge.config import Config
from replayforge.config.source_rules import UNSIGNED
from replayforge.domain.errors import Refused

LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
ANY_ADDRESS = frozenset({"0.0.0.0", "::"})  # noqa: S104 - to tell where it cannot be used


def check_exposure(config: Config) -> None:
    """Raise Refused rather than let the whole network in without a key."""
    if config.server.host not in LOOPBACK and not config.server.api_keys:
        raise Refused(
            f"Listening on {config.server.host} without keys would let everybody in: set [server] api_keys, or listen"
            " on 127.0.0.1."
        )
    unsigned = [source.name for source in config.sources if source.preset == UNSIGNED]
    if config.server.host not in LOOPBACK and unsigned:
        raise Refused(
            f'The source {unsigned[0]} has preset = "none", so nothing tells who sends to it: listen on 127.0.0.1, or'
            " give it the preset of its provider and a secret."
        )


def check_way_back(config: Config) -> None:
    """Raise Refused when endpoints with steps would be told an address that leads nowhere."""
    server = config.server
    if server.host in ANY_ADDRESS and not server.public_url and any(one.steps for one in config.handlers.http):
        raise Refused(
            f"HTTP endpoints with steps speak back to the daemon, and {server.host} is no address that they could"
            " use: set [server] public_url to the one that they reach it by."
        )
