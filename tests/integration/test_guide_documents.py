"""What the guide says, document by document: its files are used and its commands run as they stand there."""

import http.client
import inspect
import json
import random
import re
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import fields
from functools import partial
from pathlib import Path
from shutil import which
from typing import Any

import pytest
from click.testing import CliRunner

from replayforge import Context, Event, Handlers
from replayforge.cli.main import commands
from replayforge.crashpoints import POINTS
from replayforge.domain.event import Attempt
from replayforge.domain.journal import StepRecord
from replayforge.domain.lifecycle import TRANSITIONS, Reason, State
from replayforge.domain.retry import RetryPolicy
from replayforge.domain.schedule import Schedule, objection_to
from replayforge.web.http.problem_types import PROBLEM_TYPES
from tests.support.daemon_process import REPOSITORY, DaemonProcess, until
from tests.support.guide import DOCS, blocks, run_commands, write_files
from tests.support.ports import free_port
from tests.support.slow import the_rest_slow

# Whose commands take least come first.
DOCUMENTS = [
    "idempotency",
    "replaying",
    "sending",
    "lanes",
    "states",
    "errors",
    "recipes",
    "handlers",
    "operating",
    "shadow",
]

# What the daemon alone uses of what a handler gets.
INTERNAL = {"backing", "calls", "details", "event", "step_key"}


NGINX = """daemon off; pid {folder}/nginx.pid; error_log stderr; events {{}}
http {{ access_log off; include replayforge.conf; }}
"""


class Chosen(random.Random):
    """Chance that is always the least, or the most."""

    def __init__(self, least: bool) -> None:
        super().__init__()
        self.least = least

    def uniform(self, a: float, b: float) -> float:
        return a if self.least else b


def test_the_quick_start(tmp_path: Path) -> None:
    """Its daemon is killed in the middle of the work, and the event ends; it is installed as the README says."""
    ports = {"8787": str(free_port())}
    write_files("quickstart", tmp_path, ports)
    run_commands("quickstart", DaemonProcess(tmp_path), ports)
    (install,) = (block.text for block in blocks("quickstart") if block.language == "console")
    assert install.splitlines()[0] in (REPOSITORY / "README.md").read_text()


@pytest.fixture
def run_document(tmp_path: Path) -> Iterator[Callable[[str], None]]:
    """Runs the commands of a document beside a daemon that has its files."""
    daemon = DaemonProcess(tmp_path)

    def run(document: str) -> None:
        ports = {"3999": str(free_port()), "8080": str(free_port())}
        files = write_files(document, tmp_path, ports)
        daemon.handlers = tmp_path / "handlers.py" if "handlers.py" in files else None
        daemon.start()
        missing = run_commands(document, daemon, ports | {"8787": daemon.url.rpartition(":")[2]})
        if missing:
            pytest.skip(f"{', '.join(missing)} is not here: the blocks of {document}.md that need it were not run")

    yield run
    daemon.kill()


@pytest.mark.parametrize("document", the_rest_slow(DOCUMENTS, now=5))
def test_a_document(run_document: Callable[[str], None], document: str) -> None:
    """Its commands do what it says with the files that it shows."""
    run_document(document)


def table(document: str, heading: str) -> list[list[str]]:
    """Return the rows of the first table below a heading."""
    text = (DOCS / f"{document}.md").read_text(encoding="utf-8").partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    rows = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows[2:]]


def test_the_options_are_those_of_the_registry() -> None:
    """Every option of `on` has its row, `subscribe` has the same, and what a context and an event have is told."""
    options = set(inspect.signature(Handlers.on).parameters) - {"self", "pattern"}
    assert {row[0].strip("`") for row in table("handlers", "Options")} == options
    assert set(inspect.signature(Handlers.subscribe).parameters) - {"self", "pattern", "name"} == options
    for heading, kind in (("The event", Event), ("The context", Context)):
        told = set(re.findall(r"(?:event|ctx)?\.(\w+)|`(\w+)`", " ".join(row[0] for row in table("handlers", heading))))
        public = {name for name in (*dir(kind), *kind.__annotations__) if not name.startswith("_")} - INTERNAL
        assert {first or second for first, second in told} == public


