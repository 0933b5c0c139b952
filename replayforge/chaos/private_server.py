"""What private servers have in common: who runs them, what they find, and that none outlives its parent."""

import contextlib
import importlib.util
import os
import pwd
import subprocess
import time
from pathlib import Path
from typing import Any, Self

from replayforge.demo.child import die_with_parent
from replayforge.domain.errors import Refused, Unavailable

START_SECONDS_MAX = 30.0
POLL_SECONDS = 0.02
LOG_CHARACTERS = 8_000


def unprivileged() -> pwd.struct_passwd | None:
    """Return who must run a server that refuses root; None when we are nobody special ourselves."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise Refused("PostgreSQL refuses to run as root, and there is no user postgres or nobody.")


def as_account(account: pwd.struct_passwd | None) -> dict[str, Any]:
    """Return what makes a child of subprocess that account's, with no rights of ours."""
    return {} if account is None else {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}


def server_environment() -> dict[str, str]:
    """Return what a server finds in its environment: nothing of ours that could change what it does."""
    return {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C", "TZ": "UTC"}


def in_wheel(package: str, path: str) -> Path | None:
    """Return a file that an installed wheel carries, if it is installed and carries it."""
    spec = importlib.util.find_spec(package)
    found = Path(spec.origin).parent / path if spec and spec.origin else None
    return found if found is not None and found.exists() else None


class PrivateServer:
    """A server process of our own in a directory of its own, which keeps its port over restarts.

    Start it from a thread that stays: it dies with that thread.
    """

    name: str
    process: subprocess.Popen[bytes] | None = None

    def __init__(self, directory: Path, port: int) -> None:
        self.directory = directory
        self.port = port

    def command_line(self) -> list[str]:
        """Return its command line."""
        raise NotImplementedError

    def answers(self) -> bool:
        """Tell whether it takes commands."""
        raise NotImplementedError

    def account(self) -> pwd.struct_passwd | None:
        """Return who runs it, None if we do."""
        return None

    def environment(self) -> dict[str, str]:
        """Return what it finds in its environment."""
        return server_environment()

    def prepare(self) -> None:
        """Make what it needs before its first start."""

    def start(self) -> Self:
        """Start unless it runs, and return once it answers."""
        if self.process is None:
            self.prepare()
            self.spawn()
        self.wait_answering()
        return self

    def spawn(self) -> None:
        """Start the process, and do not wait until it answers."""
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(  # noqa: S603  (a binary that was looked for)
                self.command_line(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.environment(),
                cwd=self.directory, preexec_fn=die_with_parent, **as_account(self.account()),
            )  # fmt: skip

    def wait_answering(self) -> None:
        """Return once it answers; raises Unavailable with its own words when it does not."""
        assert self.process is not None
        deadline = time.monotonic() + START_SECONDS_MAX
        while not self.answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise Unavailable(f"The private {self.name} does not come up: {self.log() or 'it said nothing'}")
            time.sleep(POLL_SECONDS)

    @property
    def log_path(self) -> Path:
        """Where it writes what it has to say."""
        return self.directory / f"{self.name.lower()}.log"

    def log(self) -> str:
        """Return the end of what it said."""
        return self.log_path.read_text(errors="replace")[-LOG_CHARACTERS:]

    def send_signal(self, number: int) -> None:
        """Send a signal to the process itself, which runs."""
        assert self.process is not None
        self.process.send_signal(number)

    def forget(self) -> None:
        """Wait for the end of the process, if there is one."""
        if self.process is not None:
            self.process.wait()
            self.process = None
