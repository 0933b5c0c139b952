"""The pages without a mouse."""

import re
from datetime import datetime, timedelta
from pathlib import Path

from playwright.sync_api import expect

from tests.browser.conftest import reaches, send
from tests.browser.tabs import Look
from tests.support.daemon_process import DaemonProcess


def test_from_the_overview_to_a_replay_by_keys_alone(daemon: DaemonProcess, look: Look, tmp_path: Path) -> None:
    """g d goes to the dead letters, j and x choose one, r asks, Enter replays; r never fires by itself."""
    event_id = send(daemon, "bad.payment", {"n": 1})
    reaches(daemon, event_id, "dead_lettered")
    (tmp_path / "mended").touch()
    tab = look("/").live()
    keys = tab.page.keyboard
    keys.press("g")
    keys.press("d")
    tab.page.wait_for_url("**/dead-letters")
    tab.live()
    keys.press("j")
    keys.press("x")
    expect(tab.page.locator("#bulk-count")).to_have_text("1 chosen:")
    keys.press("r")
    expect(tab.page.locator("dialog[open]")).to_be_visible()
    assert daemon.http.get(f"/api/events/{event_id}")["status"] == "dead_lettered"
    keys.type("mended")
    keys.press("Enter")
    expect(tab.page.locator("#flash")).to_contain_text("1 event replayed.")
    assert reaches(daemon, event_id, "succeeded")["run"] == 2
    assert tab.complaints == []


def test_the_skip_link_comes_first_and_leads_to_the_content(daemon: DaemonProcess, look: Look) -> None:
    """The first Tab shows the skip link; Enter moves on to the main part; whatever has focus can be seen to have it."""
    tab = look("/events").live()
    tab.page.keyboard.press("Tab")
    skip = tab.page.locator(".skip")
    expect(skip).to_be_focused()
    assert (skip.bounding_box() or {"x": -1})["x"] >= 0
    tab.page.keyboard.press("Enter")
    expect(tab.page.locator("#main")).to_be_focused()
    for _ in range(6):
        tab.page.keyboard.press("Tab")
        outline = tab.page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline != "none"


def test_single_keys_rest_while_somebody_types_and_when_switched_off(daemon: DaemonProcess, look: Look) -> None:
    """Letters typed into a field do nothing else; the help switches single keys off, and that is remembered."""
    tab = look("/events").live()
    tab.page.click("input[name=type]")
    tab.page.keyboard.type("gd?p")
    assert tab.page.input_value("input[name=type]") == "gd?p"
    assert tab.page.url.endswith("/events")
    tab.page.click("#help")
    expect(tab.page.locator("dialog[open]")).to_contain_text("next and previous row")
    tab.page.uncheck("#keys-on")
    tab.page.keyboard.press("Escape")
    tab.open("/events").live()
    tab.page.keyboard.press("p")
    tab.page.keyboard.press("?")
    assert tab.page.locator("dialog[open]").count() == 0
    assert tab.text("#pill") == "Live"


def test_a_range_is_ticked_with_shift_and_a_page_with_one_box(daemon: DaemonProcess, look: Look) -> None:
    """Shift ticks everything between two clicks; the box above ticks the page; the buttons wait for a choice."""
    ids = [send(daemon, "shop.step", {"n": number}) for number in range(6)]
    for event_id in ids:
        reaches(daemon, event_id, "succeeded")
    tab = look("/events").live()
    assert tab.page.locator("#bulk button:disabled").count() == 3
    tab.page.click(f"#tick-{ids[4]}")
    tab.page.click(f"#tick-{ids[1]}", modifiers=["Shift"])
    assert tab.text("#bulk-count") == "4 chosen:"
    tab.page.check("#tick-all")
    assert tab.text("#bulk-count") == "6 chosen:"
    assert tab.page.locator("#bulk button:disabled").count() == 0


def test_keys_tick_a_range(daemon: DaemonProcess, look: Look) -> None:
    """x ticks the row, Shift+x all from there to here."""
    for number in range(4):
        reaches(daemon, send(daemon, "shop.step", {"n": number}), "succeeded")
    tab = look("/events").live()
    for key in ("j", "x", "j", "j", "Shift+X"):
        tab.page.keyboard.press(key)
    assert tab.text("#bulk-count") == "3 chosen:"


def test_times_are_shown_as_the_reader_likes_them(daemon: DaemonProcess, look: Look) -> None:
    """How long ago, by the local clock or in UTC: the choice is remembered, and the others are in the title."""
    event_id = send(daemon, "shop.step")
    reaches(daemon, event_id, "succeeded")
    tab = look(f"/events/{event_id}", timezone_id="Asia/Kolkata", locale="en-GB").live()
    accepted = tab.page.locator("#event-state time")
    iso = accepted.get_attribute("datetime") or ""
    utc = f"{iso[:10]} {iso[11:19]} UTC"
    expect(accepted).to_have_text(re.compile("ago|now"))
    assert utc in (accepted.get_attribute("title") or "")
    tab.page.click("#times")
    local = (datetime.fromisoformat(iso) + timedelta(hours=5, minutes=30)).strftime("%d/%m/%Y, %H:%M:%S")
    expect(accepted).to_have_text(local)
    tab.page.click("#times")
    expect(accepted).to_have_text(utc)
    tab.open("/events").live()
    expect(tab.page.locator("tbody time")).to_have_text(utc)
    assert local in (tab.page.locator("tbody time").get_attribute("title") or "")


def test_news_are_spoken_once(daemon: DaemonProcess, look: Look) -> None:
    """A new dead letter is announced in one polite sentence."""
    tab = look("/").live()
    reaches(daemon, send(daemon, "bad.payment", {"n": 1}), "dead_lettered")
    expect(tab.page.locator("#news[aria-live=polite]")).to_have_text("1 new dead letter")


def test_every_control_has_a_name_and_room_for_a_finger(daemon: DaemonProcess, look: Look) -> None:
    """Buttons, links and fields have an accessible name; none is too small to hit; header cells say what they head."""
    reaches(daemon, send(daemon, "bad.payment", {"n": 1}), "dead_lettered")
    tab = look("/", width=320)
    for path in ("/", "/events", "/dead-letters", "/runtime", "/send"):
        tab.open(path).live()
        nameless = tab.page.evaluate(
            """() => [...document.querySelectorAll('button, a[href], input:not([type=hidden]), select, textarea')]
              .filter((one) => one.checkVisibility() && !(one.textContent.trim() || one.getAttribute('aria-label')
                || one.labels?.length)).map((one) => one.outerHTML)"""
        )
        assert nameless == [], path
        small = tab.page.evaluate(
            """() => [...document.querySelectorAll('button, .button, select, input:not([type=checkbox])')]
              .filter((one) => one.checkVisibility()).map((one) => [one.outerHTML, one.getBoundingClientRect()])
              .filter(([, box]) => box.height && Math.min(box.width, box.height) < 24).map(([html]) => html)"""
        )
        assert small == [], path
        scoped = tab.page.evaluate("document.querySelectorAll('th:not([scope])').length")
        assert scoped == 0, path