def test_the_back_off_is_that_of_the_policy() -> None:
    """The table of waits is what the default policy gives."""
    policy, rows = RetryPolicy(), table("handlers", "Back-off")
    waits = [[policy.delay_seconds(n, Chosen(least)) for least in (True, False)] for n in range(1, policy.max_attempts)]
    assert [row[:3] for row in rows[:-1]] == [
        [str(n), f"{low:.0f} s", f"{high:.0f} s"] for n, (low, high) in enumerate(waits, start=1)
    ]
    least, most = (sum(row[place] for row in waits) / 60 for place in (0, 1))
    assert rows[-1][2] == f"after {least:.0f} to {most:.0f} minutes in all"


def test_the_states_are_those_of_the_lifecycle() -> None:
    """Every state leads where the code lets it, the drawing names no other, and every reason has its remedy."""
    told = {row[0].strip("`"): set(re.findall(r"`(\w+)`", row[2])) for row in table("states", "Every state")}
    assert told == {state.value: {target.value for target in targets} for state, targets in TRANSITIONS.items()}
    drawing = next(block.text for block in blocks("states") if block.language == "text")
    drawn = set(re.findall(r"[a-z_]+", re.sub(r"\(.*?\)|replay|a signal:|, when.*", "", drawing)))
    assert drawn == {state.value for state in State}
    reasons = [row[0].strip("`") for row in table("states", "Why an event is a dead letter")]
    assert sorted(reasons) == sorted(Reason)


def test_testing_tells_points_and_records_as_the_code_has_them() -> None:
    """Every crash point has its sentence, and what attempts and steps have is told, nothing else."""
    assert {row[0].strip("`"): row[1] for row in table("testing", "Crash points")} == POINTS
    told = {row[0]: set(re.findall(r"`(\w+)`", row[1])) for row in table("testing", "Attempts and steps")}
    attempt = {field.name for field in fields(Attempt)}
    assert told == {"`.attempts`": attempt, "`.steps`": set(StepRecord.__struct_fields__)}


def test_the_cron_expressions_are_read() -> None:
    """Each one that the guide shows names a time, and none of what it calls unknown does."""
    shown = re.findall(r"`(.*?)`", " ".join(row[1] for row in table("schedules", "Cron expressions")))
    unknown = ["0 0 9 * * 1", "0 9 ? * 1", "0 9 1W * *", "H 9 * * *"]
    schedules = [Schedule(name="a", event_type="a", workflow="a", cron=cron) for cron in [*shown, *unknown]]
    known = [schedule.cron for schedule in schedules if not objection_to(schedule)]
    assert known == shown
    assert len(shown) > 9


def test_the_probes_are_those_of_the_manifest() -> None:
    """What the guide shows of Kubernetes is what `deploy kubernetes` prints."""
    shown = next(block.text for block in blocks("operating") if "livenessProbe" in block.text)
    printed = CliRunner().invoke(commands, ["deploy", "kubernetes"]).output
    assert probes_of(shown) == probes_of(printed)


def probes_of(manifest: str) -> set[tuple[str, ...]]:
    """Return each probe with its path and its numbers, and the grace period."""
    numbers = r"(\w+Probe):\n.*?path: ([\w/]+).*?periodSeconds: (\d+)\s+timeoutSeconds: (\d+)\s+failureThreshold: (\d+)"
    grace = re.search(r"terminationGracePeriodSeconds: (\d+)", manifest)
    assert grace is not None
    return {*re.findall(numbers, manifest, re.DOTALL), grace.groups()}


def test_every_error_has_its_remedy() -> None:
    """Problems and codes of the log are told, those of the code and no others, with their status and their remedy."""
    text = (DOCS / "errors.md").read_text(encoding="utf-8")
    told = dict(re.findall(r"^### (\S+)\n\n(.*)$", text, re.MULTILINE))
    code = "".join(path.read_text(encoding="utf-8") for path in (DOCS.parent / "forgelog").glob("*.py"))
    assert told.keys() == PROBLEM_TYPES.keys() | set(re.findall(r'"(E_[A-Z_]+)"', code))
    for name, kind in PROBLEM_TYPES.items():
        assert told[name].startswith(f"Status {kind.status}. {kind.title}. {kind.remedy}"), name


def test_the_alerts_look_at_metrics_that_there_are() -> None:
    """Five rules, each over metrics of the table of all metrics."""
    (rules,) = (block.text for block in blocks("operating") if block.file == "rules.yml")
    expressions = re.findall(r"expr: (.*)", rules)
    known = {row[0].strip("`") for row in table("metrics", "All of them")}
    assert len(expressions) == 5
    assert all("replayforge_" in expression for expression in expressions)
    assert set(re.findall(r"replayforge_\w+", " ".join(expressions))) <= known


