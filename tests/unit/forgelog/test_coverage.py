"""The proof of the log looks everywhere: every branch of forgelog/ is taken by its unit tests.

They are traced while they run, and judged at the end of a run of all of them (see tests/support/branches.py).
"""

from pathlib import Path

import pytest

import replayforge.forgelog

MODULES = sorted(Path(replayforge.forgelog.__file__).parent.glob("*.py"))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_what_a_module_does_when_it_is_imported(path: Path) -> None:
    """The lines that ran before anybody traced them, once more."""
    exec(compile(path.read_text(), path, "exec"), {"__name__": f"replayforge.forgelog.{path.stem}"})
