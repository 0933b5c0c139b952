"""`replayforge.Client` and `AsyncClient`, spoken to by a daemon: each call, in both, and what they outlive."""

import asyncio
import os
import threading
from collections.abc import AsyncIterator
from http.client import HTTPConnection
from typing import Any

import pytest

from replayforge import AsyncClient, Client, Context, Event, Handlers, NotSucceeded, Permanent, Problem
from replayforge.client.http import ClientConnection
from replayforge.testing import Forge

handlers = Handlers()


@handlers.on("*")
async def work(event: Event, context: Context) -> Any:
    if event.event_type == "refused":
        raise Permanent("the card is stolen")
    return {"doubled": event.payload["number"] * 2}


@handlers.on("slow")
async def never_end(event: Event, context: Context) -> None:
    await asyncio.Event().wait()


@pytest.fixture
async def forge() -> AsyncIterator[Forge]:
    async with Forge(handlers, serve=True) as forge:
        yield forge


def story_of_ordinary_code(url: str) -> list[Any]:
    """Make every call of a Client and return what came back."""
    with Client(url, retry_seconds=5) as client:
        first = client.send("order.placed", {"number": 4}, idempotency_key="k", workflow_id="w")
        again = client.send("order.placed", {"number": 4}, idempotency_key="k", workflow_id="w")
        results = [client.result(first.id)]
        many = client.send_many({"event_type": kind, "payload": {"number": 5}} for kind in ("more", "", "more"))
        results += [client.result(one.id) for one in many if not isinstance(one, Problem)]
        refused = client.send("refused")
        with pytest.raises(NotSucceeded, match=r"is dead_lettered: .*the card is stolen") as failure:
            client.result(refused.id)
        with pytest.raises(TimeoutError, match=r"has not ended within 0\.01 s"):
            client.result(client.send("slow").id, timeout_seconds=0.01)
        with pytest.raises(Problem, match="already names event") as problem:
            client.send("order.placed", {"number": 5}, idempotency_key="k", workflow_id="w")
        assert (problem.value.type, problem.value.event_id) == ("urn:replayforge:idempotency-key-reused", first.id)
        with pytest.raises(Problem, match="no event"):
            client.event("00000000-0000-8000-8000-000000000000")
        replays = [client.replay(refused.id, reason="again"), client.replay(first.id, payload={"number": 6})]
        results.append(client.result(replays[1].id))
        listed = [event["id"] for event in client.events(event_type="more")]
        runs = client.event(refused.id)["run"]
    return [first, again, results, many, failure.value.event["status"], replays, listed, runs]


async def story_of_a_loop(url: str) -> list[Any]:
    """Make every call of an AsyncClient and return what came back."""
    async with AsyncClient(url, retry_seconds=5) as client:
        first = await client.send("order.placed", {"number": 4}, idempotency_key="k", workflow_id="w")
        again = await client.send("order.placed", {"number": 4}, idempotency_key="k", workflow_id="w")
        results = [await client.result(first.id)]
        many = await client.send_many({"event_type": kind, "payload": {"number": 5}} for kind in ("more", "", "more"))
        results += [await client.result(one.id) for one in many if not isinstance(one, Problem)]
        refused = await client.send("refused")
        with pytest.raises(NotSucceeded, match=r"is dead_lettered: .*the card is stolen") as failure:
            await client.result(refused.id)
        with pytest.raises(TimeoutError, match=r"has not ended within 0\.01 s"):
            await client.result((await client.send("slow")).id, timeout_seconds=0.01)
        with pytest.raises(Problem, match="no event"):
            await client.event("00000000-0000-8000-8000-000000000000")
        replays = [
            await client.replay(refused.id, reason="again"),
            await client.replay(first.id, payload={"number": 6}),
        ]
        results.append(await client.result(replays[1].id))
        listed = [event["id"] async for event in client.events(event_type="more")]
        runs = (await client.event(refused.id))["run"]
    return [first, again, results, many, failure.value.event["status"], replays, listed, runs]


@pytest.mark.parametrize("kind", ["ordinary code", "a loop"])
async def test_each_call_says_what_the_daemon_did(forge: Forge, kind: str) -> None:
    """Sending, asking for results, listing and replaying come to what the API says, the same in both clients."""
    story = story_of_a_loop(forge.url) if kind == "a loop" else asyncio.to_thread(story_of_ordinary_code, forge.url)
    first, again, results, many, ended, replays, listed, run = await story
    assert (first.duplicate, again.id, again.duplicate) == (False, first.id, True)
    assert results == [{"doubled": 8}, {"doubled": 10}, {"doubled": 10}, {"doubled": 12}]
    assert [isinstance(one, Problem) for one in many] == [False, True, False]
    assert "event_type" in str(many[1])
    assert listed == [many[2].id, many[0].id]
    assert ended == "dead_lettered"
    assert run == 2
    assert replays[0].id != first.id != replays[1].id


async def test_threads_and_children_have_connections_of_their_own(forge: Forge) -> None:
    """A client may be shared by threads, and used on in a child of a fork, whose requests go their own way."""
    client = Client(forge.url)
    await asyncio.to_thread(client.send, "order.placed", {"number": 1})
    connections: list[ClientConnection] = [client.connection()]
    thread = threading.Thread(target=lambda: connections.append(client.connection()))
    thread.start()
    thread.join()
    assert connections[0] is client.connection() is not connections[1]
    client.own.pid = os.getpid() + 1
    assert client.connection() is not connections[0]
    assert isinstance(connections[0].connection, HTTPConnection)
