"""kill -9 of a daemon after somebody signed out of its pages."""

from pathlib import Path

import pytest

from replayforge.domain.api_keys import Role, new_key
from tests.support.daemon_process import DaemonProcess, HttpClient, until
from tests.support.postgres_server import require_postgres, shared_server

FORM = {"Content-Type": "application/x-www-form-urlencoded"}


def sign_in(http: HttpClient, key: str) -> dict[str, str]:
    """Return the headers of a session of one's own."""
    answer = http.request("POST", "/login", b"key=" + key.encode(), FORM)
    assert answer.status == 303
    return {"Cookie": answer.headers["set-cookie"].partition(";")[0]}


def status(http: HttpClient, session: dict[str, str]) -> int:
    return http.request("GET", "/api/events", headers=session).status


def test_who_signed_out_stays_out_over_a_death(tmp_path: Path) -> None:
    """The sign-out was written down before it was answered; sessions that nobody ended go on."""
    key, known = new_key("ann", Role.READ)
    with DaemonProcess(tmp_path, settings={"server.api_keys": [known.entry()]}).start() as daemon:
        ended, kept = sign_in(daemon.http, key), sign_in(daemon.http, key)
        assert daemon.http.request("POST", "/logout", headers=ended).status == 303
        daemon.kill()
        daemon.start()
        assert [status(daemon.http, one) for one in (ended, kept)] == [401, 200]


@pytest.mark.slow
def test_who_signed_out_is_out_on_every_daemon(tmp_path: Path) -> None:
    """A second daemon on one PostgreSQL learns of it within a moment, and ends the stream that the session opened."""
    require_postgres()
    key, known = new_key("ann", Role.READ)
    settings = {
        "store.url": shared_server().new_schema(),
        "server.api_keys": [known.entry()],
        "stream.backend": "embedded",
    }
    with DaemonProcess(tmp_path / "one", settings=settings).start() as one:
        ended = sign_in(one.http, key)
        with DaemonProcess(tmp_path / "two", settings=settings).start() as two:
            assert status(two.http, ended) == 200
            stream = two.client()
            stream.request("GET", "/health/live")
            assert stream.connection is not None
            stream.connection.request("GET", "/api/stream", headers=ended)
            response = stream.connection.getresponse()
            assert response.readline() == b"retry: 1000\n"
            assert one.http.request("POST", "/logout", headers=ended).status == 303
            one.kill()
            until(lambda: status(two.http, ended) == 401, 5, "the second daemon to learn of it")
            try:
                while response.readline():
                    pass
            except OSError:
                pass
