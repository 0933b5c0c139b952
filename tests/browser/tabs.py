"""Tabs of a real Chromium, each with an eye on what its page complains of; tests take them one after the other.

A tab in a new context costs about five times what another page in a tab that is there does. Each tab has a context of
its own, as if another person sat before it, and what a test has left in it is gone before the next one gets it.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import Browser, ConsoleMessage, Error, Page

TIMEOUT_MS = 10_000
HEIGHT = 900
BLANK = "about:blank"

REFUSALS = """
window.refused = [];
document.addEventListener('securitypolicyviolation', (event) =>
  window.refused.push(`${event.violatedDirective} ${event.blockedURI}`));
"""


@dataclass
class Watched:
    """A page and everything it complained of, asked for, and was refused."""

    page: Page
    url: str
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def open(self, path: str) -> "Watched":
        """Go to a path and wait until the page is live, or just loaded when it has no script."""
        self.page.goto(self.url + path)
        return self

    def in_theme(self, theme: str) -> "Watched":
        """Show the page that is open as who prefers this theme sees it."""
        self.page.emulate_media(color_scheme="dark" if theme == "dark" else "light")
        return self

    def at_width(self, width: int) -> "Watched":
        """Show the page that is open on a screen of this width."""
        self.page.set_viewport_size({"width": width, "height": HEIGHT})
        return self

    def live(self) -> "Watched":
        """Wait until the page is connected."""
        self.page.wait_for_selector("#pill[data-state=live]")
        return self

    def text(self, selector: str) -> str:
        """Return the text of the first match."""
        return self.page.locator(selector).first.inner_text()

    def clipboard(self) -> str:
        """Return what lies on the clipboard; the page needs the permission to read it."""
        self.page.bring_to_front()
        return str(self.page.evaluate("navigator.clipboard.readText()"))

    def foreign(self) -> list[str]:
        """Return the requests that went to another host."""
        own = urlsplit(self.url).netloc
        return [url for url in self.requests if urlsplit(url).netloc not in ("", own)]

    def violations(self) -> list[str]:
        """Return what the content security policy refused on the present page."""
        refused: list[str] = self.page.evaluate("window.refused ?? []")
        return refused


Look = Callable[..., Watched]


class Tab:
    """A tab that goes from test to test."""

    def __init__(self, browser: Browser, options: dict[str, Any]) -> None:
        self.context = browser.new_context(**options)
        self.context.set_default_timeout(TIMEOUT_MS)
        if options.get("java_script_enabled", True):
            self.context.add_init_script(REFUSALS)
        self.page = self.context.new_page()
        self.watched = Watched(self.page, "")
        self.page.on("console", self.note)
        self.page.on("pageerror", lambda error: self.watched.complaints.append(str(error)))
        self.page.on("request", lambda request: self.watched.requests.append(request.url))

    def note(self, line: ConsoleMessage) -> None:
        """Keep what the page complains of."""
        if line.type in ("error", "warning"):
            self.watched.complaints.append(f"{line.type}: {line.text}")

    def begin(self, url: str, theme: str, width: int, permissions: list[str]) -> Watched:
        """Give the tab to a test."""
        self.watched = Watched(self.page, url)
        self.context.grant_permissions(permissions)
        return self.watched.at_width(width).in_theme(theme)

    def clear(self) -> bool:
        """Take what a test has left in the tab; returns whether nothing is left."""
        if self.page.is_closed() or not self.page.url.startswith(f"{self.watched.url}/"):
            return False  # what is kept for the daemon's pages can only be taken on one of them
        try:
            self.page.evaluate("() => { localStorage.clear(); sessionStorage.clear(); }")
            self.page.unroute_all(behavior="ignoreErrors")
            for other in self.context.pages[1:]:
                other.close()
            self.context.clear_cookies()
            self.context.clear_permissions()
            self.page.goto(BLANK)
            self.page.mouse.move(0, 0)
        except Error:
            return False
        return True


class Tabs:
    """The tabs that no test has at present, by the options of their contexts."""

    def __init__(self, browser: Browser) -> None:
        self.browser = browser
        self.idle: dict[str, list[Tab]] = {}

    @contextmanager
    def at(self, url: str) -> Iterator[Look]:
        """Look at a daemon for a while: `look(path, theme=..., width=..., java_script_enabled=...)`."""
        taken: list[tuple[str, Tab]] = []

        def look(
            path: str = "/",
            *,
            theme: str = "light",
            width: int = 1440,
            permissions: tuple[str, ...] = (),
            **options: Any,
        ) -> Watched:
            key = repr(sorted(options.items()))
            idle = self.idle.setdefault(key, [])
            tab = idle.pop() if idle else Tab(self.browser, options)
            taken.append((key, tab))
            return tab.begin(url, theme, width, list(permissions)).open(path)

        try:
            yield look
        finally:
            for key, tab in taken:
                if tab.clear():
                    self.idle[key].append(tab)
                else:
                    tab.context.close()
