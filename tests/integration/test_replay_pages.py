"""Bulk replays on the pages: the question, the forms, the list, the job with its progress, all without scripts."""

import html
import re
from typing import Any

import pytest

from tests.integration.test_bulk_replay import dead, figures, handlers, job_in, make, runs, settings
from tests.integration.test_pages import HTML, page, regions
from tests.support.house import House

__all__ = ["handlers", "settings"]

FIELD = re.compile(r'<input type="hidden" name="([^"]+)" value="([^"]*)">')


async def hidden(house: House, path: str) -> tuple[str, dict[str, str]]:
    """Return a page with a question, and the fields that its form carries along."""
    status, text = await page(house, path)
    assert status == 200, text
    form = text[text.index('class="confirm"') :]
    return text, {name: html.unescape(value) for name, value in FIELD.findall(form)}


async def submit(house: House, path: str, form: dict[str, str]) -> tuple[int, str, str]:
    """Send a form and return status, target, and the message that is shown there."""
    async with house.http.post(path, data=form, headers=HTML, allow_redirects=False) as response:
        status, target = response.status, response.headers.get("Location", "")
    if not target:
        return status, "", ""
    _, text = await page(house, target)
    message = re.search(r'id="flash"><bdi>(.*?)</bdi>', text)
    return status, target, html.unescape(message[1]) if message else ""


async def test_from_the_question_to_the_end(house: House) -> None:
    """The question says how many and of which errors; the form makes the job, and its page shows how it ended."""
    ids = await dead(house, 6)
    text, form = await hidden(house, "/replays/new")
    assert "Replay 6 events" in text
    assert "6 × <bdi>RuntimeError: not mended: broken</bdi>" in text
    assert form["expected_count"] == "6"
    order = form | {"reason": "the <b>gateway</b> is back", "max": "4", "canary": "2", "rate_per_second": "100"}
    status, target, message = await submit(house, "/replays", order)
    assert (status, target) == (303, "/replays/rpl_1")
    assert message == "Bulk replay rpl_1 of 4 events was made; it goes on by itself."
    job = await job_in(house, {"id": "rpl_1"}, "done", ended=True)
    assert (job["canary"], job["rate_per_second"], job["max"], job["matched"]) == (2, 100, 4, 6)
    assert figures(job) == {"total": 4, "replayed": 4, "succeeded": 4}
    assert await runs(house, ids) == [2, 2, 2, 2, 1, 1]
    _, text = await page(house, target)
    assert "4 of 4 events" in text
    assert "the &lt;b&gt;gateway&lt;/b&gt; is back" in text
    assert "100 a second, 2 first, at most 4" in text
    assert 'method="post"' not in text[text.index("progress-title") :], "what is done has nothing to be moved by"
    _, text = await page(house, "/replays")
    assert "4 of 4" in text
    assert 'href="/replays/rpl_1"' in text


async def test_the_same_form_makes_one_job(house: House) -> None:
    """A form that is sent twice makes one job, and the second answer says so."""
    await dead(house, 2)
    _, form = await hidden(house, "/replays/new")
    assert (await submit(house, "/replays", form | {"reason": "r"}))[0] == 303
    _, target, message = await submit(house, "/replays", form | {"reason": "r"})
    assert (target, message) == ("/replays/rpl_1", "This form was sent before: rpl_1 is what it has made.")
    assert len((await house.get("/api/replays"))["items"]) == 1


async def test_what_is_wrong_is_said_at_the_question(house: House) -> None:
    """A form that makes no sense, or whose number no longer fits, leads back to the question with the reason."""
    await dead(house, 2)
    _, form = await hidden(house, "/replays/new?type=broken")
    for change, words in (
        ({"reason": ""}, "needs a reason"),
        ({"reason": "r", "canary": "-1"}, "canary"),
        ({"reason": "r", "rate_per_second": "fast"}, "rate_per_second"),
        ({"reason": "r", "key": "k" * 256}, "key must have 1 to 255 characters"),
        ({"reason": "r", "key": "k\0"}, "key must have 1 to 255 characters"),
    ):
        _, target, message = await submit(house, "/replays", form | change)
        assert target == "/replays/new?type=broken"
        assert words in message
    await dead(house, 1)
    _, _, message = await submit(house, "/replays", form | {"reason": "r"})
    assert message.startswith("2 events were expected and 3 fit now")
    _, target, _ = await submit(house, "/replays", form | {"reason": "", "again": "//evil.example/"})
    assert target == "/replays/new"
    assert (await house.get("/api/replays"))["items"] == []
    assert (await page(house, "/replays/new?type=nothing"))[0] == 404
    assert (await page(house, "/replays/new?status=queued"))[0] == 422
    assert (await house.post("/replays", {"reason": "r"}))[0] == 415


