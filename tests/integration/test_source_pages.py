"""The page of the sources, all without scripts: a wrong secret is seen and mended, what was refused runs after all."""

import html
from pathlib import Path
from typing import Any

from tests.integration.test_pages import page
from tests.integration.test_replay_pages import hidden, submit
from tests.integration.test_sources import deliver, house_of, seen
from tests.support.providers import secrets_of


def github(*secrets: str) -> list[dict[str, Any]]:
    return [{"name": "github", "preset": "github", "secrets": secrets, "headers": ["x-github-event", "x-hostile"]}]


async def test_a_wrong_secret_is_seen_and_mended(tmp_path: Path) -> None:
    """The page says that and why deliveries were refused; after a restart with the right secret a button runs them."""
    async with house_of(tmp_path / "data", sources=github("mistyped")) as house:
        _, text = await page(house, "/sources")
        assert "none yet" in text
        for name in ("a", "b"):
            house.daemon.sources.kept_at.clear()
            sent = await deliver(house, "github", b'{"n":1}', name=name, headers={"X-Hostile": "<script>"})
            assert sent[0] == 401
        _, text = await page(house, "/sources")
        assert "2 wrong signature" in text
        assert '<a href="/sources/github/refusals">2 deliveries are kept</a>' in text
        _, text = await page(house, "/sources/github/refusals")
        assert text.count('<td data-label="Why">wrong signature</td>') == 2
        assert "&lt;script&gt;" in text
        assert "sha256=" not in text
        _, _, message = await submit(house, "/sources/github/refusals", {"go": "on"})
        assert message == "Verified again: 0 deliveries accepted, 2 refused as before."
    right = secrets_of("github")[0]
    async with house_of(tmp_path / "data", sources=github("mistyped", right)) as house:
        status, target, message = await submit(house, "/sources/github/refusals", {"go": "on"})
        assert (status, target) == (303, "/sources/github/refusals")
        assert message == "Verified again: 2 deliveries accepted."
        await house.converges()
        assert [one.idempotency_key for one in seen.values() if one.payload_bytes == b'{"n":1}'] == ["a", "b"]
        assert "Nothing of this source was refused lately" in (await page(house, "/sources/github/refusals"))[1]
        _, text = await page(house, "/sources")
        assert right not in html.unescape(text)
        assert "openssl dgst -sha256 -hmac" in text


async def test_a_source_is_paused_from_the_page(tmp_path: Path) -> None:
    """The question carries the name along, the list shows the pause with its reason, and the resume ends it."""
    async with house_of(tmp_path / "data", sources=github("secret")) as house:
        _, form = await hidden(house, "/sources/pause?name=github")
        assert form == {"name": "github"}
        _, _, message = await submit(house, "/sources/pause", form | {"reason": "<moving>"})
        assert message.startswith("Paused: the source github.")
        assert (await deliver(house, "github", b"{}", secret="secret"))[0] == 503
        assert "&lt;moving&gt;" in (await page(house, "/sources"))[1]
        assert (await submit(house, "/sources/resume", form))[2] == "Resumed: the source github."
        assert (await submit(house, "/sources/resume", form))[2] == "The source 'github' is not paused."
        assert "needs a reason" in (await submit(house, "/sources/pause", form | {"reason": ""}))[2]
        assert (await page(house, "/sources/pause?name=nobody"))[0] == 404
        assert (await page(house, "/sources/nobody/refusals"))[0] == 404


async def test_without_sources_the_page_says_how_to_add_one(tmp_path: Path) -> None:
    async with house_of(tmp_path / "data", sources=[]) as house:
        assert '<a href="/guide/webhooks">how to</a>' in (await page(house, "/sources"))[1]
