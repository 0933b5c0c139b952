"""What axe-core, the usual examiner of accessibility, finds on the pages."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser.conftest import reaches, send, serving
from tests.browser.tabs import Look, Watched
from tests.support.daemon_process import DaemonProcess, until

axe = pytest.importorskip("axe_playwright_python", reason="BROWSER TESTS SKIPPED: axe-playwright-python is missing")

# The themes share every element: in the second one only what depends on colours is asked again.
EVERYTHING: dict[str, Any] = {"resultTypes": ["violations"]}
COLOURS: dict[str, Any] = EVERYTHING | {"runOnly": {"type": "rule", "values": ["color-contrast", "link-in-text-block"]}}
BACKGROUNDS = {"light": "rgb(247, 248, 250)", "dark": "rgb(15, 17, 21)"}


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    """A daemon that has something of every kind to show."""
    with serving(tmp_path_factory.mktemp("accessibility")) as daemon:
        dead = send(daemon, "bad.payment", {"n": 1}, idempotency_key="dead")
        reaches(daemon, dead, "dead_lettered")
        reaches(daemon, send(daemon, "later.receipt"), "retrying")
        assert daemon.http.post("/api/replays", {"ids": [dead], "reason": "r", "canary": 1}).status == 202
        until(lambda: daemon.http.get("/api/replays/rpl_1")["status"] == "paused")
        reaches(daemon, dead, "dead_lettered")
        assert daemon.http.post("/api/handlers/later.*/pause", {"reason": "r"}).status == 200
        yield daemon


def paths(dead: str) -> list[str]:
    """Return the path of every page, the page of an error included."""
    found = ["/", "/events", f"/events/{dead}", "/workflows", "/workflows/order-1", "/dead-letters", "/runtime"]
    found += [f"/events/{dead}?layout=indented&secrets=shown", "/workflows/order-1?only=failed&idle=shown"]
    found += ["/handlers", "/handlers/pause?pattern=*", "/replays", "/replays/rpl_1", "/replays/new"]
    return [*found, "/docs", "/guide", "/send", "/nope", f"/confirm/discard?id={dead}"]


def prepare(tab: Watched, path: str, width: int) -> None:
    """Open what is hidden at first: a dialog, a saved view, the palette."""
    if path == "/dead-letters":
        tab.page.click("td.verbs button >> nth=0")
        tab.page.wait_for_selector("dialog[open]")
    if path == "/events":
        tab.page.click("#save-view summary")
        tab.page.fill("#save-view input", f"view {width}")
        tab.page.keyboard.press("Enter")
        tab.page.keyboard.press("Control+k")
        tab.page.wait_for_selector("dialog[open] [role=option]")


@pytest.mark.parametrize("width", [1440, 320])
def test_axe_finds_nothing_on_any_page(daemon: DaemonProcess, look: Look, width: int) -> None:
    """No violation on any page in either theme, with an open dialog, or on the page of an error."""
    source = next(Path(axe.__file__).parent.rglob("axe*.js")).read_text()
    (dead,) = [event["id"] for event in daemon.http.get("/api/events?status=dead_lettered")["items"]]
    tab = look("/", width=width, reduced_motion="reduce")
    found = []
    for path in paths(dead):
        tab.in_theme("light").open(path).live()
        prepare(tab, path, width)
        tab.page.evaluate(source)
        for theme, asked in (("light", EVERYTHING), ("dark", COLOURS)):
            background = tab.in_theme(theme).page.evaluate("getComputedStyle(document.body).backgroundColor")
            assert background == BACKGROUNDS[theme]
            violations = tab.page.evaluate("(asked) => axe.run(document, asked).then((one) => one.violations)", asked)
            found += [(theme, path, one["id"], one["nodes"][0]["html"]) for one in violations]
    assert found == []
