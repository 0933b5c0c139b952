"""The pages without JavaScript: lists, details, filters and every action work."""

from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import reaches, send
from tests.browser.tabs import Look, Watched
from tests.support.daemon_process import DaemonProcess


@pytest.fixture
def plain(look: Look) -> Watched:
    """A tab in which no script runs."""
    return look("/", java_script_enabled=False)


def dead(daemon: DaemonProcess, count: int = 1) -> list[str]:
    """Return the ids of some dead letters."""
    ids = [send(daemon, "bad.payment", {"n": number}, workflow_id="order-1") for number in range(count)]
    for event_id in ids:
        reaches(daemon, event_id, "dead_lettered")
    return ids


def test_from_the_list_to_the_event_to_a_replay(daemon: DaemonProcess, plain: Watched, tmp_path: Path) -> None:
    """A dead letter is found, opened, replayed after a question, and succeeds; the page says what was done."""
    (event_id,) = dead(daemon)
    (tmp_path / "mended").touch()
    page = plain.open("/events").page
    page.click(f"tr[id='row-{event_id}'] a >> nth=0")
    page.click("button:text-is('Replay…')")
    assert plain.text("h1") == "Replay 1 event?"
    page.fill("input[name=reason]", "the gateway is back")
    page.click("button:text-is('Replay 1')")
    expect(page.locator("#flash")).to_contain_text("1 event replayed.")
    assert page.url == f"{daemon.url}/events/{event_id}"
    assert reaches(daemon, event_id, "succeeded")["run"] == 2
    page.reload()
    expect(page.locator("#event-state")).to_contain_text("succeeded")
    expect(page.locator(".actions")).to_contain_text("the gateway is back")
    assert page.locator("#flash").count() == 0


def test_a_group_is_discarded_for_a_reason(daemon: DaemonProcess, plain: Watched) -> None:
    """All dead letters of a group are discarded at once, and not without a reason."""
    ids = dead(daemon, 3)
    page = plain.open("/dead-letters").page
    page.click("td.verbs button:text-is('Discard…')")
    assert plain.text("h1") == "Discard 3 events?"
    page.evaluate("document.querySelector('input[name=reason]').required = false")
    page.click("button:text-is('Discard 3')")
    expect(page.locator("#flash")).to_contain_text("a discard needs a reason")
    page.click("td.verbs button:text-is('Discard…')")
    page.fill("input[name=reason]", "test orders")
    page.click("button:text-is('Discard 3')")
    expect(page.locator("#flash")).to_contain_text("3 events discarded.")
    assert {daemon.http.get(f"/api/events/{event_id}")["status"] for event_id in ids} == {"discarded"}
    assert plain.text("#dead-total") == "0 dead letters"


def test_chosen_events_are_replayed_and_a_second_submit_changes_nothing(daemon: DaemonProcess, plain: Watched) -> None:
    """Ticked rows are replayed; sending the same form again says that they have moved on, and makes no third run."""
    first, second, left = dead(daemon, 3)
    page = plain.open("/events").page
    for event_id in (first, second):
        page.check(f"#tick-{event_id}")
    page.click("#bulk button:text-is('Discard…')")
    page.fill("input[name=reason]", "seen twice")
    page.click("button:text-is('Discard 2')")
    expect(page.locator("#flash")).to_contain_text("2 events discarded.")
    page.go_back()
    page.fill("input[name=reason]", "seen twice")
    page.click("button:text-is('Discard 2')")
    expect(page.locator("#flash")).to_contain_text("2 events left alone")
    assert daemon.http.get(f"/api/events/{left}")["status"] == "dead_lettered"


def test_all_that_match_are_replayed_by_a_job(daemon: DaemonProcess, plain: Watched, tmp_path: Path) -> None:
    """From the filtered list to the question, to the job, which is paused, resumed and cancelled; the list knows it."""
    ids = dead(daemon, 3)
    (tmp_path / "mended").touch()
    page = plain.open("/events?status=dead_lettered&type=bad.*").page
    page.click("button:text-is('Replay all dead-lettered that match…')")
    assert plain.text("h1") == "Replay 3 events?"
    page.fill("input[name=reason]", "the gateway is back")
    page.fill("input[name=rate_per_second]", "0.2")
    page.click("button:text-is('Replay them')")
    expect(page.locator("#flash")).to_contain_text("Bulk replay rpl_1 of 3 events was made")
    page.click("button:text-is('Pause')")
    expect(page.locator("#job-state")).to_contain_text("paused")
    page.click("button:text-is('Resume')")
    page.click("button:text-is('Cancel')")
    expect(page.locator("#flash")).to_contain_text("is cancelled")
    page.click("nav.main a:text-is('Replays')")
    page.click("button:text-is('Replay all dead letters…')")
    page.fill("input[name=reason]", "now all of them")
    page.click("button:text-is('Replay them')")
    assert {reaches(daemon, event_id, "succeeded")["run"] for event_id in ids} == {2}
    page.goto(f"{daemon.url}/replays")
    expect(page.locator("#row-rpl_2")).to_contain_text("done")
    expect(page.locator("#row-rpl_1")).to_contain_text("cancelled")


