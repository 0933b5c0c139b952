"""To rewrite the asserts of all tests takes as long as to collect them: workers share that instead of repeating it.

Each worker imports every test, and pytest keeps what it has rewritten in a file beside it. Were all to begin with the
same test, all would rewrite each; so each begins elsewhere, and finds done later what another has done meanwhile.
"""

import importlib
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


class RewrittenOnce:
    """The plugin of a worker."""

    def __init__(self, worker: int, workers: int) -> None:
        self.worker = worker
        self.workers = workers

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection(self, session: pytest.Session) -> None:
        """Import the tests before they are collected, when all of them will be; an error comes again in its place."""
        if [Path(argument) for argument in session.config.args] not in ([Path("tests")], [ROOT / "tests"]):
            return
        files = sorted((ROOT / "tests").rglob("test_*.py"))
        begin = len(files) * self.worker // self.workers
        for file in files[begin:] + files[:begin]:
            import_test(file)


def import_test(file: Path) -> None:
    """Import a test by its name; whoever collects it tells what went wrong."""
    name = ".".join(file.relative_to(ROOT).with_suffix("").parts)
    try:
        importlib.import_module(name)
    except (Exception, pytest.skip.Exception):
        sys.modules.pop(name, None)
