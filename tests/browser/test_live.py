"""Pages that follow what happens by themselves, and never get in the way of who reads them."""

import re
import signal

from playwright.sync_api import Request, Route, expect

from tests.browser.conftest import reaches, send
from tests.browser.tabs import Look, Watched
from tests.support.daemon_process import DaemonProcess, until


def test_a_crash_is_seen_from_beginning_to_end_without_a_reload(daemon: DaemonProcess, look: Look) -> None:
    """The event page shows the crashes, the runtime page the restarts, then the outcome."""
    runtime = look("/runtime").live()
    overview = look("/").live()
    event_id = send(daemon, "shop.crash", {"_force_crash": True})
    event = look(f"/events/{event_id}").live()
    for tab in (runtime, overview, event):
        tab.page.evaluate("window.sameDocument = true")
    expect(event.page.locator("#event-state")).to_contain_text("dead-lettered")
    expect(event.page.locator("#event-state")).to_contain_text("poison")
    expect(event.page.locator(".attempts > li.crashed")).to_have_count(3)
    expect(overview.page.locator("#health-word")).to_have_text("Recovering")
    expect(overview.page.locator(".activity")).to_contain_text("died with an event in its hands")
    expect(overview.page.locator("#tile-dead .value")).to_have_text("1")
    restarts = runtime.page.locator("#workers td[data-label=Restarts]")
    until(lambda: sum(map(int, restarts.all_inner_texts())) == 3, what="three restarts on the page")
    expect(runtime.page.locator("#workers tbody tr")).to_have_count(4)
    for tab in (runtime, overview, event):
        assert tab.page.evaluate("window.sameDocument") is True
        assert tab.complaints == []


def test_numbers_follow_the_api(daemon: DaemonProcess, look: Look) -> None:
    """What is sent while the page is open is counted on it."""
    tab = look("/").live()
    for number in range(7):
        send(daemon, "shop.step", {"n": number})
    expect(tab.page.locator("#tile-succeeded .value")).to_have_text("7")
    expect(tab.page.locator("#tile-accepted .value")).to_have_text("7")
    expect(tab.page.locator("#main tbody tr[data-row]")).to_have_count(7)


def test_news_that_come_while_a_page_waits_for_its_answer_are_not_lost(daemon: DaemonProcess, look: Look) -> None:
    """A hint that comes before the slow answer to an earlier one makes the page ask once more, without another hint."""
    tab, held, asked = look("/").live(), list[Route](), list[Request]()
    tab.page.route("**/*", lambda route: hold_the_first(route, held))
    send(daemon, "shop.step")
    until(lambda: tab.page.evaluate("window.heldAt ??= performance.now()") and held, what="the page to ask")
    answer = held[0].fetch()
    seen_by_another_tab(daemon, look, "bad.payment")
    # The page looks once a second at most: by then it has wanted to.
    until(lambda: tab.page.evaluate("performance.now() > window.heldAt + 2500"), what="the page to look again")
    daemon.signal(signal.SIGSTOP)  # no more hints
    try:
        tab.page.on("request", lambda request: asked.append(request))
        held[0].fulfill(response=answer)
        until(lambda: tab.page.evaluate("1") and asked, what="the page to ask once more")
    finally:
        daemon.signal(signal.SIGCONT)


def hold_the_first(route: Route, held: list[Route]) -> None:
    """Let everything pass but the first request for regions of the page."""
    if "x-live-regions" in route.request.headers and not held:
        held.append(route)
    else:
        route.continue_()


def test_an_open_dialog_stays_open(daemon: DaemonProcess, look: Look) -> None:
    """News that arrive while a dialog asks leave it and what was typed in it alone, and come in once it is closed."""
    first = send(daemon, "bad.payment", {"n": 1})
    reaches(daemon, first, "dead_lettered")
    tab = look("/dead-letters").live()
    tab.page.click("#groups-title ~ * button:has-text('Replay 1')")
    tab.page.fill("dialog input[name=reason]", "the gateway is back")
    seen_by_another_tab(daemon, look, "bad.payment")
    assert tab.page.locator("dialog[open]").count() == 1
    assert tab.page.input_value("dialog input[name=reason]") == "the gateway is back"
    assert tab.page.evaluate("document.activeElement.name") == "reason"
    assert tab.text("#dead-total") == "1 dead letter"
    tab.page.keyboard.press("Escape")
    expect(tab.page.locator("#dead-total")).to_have_text("2 dead letters")
    assert tab.complaints == []


