"""The proof of the log looks everywhere: every branch of forgelog/ is taken by its unit tests."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_every_branch_is_taken(tmp_path: Path) -> None:
    """The unit tests of forgelog/, run once more under coverage, take 100 % of its branches."""
    data = f"--data-file={tmp_path / 'coverage'}"
    run = [sys.executable, "-m", "coverage", "run", data, "--branch", "--source=replayforge/forgelog"]
    tests = ["-m", "pytest", "tests/unit/forgelog", "--ignore=tests/unit/forgelog/test_coverage.py", "-x"]
    suite = subprocess.run([*run, *tests, "-p", "no:cacheprovider"], cwd=ROOT, capture_output=True, text=True)
    assert suite.returncode == 0, suite.stdout[-3000:] + suite.stderr[-1000:]
    report = tmp_path / "coverage.json"
    subprocess.run([sys.executable, "-m", "coverage", "json", data, "-q", "-o", str(report)], cwd=ROOT, check=True)
    missing = {
        name: (found["missing_lines"], found["missing_branches"])
        for name, found in json.loads(report.read_text())["files"].items()
        if found["missing_lines"] or found["missing_branches"]
    }
    assert missing == {}
