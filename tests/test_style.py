"""The house rules that a machine can check, checked in the test run."""

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
