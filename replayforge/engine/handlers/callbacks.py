"""The URLs by which an endpoint speaks to the attempt that asks it, and who listens to them while it is being asked."""

import base64
import contextlib
import hashlib
import hmac
from asyncio import Future, Queue, get_running_loop
from collections.abc import Awaitable, Callable, Iterator

from replayforge.domain.errors import Conflict, Rejected
from replayforge.engine.handlers.step_messages import ReportedStep

Report = tuple[ReportedStep, ...]
CALLBACK_PATHS = "/steps/"


class Listener:
    """Hands what an endpoint reports before it answers to the attempt that asked it.

    `journal` is what the endpoint may fetch meanwhile; `fresh` counts the steps that were recorded in this way.
    """

    def __init__(self, journal: bytes, record: Callable[[Report], Awaitable[int]]) -> None:
        self.journal = journal
        self.record = record
        self.fresh = 0
        self.inbox: Queue[tuple[Report, Future[None]] | None] = Queue()
        self.waiting: set[Future[None]] = set()

    async def report(self, did: Report) -> None:
        """Return once the steps are durable. Raises Conflict when the attempt ends before, Rejected for wrong ones."""
        future: Future[None] = get_running_loop().create_future()
        self.waiting.add(future)
        self.inbox.put_nowait((did, future))
        try:
            await future
        finally:
            self.waiting.discard(future)

    async def serve(self) -> None:
        """Record what is reported, in order and in the attempt's own name, until `finish`."""
        while (reported := await self.inbox.get()) is not None:
            did, future = reported
            try:
                self.fresh += await self.record(did)
            except ValueError as error:
                answer(future, Rejected(str(error)))
            else:
                answer(future)

    def finish(self) -> None:
        """Record what was reported by now, and nothing more."""
        self.inbox.put_nowait(None)

    def close(self) -> None:
        """Tell those who still wait that the attempt has ended."""
        for future in list(self.waiting):
            answer(future, lapsed())


class Callbacks:
    """Makes the callback URLs of a daemon's attempts, and knows who listens to them.

    They carry a signature of event and lease token, so they need no key of the API, and nobody can make one for another
    event. The key that signs them is the store's: it outlasts a restart, and the daemons that share a store share it,
    so that each can tell an old URL from a forged one. Whether the lease stands is not for the signature to say.
    """

    def __init__(self) -> None:
        self.key = b""
        self.base_url = ""
        self.listeners: dict[tuple[str, int], Listener] = {}

    def sign_with(self, key: bytes) -> None:
        """Have URLs signed with a key."""
        self.key = key

    def lead_to(self, base_url: str) -> None:
        """Have URLs begin with this; as long as nobody has said that there are none."""
        self.base_url = base_url

    def url(self, event_id: str, token: int, what: str) -> str | None:
        """Return the URL at which an endpoint finds something of an attempt; None where the daemon has no port."""
        if not self.base_url:
            return None
        return f"{self.base_url}{CALLBACK_PATHS}{event_id}/{token}/{self.signature(event_id, token)}/{what}"

    def signature(self, event_id: str, token: int) -> str:
        """Return what only we can make of an event and a lease token."""
        digest = hmac.digest(self.key, f"{event_id}.{token}".encode(), hashlib.sha256)
        return base64.urlsafe_b64encode(digest).decode().rstrip("=")

    def is_ours(self, event_id: str, token: int, signature: str) -> bool:
        """Tell whether a URL was made by us."""
        return hmac.compare_digest(self.signature(event_id, token).encode(), signature.encode())

    @contextlib.contextmanager
    def listening(self, event_id: str, token: int, listener: Listener) -> Iterator[None]:
        """Have the URLs of an attempt lead to a listener for a while."""
        self.listeners[event_id, token] = listener
        try:
            yield
        finally:
            del self.listeners[event_id, token]
            listener.close()

    def listener(self, event_id: str, token: int) -> Listener | None:
        """Return who listens to the URLs of an attempt; nobody does when its endpoint is not being asked here."""
        return self.listeners.get((event_id, token))


def lapsed() -> Conflict:
    """Return what an endpoint hears whose attempt has ended."""
    return Conflict(
        "The attempt with this lease token has ended, or its endpoint has answered: nothing more is recorded for it."
        " Stop; the event goes on by itself."
    )


def answer(future: Future[None], error: Exception | None = None) -> None:
    """Let whoever waits go on, unless they have given up."""
    if future.done():
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)
