"""What is written about the product, compared with the product."""

import ast
import re
import tomllib
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import click
import pytest
from aiohttp import web

import replayforge
from replayforge.cli.main import commands
from replayforge.config import Config, load_config
from replayforge.config.settings import values_by_key
from replayforge.crashpoints import POINTS
from replayforge.telemetry import CATALOG
from replayforge.web import app, status_page
from replayforge.web.api import openapi
from replayforge.web.api.described_operations import OPERATIONS, PARAMETERS
from replayforge.web.http.guard import OF_AIOHTTP
from replayforge.web.http.problem_types import PROBLEM_TYPES
from replayforge.web.http.problems import TYPE_OF
from replayforge.web.http.routes import add_routes
from replayforge.web.live.hints import TOPICS
from replayforge.web.live.live_rates import QUIET
from replayforge.web.pages.rows import SENTENCES

pytestmark = pytest.mark.style
SHIPPED = Path(__file__).parent.parent / "replayforge.toml"


def test_shipped_configuration_lists_every_key_with_its_default() -> None:
    """Every key of the code stands in replayforge.toml with its default, and no other key does."""
    document = tomllib.loads(SHIPPED.read_text())
    single = {name: value for name, value in document.items() if not isinstance(value, dict)}
    written = {name: tuple(v) if isinstance(v := document.pop(name), list) else v for name in single}
    for section, keys in document.items():
        written |= {f"{section}.{name}": tuple(v) if isinstance(v, list) else v for name, v in keys.items()}
    assert written == values_by_key(Config())


def test_shipped_configuration_explains_every_key() -> None:
    """Every line with a key ends with a comment of at least two words."""
    lines = [line for line in SHIPPED.read_text().splitlines() if re.match(r"(# )?\w+ = ", line)]
    assert len(lines) > 50
    assert [line for line in lines if not re.search(r"\s# \S+ \S+", line)] == []


def test_shipped_configuration_changes_nothing() -> None:
    """A daemon with the shipped file runs on the same settings as one without any."""
    assert load_config(SHIPPED, {}, {}).config == load_config(Path("/dev/null"), {}, {}).config


PACKAGE = Path(replayforge.__file__).parent


@cache
def trees() -> dict[Path, ast.Module]:
    """Return the syntax tree of every module of the package; whoever collects tests does not parse them."""
    return {path: ast.parse(path.read_text()) for path in sorted(PACKAGE.rglob("*.py"))}


def calls_of(*names: str) -> Iterator[ast.Call]:
    """Yield every call of a function or method of one of these names in the package."""
    for tree in trees().values():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in names:
                yield node


def texts_in(nodes: Iterable[ast.AST]) -> set[str]:
    """Return every string that stands in these pieces of code as a literal."""
    found = [one.value for node in nodes for one in ast.walk(node) if isinstance(one, ast.Constant)]
    return {value for value in found if isinstance(value, str)}


def test_every_setting_is_read() -> None:
    """No key of the configuration is without effect: something reads it."""
    settings = PACKAGE / "config" / "settings.py"
    read = {
        node.attr
        for path, tree in trees().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and (path != settings or ast.unparse(node.value) == "self")
    }
    assert {key.rpartition(".")[2] for key in values_by_key(Config())} - read == set()


# Telemetry events

# What hands the name of a telemetry event on: to telemetry, or to what tells telemetry or writes the line itself.
REPORTING = ("emit", "report", "call", "encoded")


def test_the_catalog_holds_what_is_emitted() -> None:
    """No part of the daemon reports what the catalog does not explain, and nothing in the catalog never happens."""
    named = {name for name in texts_in(one for call in calls_of(*REPORTING) for one in call.args) if "." in name}
    assert {name for name in named if re.fullmatch(r"[a-z]+\.[a-z_]+", name)} == set(CATALOG)
    assert {kind.level for kind in CATALOG.values()} == {"debug", "info", "warning", "error"}


def test_what_is_counted_by_a_label_is_emitted_with_it() -> None:
    """Every place that emits a telemetry event with a label gives its value, and no two kinds share a counter."""
    emitted = [(call.args[0].value, call) for call in calls_of("emit") if isinstance(call.args[0], ast.Constant)]
    without = [
        ast.unparse(call)
        for name, call in emitted
        if (label := CATALOG[str(name)].label) and label not in {one.arg for one in call.keywords}
    ]
    assert without == []
    metrics = [kind.metric for kind in CATALOG.values() if kind.metric]
    assert len(metrics) == len(set(metrics))


def test_the_pages_know_only_what_happens() -> None:
    """What changes pages, what is passed over and what has a sentence of its own stands in the catalog."""
    assert (TOPICS.keys() | QUIET | SENTENCES.keys()) - CATALOG.keys() == set()


# Crash points and SQL


def test_every_crash_point_is_reached() -> None:
    """Each point that can be armed is passed somewhere, and none is passed that cannot be armed."""
    assert texts_in(one for call in calls_of("reach", "reach_within") for one in call.args) == set(POINTS)