def expressions_of(panels: list[dict[str, Any]]) -> list[str]:
    """Return what the panels of a dashboard ask."""
    return [target["expr"] for panel in panels for target in panel.get("targets", [])]


def test_the_dashboard_looks_at_metrics_that_there_are(tmp_path: Path) -> None:
    """Every metric and label it asks for is in the table of all metrics, Prometheus can read it, and it is printed."""
    text = (DOCS / "grafana.json").read_text(encoding="utf-8")
    asked = expressions_of(json.loads(text)["panels"])
    rows = {row[0].strip("`"): row for row in table("metrics", "All of them")}
    ends = ("bucket", "count")
    histograms = {f"{name}_{end}": name for name, row in rows.items() if row[1] == "histogram" for end in ends}
    for expression in asked:
        named = {histograms.get(name, name) for name in re.findall(r"(?:replayforge|process)_\w+", expression)}
        assert named, expression
        assert named <= rows.keys(), expression
        known = {"le", "instance"}.union(*(rows[name][2].split(", ") for name in named))
        grouped = " ".join(re.findall(r"by \((.*?)\)", expression))
        assert {*re.findall(r'(\w+)[=!]~?"', expression), *re.findall(r"\w+", grouped)} <= known, expression
    assert CliRunner().invoke(commands, ["deploy", "grafana"]).output == text
    if not which("promtool"):
        pytest.skip("promtool is not here: the expressions of grafana.json were not looked at by it")
    rules = [
        {"record": f"asked_{number}", "expr": one.replace("$__rate_interval", "1m").replace("$instance", ".*")}
        for number, one in enumerate(asked)
    ]
    (tmp_path / "rules.json").write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    command = ["promtool", "check", "rules", str(tmp_path / "rules.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("document", "file", "command"),
    [
        ("recipes", "receiver.go", ["gofmt", "-l", "receiver.go"]),
        ("recipes", "receiver.mjs", ["node", "--check", "receiver.mjs"]),
        ("operating", "Caddyfile", ["caddy", "validate", "--config", "Caddyfile"]),
        ("operating", "rules.yml", ["promtool", "check", "rules", "rules.yml"]),
    ],
)
def test_a_file_in_another_language(tmp_path: Path, document: str, file: str, command: list[str]) -> None:
    """What is not ours is at least what its own tool takes; gofmt prints what it would write otherwise."""
    if not which(command[0]):
        pytest.skip(f"{command[0]} is not here: {file} of {document}.md was not looked at")
    assert file in write_files(document, tmp_path, {})
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert command[0] != "gofmt" or done.stdout == ""


def test_the_proxy_lets_long_polls_and_streams_through(tmp_path: Path) -> None:
    """Through the nginx of the guide an event is sent, waited for, and heard of while the stream is open."""
    if not which("nginx"):
        pytest.skip("nginx is not here: replayforge.conf of operating.md was not tried")
    port = str(free_port())
    with DaemonProcess(tmp_path, tmp_path / "handlers.py") as daemon:
        write_files("operating", tmp_path, {})
        daemon.settings["server.allowed_hosts"] = ["hooks.example.com"]
        daemon.start()
        write_files("operating", tmp_path, {"8080": f"127.0.0.1:{port}", "8787": daemon.url.rpartition(":")[2]})
        (tmp_path / "nginx.conf").write_text(NGINX.format(folder=tmp_path))
        nginx = subprocess.Popen(["nginx", "-e", "stderr", "-p", str(tmp_path), "-c", "nginx.conf"])
        try:
            heard = until(partial(listening, int(port)), 20, "nginx to answer")
            assert heard.readline().startswith(b"retry:")
            body = b'{"workflow_id": "w", "event_type": "order.placed"}'
            sent = json.loads(proxied(int(port), "POST", "/api/events", body).read())
            ended = json.loads(proxied(int(port), "GET", f"/api/events/{sent['id']}?wait=20").read())
            assert ended["result"] == "confirmed"
            assert any(line.startswith(b"data:") for line in heard)
        finally:
            nginx.terminate()
            nginx.wait()


def listening(port: int) -> http.client.HTTPResponse | None:
    """Open the stream of the live pages, or return None while nginx does not listen."""
    try:
        return proxied(port, "GET", "/api/stream")
    except OSError:
        return None


def proxied(port: int, method: str, path: str, body: bytes | None = None) -> http.client.HTTPResponse:
    """Ask the proxy by the name it serves."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request(method, path, body, {"Host": "hooks.example.com", "Content-Type": "application/json"})
    return connection.getresponse()
