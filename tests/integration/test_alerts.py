"""Alerts of a daemon: each condition as its receiver hears of it, receivers that are away, and what people see."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from replayforge.domain.errors import Refused
from replayforge.domain.event import Event
from replayforge.domain.webhook_presets import PRESETS
from replayforge.domain.webhook_signature import WebhookDelivery, key_of, refusal_of
from replayforge.engine.handlers.context import Context
from replayforge.engine.handlers.registry import Handlers
from replayforge.testing import Crashed, Forge
from tests.support.polling import persist

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
COMMAND = "import sys; open(sys.argv[1], 'a').write(sys.stdin.read() + chr(10))"


@dataclass
class Receiver:
    """Whoever is told: it answers each message with the next of `statuses`, then with 200."""

    url: str = ""
    statuses: list[int] = field(default_factory=list)
    requests: list[tuple[dict[str, str], bytes]] = field(default_factory=list)

    async def receive(self, request: web.Request) -> web.Response:
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.requests.append((headers, await request.read()))
        return web.Response(status=self.statuses.pop(0) if self.statuses else 200, text="said by the receiver")

    @property
    def messages(self) -> list[dict[str, Any]]:
        return [json.loads(body) for _, body in self.requests]

    def told(self) -> list[str]:
        """Return what it was told since it was last asked, in brief."""
        brief = [f"{one['alert']} {one['state']} {one['subject']}".strip() for one in self.messages]
        self.requests.clear()
        return brief

    def alert(self, when: str, **options: Any) -> dict[str, Any]:
        """Return the configuration of an alert that it is told of."""
        return {"name": when.replace("_", "-"), "when": when, "url": self.url, "allow_private": True} | options


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    app = web.Application()
    app.router.add_post("/secret-path", receiver.receive)
    async with TestServer(app, host="127.0.0.1") as server:
        receiver.url = str(server.make_url("/secret-path"))
        yield receiver


def handlers() -> Handlers:
    handlers = Handlers()

    @handlers.on("fails", max_attempts=1)
    async def fails(event: Event, context: Context) -> None:
        raise RuntimeError("no money")

    @handlers.on("fails.somehow", max_attempts=1)
    async def fails_somehow(event: Event, context: Context) -> None:
        raise RuntimeError(event.payload)

    @handlers.on("charge", on_crash="hold")
    async def charge(event: Event, context: Context) -> None: ...

    return handlers


async def look(forge: Forge, seconds: float = 6) -> None:
    """Let some time go by, and have the alerter look and tell."""
    await forge.advance(seconds=seconds)
    await forge.do(forge.daemon.alerter.tick())


async def test_dead_letters_are_told_once_when_they_begin_and_once_when_they_end(receiver: Receiver) -> None:
    """The message is signed, and says what is the matter; a new error is told by its signature."""
    alerts = [receiver.alert("dead_letters", secret=SECRET), receiver.alert("new_error_signature")]
    async with Forge(handlers(), settings={"alerts": alerts}) as forge:
        await look(forge)
        assert receiver.told() == []
        event = await forge.send("fails")
        await look(forge)
        (headers, body), *_ = receiver.requests
        message = json.loads(body)
        assert (message["alert"], message["when"], message["state"]) == ("dead-letters", "dead_letters", "began")
        assert (message["detail"], message["ended_at"]) == ("1 dead letter waits for a decision.", None)
        assert headers["webhook-id"] == message["id"]
        standard = PRESETS["standard-webhooks"]
        delivery = WebhookDelivery(receiver.url, headers, body)
        assert refusal_of(standard, [key_of(standard, SECRET)], delivery, int(headers["webhook-timestamp"])) is None
        assert receiver.told() == ["dead-letters began", "new-error-signature began RuntimeError: no money"]
        await look(forge)
        assert receiver.told() == []
        await forge.daemon.replayer.discard(event.id, "enough")
        await look(forge)
        ids = [one["id"].partition(".")[0] for one in receiver.messages]
        assert ids[0] == message["id"].partition(".")[0]
        assert receiver.messages[0]["ended_at"] > receiver.messages[0]["began_at"]
        assert receiver.told() == ["dead-letters ended", "new-error-signature ended RuntimeError: no money"]


async def test_a_rare_new_error_is_told_among_many_frequent_ones(receiver: Receiver) -> None:
    """Those that are not new may be as many, and as frequent, as they like; of many new ones the first 20 are told."""
    words = ["".join(letters) for letters in product("abcdefgh", repeat=3)]
    async with Forge(handlers(), settings={"alerts": [receiver.alert("new_error_signature")]}) as forge:
        for word in words[:101] * 2:
            await forge.send("fails.somehow", word)
        await forge.advance(seconds=3700)
        await look(forge)
        assert receiver.told() == []
        await forge.send("fails.somehow", "rare")
        await look(forge)
        assert receiver.told() == ["new-error-signature began RuntimeError: rare"]
        for word in words[101:141]:
            await forge.send("fails.somehow", word)
        await look(forge)
        assert receiver.told() == [f"new-error-signature began RuntimeError: {word}" for word in words[101:120]]


async def test_what_is_held_or_was_forgotten_is_told(receiver: Receiver) -> None:
    """A pause that nobody ended, an event in doubt, and a disk that fills."""
    alerts = [
        receiver.alert("handler_paused", above_seconds=60),
        receiver.alert("held"),
        receiver.alert("disk_low", below_bytes=1 << 60),
    ]
    async with Forge(handlers(), settings={"alerts": alerts}) as forge:
        node = forge.daemon.store.node
        await look(forge)
        assert receiver.told() == [f"disk-low began {node}"]
        forge.crash_at("attempt.started")
        await forge.send("charge")
        await forge.crashed()
        await forge.restart()
        await look(forge)
        assert receiver.told() == ["held began"]
        await forge.daemon.pause_controller.pause("fails", "the bank is down", "me")
        await look(forge, 40)
        assert receiver.told() == []
        await look(forge, 40)
        assert receiver.told() == ["handler-paused began fails"]
        await forge.daemon.pause_controller.resume("fails")
        await look(forge)
        assert receiver.told() == ["handler-paused ended fails"]


async def test_an_event_that_waits_for_a_worker_is_told(receiver: Receiver) -> None:
    """The only worker is busy, and goes on once the alert was told."""
    handlers, told = Handlers(), asyncio.Event()

    @handlers.on("slow")
    async def slow(event: Event, context: Context) -> None:
        await told.wait()

    alert = receiver.alert("oldest_waiting", above_seconds=30)
    async with Forge(handlers, settings={"alerts": [alert], "workers.count": 1}) as forge:
        for _ in range(20):  # more than are claimed beforehand
            await forge.send("slow")

        async def one_waits() -> bool:
            return (await forge.daemon.store.standing(forge.clock.now_us(), 0)).oldest_queued_us is not None

        assert await persist(one_waits)
        forge.clock.move_to(forge.clock.now_us() + 40_000_000)
        await forge.do(forge.daemon.alerter.tick())
        assert receiver.told() == ["oldest-waiting began"]
        told.set()
        await look(forge)
        assert receiver.told() == ["oldest-waiting ended"]


async def test_a_ledger_that_is_not_clean_is_told(receiver: Receiver) -> None:
    """A row that somebody removes behind the daemon's back is an event that is lost."""
    async with Forge(handlers(), settings={"alerts": [receiver.alert("ledger_not_clean")]}) as forge:
        await forge.send("charge")
        await look(forge)
        assert receiver.told() == []
        await forge.daemon.store.driver.run_script("DELETE FROM events;")
        await look(forge)
        assert receiver.told() == ["ledger-not-clean began lost"]


