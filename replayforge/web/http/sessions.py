"""Who is signed in to the pages: random tokens that mean nothing to anybody else, until they are given back."""

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from time import monotonic

SESSION_SECONDS = 30 * 86_400
SESSIONS_MAX = 10_000


@dataclass(frozen=True, slots=True)
class Session:
    """The key somebody signed in with, and when that ends on the monotonic clock."""

    key: str
    ends_at: float


class Sessions:
    """The sessions of this process: they end when somebody signs out, with their key, in time, and with the process.

    Only digests of the tokens are kept. Beyond `SESSIONS_MAX` the oldest one ends.
    """

    def __init__(self) -> None:
        self.by_digest: dict[bytes, Session] = {}

    def begin(self, key: str) -> str:
        """Return the token of a new session."""
        token = secrets.token_urlsafe(32)
        while len(self.by_digest) >= SESSIONS_MAX:
            del self.by_digest[next(iter(self.by_digest))]
        self.by_digest[digest_of(token)] = Session(key, monotonic() + SESSION_SECONDS)
        return token

    def fits(self, token: str, keys: tuple[str, ...]) -> bool:
        """Tell whether a token is that of a session whose key is still one of those configured."""
        digest = digest_of(token)
        session = self.by_digest.get(digest)
        if session is not None and session.ends_at <= monotonic():
            del self.by_digest[digest]
            session = None
        return session is not None and session.key in keys

    def end(self, token: str) -> None:
        """End a session; a token of none is passed over."""
        self.by_digest.pop(digest_of(token), None)


def digest_of(token: str) -> bytes:
    """Return what is kept of a token."""
    return hashlib.sha256(token.encode(errors="backslashreplace")).digest()


def matching_key(shown: str, keys: tuple[str, ...]) -> str | None:
    """Return the configured key that somebody shows, found in a time that says nothing about the others."""
    given = shown.encode(errors="backslashreplace")  # bytes that are not UTF-8 arrive as surrogates
    found = [key for key in keys if hmac.compare_digest(given, key.encode())]
    return found[0] if found else None
