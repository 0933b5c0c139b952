"""The list of pages, compared with the table of paths, and the one page that only a daemon with keys has."""

from pathlib import Path
from typing import Any

import pytest

from tests.browser.conftest import serving
from tests.browser.every_page import BESIDE, PAGES, paths_in_table
from tests.browser.tabs import Tabs
from tests.browser.test_accessibility import Examiner, examiner_source

KEY = "a-key-of-an-administrator"
SETTINGS: Any = {"server.api_keys": [KEY]}


def test_no_page_is_left_out() -> None:
    """Whatever path the status page answers is looked at by a browser, or is known to be no page."""
    assert paths_in_table() == PAGES.keys() | BESIDE


@pytest.mark.slow
def test_the_page_that_asks_for_a_key(tmp_path: Path, tabs: Tabs) -> None:
    """Whoever has no key sees that page alone, in order for axe and without a complaint; the key leads on."""
    with serving(tmp_path, 0, **SETTINGS) as daemon, tabs.at(daemon.url) as look:
        tab = look("/login", reduced_motion="reduce")
        tab.page.evaluate(examiner_source())
        assert Examiner(tab).found() == []
        tab.page.fill("input[name=key]", KEY)
        tab.page.keyboard.press("Enter")
        tab.page.wait_for_selector("#tile-accepted")
        assert tab.complaints == []
        assert tab.foreign() == []