def test_a_succeeded_event_runs_again_only_when_that_is_meant(daemon: DaemonProcess, plain: Watched) -> None:
    """Replaying a succeeded event needs the tick that says so."""
    event_id = send(daemon, "shop.step")
    reaches(daemon, event_id, "succeeded")
    page = plain.open(f"/confirm/replay?id={event_id}&back=/events/{event_id}").page
    page.click("button:text-is('Replay 1')")
    expect(page.locator("#flash")).to_contain_text("has succeeded")
    page.goto(f"{daemon.url}/confirm/replay?id={event_id}&back=/events/{event_id}")
    page.check("input[name=force]")
    page.click("button:text-is('Replay 1')")
    expect(page.locator("#flash")).to_contain_text("1 event replayed.")
    assert daemon.http.get(f"/api/events/{event_id}")["run"] == 2


def test_a_waiting_event_is_hurried_and_another_cancelled(daemon: DaemonProcess, plain: Watched) -> None:
    """Retry now skips the wait of a retrying event; cancel ends one."""
    hurried, cancelled = send(daemon, "later.a"), send(daemon, "later.b")
    for event_id in (hurried, cancelled):
        reaches(daemon, event_id, "retrying")
    page = plain.open(f"/events/{hurried}").page
    page.click("button:text-is('Retry now')")
    expect(page.locator("#flash")).to_contain_text("queued to run now")
    plain.open(f"/events/{cancelled}")
    page.click("button:text-is('Cancel…')")
    page.click("button:text-is('Cancel 1')")
    expect(page.locator("#event-state")).to_contain_text("cancelled")


def test_the_failed_events_of_a_workflow_are_replayed(daemon: DaemonProcess, plain: Watched, tmp_path: Path) -> None:
    """One button replays what failed in a workflow and leaves the rest alone."""
    ids = dead(daemon, 2)
    done = send(daemon, "shop.step", workflow_id="order-1")
    reaches(daemon, done, "succeeded")
    (tmp_path / "mended").touch()
    page = plain.open("/workflows/order-1").page
    page.click("button:text-is('Replay 2 failed events')")
    expect(page.locator("#flash")).to_contain_text("2 failed events of this workflow replayed.")
    assert [reaches(daemon, event_id, "succeeded")["run"] for event_id in [*ids, done]] == [2, 2, 1]


def test_an_event_is_sent_and_an_edited_one_remembers_its_origin(daemon: DaemonProcess, plain: Watched) -> None:
    """The form says what is wrong with a payload and keeps it; an edited replay names what it replays."""
    page = plain.open("/send").page
    page.fill("input[name=workflow_id]", "order-5")
    page.fill("input[name=event_type]", "shop.step")
    page.fill("textarea[name=payload]", '{"amount": 12')
    page.click("button:text-is('Send')")
    expect(page.locator("#error")).to_be_visible()
    assert page.input_value("textarea[name=payload]") == '{"amount": 12'
    page.fill("textarea[name=payload]", '{"amount": 9007199254740993}')
    page.click("button:text-is('Send')")
    expect(page.locator("#flash")).to_contain_text("durable")
    first = page.url.rpartition("/")[2]
    reaches(daemon, first, "succeeded")
    page.reload()
    expect(page.locator("pre[aria-label=Payload]")).to_have_text('{"amount": 9007199254740993}')
    page.click("a:text-is('Edit and replay…')")
    page.fill("textarea[name=payload]", '{"amount": 13}')
    page.click("button:text-is('Send')")
    expect(page.locator("#flash")).to_contain_text("durable")
    second = page.url.rpartition("/")[2]
    assert daemon.http.get(f"/api/events/{second}")["replay_of"] == first
    assert daemon.http.get(f"/api/events/{second}")["payload"] == {"amount": 13}


def test_a_worker_is_crashed_by_a_button_and_the_demo_loads(daemon: DaemonProcess, plain: Watched) -> None:
    """With simulated crashes enabled, buttons crash a worker and send the demo's checkouts."""
    page = plain.open("/runtime").page
    page.click("#worker-2 button:text-is('Crash it')")
    expect(page.locator("#flash")).to_contain_text("worker-2 was crashed")
    plain.open("/").page.click("button:text-is('Generate demo load')")
    expect(page.locator("#flash")).to_contain_text("on their way")
    assert daemon.http.get("/api/convergence")["ledger"]["accepted"] >= 70


def test_an_awaited_event_is_sent_from_the_page_of_the_one_that_waits(daemon: DaemonProcess, plain: Watched) -> None:
    """A parked event says what it waits for; bad JSON is refused with the reason, and good JSON wakes it."""
    parcel = send(daemon, "parcel.sent", workflow_id="parcel-1", application_name="post")
    reaches(daemon, parcel, "waiting")
    page = plain.open(f"/events/{parcel}").page
    expect(page.locator(".awaits")).to_contain_text("Waits for parcel.scanned in its workflow")
    page.click("summary:has-text('Send parcel.scanned')")
    page.fill("textarea[name=payload]", "{number: 7}")
    page.click("button:text-is('Send parcel.scanned')")
    expect(page.locator("#flash")).to_contain_text("parcel.scanned was not sent")
    page.click("summary:has-text('Send parcel.scanned')")
    page.fill("textarea[name=payload]", '{"number": 7}')
    page.click("button:text-is('Send parcel.scanned')")
    expect(page.locator("#flash")).to_contain_text("is durable and on its way")
    assert reaches(daemon, parcel, "succeeded")["result"] == {"came first": "scanned"}
    page.reload()
    assert page.locator(".awaits").count() == 0
    page.click("#wait_for-parcel\\.scanned-0 .other a")
    assert plain.text("h1") == "parcel.scanned"
