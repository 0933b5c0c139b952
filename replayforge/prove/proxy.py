"""The proxy that stands for the world outside: it writes down each call of a proved daemon, and answers it itself."""

import contextlib
import http.client
import socket
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import msgspec

from replayforge.prove.certificates import VARIABLES as AUTHORITY_VARIABLES
from replayforge.prove.certificates import Certificates
from replayforge.prove.whereabouts import Site

BODY_BYTES_MAX = 64 * 1024 * 1024
FORWARD_SECONDS_MAX = 30.0
ANSWER = b"{}"
OF_ONE_CONNECTION = {"connection", "keep-alive", "proxy-connection", "proxy-authorization", "transfer-encoding", "te"}
VARIABLES = ("http_proxy", "https_proxy", "all_proxy")
NOT_PROXIED = ("no_proxy", "NO_PROXY")


class Call(msgspec.Struct, frozen=True):
    """A call that came to the proxy; `key` is the idempotency key that it brought, `sites` where it may come from."""

    method: str
    url: str
    key: str
    sites: tuple[Site, ...]

    @property
    def origin(self) -> str:
        """Whom it went to."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc}"


class OutsideRules(msgspec.Struct, frozen=True):
    """How the world outside answers: what JSON to URLs that begin so, and which hosts are really called.

    `key_header` is the header by which whoever is called knows a repeated call.
    """

    answers: Mapping[str, msgspec.Raw] = {}
    forwarded: tuple[str, ...] = ()
    key_header: str = "Idempotency-Key"

    def answer_to(self, url: str) -> bytes:
        """Return the answer to a call that is not passed on."""
        fitting = [prefix for prefix in self.answers if url.startswith(prefix)]
        return bytes(self.answers[max(fitting, key=len)]) if fitting else ANSWER

    def forwards(self, url: str) -> bool:
        """Whether a call is passed on."""
        parts = urlsplit(url)
        return parts.netloc in self.forwarded or parts.hostname in self.forwarded


class Proxy:
    """Serves in threads of its own until it is left; `calls` holds what came, in order.

    `where` says which lines of users' code wait for an answer now.
    """

    def __init__(self, rules: OutsideRules, certificates: Certificates, where: Callable[[], list[Site]]) -> None:
        self.rules = rules
        self.certificates = certificates
        self.where = where
        self.calls: list[Call] = []
        self.uncounted: set[str] = set()
        self.server = Server(("127.0.0.1", 0), Exchange)
        self.server.proxy = self
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"127.0.0.1:{self.server.server_port}"

    def environment(self, inherited: Mapping[str, str]) -> dict[str, str]:
        """Return an environment in which libraries find the proxy, and no way around it."""
        names = {*VARIABLES, *map(str.upper, VARIABLES)}
        left = {name: value for name, value in inherited.items() if name not in (*NOT_PROXIED, *AUTHORITY_VARIABLES)}
        return {**left, **dict.fromkeys(names, f"http://{self.address}"), **self.certificates.environment()}

    def note(self, method: str, url: str, key: str) -> None:
        """Write a call down."""
        self.calls.append(Call(method, url, key, tuple(self.where())))

    def __enter__(self) -> "Proxy":
        self.thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.server.shutdown()
        self.server.server_close()


class Server(ThreadingHTTPServer):
    """One thread for each connection, none of which holds up the end."""

    daemon_threads = True
    block_on_close = False
    proxy: Proxy

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of connections that broke: daemons die here."""


class Exchange(BaseHTTPRequestHandler):
    """One connection of a proved daemon, and the calls on it."""

    protocol_version = "HTTP/1.1"
    server: Server
    tunnel = ""

    def parse_request(self) -> bool:
        """Read the head of a request, and have any method carried out in one way."""
        if not super().parse_request():
            return False
        setattr(self, f"do_{self.command}", self.connect if self.command == "CONNECT" else self.carry_out)
        return True

    def carry_out(self) -> None:
        """Write the call down, and answer it."""
        proxy, body = self.server.proxy, self.body()
        url = self.tunnel + self.path
        proxy.note(self.command, url, self.headers.get(proxy.rules.key_header, ""))
        if proxy.rules.forwards(url):
            self.pass_on(url, body)
        else:
            self.reply(200, {"Content-Type": "application/json"}, proxy.rules.answer_to(url))

    def connect(self) -> None:
        """Become the host that is asked for, so that calls by TLS are seen as well."""
        proxy, (host, _, port) = self.server.proxy, self.path.rpartition(":")
        context = proxy.certificates.context(host.strip("[]"))
        if context is None:
            proxy.uncounted.add(f"https://{self.path}")
            self.reply(502, {}, b"replayforge prove needs the program openssl to stand for a host by TLS")
            return
        self.send_response(200)
        self.end_headers()
        self.connection = context.wrap_socket(self.connection, server_side=True)
        self.rfile, self.wfile = self.connection.makefile("rb"), self.connection.makefile("wb", 0)
        self.tunnel = f"https://{host}" if port == "443" else f"https://{self.path}"
        self.close_connection = False

    def body(self) -> bytes:
        """Read what the request brings."""
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            return b"".join(iter(self.chunk, b""))
        return self.rfile.read(min(int(self.headers.get("Content-Length") or 0), BODY_BYTES_MAX))

    def chunk(self) -> bytes:
        """Read one chunk; the last one is empty."""
        size = int(self.rfile.readline().partition(b";")[0], 16)
        chunk = self.rfile.read(min(size, BODY_BYTES_MAX))
        self.rfile.readline()
        return chunk

    def pass_on(self, url: str, body: bytes) -> None:
        """Call whom the call is meant for, and hand the answer back."""
        parts = urlsplit(url)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        target = urlunsplit(("", "", parts.path or "/", parts.query, ""))
        with contextlib.closing(kind(parts.hostname or "", parts.port, timeout=FORWARD_SECONDS_MAX)) as connection:
            try:
                connection.request(self.command, target, body, kept(dict(self.headers)))
                answer = connection.getresponse()
                self.reply(answer.status, kept(dict(answer.getheaders())), answer.read())
            except (OSError, http.client.HTTPException) as error:
                self.reply(502, {}, f"{parts.netloc} cannot be reached: {error}".encode())

    def reply(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        """Answer."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name is that of the standard library
        """Say nothing."""


def kept(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers that concern both ends."""
    return {
        name: value for name, value in headers.items() if name.lower() not in {*OF_ONE_CONNECTION, "content-length"}
    }


def line_to(answering: socket.socket) -> Callable[[], bytes]:
    """Return what asks a daemon over its line and gives its answer, empty when it is dead."""
    reader, asking = answering.makefile("rb"), threading.Lock()

    def ask() -> bytes:
        with asking, contextlib.suppress(OSError):
            answering.sendall(b"?")
            return reader.readline()
        return b""

    return ask
