"""API keys: what each is called, what it may do, and the digest that stands for it."""

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

KEY_BYTES = 32


class Role(StrEnum):
    """What a key is for."""

    METRICS = "metrics"
    INGEST = "ingest"
    READ = "read"
    OPERATE = "operate"
    ADMIN = "admin"


# Sending events and looking after them are two trades: who sends sees nothing, and who looks or operates sends nothing.
INCLUDED: dict[Role, frozenset[Role]] = {
    Role.METRICS: frozenset({Role.METRICS}),
    Role.INGEST: frozenset({Role.INGEST}),
    Role.READ: frozenset({Role.READ, Role.METRICS}),
    Role.OPERATE: frozenset({Role.OPERATE, Role.READ, Role.METRICS}),
    Role.ADMIN: frozenset(Role),
}
ROLES = "|".join(Role)
NAMED = re.compile(rf"([a-z0-9][a-z0-9_-]{{0,62}}):({ROLES}):sha256-([0-9a-f]{{64}})")
# A key in plain text must not look like one of these: a slip in a role would make it the key of an administrator.
REFERENCES = ("@", "${")
SEEMS_NAMED = re.compile(rf"[^:]*:({ROLES}):|.*:sha256-")


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key by its digest; nobody can tell the key from it.

    SHA-256 is enough, and takes a request a microsecond or two: slow hashes are for passwords that can be guessed, and
    keys are long random values.
    """

    name: str
    role: Role
    digest: bytes

    def may(self, needed: Role) -> bool:
        """Tell whether the key's role includes another."""
        return needed in INCLUDED[self.role]

    def entry(self) -> str:
        """Return what stands for the key in the configuration."""
        return f"{self.name}:{self.role}:sha256-{self.digest.hex()}"


def parse_keys(entries: Iterable[str]) -> tuple[ApiKey, ...]:
    """Return the keys that a list of entries names; raises ValueError with a sentence that holds nothing of a key.

    An entry is `NAME:ROLE:sha256-` and a digest in hexadecimal, or, for earlier clients, a key in plain text: it is
    called `key-` and its place in the list, and may do everything.
    """
    keys = tuple(parse_key(entry, place) for place, entry in enumerate(entries, 1))
    if len({key.digest for key in keys}) < len(keys):
        raise ValueError("names a key twice")
    if len({key.name for key in keys}) < len(keys):
        raise ValueError("has two keys of one name")
    return keys


def parse_key(entry: str, place: int) -> ApiKey:
    """Return the key that an entry names; raises ValueError."""
    if named := NAMED.fullmatch(entry):
        return ApiKey(named[1], Role(named[2]), bytes.fromhex(named[3]))
    if entry.startswith(REFERENCES):
        raise ValueError(
            f"has an entry, number {place}, that says where a key is found, as secrets of sources may; a key stands"
            " there itself, or better the digest of it that `replayforge keys new` prints, which is no secret"
        )
    if SEEMS_NAMED.match(entry):
        raise ValueError(
            f"has an entry, number {place}, that looks like a named key and is none: those are NAME:ROLE:sha256- and 64"
            f" hexadecimal digits, a role is one of {', '.join(Role)}, and `replayforge keys new` prints them"
        )
    return ApiKey(f"key-{place}", Role.ADMIN, digest_of(entry))


def is_digest(entry: str) -> bool:
    """Tell whether an entry holds a digest, and not the key itself."""
    return NAMED.fullmatch(entry) is not None


def digest_of(key: str) -> bytes:
    """Return what is kept of a key; bytes that are not UTF-8 arrive as surrogates."""
    return hashlib.sha256(key.encode(errors="backslashreplace")).digest()


def new_key(name: str, role: Role) -> tuple[str, ApiKey]:
    """Return a fresh key in plain text, and what stands for it."""
    key = f"rf_{secrets.token_urlsafe(KEY_BYTES)}"
    return key, ApiKey(name, role, digest_of(key))


def matching_key(shown: str, keys: tuple[ApiKey, ...]) -> ApiKey | None:
    """Return the key that somebody shows, found in a time that says nothing about the others."""
    digest = digest_of(shown)
    found = [key for key in keys if hmac.compare_digest(digest, key.digest)]
    return found[0] if found else None
