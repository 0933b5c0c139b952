"""The palette: everything that the pages lead to and can do, from one field."""

from playwright.sync_api import Request, expect

from tests.browser.conftest import reaches, send
from tests.browser.tabs import Look
from tests.support.daemon_process import DaemonProcess, until


def test_it_goes_to_pages_events_and_workflows(daemon: DaemonProcess, look: Look) -> None:
    """Ctrl+K opens it from anywhere, words narrow it down, arrows choose, Enter goes; an id or a workflow is found."""
    event_id = send(daemon, "shop.started", workflow_id="checkout-77", idempotency_key="key-77")
    reaches(daemon, event_id, "succeeded")
    tab = look("/events").live()
    keys, options = tab.page.keyboard, tab.page.locator("dialog[open] [role=option]")
    tab.page.focus("input[name=type]")
    keys.press("Control+k")
    field = tab.page.locator("dialog[open] [role=combobox]")
    expect(field).to_be_focused()
    chosen = options.nth(0).get_attribute("id")
    assert field.get_attribute("aria-activedescendant") == chosen
    keys.type("runt")
    expect(options).to_have_text(["Runtime page", "Search for “runt” search"])
    keys.press("ArrowDown")
    expect(tab.page.locator("[aria-selected=true]")).to_have_text("Search for “runt” search")
    keys.press("ArrowDown")
    expect(tab.page.locator("[aria-selected=true]")).to_have_text("Runtime page")
    keys.press("Enter")
    tab.page.wait_for_url("**/runtime")
    for typed, label, place in (
        ("checkout-7", "checkout-77 workflow", "/workflows/checkout-77"),
        (event_id[:12], f"shop.started succeeded, checkout-77, {event_id[:8]}", f"/events/{event_id}"),
        ("key-77", f"shop.started succeeded, checkout-77, {event_id[:8]}", f"/events/{event_id}"),
    ):
        tab.open("/").live().page.click("#palette")
        keys.type(typed)
        expect(options.first).to_have_text(label)
        keys.press("Enter")
        tab.page.wait_for_url(f"**{place}")
    assert tab.complaints == []
    assert tab.violations() == []


def test_it_presses_the_buttons_of_the_page(daemon: DaemonProcess, look: Look) -> None:
    """What can be done here is offered by name; it asks as the button does; Escape leaves everything as it was."""
    event_id = send(daemon, "bad.payment", {"n": 1})
    reaches(daemon, event_id, "dead_lettered")
    tab = look(f"/events/{event_id}").live()
    keys, options = tab.page.keyboard, tab.page.locator("dialog[open] [role=option]")
    keys.press("Control+k")
    keys.press("Escape")
    expect(tab.page.locator("dialog[open]")).to_have_count(0)
    keys.press("Control+k")
    keys.type("replay…")
    expect(options.first).to_have_text("Replay… action")
    keys.press("Enter")
    expect(tab.page.locator("dialog[open] h2")).to_have_text("Replay 1 event")
    keys.press("Control+k")
    expect(tab.page.locator("dialog[open] h2")).to_have_text("Replay 1 event")
    assert daemon.http.get(f"/api/events/{event_id}")["status"] == "dead_lettered"


def test_it_asks_the_daemon_once_somebody_pauses(daemon: DaemonProcess, look: Look) -> None:
    """A burst of letters is one question, and one letter is none; without an answer the search is still there."""
    tab = look("/").live()
    asked: list[Request] = []
    tab.page.on("request", lambda request: asked.append(request) if "/lookup" in request.url else None)
    tab.page.keyboard.press("Control+k")
    tab.page.evaluate(
        """() => { const field = document.querySelector('[role=combobox]');
          for (const text of ['c', 'ch', 'che', 'chec']) {
            field.value = text; field.dispatchEvent(new Event('input')); } }"""
    )
    with tab.page.expect_response("**/lookup?q=chec"):
        pass
    assert [request.url.rpartition("=")[2] for request in asked] == ["chec"]
    tab.page.route("**/lookup?*", lambda route: route.abort())
    tab.page.keyboard.type("k")
    expect(tab.page.locator("dialog[open] [role=option]")).to_have_text(["Search for “check” search"])


def test_what_is_chosen_stays_chosen_when_more_is_found(daemon: DaemonProcess, look: Look) -> None:
    """An answer that comes late is put in without taking the choice away."""
    reaches(daemon, send(daemon, "shop.started", workflow_id="runtime-7"), "succeeded")
    tab = look("/").live()
    tab.page.evaluate(
        """() => { const real = window.fetch; window.fetch = (url, options) => /lookup/.test(url)
          ? new Promise((resolve) => { window.asked = url; window.answer = () => resolve(real(url, options)); })
          : real(url, options); }"""
    )
    tab.page.keyboard.press("Control+k")
    tab.page.keyboard.type("runtime")
    until(lambda: tab.page.evaluate("window.asked?.endsWith('=runtime')"))
    tab.page.keyboard.press("ArrowDown")
    tab.page.evaluate("void window.answer()")
    expect(tab.page.locator("dialog[open] [role=option]")).to_have_count(4)
    expect(tab.page.locator("[aria-selected=true]")).to_have_text("Search for “runtime” search")
