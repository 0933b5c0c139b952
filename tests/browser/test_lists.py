"""Lists of events: views that are kept, commands and files to take along, and a store full of dead letters."""

import json
import sqlite3
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import reaches, send
from tests.browser.tabs import Look, Watched
from tests.support.daemon_process import DaemonProcess, until

MANY = 50_000
PAGE_BYTES_MAX = 300_000


def test_a_view_is_kept_by_name_and_forgotten(daemon: DaemonProcess, look: Look) -> None:
    """A filter gets a name, comes back after a reload and in the palette without the page of the list, and goes."""
    tab = look("/events?status=&type=shop.*&cursor=999").live()
    tab.page.click("#save-view summary")
    tab.page.fill("#save-view input[name=name]", "the <b>shop</b>")
    tab.page.keyboard.press("Enter")
    tab.open("/events").live()
    saved = tab.page.locator("#views a")
    expect(saved).to_have_text("the <b>shop</b>")
    assert saved.get_attribute("aria-current") is None
    tab.page.keyboard.press("Control+k")
    tab.page.keyboard.type("view: the")
    expect(tab.page.locator("dialog[open] [role=option]").first).to_have_text("View: the <b>shop</b> action")
    tab.page.keyboard.press("Enter")
    tab.page.wait_for_url("**/events?type=shop.*")
    expect(tab.page.locator("#views a[aria-current=true]")).to_have_count(1)
    tab.page.click("#views button")
    expect(tab.page.locator("#views")).to_be_hidden()
    tab.open("/events").live()
    expect(tab.page.locator("#views li")).to_have_count(0)
    assert tab.complaints == []


def test_what_is_listed_can_be_taken_along(daemon: DaemonProcess, look: Look) -> None:
    """c copies a command that asks for the very list, the link exports it, and the line above it says how many."""
    ids = [send(daemon, "shop.step", {"n": number}) for number in range(3)]
    reaches(daemon, send(daemon, "bad.payment", {"n": 1}), "dead_lettered")
    for event_id in ids:
        reaches(daemon, event_id, "succeeded")
    tab = look("/events?type=shop.*&since=1h", permissions=("clipboard-read", "clipboard-write")).live()
    expect(tab.page.locator("#matching")).to_have_text("3 events match")
    tab.page.keyboard.press("c")
    program, url = until(tab.clipboard).split(" ")
    assert (program, url[0], url[-1]) == ("curl", "'", "'")
    listed = daemon.http.get(url.strip("'").removeprefix(daemon.url))["items"]
    assert [event["id"] for event in listed] == ids[::-1]
    with tab.page.expect_download() as download:
        tab.page.click("text=Export NDJSON")
    lines = download.value.path().read_text().splitlines()
    assert [json.loads(line)["id"] for line in lines] == ids[::-1]
    tab.open(f"/events/{ids[0]}").live().page.click("text=Copy link")
    until(lambda: tab.clipboard() == f"{daemon.url}/events/{ids[0]}")


def test_events_of_one_instant_are_neither_lost_nor_doubled(daemon: DaemonProcess, look: Look) -> None:
    """Where every event was accepted in the same microsecond, pages still go on exactly where the last one ended."""
    line = json.dumps({"workflow_id": "w", "event_type": "shop.step", "payload": {}}).encode()
    answer = daemon.http.request(
        "POST", "/api/events/bulk", b"\n".join([line] * 110), {"Content-Type": "application/x-ndjson"}
    )
    ids = [json.loads(part)["id"] for part in answer.body.splitlines()]
    until(daemon.converged)
    with sqlite3.connect(daemon.store_path) as store:
        store.execute("UPDATE events SET created_at_us = 1")
    tab = look("/events", java_script_enabled=False)
    seen: list[str] = []
    while True:
        seen += tab.page.locator("tbody tr").evaluate_all("rows => rows.map(row => row.id.replace('row-', ''))")
        older = tab.page.locator("a[rel=next]")
        if older.count() == 0:
            break
        older.click()
    assert seen == ids[::-1]


def fill_with_dead_letters(store_path: Path, count: int) -> None:
    """Make copies of the one dead letter there is, as many errors as a real outage has."""
    with sqlite3.connect(store_path) as store:
        columns = [row[1] for row in store.execute("PRAGMA table_info(events)")]
        copied = [
            {"seq": "seq + n", "id": "id || '-' || n", "error_signature": "'Error ' || (n % 300)"}.get(c, c)
            for c in columns
        ]
        numbers = "WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < ?)"
        store.execute(
            f"{numbers} INSERT INTO events ({', '.join(columns)}) SELECT {', '.join(copied)} FROM events, numbers",
            (count,),
        )
        store.execute(
            f"{numbers} INSERT INTO contents SELECT seq + n, payload, metadata FROM contents, numbers", (count,)
        )
        store.execute("UPDATE tallies SET amount = amount + ? WHERE name = 'dead_lettered'", (count,))


@pytest.mark.slow
def test_fifty_thousand_dead_letters_make_no_larger_pages(daemon: DaemonProcess, look: Look) -> None:
    """However many there are, a page shows a page of them, groups and counts included."""
    reaches(daemon, send(daemon, "bad.payment", {"n": 1}), "dead_lettered")
    fill_with_dead_letters(daemon.store_path, MANY)
    tab = look("/dead-letters").live()
    expect(tab.page.locator("#dead-total")).to_contain_text("50,001 dead letters")
    assert tab.page.locator("[data-live=letters] tbody tr").count() == 50
    assert tab.page.locator("[data-live=groups] tbody tr").count() == 100
    for path in ("/", "/dead-letters", "/events?status=dead_lettered", "/events?type=bad.*", "/workflows/order-1"):
        answer = daemon.http.request("GET", path, headers={"Accept": "text/html"})
        assert answer.status == 200
        assert len(answer.body) < PAGE_BYTES_MAX, path
    tab.open("/events?type=bad.*").live()
    expect(tab.page.locator("#matching")).to_have_text("10,000 events of the newest 10,000 match")
    assert tab.complaints == []


@pytest.mark.soak
def test_fifty_thousand_dead_letters_are_shown_at_once(daemon: DaemonProcess, look: Look) -> None:
    """Each page is there within 300 ms; run by hand on a quiet machine, since it is about speed."""
    reaches(daemon, send(daemon, "bad.payment", {"n": 1}), "dead_lettered")
    fill_with_dead_letters(daemon.store_path, MANY)
    tab = look("/dead-letters")
    for path in ("/dead-letters", "/events?status=dead_lettered", "/"):
        times = sorted(loaded_ms(tab.open(path)) for _ in range(5))
        assert times[2] < 300, (path, times)


def loaded_ms(tab: Watched) -> float:
    """Return how long the page that is open took to load and be laid out."""
    entry = "performance.getEntriesByType('navigation')[0].loadEventEnd"
    return float(until(lambda: tab.page.evaluate(entry)))
