"""Where a command finds its daemon, and with which key: what was said, else what the daemon's own settings say."""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from replayforge.client.http import DEFAULT_URL
from replayforge.domain.api_keys import is_digest

EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104 - where to reach who listens there
LOCAL_NAME = "localhost"


@dataclass(frozen=True, slots=True)
class Address:
    """The base of a daemon's URLs, and the key it wants, if any."""

    url: str
    api_key: str | None


def find_address(url: str | None, api_key: str | None, environment: Mapping[str, str]) -> Address:
    """Return the address to use: `url` and `api_key` where given, else those of the settings in force here.

    Settings are the environment's and those of ./replayforge.toml, or of the file that REPLAYFORGE_CONFIG names. Their
    key is sent to the machine they are for, and to this one, but to no other. Raises ConfigError.
    """
    if url is not None and api_key is not None:
        return Address(url, api_key)
    from replayforge.config import load_config  # a command that was told everything need not load it

    path = environment.get("REPLAYFORGE_CONFIG")
    server = load_config(Path(path) if path else None, environment, {}).config.server
    host = EVERYWHERE.get(server.host, server.host)
    port = f":{server.port}" if server.port else f":{urlsplit(DEFAULT_URL).port}"
    own = f"http://{f'[{host}]' if ':' in host else host}{port}{server.base_path}"
    key = api_key or next((entry for entry in server.api_keys if not is_digest(entry)), None)
    if url is None:
        return Address(own, key)
    return Address(url, key if api_key or is_near(url, host) else None)


def is_near(url: str, host: str) -> bool:
    """Tell whether a URL leads to this machine, or to the host of the settings."""
    try:
        named = urlsplit(url).hostname or ""
    except ValueError:
        return False
    if named in (host, LOCAL_NAME):
        return True
    try:
        return ipaddress.ip_address(named).is_loopback
    except ValueError:
        return False
