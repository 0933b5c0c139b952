"""Every page in a real Chromium: nothing complains, leaves the house or overflows, and the numbers are true."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import paused_replay, reaches, send, serving
from tests.browser.every_page import every_page
from tests.browser.tabs import Look, Tabs
from tests.support.daemon_process import DaemonProcess, until

BACKGROUNDS = {"light": "rgb(247, 248, 250)", "dark": "rgb(15, 17, 21)"}
BACKGROUND_AND_TOO_WIDE = """() => [
  getComputedStyle(document.body).backgroundColor,
  document.documentElement.scrollWidth - document.documentElement.clientWidth,
]"""


@dataclass(frozen=True)
class Filled:
    """A daemon with events of every fate, which no test changes, and the ids of a few of them."""

    daemon: DaemonProcess
    ids: dict[str, str]


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Filled]:
    with serving(tmp_path_factory.mktemp("filled")) as daemon:
        yield Filled(daemon, fill(daemon))


@pytest.fixture
def look_around(tabs: Tabs, filled: Filled) -> Iterator[Look]:
    """Open tabs at the filled daemon."""
    with tabs.at(filled.daemon.url) as look:
        yield look


def fill(daemon: DaemonProcess) -> dict[str, str]:
    """Send some events of every fate and return a few ids."""
    done = send(daemon, "shop.started", {"amount": 12}, workflow_id="checkout-1", service_name="shop")
    dead = send(daemon, "bad.payment", {"n": 7}, workflow_id="checkout-1", service_name="payments")
    retrying = send(daemon, "later.receipt", {}, workflow_id="checkout-1")
    busy = send(daemon, "slow.shipment", {}, workflow_id="checkout-1")
    for number in range(60):
        send(daemon, "shop.step", {"n": number}, workflow_id=f"order-{number}")
    reaches(daemon, done, "succeeded")
    reaches(daemon, dead, "dead_lettered")
    reaches(daemon, retrying, "retrying")
    reaches(daemon, busy, "processing")
    until(lambda: at_rest(daemon.http.get("/api/convergence")), what="everything else to end")
    return {"done": done, "dead": dead, "retrying": retrying, "busy": busy, "job": paused_replay(daemon, dead)}


def at_rest(report: dict[str, Any]) -> bool:
    """Tell whether all but the one slow event has ended or waits."""
    return bool(report["processing_events"] == 1 and report["queued_events"] == report["received_events"] == 0)


def paths(ids: dict[str, str]) -> list[str]:
    """Return the path of every page, and of some that show other things on it."""
    return [
        *every_page(ids["dead"], "checkout-1", ids["job"]),
        "/events?status=retrying&type=later.*&since=1h",
        "/events?q=nothing-of-this-name",
        f"/events/{ids['done']}",
        f"/events/{ids['busy']}",
        "/dead-letters?group_by=type&group=bad.payment",
        "/replays/new?error=TimeoutError:%20timeout%20from%20gateway-N",
        f"/send?from={ids['dead']}",
        f"/confirm/replay?id={ids['dead']}",
        "/guide?q=child+events",
    ]


@pytest.mark.slow
def test_every_page_is_quiet_at_home_and_fits(filled: Filled, look_around: Look) -> None:
    """No console message, no refused resource, no foreign request, no sideways scrolling at any width, one h1, a named
    main part, and either theme."""
    tab = look_around("/")
    for path in paths(filled.ids):
        tab.at_width(1440).open(path).live()
        assert tab.page.locator("h1").count() == 1, path
        assert tab.page.locator("main").count() == 1, path
        for width, themes in ((1440, ("light", "dark")), (320, ("dark", "light"))):  # shown as few times as that takes
            for theme in themes:
                shown, wide = tab.at_width(width).in_theme(theme).page.evaluate(BACKGROUND_AND_TOO_WIDE)
                assert shown == BACKGROUNDS[theme], (path, theme)
                assert wide <= 0, (path, width, theme, wide)
        assert tab.violations() == [], path
    assert tab.complaints == []
    assert tab.foreign() == []


@pytest.mark.slow
def test_long_words_fit_a_small_screen(daemon: DaemonProcess, look: Look) -> None:
    """Names as long as they may be, errors, reasons and issues without a space are broken, not too wide."""
    name = "n" * 255
    fields = {"workflow_id": name, "application_name": name[:100], "service_name": name[:100], "idempotency_key": name}
    held = send(daemon, f"holds.{name[:249]}", {"p" * 300: "v" * 9_000}, metadata={"m" * 300: "v" * 900}, **fields)
    reaches(daemon, held, "dead_lettered")
    done = send(daemon, name, ["r" * 9_000], workflow_id=name, service_name=name[:100])
    reaches(daemon, done, "succeeded")
    reason = {"reason": "r" * 1_000}
    daemon.http.post("/api/handlers/holds.%2A/pause", reason)
    job = daemon.http.post("/api/replays", {"ids": [held], **reason}).json()["id"]
    daemon.http.post("/api/chaos/workers/worker-1/crash")
    until(lambda: "held the event loop" in str(daemon.http.get("/api/convergence")), what="an issue of the held loop")
    tab = look("/", width=320)
    places = [*paths({"done": done, "dead": held, "busy": done, "job": job}), f"/workflows/{name}"]
    wide = {path: tab.open(path).page.evaluate("document.documentElement.scrollWidth") for path in places}
    assert {path: width for path, width in wide.items() if width > 320} == {}


def test_the_figures_are_those_of_the_api(filled: Filled, look_around: Look) -> None:
    """Tiles, badge, chips, totals and ledger say what /api/convergence says."""
    report = filled.daemon.http.get("/api/convergence")
    tab = look_around("/")
    shown = {
        name: tab.text(f"#tile-{name} .value")
        for name in ("accepted", "queued", "retrying", "succeeded", "dead", "running")
    }
    assert shown == {
        "accepted": str(report["ledger"]["accepted"]),
        "queued": str(report["queued_events"]),
        "retrying": str(report["retrying_events"]),
        "succeeded": str(report["ledger"]["succeeded"]),
        "dead": str(report["dead_lettered_events"]),
        "running": f"{report['processing_events']}/4",
    }
    assert tab.text("#ledger") == report["ledger_in_words"]
    assert tab.text(".badge").strip() == str(report["dead_lettered_events"])
    tab.open("/events")
    assert f"succeeded {report['ledger']['succeeded']}" in tab.text(".chips")
    tab.open("/dead-letters")
    assert tab.text("#dead-total") == "1 dead letter"
    totals = filled.daemon.http.get("/api/workflows/checkout-1")
    tab.open("/workflows/checkout-1")
    assert tab.text("#workflow-totals") == f"{totals['succeeded']} of {totals['total_events']} events succeeded"
    lanes = tab.page.locator(".timeline .lane").count()
    assert lanes == totals["total_events"] == tab.page.locator(".steps > li").count()


def test_a_bad_word_always_has_a_cause_and_a_link(daemon: DaemonProcess, look: Look) -> None:
    """A dead letter makes the health line say so, and its link shows the letter."""
    tab = look("/")
    assert tab.text("#health-word") == "Healthy"
    reaches(daemon, send(daemon, "bad.payment", {"n": 3}), "dead_lettered")
    expect(tab.page.locator("#health-word")).to_have_text("Attention")
    assert "timeout from gateway-N" in tab.text("#health")
    tab.page.click("#health a")
    tab.page.wait_for_url("**/dead-letters")
    assert tab.page.locator("text=TimeoutError: timeout from gateway-N").first.is_visible()


def test_filters_survive_reload_and_the_back_button(filled: Filled, look_around: Look) -> None:
    """The filter form goes into the URL and comes back from it."""
    tab = look_around("/events")
    tab.page.select_option("select[name=status]", "retrying")
    tab.page.fill("input[name=type]", "later.*")
    tab.page.click("button:text-is('Filter')")
    tab.page.wait_for_url("**/events?status=retrying&type=later.**")
    assert tab.page.locator("tbody tr").count() == 1
    tab.page.click(f"a[href='/events/{filled.ids['retrying']}']")
    tab.page.wait_for_url(f"**/events/{filled.ids['retrying']}")
    tab.page.go_back()
    assert tab.page.input_value("input[name=type]") == "later.*"
    assert tab.page.locator("tbody tr").count() == 1


def test_older_pages_lose_and_double_nothing(filled: Filled, look_around: Look) -> None:
    """Walking to the end of the list shows every event once."""
    tab = look_around("/events")
    seen: list[str] = []
    while True:
        seen += tab.page.locator("tbody tr").evaluate_all("rows => rows.map(row => row.id)")
        older = tab.page.locator("a[rel=next]")
        if older.count() == 0:
            break
        tab.open(older.get_attribute("href") or "")
    assert len(seen) == len(set(seen)) == filled.daemon.http.get("/api/convergence")["ledger"]["accepted"]


def test_the_theme_is_remembered_by_the_server(look_around: Look) -> None:
    """Choosing a theme colours the next page before any script runs."""
    tab = look_around("/")
    tab.page.click("#theme")
    tab.page.wait_for_selector("html[data-theme=light]")
    tab.page.click("#theme")
    tab.page.wait_for_selector("html[data-theme=dark]")
    assert tab.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(15, 17, 21)"
    assert tab.open("/events").page.locator("html[data-theme=dark]").count() == 1


def test_an_unknown_page_helps_to_search(daemon: DaemonProcess, look: Look) -> None:
    """A 404 is a page with a search that finds an event by its id and a workflow by its name."""
    event_id = send(daemon, "shop.started", workflow_id="checkout-9")
    reaches(daemon, event_id, "succeeded")
    tab = look("/events/00000000-0000-0000-0000-000000000000")
    assert "There is no event" in tab.text("main")
    for text, place in ((event_id, f"/events/{event_id}"), ("checkout-9", "/workflows/checkout-9")):
        assert "Nothing lives at /no/such/page" in tab.open("/no/such/page").text("main")
        tab.page.fill("main input[name=q]", text)
        tab.page.press("main input[name=q]", "Enter")
        tab.page.wait_for_url(f"**{place}")
