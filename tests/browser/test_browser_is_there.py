"""Whether the pages can be tested at all; where they cannot, that is said loudly, and in CI it is a failure."""

import importlib.util
import os
import re
from pathlib import Path

import pytest

import tests.browser
from tests.browser.conftest import CHROMIUM


def test_a_browser_and_its_driver_are_there() -> None:
    """Playwright is installed and a Chromium is on PATH."""
    missing = [] if importlib.util.find_spec("playwright") else ["the package playwright"]
    missing += [] if CHROMIUM else ["a chromium on PATH"]
    if missing and not os.environ.get("CI"):
        pytest.skip(f"BROWSER TESTS SKIPPED: install {' and '.join(missing)}")
    assert missing == []


def test_every_case_is_shown_by_tests_that_exist() -> None:
    """The list of what has to hold has all its numbers, and every test that it names is there."""
    cases = tests.browser.__doc__ or ""
    written = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    assert [int(number) for number in re.findall(r"^ ?(\d+) ", cases, re.MULTILINE)] == list(range(1, 19))
    assert [name for name in re.findall(r"test_\w+", cases) if f"def {name}(" not in written] == []
