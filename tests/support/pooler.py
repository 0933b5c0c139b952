"""A real, private pgbouncer on a free port in front of a PostgreSQL of the tests, killed and started again by them."""

import os
import pwd
import shutil
import socket
import tempfile
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

import pytest

from replayforge.chaos.private_postgres import SUPERUSER
from replayforge.chaos.private_server import PrivateServer, unprivileged
from tests.support.ports import free_port

SBIN = Path("/usr/sbin")  # where Debian puts it, and where not everybody's PATH leads
MISSING = "no pgbouncer: neither on PATH nor in /usr/sbin (apt-get install pgbouncer)"
DATABASE = "store"


def pgbouncer() -> Path | None:
    """Return the binary at hand; a service that the package may have set up is neither used nor disturbed."""
    found = shutil.which("pgbouncer") or shutil.which("pgbouncer", path=str(SBIN))
    return Path(found) if found else None


def require_pooler() -> None:
    """Skip the test, loudly, where there is no pgbouncer."""
    if pgbouncer() is None:
        pytest.skip(MISSING)


class Pooler(PrivateServer):
    """One pgbouncer that lends few connections to many, each for one transaction; keeps its port over restarts.

    `target` is the URL of a store; the schema it names is set where a pooler's administrator would set it, on the
    connections to the server. `settings` go to the pooler's own file.
    """

    name = "pgbouncer"

    def __init__(self, target: str, **settings: Any) -> None:
        super().__init__(Path(tempfile.mkdtemp(prefix="rf-pooler-")), free_port())
        self.target = target
        self.settings = {
            "listen_addr": "127.0.0.1",
            "listen_port": self.port,
            "unix_socket_dir": "",
            "auth_type": "any",
            "pool_mode": "transaction",
            "default_pool_size": 3,
            "max_client_conn": 200,
            "server_login_retry": 0.2,
        } | settings

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    @property
    def url(self) -> str:
        """The store as seen through the pooler: nothing in it says that there is one."""
        return f"postgresql://{SUPERUSER}@127.0.0.1:{self.port}/{DATABASE}"

    @property
    def file(self) -> Path:
        """Its settings."""
        return self.directory / "pgbouncer.ini"

    def prepare(self) -> None:
        """Write the pooler's file, for whoever runs it."""
        target = urlsplit(self.target)
        schema = parse_qs(target.query)["search_path"][0]
        database = (
            f"{DATABASE} = host=127.0.0.1 port={target.port} dbname={target.path.strip('/')} user={SUPERUSER}"
            f" connect_query='SET search_path TO {schema}'"
        )
        lines = ("[databases]", database, "[pgbouncer]", *(f"{key} = {value}" for key, value in self.settings.items()))
        self.file.write_text("\n".join(lines) + "\n")
        if account := unprivileged():
            for one in (self.directory, self.file):
                os.chown(one, account.pw_uid, account.pw_gid)

    def account(self) -> pwd.struct_passwd | None:
        return unprivileged()

    def command_line(self) -> list[str]:
        binary = pgbouncer()
        assert binary, MISSING
        return [str(binary), str(self.file)]

    def answers(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True

    def kill(self) -> None:
        """kill -9, which breaks every connection on both sides; safe twice."""
        if self.process:
            self.process.kill()
        self.forget()