async def test_a_receiver_that_is_away_is_tried_again_and_shown(receiver: Receiver) -> None:
    """The page, readiness, the API and the metrics say so, without the path of its URL, until it has been told."""
    forge = Forge(handlers(), settings={"alerts": [receiver.alert("dead_letters")]}, serve=True)
    async with forge, aiohttp.ClientSession(forge.url) as http:

        async def text(path: str) -> str:
            async with http.get(path) as answer:
                assert answer.status == 200
                return await answer.text()

        receiver.statuses = [500, 500]
        await forge.send("fails")
        await look(forge)
        assert receiver.told() == ["dead-letters began"]
        ready = json.loads(await text("/health/ready"))
        assert (ready["status"], ready["checks"]["alerts"]["status"]) == ("degraded", "degraded")
        assert ready["checks"]["alerts"]["detail"] == "dead-letters"
        page = await text("/runtime")
        assert "answered 500 Internal Server Error: said by the receiver" in page
        assert "secret-path" not in page
        assert 'replayforge_alerts_undelivered_total{alert="dead-letters"} 1' in await text("/metrics")
        (shown,) = json.loads(await text("/api/alerts"))["items"]
        assert (shown["status"], shown["receiver"]) == ("active", receiver.url.removesuffix("/secret-path"))
        assert [(one["said"], one["failures"]) for one in shown["subjects"]] == [("nothing", 1)]
        await look(forge, 2)
        assert receiver.told() == ["dead-letters began"]
        await look(forge, 1)
        assert receiver.told() == []  # the third try follows two seconds after the second
        await look(forge, 2)
        assert receiver.told() == ["dead-letters began"]
        assert json.loads(await text("/health/ready"))["checks"]["alerts"]["status"] == "ok"


