"""What a proved daemon calls is seen, named by its line, answered, and let nowhere else."""

import asyncio
import gc
import threading
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from shutil import which
from typing import Any, cast

import msgspec
import pytest

from replayforge.domain.errors import Refused
from replayforge.event_loop import Contained
from replayforge.prove.certificates import Certificates
from replayforge.prove.proxy import OutsideRules, Proxy
from replayforge.prove.samples import sample_of, samples_in, with_signals
from replayforge.prove.whereabouts import Site, sites_of

HERE = Path(__file__)
ANSWERS = {"http://bank/": msgspec.Raw(b'{"id": 7}'), "http://bank/charges": msgspec.Raw(b'{"id": 8}')}


def opener(proxy: Proxy, certificates: Certificates | None = None) -> urllib.request.OpenerDirector:
    """What calls through the proxy."""
    import ssl

    address = f"http://{proxy.address}"
    handlers: list[Any] = [urllib.request.ProxyHandler({"http": address, "https": address})]
    if certificates is not None:
        context = ssl.create_default_context(cafile=str(certificates.bundle))
        handlers.append(urllib.request.HTTPSHandler(context=context))
    return urllib.request.build_opener(*handlers)


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    return Certificates(tmp_path)


def test_calls_are_written_down_and_answered(tmp_path: Path) -> None:
    site = Site("handlers.py", 3, "pay")
    without = Certificates.__new__(Certificates)
    with Proxy(OutsideRules(ANSWERS), without, lambda: [site]) as proxy:
        call = opener(proxy).open
        request = urllib.request.Request("http://bank/charges/1?a=b", b"x", {"Idempotency-Key": "17"})
        assert call(request).read() == b'{"id": 8}'
        assert call("http://bank/").read() == b'{"id": 7}'
        assert call("http://other:81/").read() == b"{}"
        assert [(one.method, one.url, one.key) for one in proxy.calls] == [
            ("POST", "http://bank/charges/1?a=b", "17"),
            ("GET", "http://bank/", ""),
            ("GET", "http://other:81/", ""),
        ]
        assert proxy.calls[0].sites == (site,)
        assert proxy.calls[2].origin == "http://other:81"


@pytest.mark.skipif(which("openssl") is None, reason="there is no openssl on PATH")
def test_calls_by_tls_are_seen_as_well(certificates: Certificates) -> None:
    with Proxy(OutsideRules(), certificates, list) as proxy:
        assert opener(proxy, certificates).open("https://bank.example/charges", b"x").read() == b"{}"
        assert [(one.method, one.url) for one in proxy.calls] == [("POST", "https://bank.example/charges")]


class Mock(BaseHTTPRequestHandler):
    """A server of the user's own."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(201)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def mock() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Mock) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_host_that_is_forwarded_answers_itself(mock: str) -> None:
    without = Certificates.__new__(Certificates)
    with Proxy(OutsideRules(forwarded=(mock,)), without, list) as proxy:
        answer = opener(proxy).open(f"http://{mock}/echo", b"hello")
        assert (answer.status, answer.read()) == (201, b"hello")
        assert len(proxy.calls) == 1


def test_a_thread_inside_a_library_is_found_at_its_line() -> None:
    never = threading.Event()

    def call_library() -> None:
        never.wait()

    thread = threading.Thread(target=call_library)
    thread.start()
    try:
        found = sites_of((str(HERE.parent),), threading.get_ident())
    finally:
        never.set()
        thread.join()
    assert f"{HERE}:{call_library.__code__.co_firstlineno + 1}" in {site.place for site in found}


def test_a_task_that_waits_is_found_at_its_line() -> None:
    """One that a handler has made as well: the daemon wraps it."""
    begun = threading.Event()
    ends: list[Callable[[], object]] = []

    async def outer() -> None:
        await asyncio.get_running_loop().create_task(Contained(cast("Any", inner()), {}))

    async def inner() -> None:
        await called()

    async def called() -> None:
        never, loop = asyncio.Event(), asyncio.get_running_loop()
        ends.append(lambda: loop.call_soon_threadsafe(never.set))
        loop.call_soon(begun.set)
        await never.wait()

    thread = threading.Thread(target=asyncio.run, args=(outer(),))
    thread.start()
    begun.wait()
    gc.freeze()  # as the daemon does: the collector knows nothing of its loop any more
    try:
        found = {site.function: site for site in sites_of((str(HERE.parent),), threading.get_ident())}
    finally:
        gc.unfreeze()
        ends[0]()
        thread.join()
    assert found["inner"].place == f"{HERE}:{inner.__code__.co_firstlineno + 1}"
    assert found["inner"].innermost == f"{HERE}:{called.__code__.co_firstlineno + 4}"


def test_samples_are_events_as_the_api_takes_them(tmp_path: Path) -> None:
    """A key is given to those without one, and signals follow the workflow that may wait for them."""
    path = tmp_path / "samples.json"
    path.write_text('[{"event_type": "a", "idempotency_key": "own"}, {"event_type": "b", "workflow_id": "w"}]')
    first, second = samples_in(path)
    assert (first.name, first.body["idempotency_key"]) == ("samples.json#1", "own")
    assert (second.body["idempotency_key"], second.body["payload"]) == ("prove:b", {})
    sent = with_signals(second, [sample_of("signal.json", {"event_type": "s", "workflow_id": "other"})])
    assert [(one["event_type"], one["workflow_id"]) for one in sent] == [("b", "w"), ("s", "w")]


@pytest.mark.parametrize("text", ["{", "[1]", '{"payload": {}}'])
def test_what_is_no_event_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "sample.json"
    path.write_text(text)
    with pytest.raises(Refused, match=r"sample\.json"):
        samples_in(path)
