"""What the rooms of the package may know of each other, beyond what import-linter sees."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.style
PACKAGE = Path(__file__).parent.parent / "replayforge"
WEB = PACKAGE / "web"
LIVING = ("replayforge.engine", "replayforge.supervisor", "replayforge.telemetry")
CONTEXT = "WebContext"


def living_parts() -> dict[str, str]:
    """Return what web handlers are given of the living daemon: the name of each part, and its class."""
    tree = ast.parse(next(WEB.rglob("context.py")).read_text())
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    living = {name.name for node in imports if (node.module or "").startswith(LIVING) for name in node.names}
    context = next(node for node in ast.walk(tree) if isinstance(node, ast.ClassDef) and node.name == CONTEXT)
    fields = {
        ast.unparse(one.target): class_of(one.annotation) for one in context.body if isinstance(one, ast.AnnAssign)
    }
    return {name: found for name, found in fields.items() if found in living}


def class_of(annotation: ast.expr | None) -> str:
    """Return the class that an annotation names, whether it may be None or not."""
    return ast.unparse(annotation).removesuffix(" | None") if annotation else ""


def reaching_through(source: str, parts: dict[str, str]) -> Iterator[str]:
    """Yield the chains of attributes that go through a part to what that part is made of.

    A part is what its name says after a context, what is annotated with its class, and what was assigned from one.
    """
    tree = ast.parse(source)
    arguments = (node for node in ast.walk(tree) if isinstance(node, ast.arg))
    roots = {node.arg for node in arguments if class_of(node.annotation) in parts.values()}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            roots |= {name for name, value in assigned(node) if is_part(value, parts, roots)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            inner = node.value.value if isinstance(node.value, ast.Subscript) else node.value
            if isinstance(inner, ast.Attribute) and is_part(inner.value, parts, roots):
                yield ast.unparse(node)


def assigned(node: ast.Assign) -> Iterator[tuple[str, ast.expr]]:
    """Yield what is assigned to which name, attributes of self among them."""
    target, value = node.targets[0], node.value
    if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
        yield from zip(map(ast.unparse, target.elts), value.elts, strict=True)
    else:
        yield ast.unparse(target), value


def is_part(node: ast.expr, parts: dict[str, str], roots: set[str]) -> bool:
    """Tell whether an expression is a living part of the daemon."""
    if isinstance(node, ast.Attribute) and node.attr in parts and "context" in ast.unparse(node.value).lower():
        return True
    return isinstance(node, (ast.Name, ast.Attribute)) and ast.unparse(node) in roots


def test_the_web_reaches_through_no_part_of_the_daemon() -> None:
    """Web handlers ask the parts they are given, and are answered with values: `status.workers()`, and never
    `status.supervisor.guards`, so that the engine can be rearranged without a look at the pages."""
    parts = living_parts()
    assert {"queries", "status", "convergence", "intake"} <= set(parts)
    found = {path.name: list(reaching_through(path.read_text(), parts)) for path in WEB.rglob("*.py")}
    assert {name: chains for name, chains in found.items() if chains} == {}


def test_each_class_of_the_web_has_a_name_of_its_own() -> None:
    """Whoever searches the package for a class of the web finds that class and no other."""
    places: dict[str, list[Path]] = {}
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                places.setdefault(node.name, []).append(path)
    shared = {name: paths for name, paths in places.items() if len(paths) > 1}
    assert {name for name, paths in shared.items() if any(WEB in path.parents for path in paths)} == set()