async def test_a_command_is_told_on_its_standard_input(tmp_path: Path) -> None:
    """One that fails, is not there or does not end has not been told, and it is said why."""
    heard = tmp_path / "heard.ndjson"
    commands = {
        "hears": [sys.executable, "-c", COMMAND, str(heard)],
        "fails": [sys.executable, "-c", "import sys; sys.exit('no pager here')"],
        "missing": [str(tmp_path / "missing")],
        "hangs": [sys.executable, "-c", "import time; time.sleep(60)"],
    }
    alerts = [
        {"name": name, "when": "dead_letters", "command": command, "timeout_seconds": 0.3 if name == "hangs" else 20}
        for name, command in commands.items()
    ]
    async with Forge(handlers(), settings={"alerts": alerts}) as forge:
        await forge.send("fails")
        await look(forge)
        (message,) = map(json.loads, heard.read_text().split("\n")[:-1])
        assert (message["alert"], message["state"]) == ("hears", "began")
        failures = forge.daemon.status.alert_failures
        assert failures.keys() == {"fails", "missing", "hangs"}
        assert failures["fails"].endswith("ended with code 1: no pager here")
        assert "cannot be run" in failures["missing"]
        assert "had not ended after 0.3 s" in failures["hangs"]


async def test_a_test_message_says_that_it_is_one(receiver: Receiver) -> None:
    """It is sent at once and changes nothing; what went wrong is answered."""
    forge = Forge(handlers(), settings={"alerts": [receiver.alert("held")]}, serve=True)
    async with forge, aiohttp.ClientSession(forge.url) as http:

        async def test(name: str) -> tuple[int, Any]:
            async with http.post(f"/api/alerts/{name}/test") as answer:
                return answer.status, await answer.json()

        assert await test("held") == (200, {"name": "held", "delivered": True, "error": None})
        assert receiver.told() == ["held test"]
        receiver.statuses = [410]
        status, answer = await test("held")
        assert (status, answer["delivered"]) == (200, False)
        assert "answered 410 Gone" in answer["error"]
        assert (await test("nobody"))[0] == 404


@pytest.mark.parametrize("point", ["alert.recorded", "alert.delivered"])
async def test_a_death_around_a_message_repeats_it_under_one_id(receiver: Receiver, point: str) -> None:
    """Recorded before it is said: said at least once, and a repeat is known by its id."""
    async with Forge(handlers(), settings={"alerts": [receiver.alert("dead_letters")]}) as forge:
        await forge.send("fails")
        forge.crash_at(point)
        with pytest.raises(Crashed):
            await look(forge)
        await forge.restart()
        await look(forge)
        await look(forge)
        assert {one["id"] for one in receiver.messages} == {receiver.messages[0]["id"]}
        assert len(receiver.messages) == (1 if point == "alert.recorded" else 2)


async def test_an_address_that_may_not_be_had_is_refused_at_the_start(receiver: Receiver) -> None:
    alert = receiver.alert("held", allow_private=False)
    with pytest.raises(Refused, match=r"The alert 'held' cannot be used: .* set allow_private = true"):
        async with Forge(handlers(), settings={"alerts": [alert]}):
            pass
