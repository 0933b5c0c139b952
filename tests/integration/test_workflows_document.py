"""What the guide says of workflows: its snippets are run as they stand there."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import replayforge
from replayforge.testing import Forge

DOCUMENT = (Path(replayforge.__file__).parent / "docs" / "workflows.md").read_text(encoding="utf-8")
SCAN = {"number": "parcel-1"}


@pytest.fixture(scope="module")
def snippets() -> dict[str, Any]:
    """All snippets of the document, as one module."""
    names: dict[str, Any] = {}
    for snippet in re.findall(r"^```python\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL):
        exec(snippet, names)
    return names


@pytest.mark.parametrize(
    ("name", "payload", "scans", "result", "effects"),
    [
        ("step", {}, 0, ["reserve done", "charge done"], ["reserve", "charge"]),
        ("group", {"items": ["a", "b"]}, 0, ["a done", "b done"], ["a", "b"]),
        ("compensation", {}, 0, {"ended": "not paid", "why": "charge is refused"}, ["reserve", "release"]),
        ("waits", {}, 1, {"parcel": "parcel-1"}, []),
        ("time-out", {}, 0, "refund done", ["refund"]),
        ("first", {}, 1, ["scan", SCAN], []),
        ("first", {}, 0, ["late", None], []),
        ("restart", {}, 0, "3 pages", ["page 1", "page 2", "page 3"]),
        ("plain", {}, 0, ["reserve done", "ship done"], ["reserve", "ship"]),
    ],
)
async def test_a_snippet(
    snippets: dict[str, Any], name: str, payload: Any, scans: int, result: Any, effects: Sequence[str]
) -> None:
    """A workflow of the guide ends as the text beside it says, though its daemon is killed on the way."""
    snippets["done"].clear()
    async with Forge(snippets["handlers"]) as forge:
        event = await forge.send(f"show.{name}", payload)
        await forge.settled()
        await forge.restart()
        for _ in range(scans):
            await forge.send("parcel.scanned", SCAN)
        await forge.advance(days=20)
        assert event.result == result, event.last_error
    assert snippets["done"] == effects


async def test_the_snippets_with_values_that_nobody_can_foretell(snippets: dict[str, Any]) -> None:
    """Keys of steps differ, children are made once and their outcome comes back, values are of the kinds named."""
    async with Forge(snippets["handlers"]) as forge:
        first, again = (await (await forge.send("show.keys")).ended()).result
        assert first != again
        parent = await (await forge.send("show.children")).ended()
        (mail,) = await forge.events("email.wanted")
        assert parent.result == [mail.id, {"invoice_for": parent.id}]
        at, number, name = (await (await forge.send("show.values")).ended()).result
        assert (at, float(number) < 1, len(name)) == (forge.now.isoformat(), True, 36)


async def test_the_snippet_with_subscribers(snippets: dict[str, Any]) -> None:
    """Each gets an event of its own."""
    snippets["done"].clear()
    async with Forge(snippets["handlers"]) as forge:
        parent = await (await forge.send("show.subscribed")).ended()
        await forge.settled()
        assert parent.result["children"].keys() == {"crm", "mail"}
    assert sorted(snippets["done"]) == ["crm", "mail"]


async def test_the_snippet_that_is_cancelled(snippets: dict[str, Any]) -> None:
    """A cancel is heard where the handler waits, and undone what had been done."""
    snippets["done"].clear()
    async with Forge(snippets["handlers"]) as forge:
        event = await forge.send("show.cancel")
        await forge.settled()
        await forge.do(forge.daemon.replayer.cancel(event.id, "no longer wanted"))
        assert (await event.ended()).status == "cancelled"
    assert snippets["done"] == ["reserve", "release"]


def test_every_snippet_is_run(snippets: dict[str, Any]) -> None:
    """No handler of the document is left out above."""
    shown = {handler.pattern for handler in snippets["handlers"].registered if handler.subscriber is None}
    run = set(re.findall(r"show\.[\w-]+", Path(__file__).read_text(encoding="utf-8"))) | {
        f"show.{mark}" for mark in re.findall(r'^        \("([\w-]+)", \{', Path(__file__).read_text(), re.MULTILINE)
    }
    assert shown - run == {"invoice.make", "email.wanted"}
