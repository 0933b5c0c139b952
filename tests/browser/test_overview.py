"""The overview: ranges, pictures that have a twin in words, and figures that lead to the events behind them."""

from playwright.sync_api import expect

from tests.browser.conftest import reaches, send
from tests.browser.tabs import Look, Watched
from tests.support.daemon_process import DaemonProcess

# Where a look at the past takes long, on a busy machine, pages show it late: every half minute at least.
SLOWLY_MS = 60_000


def ended(daemon: DaemonProcess) -> None:
    """Let three events of one type succeed and two of another become dead letters."""
    for event_id in [send(daemon, "order.placed") for _ in range(3)]:
        reaches(daemon, event_id, "succeeded")
    for event_id in [send(daemon, "bad.payment") for _ in range(2)]:
        reaches(daemon, event_id, "dead_lettered")


def column(tab: Watched, table: str, header: str) -> list[int]:
    """Return the figures of one column of a table below a picture."""
    headers = tab.page.locator(f"{table} thead th").all_inner_texts()
    cells = tab.page.locator(f"{table} tbody tr > :nth-child({headers.index(header) + 1})").all_text_contents()
    return [int(cell.replace(",", "")) for cell in cells]


def test_pictures_come_to_life_without_a_reload(daemon: DaemonProcess, look: Look) -> None:
    """Nothing happened yet; then bars, columns, percentiles and types appear by themselves, in picture and table."""
    tab = look("/").live()
    expect(tab.page.locator("#throughput-title")).to_contain_text("last hour")
    assert tab.page.locator("svg.bars rect.ok").count() == 0
    expect(tab.page.locator("[data-live=latency]")).to_contain_text("No event has come to its end")
    ended(daemon)
    expect(tab.page.locator("[data-live=latency] .legend")).to_contain_text("5 events", timeout=SLOWLY_MS)
    expect(tab.page.locator("#tile-p95 .value")).not_to_have_text("–")
    expect(tab.page.locator("svg.bars rect.ok")).not_to_have_count(0)
    expect(tab.page.locator("svg.bars rect.err")).not_to_have_count(0)
    tab.page.click("#throughput-table summary")
    tab.page.click("#latency-table summary")
    assert sum(column(tab, "#throughput-table", "Succeeded")) == 3
    assert sum(column(tab, "#throughput-table", "Dead letters")) == 2
    assert len(column(tab, "#throughput-table", "Accepted")) == 60
    assert sum(column(tab, "#latency-table", "Events")) == 5
    assert tab.complaints == tab.violations() == tab.foreign() == []


def test_ranges_are_links_that_work_without_scripts(daemon: DaemonProcess, look: Look) -> None:
    """Each range has its own number of steps and an address of its own; a name that is none is refused."""
    ended(daemon)
    tab = look("/", java_script_enabled=False)
    for name, steps in (("6h", 72), ("24h", 96), ("7d", 84), ("1h", 60)):
        tab.page.click(f".ranges a:text-is('{name}')")
        assert tab.page.url == f"{daemon.url}/?range={name}"
        assert tab.text(".ranges a[aria-current]") == name
        assert tab.page.locator("#throughput-table tbody tr").count() == steps
    assert tab.page.goto(f"{daemon.url}/?range=9y").status == 422  # type: ignore[union-attr]


def test_figures_of_a_type_lead_to_its_events(daemon: DaemonProcess, look: Look) -> None:
    """The dead letters of a type are the list that the figure leads to; the range goes along."""
    ended(daemon)
    tab = look("/?range=24h").live()
    row = tab.page.locator("tr[id='type-bad.payment']")
    expect(row.locator("td[data-label=Dead]")).to_have_text("2", timeout=SLOWLY_MS)
    expect(row.locator("td[data-label=OK]")).to_have_text("0%")
    row.locator("td[data-label=Dead] a").click()
    assert tab.page.url == f"{daemon.url}/events?type=bad.payment&status=dead_lettered&since=24h"
    expect(tab.page.locator("tbody tr[id^=row-]")).to_have_count(2)


def test_a_newcomer_is_told_what_to_do(daemon: DaemonProcess, look: Look) -> None:
    """An empty database shows a line for a shell that names this daemon, and nothing of it once there are events."""
    tab = look("/").live()
    expect(tab.page.locator("#example")).to_contain_text(f"curl -X POST {daemon.url}/api/events")
    send(daemon, "order.placed")
    expect(tab.page.locator("#example")).to_have_count(0)


def test_nothing_overflows_a_small_screen(daemon: DaemonProcess, look: Look) -> None:
    """At 320 px the page is no wider than the window, with all pictures filled."""
    ended(daemon)
    tab = look("/", width=320).live()
    expect(tab.page.locator("[data-live=latency] .legend")).to_contain_text("5 events", timeout=SLOWLY_MS)
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= 320