def test_every_statement_is_carried_out() -> None:
    """Each statement of the book of SQL is named by the code, and the code names no other."""
    book = PACKAGE / "stores" / "sql" / "sqlite.sql"
    statements = set(re.findall(r"^-- (\w+) --$", book.read_text(), re.MULTILINE))
    named = texts_in(tree for path, tree in trees().items() if path.parent.name == "stores")
    assert statements - named == set()
    firsts = [call.args[0] for call in calls_of("Fetch", "Batch")]
    assert {one.value for one in firsts if isinstance(one, ast.Constant)} - statements == set()


# Commands

COMMANDS = {
    "backup", "chaos", "check", "config check", "config show", "dead discard", "dead groups", "dead ls", "dead replay",
    "demo", "deploy check", "endpoint check", "events cancel", "events ls", "events replay", "events resolve",
    "events show", "forward", "log bench-fsync", "log dump", "log repair", "log stat", "log verify", "prove", "restore",
    "send", "serve", "shadow", "status", "version",
}  # fmt: skip
COMMANDS_BEYOND = {
    "deploy compose", "deploy docker", "deploy grafana", "deploy kubernetes", "deploy systemd",
    "completion", "events retry", "handlers ls", "handlers pause", "handlers resume", "log export", "log import",
    "replays cancel", "replays ls", "replays pause", "replays resume", "replays show", "replays watch", "sources ls",
    "keys new", "lanes ls", "schedules ls", "schedules pause", "schedules resume", "schedules run",
    "sources pause", "sources resume", "sources test", "sources verify", "workflows ls", "workflows show",
    "alerts ls", "alerts test", "indoubt confirm", "indoubt dead-letter", "indoubt ls", "indoubt rerun",
}  # fmt: skip
GROUPS_PROMISED = {"sources"}  # named without what is in them
SPECIFICATION = next((path for one in PACKAGE.parents if (path := one / "shared" / "API.md").exists()), None)


