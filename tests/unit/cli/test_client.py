"""Talking to a daemon: what is sent, and how a no sounds."""

import pytest

from replayforge.client.http import ClientConnection, Problem, Unreachable
from tests.unit.cli.fake_api import FakeApi, hang_up, refusing


def test_key_and_quoting(api: FakeApi) -> None:
    """The key goes with every request, path parts are quoted, and absent query parts left out."""
    with ClientConnection(api.url + "/", "secret") as client:
        client.get("api", "workflows", "a/b ?", since=None, limit=5)
    assert api.headers[0]["X-API-Key"] == "secret"
    assert api.requests == [("GET", "/api/workflows/a/b ?", {"limit": "5"})]


def test_problem_in_one_sentence(api: FakeApi) -> None:
    """A problem is told as title, detail and fields; a server error names the request."""
    errors = [{"pointer": "/run_at", "detail": "no time"}]
    api.faults = [
        refusing(422, "Not acceptable", "See below", errors=errors),
        refusing(500, "Broken", request_id="r-1"),
        refusing(429, "Busy", retry_after="7", outcome="unknown"),
    ]
    with ClientConnection(api.url) as client:
        with pytest.raises(Problem, match=r"^Not acceptable: See below: /run_at no time$"):
            client.get("x")
        with pytest.raises(Problem, match=r"^Broken \(request id r-1\)$"):
            client.get("x")
        with pytest.raises(Problem) as caught:
            client.get("x")
    assert (caught.value.retry_after_seconds, caught.value.outcome_unknown) == (7, True)


def test_answer_that_is_no_problem_document(api: FakeApi) -> None:
    """A no from something that is not ReplayForge still gives a sentence."""
    with ClientConnection(api.url) as client, pytest.raises(Problem, match=r"^The daemon answered 404 Not Found$"):
        client.get("nowhere")


def test_broken_connection(api: FakeApi) -> None:
    """A connection that breaks after a request was sent says so; the next request connects anew."""
    api.faults = [hang_up]
    with ClientConnection(api.url) as client:
        with pytest.raises(Unreachable) as caught:
            client.get("api", "convergence")
        assert caught.value.sent
        assert client.get("api", "convergence").status == 200


def test_refused_connection_was_not_sent() -> None:
    """A connection that was never made cannot have carried anything."""
    with ClientConnection("http://127.0.0.1:1") as client, pytest.raises(Unreachable) as caught:
        client.get("x")
    assert not caught.value.sent


def test_one_connection(api: FakeApi) -> None:
    """Requests follow one another on the same connection."""
    with ClientConnection(api.url) as client:
        for _ in range(3):
            client.get("api", "convergence")
    assert len(set(api.peers)) == 1
