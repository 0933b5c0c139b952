"""The house rules that a machine can check; those of ruff and mypy are checked by `.ci/style`."""

import ast
import re
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.support.ownership import Package, Source, read_module

pytestmark = pytest.mark.style
ROOT = Path(__file__).parent.parent


def test_the_import_contracts_are_kept() -> None:
    """No module imports what pyproject.toml says it must not know."""
    tool = Path(sys.executable).parent / "lint-imports"
    done = subprocess.run([tool], cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr


LOOKED_UP = re.compile(
    r"\b(asyncio\.(create_task|current_task|ensure_future|gather|get_running_loop|shield|sleep|timeout|wait|wait_for)|time\.(time|time_ns|monotonic|perf_counter))\("
)
EXAMPLES = ("chaos", "cli", "demo")


def test_the_daemon_looks_up_no_function_that_handlers_may_replace() -> None:
    """What its loops wait with and read the time from is bound when a module is imported."""
    package = ROOT / "replayforge"
    modules = [path for path in package.rglob("*.py") if path.relative_to(package).parts[0] not in EXAMPLES]
    assert len(modules) > 100
    found = [f"{path}: {match[0]}" for path in modules for match in LOOKED_UP.finditer(path.read_text())]
    assert found == []


# What the package uses of others beneath their public names, and where: one module for each thing. (`os._exit` and
# `sys._current_frames` are public in spite of their names.)
PRIVATE = {
    "aiohttp_internals.py": {
        "_ErrInfo", "_buffer_paused", "_close", "_factory", "_lingering_time", "_match_info", "_messages",
        "_reading_paused", "_upgraded", "_waiter",
    },
    "reentry.py": {"_fut_waiter"},  # asyncio: what a task waits for
    "event_loop.py": {"_context", "_run"},  # asyncio: in whose context a callback runs
    "forks.py": {"_selector"},  # asyncio: what a loop polls
    "interpreter_guard.py": {"_get_running_loop", "_set_running_loop", "_signal"},  # what handlers break
    "process_state.py": {"_data", "_signal"},  # os.environ and signal: the same
    "sqlite.py": {"_conn", "_tx", "_thread"},  # aiosqlite: a whole transaction in one hop, and its end
}  # fmt: skip


@cache
def parsed(path: Path) -> ast.Module:
    """Return a module as a tree."""
    return ast.parse(path.read_text())


def private_names(tree: ast.AST) -> Iterator[str]:
    """Yield every name with one leading underscore that a module takes from another one; it has none of its own."""
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(attr=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield name
            case ast.Import(names=names) | ast.ImportFrom(names=names):
                yield from (part for one in names for part in one.name.split("."))
                yield from (getattr(node, "module", None) or "").split(".")
            case ast.Call(
                func=ast.Name(id="getattr" | "setattr" | "hasattr"), args=[_, ast.Constant(value=str(name)), *_]
            ):
                yield name


def test_what_is_private_to_others_is_used_in_one_place() -> None:
    """Names that a library keeps to itself stand in the modules named above, and all that are named there are used."""
    found = defaultdict(set)
    for path in (ROOT / "replayforge").rglob("*.py"):
        names = private_names(parsed(path)) if re.search(r"(?<!\w)_[a-zA-Z]", path.read_text()) else ()
        for name in names:
            if re.match(r"_[^_]", name) and name not in ("_exit", "_current_frames"):
                found[path.name].add(name)
    assert found == PRIVATE


def test_nobody_sets_an_attribute_of_somebody_else() -> None:
    """What an object holds is changed by its own module: others call its methods, or give it what it needs at first."""
    source = Source(ROOT / "replayforge")
    package = Package(source)
    found = [place for name in source.names() for place in package.trespasses(name)]
    assert found == []


OWNER = """
class Value:
    count: int = 0

class Actor:
    def __init__(self, value: Value | None) -> None:
        self.value = value
        self.flag = False
        self.chores: list[str] = []
        self.values: list[Value] = []
        self.by_name: dict[str, Value] = {}

    def add(self, chore: str) -> None:
        self.chores.append(chore)
"""
STRANGER = """
from owner import Actor, Value

class Own:
    flag = False

class Stranger:
    def __init__(self, actor: Actor, own: Own) -> None:
        self.actor = actor
        self.own = own

    def act(self, given: "Actor", own: Own) -> None:
        made = Actor(None)
        alias = self.actor
        {line}
"""


@pytest.mark.parametrize(
    ("line", "owner"),
    [
        ("self.actor.flag = True", "Actor"),
        ("self.actor.flag |= True", "Actor"),
        ("made.flag, own.flag = True, True", "Actor"),
        ("given.chores[0] = 'sweep'", "Actor"),
        ("del alias.flag", "Actor"),
        ("self.actor.chores.append('sweep')", "Actor"),
        ("self.actor.value.count += 1", "Value"),
        ("for one in (made, alias): one.flag = True", "Actor"),
        ("for one in given.values: one.count = 1", "Value"),
        ("given.by_name['a'].count = 1", "Value"),
        ("self.own.flag = True", None),
        ("self.actor.add('sweep')", None),
        ("self.flag = self.actor.flag", None),
        ("own.flag = True", None),
    ],
)
def test_setting_from_outside_is_found(line: str, owner: str | None) -> None:
    """Every way to change somebody else's attribute is found, and nothing that an object does with its own."""
    modules = {"owner": read_module("owner", OWNER), "stranger": read_module("stranger", STRANGER.format(line=line))}
    found = list(Package(modules).trespasses("stranger"))
    assert [place.rpartition("attribute of ")[2] for place in found] == ([] if owner is None else [f"{owner} in owner"])


def test_a_class_is_found_by_its_name() -> None:
    """No two classes of the package have one name: who looks for one finds it, and nothing beside it."""
    found = defaultdict(list)
    for path in (ROOT / "replayforge").rglob("*.py"):
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.ClassDef):
                found[node.name].append(str(path.relative_to(ROOT)))
    assert {name: paths for name, paths in found.items() if len(paths) > 1} == {}


# What nobody in the package calls by its name, because somebody else does.
CALLED_BY_OTHERS = {
    "createLock", "notset",  # logging, structlog
    "block_on_close", "daemon_threads", "log_message", "protocol_version",  # http.server
    "format_commands", "get_command", "list_commands",  # click
}  # fmt: skip


def defined_names(tree: ast.AST) -> Iterator[str]:
    """Yield what a module defines: functions, classes, fields and constants, but for what a decorator takes."""
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(decorator_list=[]) | ast.AsyncFunctionDef(decorator_list=[]) | ast.ClassDef():
                yield node.name
        if isinstance(node, ast.Module | ast.ClassDef):
            yield from (name.id for one in node.body for name in targets_of(one))


def targets_of(statement: ast.stmt) -> Iterator[ast.Name]:
    """Yield the names that an assignment gives values to."""
    found = [statement.target] if isinstance(statement, ast.AnnAssign) else getattr(statement, "targets", [])
    yield from (one for one in found if isinstance(one, ast.Name))


def test_nothing_is_defined_that_nobody_names() -> None:
    """Each name is written more often than it is defined: in the package, a page, a script or a statement."""
    written: Counter[str] = Counter()
    defined: Counter[str] = Counter()
    for path in (one for folder in ("replayforge", "static") for one in (ROOT / folder).rglob("*.*")):
        if path.suffix in (".py", ".html", ".js", ".sql"):
            written.update(re.findall(r"[A-Za-z]\w*", re.sub(r'"""(?s:.*?)"""', "", path.read_text())))
        if path.suffix == ".py":
            defined.update(defined_names(parsed(path)))
    assert {name for name, count in defined.items() if written[name] <= count and name[0] != "_"} == CALLED_BY_OTHERS
