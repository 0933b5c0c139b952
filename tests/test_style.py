"""The house rules that a machine can check, checked in the test run."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROGRAMS = Path(sys.executable).parent
TOOLS = {
    "ruff check": ["ruff", "check", "."],
    "ruff format": ["ruff", "format", "--check", "."],
    "mypy --strict": ["mypy"],
    "import contract": ["lint-imports"],
}


@pytest.mark.parametrize("tool", list(TOOLS))
def test_the_tree_is_clean(tool: str) -> None:
    """Each tool finds nothing to say about the whole tree."""
    program, *arguments = TOOLS[tool]
    command = [str(PROGRAMS / program), *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]


LOOKED_UP = re.compile(
    r"\b(asyncio\.(create_task|current_task|ensure_future|gather|get_running_loop|shield|sleep|timeout|wait|wait_for)|time\.(time|time_ns|monotonic|perf_counter))\("
)
EXAMPLES = ("cli", "checkout.py")


def test_the_daemon_looks_up_no_function_that_handlers_may_replace() -> None:
    """What its loops wait with and read the time from is bound when a module is imported."""
    modules = [path for path in (ROOT / "replayforge").rglob("*.py") if not set(EXAMPLES) & set(path.parts)]
    found = [f"{path}: {match[0]}" for path in modules for match in LOOKED_UP.finditer(path.read_text())]
    assert found == []
