"""What is asked before something is done, and how often it is done then."""

from pathlib import Path

from playwright.sync_api import expect

from tests.browser.conftest import reaches, send
from tests.browser.tabs import Look
from tests.support.daemon_process import DaemonProcess


def test_news_between_press_and_release_change_nothing_under_the_pointer(daemon: DaemonProcess, look: Look) -> None:
    """What is pressed is what is asked about, whatever arrives before the button is released; it comes in after."""
    first = send(daemon, "bad.payment", {"n": 1})
    reaches(daemon, first, "dead_lettered")
    tab = look("/dead-letters?group_by=type").live()
    tab.page.hover("td.verbs button:text-is('Replay 1…')")
    tab.page.mouse.down()
    second = [send(daemon, "bad.refund", {"n": number}) for number in range(2)]
    for event_id in second:
        reaches(daemon, event_id, "dead_lettered")
    expect(tab.page.locator("#health")).to_contain_text("3 dead letters")
    expect(tab.page.locator("#dead-total")).to_have_text("1 dead letter")
    tab.page.mouse.up()
    expect(tab.page.locator("dialog[open]")).to_contain_text("the group bad.payment")
    tab.page.keyboard.press("Escape")
    tab.page.mouse.move(5, 5)
    expect(tab.page.locator("#dead-total")).to_have_text("3 dead letters")
    assert [daemon.http.get(f"/api/events/{event_id}")["run"] for event_id in [first, *second]] == [1, 1, 1]


def test_all_that_match_are_replayed_once_however_often_it_is_asked(
    daemon: DaemonProcess, look: Look, tmp_path: Path
) -> None:
    """The dialog says how many; a double click makes one job; both tabs follow it to its end; the totals agree."""
    ids = [send(daemon, "bad.payment", {"n": number}) for number in range(4)]
    other = send(daemon, "bad.refund", {"n": 9})
    for event_id in [*ids, other]:
        reaches(daemon, event_id, "dead_lettered")
    (tmp_path / "mended").touch()
    second = look("/replays").live()
    tab = look("/events?type=bad.payment").live()
    tab.page.click("text=Replay all dead-lettered that match…")
    expect(tab.page.locator("dialog[open] h2")).to_contain_text("4 events")
    tab.page.fill("dialog input[name=reason]", "the gateway is back")
    tab.page.fill("dialog input[name=rate_per_second]", "4")
    tab.page.dblclick("dialog button:text-is('Replay them')")
    tab.page.wait_for_url("**/replays/rpl_1")
    expect(second.page.locator("#row-rpl_1")).to_contain_text("the gateway is back")
    expect(tab.page.locator("#job-state")).to_contain_text("done")
    expect(second.page.locator("#row-rpl_1")).to_contain_text("done")
    (job,) = daemon.http.get("/api/replays")["items"]
    assert (job["total"], job["replayed"], job["succeeded"], job["dead_lettered"]) == (4, 4, 4, 0)
    assert [reaches(daemon, event_id, "succeeded")["run"] for event_id in ids] == [2, 2, 2, 2]
    assert daemon.http.get(f"/api/events/{other}")["run"] == 1
    assert tab.complaints == second.complaints == []