def commands_below(group: click.Group, prefix: str = "") -> Iterator[str]:
    """Yield the name of every command."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from commands_below(command, f"{prefix}{name} ")
        else:
            yield prefix + name


def test_the_commands_are_those_of_the_specification() -> None:
    """The commands are those that were promised and those beyond; where API.md is at hand, it promises no others."""
    assert set(commands_below(commands)) == COMMANDS | COMMANDS_BEYOND
    if SPECIFICATION is not None:
        assert commands_in(SPECIFICATION.read_text()) == COMMANDS | GROUPS_PROMISED


def commands_in(specification: str) -> set[str]:
    """Return the commands that the table of API.md names."""
    _, _, text = specification.partition("## 2. CLI")
    rows = re.findall(r"^\| (`.+?) \| ", text.partition("## 3.")[0], re.MULTILINE)
    named: set[str] = set()
    for written in re.findall(r"`([^`]+)`", " ".join(rows)):
        group, _, rest = re.sub(r" ?\[.*?\]", "", written).partition(" ")
        named |= {f"{group} {one}".strip() for one in re.findall(r"(?:^|\| )([a-z][a-z-]*|)(?![a-z-])", rest)}
    return named


# Routes and problems

ROUTES = {
    "GET /api/convergence", "GET /api/deadletters", "GET /api/events", "GET /api/events/recent", "GET /api/events/{}",
    "GET /api/insights/errors", "GET /api/metrics", "GET /api/replays", "GET /api/replays/{}", "GET /api/stream",
    "GET /api/supervisor", "GET /api/workers", "GET /api/workflows", "GET /api/workflows/{}",
    "GET /api/workflows/{}/timeline", "GET /docs", "GET /forgelog/health", "GET /forgelog/read", "GET /forgelog/stats",
    "GET /health", "GET /health/backend", "GET /health/backend/stats", "GET /health/live", "GET /health/ready",
    "GET /metrics", "GET /openapi.json", "POST /api/chaos/crash", "POST /api/chaos/workers/{}/crash",
    "POST /api/deadletters/{}/discard", "POST /api/deadletters/{}/replay", "POST /api/demo/generate-workload",
    "POST /api/events", "POST /api/events/bulk", "POST /api/events/{}/cancel", "POST /api/events/{}/replay",
    "POST /api/events/{}/retry", "POST /api/replays", "POST /api/replays/{}/cancel", "POST /api/replays/{}/pause",
    "POST /api/replays/{}/resume", "POST /api/workflows/{}/replay", "POST /forgelog/append", "POST /forgelog/commit",
}  # fmt: skip
ROUTES_BEYOND = {
    "GET /api/events/export", "GET /api/events/{}/steps", "GET /api/handlers", "GET /schemas/steps.json",
    "GET /steps/{}/{}/{}/journal", "POST /api/events/{}/resolve", "POST /api/handlers/{}/pause",
    "POST /api/handlers/{}/resume", "POST /steps/{}/{}/{}/checkpoint", "GET /api/sources",
    "GET /api/sources/{}/refusals", "GET /in/{}", "POST /api/sources/{}/pause",
    "GET /api/schedules", "POST /api/schedules/{}/pause", "POST /api/schedules/{}/resume", "POST /api/schedules/{}/run",
    "POST /api/sources/{}/refusals/verify", "POST /api/sources/{}/resume",
    "POST /in/{}", "GET /api/lanes", "GET /api/alerts", "POST /api/alerts/{}/test", "GET /api/events/{}/why",
    "GET /api/indoubt", "POST /api/indoubt/{}/resolve", "POST /api/shadow",
}  # fmt: skip


def served() -> web.Application:
    """Return an application with every route of the daemon."""
    application = web.Application()
    add_routes(application, [*app.routes(), *status_page.routes()])
    return application


def test_the_routes_are_those_of_the_specification() -> None:
    """The API has what was promised and what is beyond; where API.md is at hand, it promises no others."""
    routes = {f"{method} {re.sub('{.*?}', '{}', path)}" for method, path, _ in openapi.api_routes(served(), "")}
    assert routes == (ROUTES - {"GET /docs"}) | ROUTES_BEYOND
    if SPECIFICATION is not None:
        named, prefixes = routes_in(SPECIFICATION.read_text())
        assert named == ROUTES
        paths = {str(route.resource.canonical) for route in served().router.routes() if route.resource}
        unserved = {prefix for prefix in prefixes if not any(path.startswith(prefix) for path in paths)}
        assert unserved == set()


def routes_in(specification: str) -> tuple[set[str], set[str]]:
    """Return the routes that API.md names, and the beginnings of paths."""
    _, _, text = specification.partition("## 1. HTTP")
    routes: set[str] = set()
    prefixes: set[str] = set()
    for method, path in re.findall(r"`(GET |POST |)(/[^`\s?]*)[^`]*`", text.partition("## 2.")[0]):
        if path.endswith(("*", "/", "/login")):
            prefixes.add(path.rstrip("*"))
            continue
        *parts, last = re.sub("{.*?}", "{}", path).split("/")
        routes |= {f"{method or 'GET '}{'/'.join([*parts, one])}" for one in last.split("|")}
    return routes, prefixes


def test_the_description_of_the_api_is_of_its_routes() -> None:
    """OpenAPI describes every route in a sentence; no route, parameter or struct is described that nobody serves."""
    document = openapi.document(served(), "")
    described = {
        f"{method.upper()} {path}": one
        for path, methods in document["paths"].items()
        for method, one in methods.items()
    }
    assert OPERATIONS.keys() == described.keys()
    assert [name for name, one in described.items() if not one["summary"].endswith(".")] == []
    assert {name for one in OPERATIONS.values() for name in one.query} == PARAMETERS.keys()


def test_the_problems_are_those_of_their_catalog() -> None:
    """No code answers a type of problem without title and remedy, and none in the catalog is never answered."""
    raised = {one.value for call in calls_of("HttpProblem", "FinalProblem") for one in call.args[:1]
              if isinstance(one, ast.Constant)}  # fmt: skip
    assert raised | {name for _, name in TYPE_OF} | set(OF_AIOHTTP.values()) == PROBLEM_TYPES.keys()
    assert {PROBLEM_TYPES[name].status: name for name in OF_AIOHTTP.values()} == OF_AIOHTTP
    assert len({one.title for one in PROBLEM_TYPES.values()}) == len(PROBLEM_TYPES)
    description = openapi.document(served(), "")["components"]["schemas"]["Problem"]["properties"]["type"]
    assert description["enum"] == [f"urn:replayforge:{name}" for name in PROBLEM_TYPES]
    assert [name for name, one in PROBLEM_TYPES.items() if f"{name} ({one.status}): {one.remedy}"
            not in description["description"].splitlines() or not one.remedy.endswith(".")] == []  # fmt: skip


# The guide


def test_paths_in_documents_exist() -> None:
    """Every file and folder that README and the guide name is there."""
    root = SHIPPED.parent
    for document in (root / "README.md", *sorted((root / "replayforge" / "docs").glob("*.md"))):
        named = re.findall(r"`((?:replayforge|tests|bench)/[\w/.]*)`", document.read_text(encoding="utf-8"))
        assert [path for path in named if not (root / path).exists()] == [], document.name


def test_names_in_the_house_exist() -> None:
    """Every folder and module that the drawing of the house shows is in the package."""
    root = SHIPPED.parent / "replayforge"
    drawing = re.search(
        r"```text\n(.*?)```", (root / "docs" / "architecture.md").read_text(encoding="utf-8"), re.DOTALL
    )
    assert drawing is not None
    names = set(re.findall(r"(?<![\w/])([a-z_]+(?:/|\.py))(?=\s|$)", drawing[1]))
    there = {f"{path.name}/" for path in root.rglob("*") if path.is_dir()} | {path.name for path in root.rglob("*.py")}
    assert len(names) > 15
    assert names - there == set()


def test_glossary_has_each_word_once() -> None:
    """One word for one thing: no word is explained twice."""
    glossary = (SHIPPED.parent / "replayforge" / "docs" / "glossary.md").read_text(encoding="utf-8")
    words = [word for cell in re.findall(r"^\| \*\*(.+?)\*\* \|", glossary, re.MULTILINE) for word in cell.split(", ")]
    assert len(words) > 30
    assert sorted(words) == sorted(set(words))
