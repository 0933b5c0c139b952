"""The tools that check style and types run beside the tests, giving way to them; the tests of style join them."""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
STYLE = ROOT / "tests/test_style.py"
PROGRAMS = Path(sys.executable).parent
TOOLS = {
    "mypy --strict": ["mypy"],
    "ruff check": ["ruff", "check", "."],
    "ruff format": ["ruff", "format", "--check", "."],
    "import contract": ["lint-imports"],
}
# The exit code goes into a pipe: whoever reads it waits for the end of the tool, and nobody has to look for it.
THEN_TELL = '"$@" >"$0.output" 2>&1; echo $? >"$0"'
INPUT = "directory of the tools beside"


class ToolsBeside:
    """The plugin. The process that the user started runs the tools, one of its workers joins them."""

    def __init__(self, config: pytest.Config) -> None:
        self.running: list[subprocess.Popen[bytes]] = []
        if hasattr(config, "workerinput"):
            self.directory = Path(config.workerinput[INPUT])
            return
        self.temporary = TemporaryDirectory(prefix="replayforge-tools-")
        self.directory = Path(self.temporary.name)
        places = [Path(str(argument).partition("::")[0]).absolute() for argument in config.args]
        if any(STYLE.is_relative_to(place) for place in places) and not config.option.collectonly:
            niceness = 0 if STYLE in places else 10
            self.running = [self.start(tool, niceness) for tool in TOOLS]

    def start(self, tool: str, niceness: int) -> "subprocess.Popen[bytes]":
        pipe = self.directory / tool
        os.mkfifo(pipe)
        program, *arguments = TOOLS[tool]
        command = ["nice", "-n", str(niceness), "sh", "-c", THEN_TELL, str(pipe), str(PROGRAMS / program), *arguments]
        return subprocess.Popen(command, cwd=ROOT, start_new_session=True)

    def join(self, tool: str) -> tuple[int, str]:
        """Wait for a tool, and return its exit code and what it said."""
        code = (self.directory / tool).read_text()
        return int(code), (self.directory / f"{tool}.output").read_text()

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Tell a worker where the tools run."""
        node.workerinput[INPUT] = str(self.directory)

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Let the tests that join the tools come last."""
        items.sort(key=lambda item: item.path == STYLE)

    def pytest_unconfigure(self) -> None:
        """End what nobody waited for."""
        for process in self.running:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if hasattr(self, "temporary"):
            self.temporary.cleanup()
