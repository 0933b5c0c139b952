"""What axe-core, the usual examiner of accessibility, finds on the pages."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from replayforge.web.pages.guide_documents import DOCUMENTS
from tests.browser.conftest import paused_replay, reaches, send, serving
from tests.browser.every_page import every_page
from tests.browser.tabs import Look, Watched
from tests.support.daemon_process import DaemonProcess

axe = pytest.importorskip("axe_playwright_python", reason="BROWSER TESTS SKIPPED: axe-playwright-python is missing")

# What depends on colours is asked in both themes and at both widths, once of all that looks the same; the rest is asked
# of every page at both widths.
COLOURS = ["color-contrast", "link-in-text-block"]
IN_COLOUR: dict[str, Any] = {
    "resultTypes": ["violations", "passes"],
    "elementRef": True,
    "runOnly": {"type": "rule", "values": COLOURS},
}
BUT_COLOURS: dict[str, Any] = {
    "resultTypes": ["violations"],
    "rules": {rule: {"enabled": False} for rule in COLOURS},
}
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
        paused_replay(daemon, dead)
        assert daemon.http.post("/api/handlers/later.*/pause", {"reason": "r"}).status == 200
        yield daemon


def paths(dead: str, parked: str) -> list[str]:
    """Return the path of every page and every document, the page of an error included."""
    found = every_page(dead, "order-1", "rpl_1")
    found += [f"/events/{parked}", "/workflows/parcel-1"]
    found += [f"/events/{dead}?layout=indented&secrets=shown", "/workflows/order-1?only=failed&idle=shown"]
    return [*found, *(f"/guide/{name}" for name in DOCUMENTS), "/nope"]


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


# Examines what has text of its own, but for what has the colours of something that has passed already: those of the
# text and of the text around it, whether it is large, and all that lies behind it. What is hidden behind something else
# neither passes nor fails, and is examined wherever it is.
COLOURS_OF_FRESH = """([seen, asked]) => {
  const known = new Set(seen), behind = new Map();
  const PLAIN = 'rgba(0, 0, 0, 0) none 1 none static';
  const backgrounds = (one) => {
    if (!behind.has(one)) {
      const style = getComputedStyle(one), under = one.parentElement ? backgrounds(one.parentElement) : '';
      const own = [style.backgroundColor, style.backgroundImage, style.opacity, style.filter, style.position].join(' ');
      behind.set(one, own === PLAIN ? under : hashed(under + own));
    }
    return behind.get(one);
  };
  const described = (one) => {
    const style = getComputedStyle(one), pixels = parseFloat(style.fontSize);
    const large = pixels >= 24 || (style.fontWeight >= 700 && pixels >= 18.66);
    const text = [style.color, large, style.textShadow, style.textDecoration], around = one.parentElement;
    const kind = one.matches('a, input, select, textarea, button');
    return hashed([backgrounds(one), kind, getComputedStyle(around).color, ...text].join());
  };
  const hashed = (text) => {
    let high = 7, low = 11;
    for (let at = 0; at < text.length; at++) {
      high = Math.imul(high ^ text.charCodeAt(at), 2654435761);
      low = Math.imul(low ^ text.charCodeAt(at), 1597334677);
    }
    return `${high >>> 0} ${low >>> 0}`;
  };
  const says = (one) => one.matches('input, select, textarea')
    || [...one.childNodes].some((inner) => inner.nodeType === Node.TEXT_NODE && inner.data.trim());
  const fresh = [...document.body.querySelectorAll('*')].filter((one) => {
    if (!says(one) || !one.checkVisibility() || known.has(described(one))) return false;
    return known.add(described(one));
  });
  if (!fresh.length) return { violations: [], passed: [] };
  return axe.run(fresh, asked).then(({ violations, passes }) => {
    const passed = passes.filter((one) => one.id === 'color-contrast').flatMap((one) => one.nodes);
    return { violations: violations.map(({ id, nodes: [{ html }] }) => [id, html]),
      passed: passed.map((one) => described(one.element)) };
  });
}"""

BUT_COLOURS_OF_ALL = """(asked) => axe.run(document, asked).then(({ violations }) =>
  violations.map(({ id, nodes: [{ html }] }) => [id, html]))"""


def examiner_source() -> str:
    """Return axe-core itself."""
    return next(Path(axe.__file__).parent.rglob("axe*.js")).read_text()


class Examiner:
    """Examines the pages that a tab shows; the colours of what has passed elsewhere it does not examine again."""

    def __init__(self, tab: Watched) -> None:
        self.tab = tab
        self.passed: set[str] = set()

    def found(self) -> list[Any]:
        """Examine the page that is open, wide and narrow, in both themes; it is shown as few times as that takes."""
        found = []
        for width, themes in ((WIDE, ("light", "dark")), (NARROW, ("dark", "light"))):
            found += self.tab.at_width(width).page.evaluate(BUT_COLOURS_OF_ALL, BUT_COLOURS)
            for theme in themes:
                found += [(width, theme, *one) for one in self.colours(theme)]
        return found

    def colours(self, theme: str) -> list[Any]:
        """Examine what looks like nothing that was seen before in a theme."""
        tab = self.tab.in_theme(theme)
        assert tab.page.evaluate("getComputedStyle(document.body).backgroundColor") == BACKGROUNDS[theme]
        found = tab.page.evaluate(COLOURS_OF_FRESH, [sorted(self.passed), IN_COLOUR])
        self.passed.update(found["passed"])
        return list(found["violations"])


@pytest.mark.slow
def test_axe_finds_nothing_on_any_page(daemon: DaemonProcess, look: Look) -> None:
    """No violation on any page in either theme, wide or narrow, with an open dialog, or on the page of an error."""
    source = examiner_source()
    dead, parked = [
        daemon.http.get(f"/api/events?status={state}")["items"][0]["id"] for state in ("dead_lettered", "waiting")
    ]
    tab = look("/", reduced_motion="reduce")
    examiner, found = Examiner(tab), []
    for path in paths(dead, parked):
        tab.at_width(WIDE).in_theme("light").open(path).live()
        prepare(tab, path)
        tab.page.evaluate(source)
        found += [(path, *one) for one in examiner.found()]
    assert found == []
    assert [complaint for complaint in tab.complaints if "404" not in complaint] == []  # /nope is not found
