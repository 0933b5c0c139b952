"""Several handlers for one event: each subscriber gets a child event of its own, once, whatever happens meanwhile."""

from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest

from replayforge import Context, Event, Handlers, Permanent
from replayforge.domain.admission import EVERYTHING, Pause
from replayforge.domain.errors import Conflict, Rejected
from replayforge.domain.event import Envelope, EventRecord, StoredEvent
from replayforge.domain.identity import new_event_id, subscriber_event_id
from replayforge.testing import Crashed, Forge
from replayforge.testing.sent_event import SentEvent
from tests.support.house import open_house

NAMES = ("crm", "mail", "search")

calls: Counter[str] = Counter()
seen: list[Event] = []
broken: set[str] = set()


@pytest.fixture(autouse=True)
def fresh() -> None:
    calls.clear()
    seen.clear()
    broken.clear()


async def note(event: Event, ctx: Context) -> str:
    """Note who was called; those that are broken fail for good."""
    name = event.subscriber or "nobody"
    calls[name] += 1
    seen.append(event)
    if name in broken:
        raise Permanent(f"{name} is broken")
    return name


def subscribed(names: Iterable[str] = NAMES, *, pattern: str = "push", on: bool = False) -> Handlers:
    handlers = Handlers()
    for name in names:
        handlers.subscribe(pattern, name=name)(note)
    if on:
        handlers.on("push")(note)
    return handlers


def forge(handlers: Handlers, **options: Any) -> Forge:
    return Forge(handlers, settings={"workers.count": 2}, **options)


def row_of(event: SentEvent) -> StoredEvent:
    assert event.row is not None
    return event.row


def subscriber_of(event: SentEvent) -> str | None:
    return row_of(event).subscriber


async def states(daemon: Forge) -> dict[str, str]:
    """How the children stand, by their subscribers."""
    return {name: one.status for one in await daemon.events("push") if (name := subscriber_of(one))}


async def test_each_subscriber_and_the_handler_of_the_type_gets_a_child_of_its_own() -> None:
    async with forge(subscribed(on=True)) as daemon:
        sent = await daemon.send("push", {"n": 1}, metadata={"trace": "t"}, service_name="git", max_attempts=4)
        await daemon.settled()
        children = [one for one in await daemon.events("push") if row_of(one).parent_id == sent.id]
        wanted = {name: subscriber_event_id(sent.id, name) for name in ("on", *NAMES)}
        assert {subscriber_of(one): one.id for one in children} == wanted
        assert sent.result == {"children": wanted}
        assert {one.result for one in children} == calls.keys() == wanted.keys()
        assert {(row_of(one).service_name, row_of(one).max_attempts) for one in children} == {("git", 4)}
        assert {(one.payload_bytes, one.metadata_bytes) for one in seen} == {(b'{"n":1}', b'{"trace":"t"}')}


async def test_one_failing_subscriber_touches_no_other_and_is_replayed_alone() -> None:
    broken.add("mail")
    async with forge(subscribed()) as daemon:
        sent = await daemon.send("push")
        await daemon.settled()
        assert await states(daemon) == {"crm": "succeeded", "mail": "dead_lettered", "search": "succeeded"}
        assert (sent.status, sent.attempt_count) == ("succeeded", 0)
        broken.clear()
        replayer = daemon.daemon.replayer
        done = await replayer.replay_subscribers(sent.id, "failed", "mended", key="once")
        await daemon.settled()
        again = await replayer.replay_subscribers(sent.id, ["mail"], "mended", key="once")
        await daemon.settled()
        assert done.replayed == again.replayed == [subscriber_event_id(sent.id, "mail")]
        assert calls == {"crm": 1, "mail": 2, "search": 1}
        assert len((await replayer.replay_subscribers(sent.id, "all", "all of them")).replayed) == len(NAMES)
        await daemon.settled()
        assert calls == {"crm": 2, "mail": 3, "search": 2}
        with pytest.raises(Rejected, match="went to crm, mail, search, and not to sms"):
            await replayer.replay_subscribers(sent.id, ["sms"], "who")
        with pytest.raises(Conflict, match="say whose event to replay"):
            await daemon.replay(sent, force=True)
        assert len(await daemon.events("push")) == 1 + len(NAMES)


async def test_replaying_a_workflow_replays_what_its_events_have_sent_to_subscribers() -> None:
    broken.add("mail")
    async with forge(subscribed()) as daemon:
        await daemon.send("push")
        await daemon.settled()
        broken.clear()
        done = await daemon.daemon.replayer.replay_workflow("workflow", only="failed", reason="mended")
        await daemon.settled()
        assert (len(done.replayed), calls) == (1, {"crm": 1, "mail": 2, "search": 1})


async def test_an_edited_replay_of_a_subscribers_event_is_for_that_subscriber() -> None:
    async with forge(subscribed()) as daemon:
        await daemon.send("push")
        await daemon.settled()
        child = next(one for one in await daemon.events("push") if subscriber_of(one) == "crm")
        envelope = Envelope(workflow_id="workflow", event_type="push", payload=msgspec.Raw(b'{"edited":true}'))
        await daemon.do(daemon.daemon.intake.accept(envelope, replay_of=row_of(child)))
        await daemon.settled()
        assert calls == {"crm": 2, "mail": 1, "search": 1}


