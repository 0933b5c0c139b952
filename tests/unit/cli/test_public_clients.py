"""The clients that users write with, and a daemon that fails: what they try again, and with which key."""

import asyncio
from collections.abc import Callable

import msgspec
import pytest

from replayforge import AsyncClient, Client, Unreachable
from tests.unit.cli.fake_api import FakeApi, hang_up, refusing


def through_a_client(url: str) -> str:
    with Client(url, retry_seconds=5) as client:
        return client.send("order.placed", {"number": 1}).id


def through_a_loop(url: str) -> str:
    async def send() -> str:
        async with AsyncClient(url, retry_seconds=5) as client:
            return (await client.send("order.placed", {"number": 1})).id

    return asyncio.run(send())


@pytest.mark.parametrize("send", [through_a_client, through_a_loop])
def test_what_can_pass_is_tried_again_with_the_same_key(api: FakeApi, send: Callable[[str], str]) -> None:
    """A broken connection and a refusal for now are outlived, and each try is the same event."""
    api.faults = [hang_up, refusing(503, "Draining", retry_after="0"), refusing(429, "Busy")]
    send(api.url)
    keys = [msgspec.json.decode(body)["idempotency_key"] for body in api.bodies]
    assert (len(keys), len(set(keys))) == (4, 1)


@pytest.mark.parametrize("send", [through_a_client, through_a_loop])
def test_nobody_there_is_said_once_the_patience_is_over(
    send: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a daemon the call ends, with an error that says where none answers."""
    monkeypatch.setattr("replayforge.client.retry_budget.FIRST_WAIT_SECONDS", 4.9)
    with pytest.raises(Unreachable, match=r"No daemon answers at http://127\.0\.0\.1:1 "):
        send("http://127.0.0.1:1")


def test_the_environment_says_where(monkeypatch: pytest.MonkeyPatch, api: FakeApi) -> None:
    """Address and key come from the environment where the code names none."""
    monkeypatch.setenv("REPLAYFORGE_URL", api.url)
    monkeypatch.setenv("REPLAYFORGE_API_KEY", "secret")
    with Client() as client:
        client.send("order.placed")
    assert api.headers[0]["X-API-Key"] == "secret"