def seen_by_another_tab(daemon: DaemonProcess, look: Look, event_type: str) -> None:
    """Send one more dead letter and return once another open page shows it: by then every page has heard of it."""
    other = look("/").live()
    before = int(other.text("#tile-dead .value"))
    reaches(daemon, send(daemon, event_type, {"n": 2}), "dead_lettered")
    expect(other.page.locator("#tile-dead .value")).to_have_text(str(before + 1))


def test_ticked_rows_stay_ticked(daemon: DaemonProcess, look: Look) -> None:
    """A list with ticked rows keeps its rows, its ticks and its count while events arrive."""
    ids = [send(daemon, "bad.payment", {"n": number}) for number in range(3)]
    for event_id in ids:
        reaches(daemon, event_id, "dead_lettered")
    tab = look("/events").live()
    for event_id in ids[:2]:
        tab.page.check(f"#tick-{event_id}")
    tab.page.mouse.move(5, 5)
    seen_by_another_tab(daemon, look, "bad.payment")
    assert tab.page.locator("td.tick input:checked").count() == 2
    assert tab.text("#bulk-count") == "2 chosen:"
    assert tab.page.locator("tbody tr").count() == 3
    for event_id in ids[:2]:
        tab.page.uncheck(f"#tick-{event_id}")
    tab.page.mouse.move(6, 6)
    expect(tab.page.locator("tbody tr")).to_have_count(4)


def test_rows_do_not_move_under_the_pointer(daemon: DaemonProcess, look: Look) -> None:
    """While the pointer is over the list, new rows are announced and come in when asked for."""
    reaches(daemon, send(daemon, "shop.first"), "succeeded")
    tab = look("/events").live()
    tab.page.hover("tbody tr")
    reaches(daemon, send(daemon, "shop.second"), "succeeded")
    expect(tab.page.locator("button.fresh")).to_have_text("1 new ↑")
    assert tab.page.locator("tbody tr").count() == 1
    tab.page.click("button.fresh")
    expect(tab.page.locator("tbody tr")).to_have_count(2)


def test_open_details_focus_and_scroll_survive(daemon: DaemonProcess, look: Look) -> None:
    """A swap keeps opened details open, the focus where it is, and the page where it was scrolled to."""
    event_id = send(daemon, "bad.payment", {"n": 1}, workflow_id="order-9")
    reaches(daemon, event_id, "dead_lettered")
    tab = look("/workflows/order-9").live()
    tab.page.click(f"#step-details-{event_id} summary")
    tab.page.click(f"#step-details-{event_id} .attempts summary")
    tab.page.evaluate("window.scrollTo(0, 120)")
    scrolled = tab.page.evaluate("window.scrollY")
    reaches(daemon, send(daemon, "shop.next", workflow_id="order-9"), "succeeded")
    expect(tab.page.locator(".steps > li")).to_have_count(2)
    assert tab.page.locator(f"#step-details-{event_id}[open]").count() == 1
    assert tab.page.locator(f"#step-details-{event_id} .attempts details[open]").count() == 1
    assert tab.page.evaluate("document.activeElement.nodeName") == "SUMMARY"
    assert tab.page.evaluate("window.scrollY") == scrolled


def test_a_caret_in_a_filter_stays_where_it_is(daemon: DaemonProcess, look: Look) -> None:
    """Typing into the filters goes on undisturbed while the list below follows."""
    tab = look("/events").live()
    tab.page.click("input[name=type]")
    tab.page.keyboard.type("shop.x")
    tab.page.keyboard.press("ArrowLeft")
    reaches(daemon, send(daemon, "shop.step"), "succeeded")
    expect(tab.page.locator("tbody tr")).to_have_count(1)
    tab.page.keyboard.type("y")
    assert tab.page.input_value("input[name=type]") == "shop.yx"


