"""What users send is shown, never obeyed; and what other sites send is refused."""

from urllib.parse import quote

from playwright.sync_api import expect

from tests.browser.conftest import reaches, send
from tests.browser.tabs import Look
from tests.support.daemon_process import DaemonProcess, until

SCRIPT = "<script>window.hacked=1</script><img src=x onerror=window.hacked=1>"
NAMES = [SCRIPT, "a/b#c?d%e&f=g", "..", "\u202eevil\u2066", "{{7*7}}{% raise %}", "'\"><svg onload=window.hacked=1>"]


def test_names_and_payloads_are_inert(daemon: DaemonProcess, look: Look) -> None:
    """Scripts, right-to-left marks, template signs and odd path characters in every field are text and lead home."""
    ids = []
    for name in NAMES:
        fields = {"workflow_id": name, "service_name": name, "application_name": name, "idempotency_key": name}
        ids.append(send(daemon, name, {"x": SCRIPT, "n": name}, metadata={"m": SCRIPT}, **fields))
        ids.append(send(daemon, f"bad.{name}", {"n": name}, workflow_id=name))
    for event_id in ids:
        reaches(daemon, event_id, "succeeded", "dead_lettered")
    tab = look("/").live()
    pages = ["/", "/events", "/workflows", "/dead-letters?group_by=type", "/runtime"]
    pages += [f"/events/{event_id}" for event_id in ids]
    pages += [f"/workflows/{quote(name, safe='')}" for name in NAMES if name != ".."]
    pages += [f"/events?q={quote(NAMES[0])}", f"/send?payload={quote(SCRIPT)}&event_type={quote(SCRIPT)}"]
    for path in pages:
        tab.open(path).live()
        assert tab.page.evaluate("window.hacked") is None, path
        assert tab.violations() == [], path
    assert tab.complaints == []
    assert tab.foreign() == []


def test_links_to_odd_names_arrive(daemon: DaemonProcess, look: Look) -> None:
    """Every workflow in the list can be opened by its link, and shows its name exactly."""
    for name in NAMES:
        reaches(daemon, send(daemon, "shop.step", workflow_id=name), "succeeded")
    tab = look("/workflows", java_script_enabled=False)
    links = tab.page.locator("tbody th a").evaluate_all("links => links.map(link => [link.href, link.textContent])")
    assert {name for _, name in links} == set(NAMES)
    for href, name in links:
        tab.page.goto(href)
        expect(tab.page.locator("main")).to_contain_text(name)
        assert "shop.step" in tab.text("main")


def test_a_long_payload_is_cut_on_the_page_and_whole_behind_its_link(daemon: DaemonProcess, look: Look) -> None:
    """The page shows the first 16 KB of the exact text; the link gives every byte."""
    text = '{"big": "' + "ä" * 500_000 + '", "n": 9007199254740993.00}'
    body = ('{"workflow_id": "w", "event_type": "bad.big", "payload": ' + text + "}").encode()
    event_id = daemon.http.request("POST", "/api/events", body).json()["id"]
    reaches(daemon, event_id, "dead_lettered")
    tab = look(f"/events/{event_id}").live()
    shown = tab.page.locator("pre[aria-label=Payload]").text_content() or ""
    assert text.startswith(shown)
    assert 16_000 < len(shown.encode()) <= 16_384
    answer = daemon.http.request("GET", f"/events/{event_id}/payload")
    assert answer.body == text.encode()
    assert answer.headers["content-type"].startswith("text/plain")


def test_an_endless_error_is_cut_on_every_page(daemon: DaemonProcess, look: Look) -> None:
    """Ten thousand lines of error are one line in lists and no more than 16 KB anywhere, scripts in them inert."""
    event_id = send(daemon, "loud.error", {"x": SCRIPT})
    reaches(daemon, event_id, "dead_lettered")
    tab = look(f"/events/{event_id}").live()
    shown = tab.page.locator(".attempts pre").text_content() or ""
    assert SCRIPT in shown
    assert 10 < shown.count("\n") < 10_000
    assert len(shown.encode()) <= 16_384
    for path in ("/events", "/dead-letters", "/workflows/order-1"):
        tab.open(path).live()
        assert len(tab.page.content()) < 100_000, path
        assert tab.page.evaluate("window.hacked") is None
    assert tab.complaints == []


def test_the_copy_button_copies_every_digit(daemon: DaemonProcess, look: Look) -> None:
    """What lands on the clipboard is the payload to the last digit, also on plain http without a clipboard."""
    text = '{"n": 9007199254740993, "x": 1.10}'
    body = ('{"workflow_id": "w", "event_type": "shop.n", "payload": ' + text + "}").encode()
    event_id = daemon.http.request("POST", "/api/events", body).json()["id"]
    reaches(daemon, event_id, "succeeded")
    tab = look(f"/events/{event_id}", permissions=("clipboard-read", "clipboard-write")).live()
    button = tab.page.locator("section:has(#payload-title) button.copy")
    button.click()
    until(lambda: tab.clipboard() == text)
    tab.page.evaluate("navigator.clipboard.writeText('')")
    plain = tab.page.context.new_page()
    plain.goto(f"{daemon.url.replace('127.0.0.1', 'replay.test')}/events/{event_id}")
    assert plain.evaluate("[isSecureContext, 'clipboard' in navigator]") == [False, False]
    plain.click("section:has(#payload-title) button.copy")
    until(lambda: tab.clipboard() == text)


def test_other_sites_and_other_hosts_are_refused(daemon: DaemonProcess, look: Look) -> None:
    """A form that another site submits changes nothing, and a foreign host name gets nothing to read."""
    event_id = send(daemon, "bad.payment", {"n": 1})
    reaches(daemon, event_id, "dead_lettered")
    form = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "text/html"}
    body = f"id={event_id}&reason=evil".encode()
    for foreign in (
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "http://evil.example"},
    ):
        answer = daemon.http.request("POST", "/actions/discard", body, form | foreign)
        assert answer.status == 403
        assert b"another site" in answer.body
    assert daemon.http.get(f"/api/events/{event_id}")["status"] == "dead_lettered"
    stranger = daemon.http.request("GET", "/", headers={"Host": "evil.example", "Accept": "text/html"})
    assert stranger.status == 421
    assert event_id.encode() not in stranger.body
    assert b"dead letter" not in stranger.body.lower()


def test_a_real_foreign_page_cannot_submit(daemon: DaemonProcess, look: Look) -> None:
    """A browser on a page of elsewhere that posts a form here is refused."""
    event_id = send(daemon, "bad.payment", {"n": 1})
    reaches(daemon, event_id, "dead_lettered")
    tab = look("/")
    page = tab.page.context.new_page()
    page.route("http://elsewhere.example/", lambda route: route.fulfill(
        content_type="text/html",
        body=f'<form method=post action="{daemon.url}/actions/discard"><input name=id value="{event_id}">'
        "<input name=reason value=evil><button>Go</button></form>",
    ))  # fmt: skip
    page.goto("http://elsewhere.example/")
    page.click("button")
    expect(page.locator("h1")).to_have_text("Refused as a request of another site")
    assert daemon.http.get(f"/api/events/{event_id}")["status"] == "dead_lettered"
