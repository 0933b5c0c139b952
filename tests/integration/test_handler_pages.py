"""The page of the handlers, all without scripts: how they stand, the question, and the forms that pause and resume."""

import html

from tests.integration.test_pages import page, regions
from tests.integration.test_replay_pages import hidden, submit
from tests.support.house import House
from tests.support.polling import persist


async def test_from_the_question_to_the_resume(house: House) -> None:
    """The question carries the pattern along; the list shows the pause with its reason, and the resume ends it."""
    text, form = await hidden(house, "/handlers/pause?pattern=fails.later")
    assert 'Pause the handler <bdi class="quote">fails.later</bdi>' in text
    assert form == {"pattern": "fails.later"}
    reason = {"reason": "the <b>bank</b> is down"}
    status, target, message = await submit(house, "/handlers/pause", form | reason)
    assert (status, target) == (303, "/handlers")
    assert message == "Paused: the handler fails.later. What runs already may finish; the rest waits."
    event_id = await house.send("fails.later")
    await persist(lambda: shows(house, '<a href="/events?status=queued&amp;type=fails.later">1</a>'))
    _, text = await page(house, "/handlers")
    assert "the &lt;b&gt;bank&lt;/b&gt; is down" in text
    assert "by the status page" in text
    _, shown = await page(house, f"/events/{event_id}")
    assert '<dt title="its handler takes none now">Waits for</dt>' in shown
    status, target, message = await submit(house, "/handlers/resume", form)
    assert message == "Resumed: the handler fails.later. What has waited comes first."
    await house.reaches(event_id, "retrying")
    assert "is down" not in (await page(house, "/handlers"))[1]


async def shows(house: House, part: str) -> bool:
    return part in (await page(house, "/handlers"))[1]


async def test_everything_is_paused_from_the_page(house: House) -> None:
    """The button for everything leads to a question of its own; meanwhile no handler has a button of its own."""
    _, form = await hidden(house, "/handlers/pause?pattern=*")
    await submit(house, "/handlers/pause", form | {"reason": "maintenance"})
    _, text = await page(house, "/handlers")
    assert "Resume everything" in text
    assert "Pause…" not in text
    _, shown, _ = await regions(house, "/handlers", "everything", "health")
    assert "Resume everything" in shown["everything"]
    assert "everything paused" in shown["health"]
    assert (await submit(house, "/handlers/resume", form))[2] == "Resumed: everything. What has waited comes first."


async def test_types_without_a_handler_are_named(house: House) -> None:
    """A type whose events found no handler stands there with its dead letters, and with the way to replay them."""
    handlers = house.daemon.handler_reporter.handler_limits.handlers
    kept = list(handlers.registered)
    handlers.registered.clear()
    handlers.found.clear()
    await house.reaches(await house.send("no <b>body"), "dead_lettered")
    _, text = await page(house, "/handlers")
    assert 'No handler for type <bdi class="quote">no &lt;b&gt;body</bdi>' in text
    assert "1 dead letter</a>" in text
    handlers.registered.extend(kept)
    handlers.found.clear()
    _, text = await page(house, "/handlers")
    assert "by now: <a href=" in text
    link = html.unescape(text.partition('by now: <a href="')[2].partition('"')[0])
    assert "Replay 1 event" in (await page(house, link))[1]


async def test_what_cannot_be_done_is_said(house: House) -> None:
    """An unknown handler is 404, a pause without a reason and a resume of what runs say so on the page."""
    assert (await page(house, "/handlers/pause?pattern=nope"))[0] == 404
    _, _, message = await submit(house, "/handlers/pause", {"pattern": "fails", "reason": " "})
    assert "A pause needs a reason" in message
    _, _, message = await submit(house, "/handlers/resume", {"pattern": "fails"})
    assert "Nothing is paused" in message
