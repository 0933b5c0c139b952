"""Shadow on the pages: dead letters, a file on the daemon's disk, the verdicts, and the replay of the cured ones."""

import html
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from replayforge.engine.handlers.loading import load_handlers
from replayforge.shadow import comparing
from tests.integration.test_bulk_replay import job_in
from tests.integration.test_pages import page
from tests.integration.test_replay_pages import hidden, submit
from tests.integration.test_shadow import AMOUNTS, FIXED, send, stood
from tests.support.house import House, open_house

GROUP = "ValueError: invalid literal for int() with base N: '…'"
QUERY = f"/shadow/new?group_by=error&group={GROUP}"


@pytest.fixture
async def fixed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[House, list[str]]]:
    """A daemon with the code that is to mend the dead letters of an earlier one."""
    monkeypatch.setattr(comparing, "FURTHER", ())
    settings = {"retry.max_attempts": 1, "server.masked_names": ["amount"]}
    async with open_house(tmp_path, load_handlers([FIXED.replace("_fixed", "")]), settings) as house:
        ids = await send(house, "invoice", [*AMOUNTS, {"amount": "many.5"}])
    async with open_house(tmp_path, load_handlers([FIXED]), settings) as house:
        yield house, ids


async def test_from_a_group_to_the_replay_of_the_cured(fixed: tuple[House, list[str]], tmp_path: Path) -> None:
    house, ids = fixed
    _, text = await page(house, "/dead-letters")
    assert 'formaction="/shadow/new"' in text
    text, form = await hidden(house, QUERY)
    assert "Shadow of 3 dead letters" in text
    assert GROUP in html.unescape(text)

    gone = str(tmp_path / "gone.py")
    _, target, message = await submit(house, "/shadow", form | {"handlers": gone})
    assert (target, message) == ("/dead-letters", f"The handler file {gone} does not exist.")

    status, target, _ = await submit(house, "/shadow", form | {"handlers": FIXED})
    assert status == 303
    text, order = await hidden(house, target)
    assert "3 runs: 1 now raises, 2 cured" in text
    assert "Replay the 2 that are cured" in text
    assert order["ids"].split() == ids[:2]

    _, other = await hidden(house, "/shadow/new?group_by=error&group=ValueError: too many")
    _, there, _ = await submit(house, "/shadow", other | {"handlers": FIXED})
    _, text = await page(house, there)
    assert "Not cured, and why" in text
    assert "still ValueError: too many" in text

    status, target, message = await submit(house, "/replays", order | {"reason": "cured"})
    assert message == "Bulk replay rpl_1 of 2 events was made; it goes on by itself."
    await job_in(house, {"id": "rpl_1"}, "done", ended=True)
    stands = await stood(house, ids)
    assert [stands[one] for one in ids[:2]] == [("succeeded", 2)] * 2
    assert {stands[one][1] for one in ids[2:]} == {1}
    assert (await page(house, "/shadow/nothing"))[0] == 404