async def test_filters_of_the_list_are_carried_along(house: House) -> None:
    """What the events list shows is what its button replays; a distance of time is fixed at the question."""
    await dead(house, 2, "pay.one")
    await dead(house, 3, "other")
    _, text = await page(house, "/events?status=dead_lettered&type=pay.*&since=1h")
    block = text[text.index('action="/replays/new"') :]
    fields = dict(FIELD.findall(block[: block.index("</form>")]))
    assert (fields["status"], fields["type"], fields["since"]) == ("dead_lettered", "pay.*", "1h")
    assert "Replay all dead-lettered that match…" in block
    text, form = await hidden(house, "/replays/new?status=dead_lettered&type=pay.*&since=1h")
    assert (form["event_type"], form["expected_count"]) == ("pay.*", "2")
    assert form["since"].endswith("Z")
    await submit(house, "/replays", form | {"reason": "r"})
    job = await job_in(house, {"id": "rpl_1"}, "done", ended=True)
    assert job["selection"]["filter"] == {"event_type": "pay.*", "since": form["since"]}
    assert figures(job) == {"total": 2, "replayed": 2, "succeeded": 2}
    assert "/replays/new" not in (await page(house, "/events?status=queued"))[1]


async def test_succeeded_events_need_the_tick(house: House) -> None:
    """Succeeded events run once more only when the form says that this is meant."""
    await house.reaches(await house.send("fine", {"mended": 1}), "succeeded")
    text, form = await hidden(house, "/replays/new?status=succeeded")
    assert 'name="force"' in text
    assert "only with force" in (await submit(house, "/replays", form | {"reason": "r"}))[2]
    assert (await submit(house, "/replays", form | {"reason": "r", "force": "on"}))[1] == "/replays/rpl_1"


async def test_a_job_is_moved_by_forms(house: House) -> None:
    """Pause, resume and cancel are forms that stand where they are possible; elsewhere it is said why not."""
    await dead(house, 3)
    await make(house, rate_per_second=0.1)
    await house.probe.saw("replay.advanced")
    path = "/replays/rpl_1"

    async def buttons() -> list[str]:
        _, text = await page(house, path)
        return re.findall(rf'action="{path}/(\w+)"', text)

    assert await buttons() == ["pause", "cancel"]
    assert (await submit(house, f"{path}/pause", {}))[1:] == (path, "Bulk replay rpl_1 is paused.")
    assert await buttons() == ["resume", "cancel"]
    assert "Paused by hand." in (await page(house, path))[1]
    assert (await submit(house, f"{path}/resume", {}))[2] == "Bulk replay rpl_1 goes on."
    assert "is cancelled" in (await submit(house, f"{path}/cancel", {}))[2]
    assert await buttons() == []
    assert "cannot become paused" in (await submit(house, f"{path}/pause", {}))[2]
    async with house.http.post(f"{path}/explode", data={}) as response:
        assert response.status in (404, 415)
    assert (await page(house, "/replays/rpl_9"))[0] == 404


async def test_a_large_group_leads_to_a_bulk_replay(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """A group of more events than are taken at once is offered as a bulk replay of that very group."""
    for module in ("selection", "actions"):
        monkeypatch.setattr(f"replayforge.web.pages.{module}.GROUP_EVENTS_MAX", 3)
    await dead(house, 4, "broken & bent")
    await dead(house, 4, "wild*")
    signature = "RuntimeError: not mended: broken & bent"
    _, text = await page(house, "/confirm/replay?group_by=error&group=RuntimeError: not mended: broken %26 bent")
    (link,) = re.findall(r'href="([^"]+)">replay all of the group<', text)
    _, form = await hidden(house, html.unescape(link))
    assert (form["error"], form["expected_count"]) == (signature, "4")
    for query in ("group_by=type&group=wild*", "group_by=reason&group=attempts_exhausted"):
        text = (await page(house, f"/confirm/replay?{query}"))[1]
        assert "repeat for the rest" in text
        assert "/replays/new" not in text
    assert "Replay all 8…" in (await page(house, "/dead-letters"))[1]


async def test_progress_is_a_live_region(house: House) -> None:
    """The parts of the job's page that change come by themselves, and cost nothing when they have not changed."""
    await dead(house, 2)
    await make(house)
    await job_in(house, {"id": "rpl_1"}, "done", ended=True)
    _, parts, tag = await regions(house, "/replays/rpl_1", "progress", "skips")
    assert "2 of 2 events" in parts["progress"]
    assert (await regions(house, "/replays/rpl_1", "progress", "skips", tag=tag))[0] == 304


async def test_what_was_left_alone_is_told(house: House) -> None:
    """Skipped members are shown with the reason and one of them."""
    ids = await dead(house, 1, mended=3) + await dead(house, 2)
    job: dict[str, Any] = await job_in(house, await make(house, canary=1), "paused")
    _, text = await page(house, f"/replays/{job['id']}")
    assert "1 of the first 1 became dead letters again" in text
    await house.post(f"/api/deadletters/{ids[2]}/replay")
    await house.post(f"/api/replays/{job['id']}/resume")
    await job_in(house, job, "done", ended=True)
    _, text = await page(house, f"/replays/{job['id']}")
    assert "It was replayed by somebody else meanwhile." in text
    assert f'href="/events/{ids[2]}"' in text
