"""What axe-core, the usual examiner of accessibility, finds on the pages."""

from pathlib import Path

import pytest

from tests.browser.conftest import Look, reaches, send
from tests.support.daemon_process import DaemonProcess, until

axe = pytest.importorskip("axe_playwright_python", reason="BROWSER TESTS SKIPPED: axe-playwright-python is missing")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_on_any_page(daemon: DaemonProcess, look: Look, theme: str) -> None:
    """No violation on any page at either width, with an open dialog, or on the page of an error."""
    source = next(Path(axe.__file__).parent.rglob("axe*.js")).read_text()
    dead = send(daemon, "bad.payment", {"n": 1})
    reaches(daemon, dead, "dead_lettered")
    reaches(daemon, send(daemon, "later.receipt"), "retrying")
    paths = ["/", "/events", f"/events/{dead}", "/workflows", "/workflows/order-1", "/dead-letters", "/runtime"]
    assert daemon.http.post("/api/replays", {"ids": [dead], "reason": "r", "canary": 1}).status == 202
    until(lambda: daemon.http.get("/api/replays/rpl_1")["status"] == "paused")
    reaches(daemon, dead, "dead_lettered")
    assert daemon.http.post("/api/handlers/later.*/pause", {"reason": "r"}).status == 200
    paths += [f"/events/{dead}?layout=indented&secrets=shown", "/workflows/order-1?only=failed&idle=shown"]
    paths += ["/handlers", "/handlers/pause?pattern=*", "/replays", "/replays/rpl_1", "/replays/new"]
    paths += ["/docs", "/send", "/nope", f"/confirm/discard?id={dead}"]
    tab = look("/", theme=theme)
    found = []
    for width in (1440, 320):
        tab.page.set_viewport_size({"width": width, "height": 900})
        for path in paths:
            tab.open(path).live()
            if path == "/dead-letters":
                tab.page.click("td.verbs button >> nth=0")
                tab.page.wait_for_selector("dialog[open]")
            if path == "/events":
                tab.page.click("#save-view summary")
                tab.page.fill("#save-view input", f"view {width}")
                tab.page.keyboard.press("Enter")
                tab.page.keyboard.press("Control+k")
                tab.page.wait_for_selector("dialog[open] [role=option]")
            tab.page.evaluate(source)
            violations = tab.page.evaluate("axe.run(document).then((result) => result.violations)")
            found += [(width, path, one["id"], one["nodes"][0]["html"]) for one in violations]
    assert found == []
