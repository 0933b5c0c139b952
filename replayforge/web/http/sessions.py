"""Who is signed in to the pages: signed random tokens that hold no key and end with the one they were begun with."""

import base64
import hashlib
import hmac
import secrets
from time import time

from replayforge.domain.api_keys import ApiKey

SESSION_SECONDS = 30 * 86_400


class Sessions:
    """Makes the tokens of sessions and tells whose they are.

    A token is the name of its key, when it ends, a random value, and a signature over these and the key's digest. So it
    outlasts a restart, holds for every daemon on the store, whose secret signs it, and is worth nothing once its key
    was removed or replaced. Those that were signed out are remembered until they would have ended.
    """

    def __init__(self, store_secret: bytes) -> None:
        # Other things are signed with the store's secret: none of those signatures can be taken for one of these.
        self.secret = hmac.digest(store_secret, b"sessions of pages", hashlib.sha256)
        self.ended: dict[str, int] = {}

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

    def end(self, token: str, keys: tuple[ApiKey, ...]) -> None:
        """End a session; a token of none is passed over."""
        if self.key_of(token, keys) is None:
            return
        _, ends_at, value = token.rpartition(".")[0].split(".")
        now = time()
        self.ended = {value: ends_at for value, ends_at in self.ended.items() if ends_at > now} | {value: int(ends_at)}

    def signature(self, claim: str, key: ApiKey) -> str:
        """Return what only the daemons on this store can make of a claim and a key."""
        signed = claim.encode(errors="backslashreplace") + b"." + key.digest
        return base64.urlsafe_b64encode(hmac.digest(self.secret, signed, hashlib.sha256)).decode().rstrip("=")
