"""Sessions of the pages: signed random tokens that contain no key and expire when their key is removed."""

import base64
import hashlib
import hmac
import secrets
from collections.abc import Callable
from time import time

from replayforge.domain.api_keys import ApiKey
from replayforge.domain.clock import MICROSECONDS_PER_SECOND
from replayforge.stores.store import Store

SESSION_SECONDS = 30 * 86_400


class Sessions:
    """Makes the tokens of sessions and tells whose they are.

    A token is the name of its key, when it ends, a random value, and a signature over these and the key's digest. So it
    outlasts a restart, holds for every daemon on the store, whose secret signs it, and is worth nothing once its key
    was removed or replaced. Those that were signed out are written down in the store until they would have ended;
    `listeners` are called when there are more of them.
    """

    def __init__(self, store_secret: bytes, store: Store) -> None:
        # Other things are signed with the store's secret: none of those signatures can be taken for one of these.
        self.secret = hmac.digest(store_secret, b"sessions of pages", hashlib.sha256)
        self.store = store
        self.ended: dict[str, int] = {}
        self.listeners: list[Callable[[], None]] = []

    def begin(self, key: ApiKey) -> str:
        """Return the token of a new session."""
        claim = f"{key.name}.{int(time()) + SESSION_SECONDS}.{secrets.token_urlsafe(24)}"
        return f"{claim}.{self.signature(claim, key)}"

    def key_of(self, token: str, keys: tuple[ApiKey, ...]) -> ApiKey | None:
        """Return which of these keys a session was begun with; None for a token that is none of ours, or has ended."""
        claim, _, signature = token.rpartition(".")
        name = claim.partition(".")[0]
        key = next((key for key in keys if key.name == name), None)
        shown = signature.encode(errors="backslashreplace")
        if key is None or not hmac.compare_digest(self.signature(claim, key).encode(), shown):
            return None
        _, ends_at, value = claim.split(".")
        return key if int(ends_at) > time() and value not in self.ended else None

    async def end(self, token: str, keys: tuple[ApiKey, ...]) -> None:
        """End a session for good, on every daemon of the store; a token of none is passed over.

        Raises Unavailable while the store does not answer: then it has not ended.
        """
        if self.key_of(token, keys) is None:
            return
        _, ends_at, value = token.rpartition(".")[0].split(".")
        ends_at_us = int(ends_at) * MICROSECONDS_PER_SECOND
        await self.store.end_session(value, ends_at_us, now_us())
        self.note({value: ends_at_us})

    async def look(self) -> int:
        """Learn which sessions were ended, before this daemon started or on another one; returns how many there are."""
        self.note(await self.store.ended_sessions())
        return len(self.ended)

    def note(self, ended: dict[str, int]) -> None:
        """Let nobody in by these any more; those that would have ended by now are forgotten."""
        now, known = now_us(), self.ended
        self.ended = {value: ends_at_us for value, ends_at_us in (known | ended).items() if ends_at_us > now}
        if self.ended.keys() - known.keys():
            for listener in self.listeners:
                listener()

    def signature(self, claim: str, key: ApiKey) -> str:
        """Return what only the daemons on this store can make of a claim and a key."""
        signed = claim.encode(errors="backslashreplace") + b"." + key.digest
        return base64.urlsafe_b64encode(hmac.digest(self.secret, signed, hashlib.sha256)).decode().rstrip("=")


def now_us() -> int:
    """Return the time that sessions end by."""
    return int(time() * MICROSECONDS_PER_SECOND)