def test_pause_means_no_requests_at_all(daemon: DaemonProcess, look: Look) -> None:
    """Paused, the page asks for nothing, whatever happens and whoever looks at it; resumed, it catches up."""
    tab = look("/").live()
    tab.page.click("#pill")
    expect(tab.page.locator("#pill")).to_have_text("Paused")
    asked: list[str] = []
    tab.page.on("request", lambda request: asked.append(request.url))
    seen_by_another_tab(daemon, look, "bad.payment")
    tab.page.evaluate("document.dispatchEvent(new Event('visibilitychange')); window.dispatchEvent(new Event('focus'))")
    seen_by_another_tab(daemon, look, "bad.payment")
    assert asked == []
    assert tab.text("#tile-dead .value") == "0"
    tab.open("/events")
    assert tab.text("#pill") == "Paused"
    tab.open("/").page.click("#pill")
    expect(tab.page.locator("#pill")).to_have_text("Live")
    expect(tab.page.locator("#tile-dead .value")).to_have_text("2")


def test_only_what_changed_is_fetched(daemon: DaemonProcess, look: Look) -> None:
    """A live update asks for regions, never for the page, and at most about once a second."""
    tab = look("/").live()
    asked: list[Request] = []
    tab.page.on("request", lambda request: asked.append(request))
    for number in range(30):
        send(daemon, "shop.step", {"n": number})
    expect(tab.page.locator("#tile-succeeded .value")).to_have_text("30")
    fetched = [request for request in asked if request.resource_type == "fetch"]
    assert 1 <= len(fetched) <= 10
    assert all(request.headers.get("x-live-regions") for request in fetched)
    assert [request.url for request in asked if request.resource_type == "document"] == []


def test_without_streams_the_page_looks_now_and_then(daemon: DaemonProcess, look: Look) -> None:
    """Where no stream gets through, the page says that it reconnects, and still follows by asking every few seconds."""
    tab = look("/").live()
    tab.page.route("**/api/stream?*", lambda route: route.abort())
    tab.page.reload()
    expect(tab.page.locator("#pill")).to_contain_text("Reconnecting")
    reaches(daemon, send(daemon, "shop.step"), "succeeded")
    expect(tab.page.locator("#tile-succeeded .value")).to_have_text("1", timeout=20_000)


def test_a_worker_that_is_crashed_while_it_works_is_replaced_and_its_event_goes_on(
    daemon: DaemonProcess, look: Look
) -> None:
    """Crash it: the event in hand is seen crashed, handed out again, and in the hands of a worker once more."""
    event_id = send(daemon, "slow.shipment")
    reaches(daemon, event_id, "processing")
    event, runtime = look(f"/events/{event_id}").live(), look("/runtime").live()
    worker = runtime.page.locator("#workers tr", has_text="slow.shipment").locator("th").inner_text()
    runtime.page.click(f"#{worker} button:text-is('Crash it')")
    expect(runtime.page.locator("#flash")).to_contain_text(f"{worker} was crashed")
    expect(event.page.locator(".attempts > li.crashed")).to_have_count(1)
    expect(event.page.locator("#event-state")).to_contain_text("started 2 times")
    expect(event.page.locator("#event-state")).to_contain_text("processing")
    expect(runtime.page.locator("#workers tr", has_text="slow.shipment")).to_have_count(1)


def test_kill_9_and_a_new_start_with_the_tab_open(daemon: DaemonProcess, look: Look) -> None:
    """The pill says so while the daemon is away; afterwards the page goes on with the numbers of the store."""
    for number in range(5):
        reaches(daemon, send(daemon, "shop.step", {"n": number}), "succeeded")
    port = daemon.url.rpartition(":")[2]
    tab = look("/").live()
    tab.page.evaluate("window.sameDocument = true")
    daemon.kill()
    expect(tab.page.locator("#pill")).to_contain_text("Reconnecting")
    expect(tab.page.locator("#tile-succeeded .value")).to_have_text("5")
    daemon.start("--port", port)
    reaches(daemon, send(daemon, "bad.payment"), "dead_lettered")
    expect(tab.page.locator("#pill")).to_have_text("Live", timeout=15_000)
    expect(tab.page.locator("#tile-dead .value")).to_have_text("1")
    expect(tab.page.locator("#health")).to_contain_text("the process had died")
    report = daemon.http.get("/api/convergence")
    assert tab.text("#tile-accepted .value") == str(report["ledger"]["accepted"]) == "6"
    assert tab.page.evaluate("window.sameDocument") is True
    assert unexpected(tab) == []


def unexpected(tab: Watched) -> list[str]:
    """Return the complaints other than that nobody listened for a while."""
    return [line for line in tab.complaints if not re.search(r"ERR_(CONNECTION|INCOMPLETE|EMPTY)", line)]
