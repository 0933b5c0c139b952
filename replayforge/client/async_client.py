"""`replayforge.AsyncClient`: what `Client` does, from code that runs on an event loop."""

import time
from asyncio import sleep
from collections.abc import AsyncIterator, Iterable, Mapping
from types import TracebackType
from typing import Any, Self, TypeVar

import aiohttp
from yarl import URL

from replayforge.client import calls
from replayforge.client.calls import Call, Delay, Request, Sent
from replayforge.client.http import JSON, TIMEOUT_SECONDS, ClientConnection, Problem, Reply, Unreachable, checked
from replayforge.client.retry_budget import RetryBudget
from replayforge.client.sync_client import RETRY_SECONDS, address

T = TypeVar("T")


class AsyncClient:
    """`async with AsyncClient() as client`; each call is that of Client, awaited. Tasks of one loop may share it."""

    def __init__(
        self,
        url: str | None = None,
        api_key: str | None = None,
        *,
        timeout_seconds: float = TIMEOUT_SECONDS,
        retry_seconds: float = RETRY_SECONDS,
    ) -> None:
        self.url, key = address(url, api_key)
        self.target = ClientConnection(self.url, key)
        self.timeout = aiohttp.ClientTimeout(total=timeout_seconds)
        self.retry_seconds = retry_seconds

    async def __aenter__(self) -> Self:
        self.session = aiohttp.ClientSession(headers=self.target.headers, timeout=self.timeout)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.session.close()

    async def send(self, event_type: str, payload: Any = None, **fields: Any) -> Sent:
        """Send an event, as Client.send does."""
        return await self.drive(calls.send(calls.event_document(event_type, payload, fields), self.budget()))

    async def send_many(self, events: Iterable[Mapping[str, Any]]) -> list[Sent | Problem]:
        """Send events, as Client.send_many does."""
        return await self.drive(calls.send_many(events, self.budget()))

    async def result(self, event_id: str, timeout_seconds: float = 30.0) -> Any:
        """Wait until an event has ended, as Client.result does."""
        return await self.drive(calls.result(event_id, timeout_seconds, self.budget(), time.monotonic))

    async def event(self, event_id: str) -> dict[str, Any]:
        """Return all that is known of an event, as Client.event does."""
        return await self.drive(calls.event(event_id, self.budget()))

    async def events(self, **filters: Any) -> AsyncIterator[dict[str, Any]]:
        """Yield events, as Client.events does."""
        cursor = None
        while True:
            page = await self.drive(calls.page(filters, cursor, self.budget()))
            for event in page["items"]:
                yield event
            cursor = page["next_cursor"]
            if cursor is None:
                return

    async def replay(
        self, event_id: str, *, payload: Any = None, reason: str | None = None, force: bool = False
    ) -> Sent:
        """Begin a new run of an event, as Client.replay does."""
        asked = {"payload": payload, "reason": reason, "force": force or None}
        return await self.drive(calls.replay(event_id, asked, self.budget()))

    def budget(self) -> RetryBudget:
        """Return what a call may spend on trying again."""
        return RetryBudget(self.retry_seconds)

    async def drive(self, call: Call[T]) -> T:
        """Carry a call out."""
        step = next(call)
        while True:
            try:
                if isinstance(step, Delay):
                    await sleep(step.seconds)
                    step = next(call)
                else:
                    try:
                        reply = await self.request(step)
                    except (Problem, Unreachable) as error:
                        step = call.throw(error)
                    else:
                        step = call.send(reply)
            except StopIteration as end:
                value: T = end.value
                return value

    async def request(self, request: Request) -> Reply:
        """Carry out one request."""
        headers = {"Content-Type": JSON, **request.headers} if request.body is not None else request.headers
        url = self.target.root + request.target
        try:
            async with self.session.request(
                request.method, URL(url, encoded=True), data=request.body, headers=headers, allow_redirects=False
            ) as response:
                body = await response.read()
        except (aiohttp.ClientError, OSError) as error:
            sent = not isinstance(error, aiohttp.ClientConnectorError)
            raise Unreachable(self.url, error, sent=sent) from error
        return checked(Reply(response.status, body, {name.lower(): value for name, value in response.headers.items()}))
