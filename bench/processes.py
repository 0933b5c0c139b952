"""Starts what is measured as processes of their own, and reads what they cost."""

import contextlib
import json
import os
import subprocess
import tempfile
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from replayforge.config.sources import environment_of
from replayforge.serve_process import ServeProcess, python_module, serve_arguments

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
HANDLERS = Path(__file__).with_name("handlers.py")


@dataclass
class Running:
    """A process that answers HTTP at `url`."""

    process: ServeProcess
    url: str

    def get(self, path: str) -> Any:
        """Return a JSON answer."""
        with urllib.request.urlopen(self.url + path, timeout=30) as answer:
            return json.load(answer)

    def ledger(self) -> dict[str, int]:
        """Return the daemon's ledger."""
        ledger: dict[str, int] = self.get("/api/convergence")["ledger"]
        return ledger

    def cpu_seconds(self) -> float:
        """Return the processor time used so far, user and system."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND

    def busy_milliseconds(self) -> float:
        """Return the processor time that the present threads have used, more exactly; 0 where nobody says."""
        files = Path(f"/proc/{self.process.pid}/task").glob("*/schedstat")
        return sum(int(file.read_text().split()[0]) for file in files) / 1e6

    def resident_mebibytes(self) -> float:
        """Return the resident memory."""
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * PAGE_BYTES / 2**20

    def descriptors(self) -> int:
        """Return how many descriptors are open."""
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    def threads(self) -> int:
        """Return how many threads it has."""
        return len(list(Path(f"/proc/{self.process.pid}/task").iterdir()))


@contextlib.contextmanager
def daemon(
    data_dir: Path,
    *flags: str,
    handler_seconds: float = 0,
    starts: Path | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Iterator[Running]:
    """Run the daemon on a free port until the block ends; its handler takes `handler_seconds`.

    `starts` is a file for the starts of the handler, see handlers.py; `settings` are keys such as "store.url".
    """
    arguments = serve_arguments(data_dir, "--handlers", str(HANDLERS), *flags)
    environment = environment_of(settings or {}) | {
        "BENCH_SECONDS": str(handler_seconds),
        "BENCH_STARTS": str(starts or ""),
    }
    with started("replayforge", arguments, environment) as running:
        yield running


@contextlib.contextmanager
def hello() -> Iterator[Running]:
    """Run the bare aiohttp server that answers POSTed JSON: what HTTP alone costs here."""
    with started("bench.hello", [], {}) as running:
        yield running


@contextlib.contextmanager
def started(module: str, arguments: list[str], environment: dict[str, str]) -> Iterator[Running]:
    """Run a module as a process, wait for the line that names its address, end it afterwards."""
    command = python_module(module, *arguments)
    process = ServeProcess(
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=os.environ | environment)
    )
    try:
        yield Running(process, process.wait_listening())
    finally:
        process.terminate(timeout_seconds=60)


@contextlib.contextmanager
def directory() -> Iterator[Path]:
    """Give a data directory on the disk that the checkout lies on; a RAM disk would flatter every sync."""
    with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".bench-") as path:
        yield Path(path)
