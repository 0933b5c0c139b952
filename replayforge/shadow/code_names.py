"""The names that the code of a handler holds as texts: a recorded step that it names nowhere cannot be asked for any
more."""

import ast
import inspect
import re
import sys
from textwrap import dedent
from types import ModuleType
from typing import Any

from replayforge.domain.journal import StepKind

# Steps that code names by a text; `first` is named by its arguments, and `now` need not be asked for.
NAMED_BY_TEXT = frozenset({StepKind.STEP, StepKind.SLEEP, StepKind.WAIT, StepKind.SEND, StepKind.CALL})


ANYTHING = "(?s:.*)"


class CodeNames:
    """The texts in a function and in what it refers to below some directories, those with values in them as patterns.

    Where some of the source is not to be had, it may name anything.
    """

    def __init__(self, function: Any, roots: tuple[str, ...], foreign: tuple[str, ...]) -> None:
        self.roots = roots
        self.foreign = foreign
        self.texts: set[str] = set()
        self.patterns: set[str] = set()
        self.seen: set[int] = set()
        self.visit(function)

    def hold(self, kind: str, step: str) -> bool:
        """Tell whether the code may name a step; its key and its number are no part of that."""
        name = step.partition("[")[0].partition("#")[0]
        return kind not in NAMED_BY_TEXT or name in self.texts or any(re.fullmatch(one, name) for one in self.patterns)

    def visit(self, value: Any) -> None:
        """Take in a text, what is in a collection, or a function or class of the user's own with all it refers to."""
        if id(value) in self.seen:
            return
        self.seen.add(id(value))
        if isinstance(value, str):
            self.texts.add(value)
        elif isinstance(value, (list, tuple, set, frozenset, dict)):
            for one in (*value, *(value.values() if isinstance(value, dict) else ())):
                self.visit(one)
        elif inspect.ismethod(value):
            self.visit(value.__func__)
            self.visit(type(value.__self__))
        elif inspect.isfunction(value) or inspect.isclass(value):
            self.read(inspect.unwrap(value))

    def read(self, written: Any) -> None:
        """Read the source of a function or a class."""
        module = sys.modules.get(written.__module__)
        if not self.is_own(module):
            return
        try:
            tree = ast.parse(dedent(inspect.getsource(written)))
        except (OSError, TypeError, SyntaxError):
            self.patterns.add(ANYTHING)
            return
        known = dict(vars(module))
        if inspect.isfunction(written):
            known |= inspect.getclosurevars(written).nonlocals
        for node in ast.walk(tree):
            self.take(node, known)

    def take(self, node: ast.AST, known: dict[str, Any]) -> None:
        """Take in a text, one with values in it, or what a name stands for."""
        match node:
            case ast.Constant(value=str(text)):
                self.texts.add(text)
            case ast.JoinedStr(values=values):
                self.patterns.add("".join(pattern_of(one) for one in values))
            case ast.Name(id=name):
                self.visit(known.get(name))
            case ast.Attribute(value=ast.Name(id=name), attr=attribute) if self.is_own(known.get(name)):
                self.visit(getattr(known[name], attribute, None))

    def is_own(self, module: Any) -> bool:
        """Tell whether a module is the user's own."""
        file = getattr(module, "__file__", None) if isinstance(module, ModuleType) else None
        return isinstance(file, str) and file.startswith(self.roots) and not file.startswith(self.foreign)


def pattern_of(part: ast.expr) -> str:
    """Return the pattern of a part of a text with values in it."""
    return re.escape(part.value) if isinstance(part, ast.Constant) and isinstance(part.value, str) else ANYTHING
