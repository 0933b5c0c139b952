"""`replayforge sources` and `forward` against a real daemon: secrets are read here and there, and shown nowhere."""

import json
import os
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from replayforge.cli import main
from replayforge.config import Config, SourceConfig, load_config
from replayforge.config.settings import ServerConfig
from replayforge.domain.errors import Refused
from replayforge.domain.webhook_presets import PRESETS
from replayforge.engine.accept.source_loading import load_sources
from replayforge.start_rules import check_exposure
from tests.support.daemon_process import DaemonProcess
from tests.support.sink import QUICK, SINK_HANDLERS

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
FORM = b"payload=%7B%22type%22%3A%22closed%22%7D"
Run = Callable[..., str]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def command(*arguments: str, code: int = 0) -> str:
        ended = main.run(arguments)
        said = "".join(capsys.readouterr())
        assert ended == code, said
        assert SECRET not in said
        return said

    return command


@pytest.fixture
def receiver() -> Iterator[HTTPServer]:
    """An address of a developer, which notes what it is sent."""

    class Noting(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            received.append((self.path, {name.lower(): value for name, value in self.headers.items()}, body))
            self.send_response(404 if b"refuse" in body else 200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    received.clear()
    server = HTTPServer(("127.0.0.1", 0), Noting)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


received: list[tuple[str, dict[str, str], bytes]] = []


def test_sources_are_tried_and_their_events_forwarded(
    tmp_path: Path, run: Run, receiver: HTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each preset takes what `sources test` signs; `forward` sends it on as it came, in order, and nobody's child."""
    (tmp_path / "secret").write_text(f"{SECRET}\n")
    monkeypatch.setenv("HOOK_SECRET", SECRET)
    names = [name for name in PRESETS if name != "none"]
    tables = [{"name": name, "preset": name, "secrets": ["${HOOK_SECRET}", f"@{tmp_path}/secret"]} for name in names]
    settings = QUICK | {"sources": [*tables, {"name": "open", "preset": "none"}]}
    monkeypatch.setenv("REPLAYFORGE__SOURCES", json.dumps(settings["sources"]))
    body = tmp_path / "body.json"
    body.write_bytes(b' {"type" : "first", "id": "1"}\n')
    with DaemonProcess(
        tmp_path / "daemon", SINK_HANDLERS, settings=settings, variables={"HOOK_SECRET": SECRET}
    ) as daemon:
        daemon.start()
        url = ("--url", daemon.url)
        for name in [*names, "open"]:
            assert run("sources", "test", name, str(body), *url, "-H", "X-GitHub-Event: push").startswith(
                "Accepted: event "
            )
        assert run("sources", "test", "stripe", str(body), *url).startswith("Known already: event ")
        lines = run("sources", "ls", *url).splitlines()
        assert [line.split()[:4] for line in lines[1:]] == [[name, name, "ready", "1"] for name in names] + [
            ["open", "none", "ready", "1"]
        ]
        assert "paused by" in run("sources", "pause", "slack", "--reason", "moving", *url)
        assert "503" not in run("sources", "test", "slack", str(body), *url, code=1)
        assert run("sources", "resume", "slack", *url) == "The source slack is resumed.\n"
        assert run("sources", "verify", "slack", *url, code=1).startswith("0 accepted")
        assert "no source 'nobody'" in run("sources", "test", "nobody", str(body), *url, code=1)
        form = tmp_path / "form"
        form.write_bytes(FORM)
        run("sources", "test", "slack", str(form), "--type", "application/x-www-form-urlencoded", *url)
        run("send", "plain", '{"refuse": 1}', *url)

        to = ("--to", f"http://127.0.0.1:{receiver.server_port}/hook?x=1", "--once", *url)
        said = run("forward", "--since", "1h", *to).splitlines()
        bodies = [one for _, _, one in received]
        # Twilio's form is no JSON and comes as text, so it is sent on as text as well.
        assert bodies == [body.read_bytes()] * (len(names) + 1) + [FORM, b'{"refuse": 1}']
        assert said[0].startswith("200  github.push  ")
        assert said[-1].startswith("404  plain  ")
        path, headers, _ = received[0]
        assert (path, headers["x-github-event"], headers["replayforge-event-type"]) == (
            "/hook?x=1",
            "push",
            "github.push",
        )
        assert "x-hub-signature-256" not in headers
        received.clear()
        run("forward", "--since", "1h", "--type", "github.*", *to)
        run("forward", *to)
        assert [one["replayforge-event-type"] for _, one, _ in received] == ["github.push"]


def test_secrets_that_are_not_there_are_named(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A start, and `sources test`, say which variable or file should hold a secret; `config` shows places alone."""
    monkeypatch.chdir(tmp_path)
    tables = [
        {"name": "one", "preset": "github", "secrets": ["${NOT_SET_ANYWHERE}"]},
        {"name": "two", "preset": "github", "secrets": ["@/not/there", SECRET]},
    ]
    monkeypatch.setenv("REPLAYFORGE__SOURCES", json.dumps(tables))
    Path("body").write_text("{}")
    assert "the environment variable NOT_SET_ANYWHERE should hold" in run("sources", "test", "one", "body", code=78)
    assert "the file /not/there should hold" in run("sources", "test", "two", "body", code=78)
    config = load_config(Path(os.devnull), os.environ, {}).config
    with pytest.raises(Refused, match="NOT_SET_ANYWHERE should hold a secret"):
        load_sources(config.sources, {})
    shown = run("config", "show")
    assert "${NOT_SET_ANYWHERE}" in shown
    assert '"@/not/there","…"' in shown


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        ({"preset": "github"}, "secrets are needed"),
        ({"preset": "github", "secrets": [""]}, "secrets are needed"),
        ({"preset": "none", "secrets": [SECRET]}, "leave secrets out"),
        ({"preset": "github", "secrets": [SECRET], "key": "{nothing}"}, "braces that name nothing"),
        ({"preset": "github", "secrets": [SECRET], "rate": "fast"}, "is no rate"),
        ({"preset": "gitlab", "secrets": [SECRET]}, "the presets are github"),
        ({"preset": "github", "secrets": [SECRET], "secret": SECRET}, "unknown field `secret`"),
        ({"name": "Å", "preset": "none"}, "small letters"),
    ],
)
def test_what_a_source_cannot_mean_is_said(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch, table: dict[str, object], problem: str
) -> None:
    """Each mistake ends the start with the source's name and what is right, and without its secret."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("REPLAYFORGE__SOURCES", json.dumps([{"name": "shop"} | table]))
    assert problem in run("config", "check", code=78)


def test_an_unsigned_source_is_for_this_machine_alone() -> None:
    """With preset none nothing tells who sends, so the daemon listens on loopback or not at all."""
    server = ServerConfig(host="0.0.0.0", api_keys=("key",))
    check_exposure(Config(server=server, sources=(SourceConfig(name="hub", preset="github"),)))
    with pytest.raises(Refused, match='preset = "none", so nothing tells who sends'):
        check_exposure(Config(server=server, sources=(SourceConfig(name="open", preset="none"),)))