async def test_the_list_is_frozen_when_the_event_is_dispatched(tmp_path: Path) -> None:
    """Who subscribes, or no longer does, before the event's first start gets nothing else by that."""
    handlers = subscribed(["crm", "mail"])
    async with forge(handlers, directory=tmp_path) as daemon:
        await daemon.do(daemon.daemon.store.pause(Pause(EVERYTHING, "not yet", "ann", 1)))
        await daemon.daemon.pause_controller.look()
        sent = await daemon.send("push")
        await daemon.settled()
        assert (sent.status, sent.starts, row_of(sent).subscriber_names) == ("queued", 0, ["crm", "mail"])
        daemon.handlers = subscribed(["mail", "search"])
        await daemon.restart()
        await daemon.do(daemon.daemon.store.resume(EVERYTHING))
        await daemon.daemon.pause_controller.look()
        await daemon.settled()
        assert await states(daemon) == {"crm": "dead_lettered", "mail": "succeeded"}
        assert [one.last_error for one in await daemon.events("push") if subscriber_of(one) == "crm"] == [
            "No handler is registered for events of type 'push' and subscriber 'crm'."
        ]


async def test_an_event_that_was_dispatched_before_anybody_subscribed_goes_to_those_that_do_when_it_runs() -> None:
    async with forge(Handlers()) as daemon:
        sent = await daemon.send("push")
        await daemon.settled()
        assert sent.reason == "no_handler"
        daemon.handlers = subscribed(["crm"])
        await daemon.restart()
        await daemon.replay(sent)
        await daemon.settled()
        assert (sent.status, await states(daemon)) == ("succeeded", {"crm": "succeeded"})


async def test_a_paused_subscriber_waits_and_the_others_go_on() -> None:
    async with forge(subscribed()) as daemon:
        await daemon.do(daemon.daemon.store.pause(Pause("push@mail", "not yet", "ann", 1)))
        await daemon.daemon.pause_controller.look()
        sent = await daemon.send("push")
        await daemon.settled()
        assert sent.status == "succeeded"
        assert await states(daemon) == {"crm": "succeeded", "mail": "queued", "search": "succeeded"}
        await daemon.do(daemon.daemon.store.resume("push@mail"))
        await daemon.daemon.pause_controller.look()
        await daemon.settled()
        assert calls == dict.fromkeys(NAMES, 1)


@pytest.mark.parametrize("point", ["child.appended", "child.appended:2", "child.appended:3", "step.committed:2"])
async def test_a_crash_between_the_children_makes_no_double(point: str) -> None:
    async with forge(subscribed()) as daemon:
        daemon.crash_at(point)
        with suppress(Crashed):
            await daemon.send("push")
        await daemon.crashed()
        await daemon.restart()
        await daemon.settled()
        assert await states(daemon) == dict.fromkeys(NAMES, "succeeded")
        assert len(await daemon.events("push")) == 1 + len(NAMES)


async def test_white_space_around_a_payload_reaches_every_subscriber() -> None:
    async with forge(subscribed(["crm"])) as daemon:
        record = EventRecord(
            id=new_event_id(1), application_name="app", workflow_id="w", event_type="push", created_at_us=1,
            origin="source:git", payload=msgspec.Raw(b"[1]"), before_payload="\n ", after_payload="\r\n",
        )  # fmt: skip
        await daemon.do(daemon.daemon.intake.accept_from(record))
        await daemon.settled()
        assert [one.payload_bytes for one in seen] == [b"\n [1]\r\n"]


async def test_people_see_whose_child_is_whose_and_replay_by_api_and_page(tmp_path: Path) -> None:
    broken.add("mail")
    async with open_house(tmp_path, subscribed()) as house:
        sent = await house.send("push")
        await house.converges()
        event = await house.event(sent)
        children = {one["step"]: one["id"] for one in event["children"]}
        assert children == {name: subscriber_event_id(sent, name) for name in NAMES}
        child = await house.event(children["mail"])
        assert (event["subscribers"], child["subscriber"], child["parent"]["id"]) == ([*NAMES], "mail", sent)
        rows = {one["pattern"]: one for one in (await house.get("/api/handlers"))["items"]}
        assert {one: rows[one]["event_types"] for one in rows} == {"(subscribers)": ""} | {
            f"push@{name}": "push" for name in NAMES
        }
        async with house.http.get(f"/events/{sent}") as response:
            page = await response.text()
        assert all(f"/events/{one}" in page for one in children.values())
        assert "/actions/subscribers" in page
        broken.clear()
        status, answer = await house.post(f"/api/events/{sent}/replay", {"subscribers": "failed"})
        assert (status, answer) == (202, {"id": sent, "replayed": 1, "ids": [children["mail"]], "skipped": {}})
        await house.converges()
        for wrong in ({"subscribers": ["sms"]}, {"subscribers": "some"}, {"subscribers": "all", "payload": {}}):
            assert (await house.post(f"/api/events/{sent}/replay", wrong))[0] == 422
        async with house.http.post("/actions/subscribers", data={"id": sent, "subscribers": "crm"}) as response:
            assert "1 event of its subscribers replayed." in await response.text()
        await house.converges()
    assert calls == {"crm": 2, "mail": 2, "search": 1}
