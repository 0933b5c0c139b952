"""What axe-core, the usual examiner of accessibility, finds on the pages."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser.conftest import reaches, send, serving
from tests.browser.tabs import Look, Watched
from tests.support.daemon_process import DaemonProcess, until

axe = pytest.importorskip("axe_playwright_python", reason="BROWSER TESTS SKIPPED: axe-playwright-python is missing")

# What depends on colours is asked in both themes, and on a narrow screen of what looks otherwise there;
# the rest at both widths.
COLOURS = ["color-contrast", "link-in-text-block"]
IN_COLOUR: dict[str, Any] = {"resultTypes": ["violations"], "runOnly": {"type": "rule", "values": COLOURS}}
EVERYTHING: dict[str, Any] = {"resultTypes": ["violations"]}
BUT_COLOURS: dict[str, Any] = EVERYTHING | {"rules": {rule: {"enabled": False} for rule in COLOURS}}
WIDE, NARROW = 1440, 320
BACKGROUNDS = {"light": "rgb(247, 248, 250)", "dark": "rgb(15, 17, 21)"}


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    """A daemon that has something of every kind to show."""
    with serving(tmp_path_factory.mktemp("accessibility")) as daemon:
        dead = send(daemon, "bad.payment", {"n": 1}, idempotency_key="dead")
        reaches(daemon, dead, "dead_lettered")
        reaches(daemon, send(daemon, "later.receipt"), "retrying")
        reaches(daemon, send(daemon, "parcel.sent", workflow_id="parcel-1"), "waiting")
        assert daemon.http.post("/api/replays", {"ids": [dead], "reason": "r", "canary": 1}).status == 202
        until(lambda: daemon.http.get("/api/replays/rpl_1")["status"] == "paused")
        reaches(daemon, dead, "dead_lettered")
        assert daemon.http.post("/api/handlers/later.*/pause", {"reason": "r"}).status == 200
        yield daemon


def paths(dead: str, parked: str) -> list[str]:
    """Return the path of every page, the page of an error included."""
    found = ["/", "/events", f"/events/{dead}", "/workflows", "/workflows/order-1", "/dead-letters", "/runtime"]
    found += [f"/events/{parked}", "/workflows/parcel-1"]
    found += [f"/events/{dead}?layout=indented&secrets=shown", "/workflows/order-1?only=failed&idle=shown"]
    found += ["/handlers", "/handlers/pause?pattern=*", "/sources", "/replays", "/replays/rpl_1", "/replays/new"]
    return [*found, "/docs", "/guide", "/send", "/nope", f"/confirm/discard?id={dead}"]


def prepare(tab: Watched, path: str) -> None:
    """Open what is hidden at first: a dialog, a saved view, the palette."""
    if path == "/dead-letters":
        tab.page.click("td.verbs button >> nth=0")
        tab.page.wait_for_selector("dialog[open]")
    for one in tab.page.locator(".waterfall details, .awaits details, .steps details").all():
        one.evaluate("(element) => { element.open = true; }")
    if path == "/events":
        tab.page.click("#save-view summary")
        tab.page.fill("#save-view input", "a view")
        tab.page.keyboard.press("Enter")
        tab.page.keyboard.press("Control+k")
        tab.page.wait_for_selector("dialog[open] [role=option]")


# By element that is shown: all of its style that the contrast of its text, or of what lies in it, can depend on.
LOOKS = """() => new Map([...document.body.querySelectorAll('*')].filter((one) => one.checkVisibility()).map((one) => {
  const style = getComputedStyle(one);
  return [one, [style.color, style.background, style.opacity, style.fontSize, style.fontWeight, style.position].join()];
}))"""
OTHERWISE = f"""(window.otherwise = [...({LOOKS})()].filter(([one, look]) => window.looks.get(one) !== look)
  .map(([one]) => one)).length"""


def violations(tab: Watched, theme: str, asked: dict[str, Any], of: str = "document") -> list[Any]:
    """Examine the page that is open, or some elements of it, as it is shown in a theme."""
    background = tab.in_theme(theme).page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert background == BACKGROUNDS[theme]
    found = tab.page.evaluate(f"(asked) => axe.run({of}, asked).then((one) => one.violations)", asked)
    return [(theme, one["id"], one["nodes"][0]["html"]) for one in found]


def found_on(tab: Watched) -> list[Any]:
    """Examine the page that is open, wide and narrow, in both themes."""
    found = violations(tab.at_width(WIDE), "light", EVERYTHING) + violations(tab, "dark", IN_COLOUR)
    tab.page.evaluate(f"() => {{ window.looks = ({LOOKS})(); }}")
    found += violations(tab.at_width(NARROW), "light", BUT_COLOURS)
    if tab.page.evaluate(OTHERWISE):
        for theme in BACKGROUNDS:
            found += violations(tab, theme, IN_COLOUR, "window.otherwise")
    return found


def test_axe_finds_nothing_on_any_page(daemon: DaemonProcess, look: Look) -> None:
    """No violation on any page in either theme, wide or narrow, with an open dialog, or on the page of an error."""
    source = next(Path(axe.__file__).parent.rglob("axe*.js")).read_text()
    dead, parked = [
        daemon.http.get(f"/api/events?status={state}")["items"][0]["id"] for state in ("dead_lettered", "waiting")
    ]
    tab = look("/", reduced_motion="reduce")
    found = []
    for path in paths(dead, parked):
        tab.at_width(WIDE).in_theme("light").open(path).live()
        prepare(tab, path)
        tab.page.evaluate(source)
        found += [(path, *one) for one in found_on(tab)]
    assert found == []
