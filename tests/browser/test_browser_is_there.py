"""Whether the pages can be tested at all; where they cannot, that is said loudly, and in CI it is a failure."""

import importlib.util
import os

import pytest

from tests.browser.conftest import CHROMIUM


def test_a_browser_and_its_driver_are_there() -> None:
    """Playwright is installed and a Chromium is on PATH."""
    missing = [] if importlib.util.find_spec("playwright") else ["the package playwright"]
    missing += [] if CHROMIUM else ["a chromium on PATH"]
    if missing and not os.environ.get("CI"):
        pytest.skip(f"BROWSER TESTS SKIPPED: install {' and '.join(missing)}")
    assert missing == []
