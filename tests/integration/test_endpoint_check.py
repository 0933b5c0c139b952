"""`endpoint check`: what it says of endpoints with steps that do as they should, and of those that do not."""

import asyncio
import json
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from werkzeug.serving import make_server

import replayforge
from replayforge.cli.main import run
from replayforge.engine.handlers.step_messages import NEXT_TYPE

GUIDE = Path(replayforge.__file__).parent / "docs" / "http_steps.md"

Asked = dict[str, Any]
STEP = {"step": "charge", "ok": 1}


def next_of(step: Asked, *did: Asked) -> web.Response:
    return web.Response(body=json.dumps({"did": did, "next": step}), content_type=NEXT_TYPE)


def right(asked: Asked) -> web.Response:
    """Do everything once."""
    journal = asked["journal"]
    if "charge" not in journal:
        return next_of({"sleep": {"step": "grace", "seconds": 86_400}}, STEP)
    if "parcel" not in journal:
        return next_of({"wait_for": {"step": "parcel", "event_type": "scanned"}})
    if "bill" not in journal:
        return next_of({"call": {"step": "bill", "event_type": "invoice.make"}})
    return web.json_response([journal["parcel"]["ok"]["payload"], journal["bill"]["ok"]])


def forgetful(asked: Asked) -> web.Response:
    """Charge each time."""
    return next_of({"sleep": {"step": f"nap-{len(asked['journal'])}", "seconds": 1}}, STEP)


def late(asked: Asked) -> web.Response:
    """Finish without a word of what was done in the end, and find it undone when asked again."""
    late.asked += 1  # type: ignore[attr-defined]
    return web.json_response("done") if late.asked == 1 else next_of({"again": {}}, STEP)  # type: ignore[attr-defined]


late.asked = 0  # type: ignore[attr-defined]


def book(asked: Asked) -> web.Response:
    """Take a page for each journal, and none once it is cancelled."""
    journal, page = asked["journal"], asked["event"]["payload"].get("page", 1)
    if asked["cancelled"]:
        return web.json_response(journal) if "undo" in journal else next_of({"again": {}}, {"step": "undo", "ok": page})
    if "charge" not in journal:
        return next_of({"sleep": {"step": f"page {page}", "seconds": 60}}, STEP)
    return next_of({"restart": {"payload": {"page": page + 1}}}) if page < 3 else web.json_response(page)


WRONG: dict[str, tuple[Callable[[Asked], web.Response], str]] = {
    "again": (forgetful, "It did 'charge' again, although the journal that it was shown holds it."),
    "for ever": (forgetful, "It did not finish within 5 answers."),
    "after the end": (late, "as after a crash, it wants to go on."),
    "not JSON": (lambda _: web.Response(body=b"{", content_type=NEXT_TYPE), "is not valid JSON"),
    "an error": (lambda _: web.Response(status=500, text="no"), "answered 500 Internal Server Error: no"),
    "no cancel": (right, "It never waited at 'page 2', where it was to be cancelled."),
    "no signature": (lambda _: web.json_response(1), "It answers 200 to a wrong signature; 401 is right."),
}


async def checked(script: Callable[[Asked], web.Response], *options: str) -> int:
    """Check an endpoint and return the exit code."""

    async def answer(request: web.Request) -> web.Response:
        return script(json.loads(await request.read()))

    app = web.Application()
    app.router.add_post("/hook", answer)
    async with TestServer(app, host="127.0.0.1") as server:
        return await asyncio.to_thread(run, ["endpoint", "check", str(server.make_url("/hook")), *options])


async def test_an_endpoint_that_does_all_once_is_right(capsys: pytest.CaptureFixture[str]) -> None:
    """Sleeps are passed over, signals and results are those that are given; every step is told."""
    code = await checked(right, "--signal", 'scanned={"n": 17}', "--result", 'invoice.make="bill"')
    lines = capsys.readouterr().out.splitlines()
    assert code == 0
    assert [line.partition(":")[0].strip() for line in lines[:-1]] == ["charge", "grace", "parcel", "bill"]
    assert lines[-1] == 'Finished with [{"n":17},"bill"] after 4 answers and 4 steps. Nothing is wrong.'


async def test_an_endpoint_that_restarts_goes_on_with_an_empty_journal(capsys: pytest.CaptureFixture[str]) -> None:
    """It comes to the page to which its payload leads it, and undoes that page where it is cancelled there."""
    assert await checked(book) == 0
    assert "Finished with 3 after 6 answers and 2 steps." in capsys.readouterr().out
    assert await checked(book, "--cancel-at", "page 2") == 0
    result = '{"charge":{"ok":1},"page 2":{"error":{"type":"Cancelled","message":""}},"undo":{"ok":2}}'
    assert f"Finished with {result} after 5 answers" in capsys.readouterr().out


@pytest.mark.parametrize("name", WRONG)
async def test_what_is_wrong_is_said(capsys: pytest.CaptureFixture[str], name: str) -> None:
    """The exit code is 1, and the words name what a daemon would stumble over, or do twice."""
    script, words = WRONG[name]
    code = await checked(script, "--answers-max", "5", "--json", "--secret", "secret", "--cancel-at", "page 2")
    assert code == 1
    assert any(words in one for one in json.loads(capsys.readouterr().out)["wrong"])


class NoMoney(Exception):
    """The card is declined."""


async def test_the_endpoint_of_the_guide_is_right(capsys: pytest.CaptureFixture[str]) -> None:
    """It ends as it should, charges and refunds once, and is refunded when it is cancelled while it waits."""
    (snippet,) = re.findall(r"^```python\n(.*?)^```$", GUIDE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    effects: list[str] = []

    def act(value: Any, *, idempotency_key: str) -> str:
        effects.append(idempotency_key.partition("/")[2])
        return f"{effects[-1]} of {value}"

    names: dict[str, Any] = {"__name__": "guide", "charge": act, "refund": act, "NoMoney": NoMoney}
    exec(snippet, names)
    server = make_server("127.0.0.1", 0, names["app"], threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        call = ["endpoint", "check", f"http://127.0.0.1:{server.server_port}/orders", "--payload", '{"total": 12}']
        call += ["--signal", 'parcel.scanned={"number": 4}']
        assert await asyncio.to_thread(run, call) == 0
        assert 'Finished with {"parcel":4} after 3 answers and 3 steps.' in capsys.readouterr().out
        assert await asyncio.to_thread(run, [*call, "--cancel-at", "parcel"]) == 0
        assert 'Finished with {"refunded":"refund of charge of 12"}' in capsys.readouterr().out
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert effects == ["charge", "charge", "refund"]
