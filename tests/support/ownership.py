"""Finds who changes an attribute of somebody else: of an object whose class another module of the package defines."""

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

Class = tuple[str, str]  # module, name
# What changes a standard collection, or sets an event.
CHANGES = frozenset({
    "add", "append", "appendleft", "clear", "discard", "extend", "insert", "pop", "popitem", "popleft", "remove", "set",
    "setdefault", "update",
})  # fmt: skip


@dataclass
class Module:
    """What a module knows by name: its classes with the classes of their attributes, and what it imports."""

    name: str
    tree: ast.Module
    names: dict[str, Class] = field(default_factory=dict)
    attributes: dict[str, dict[str, ast.expr]] = field(default_factory=dict)


class Source(dict[str, "Module | None"]):
    """The modules of a package by their names, each read when it is asked for; None for what is not such a module."""

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self.directory = directory

    def __missing__(self, name: str) -> "Module | None":
        package, _, rest = name.partition(".")
        path = self.directory.joinpath(*rest.split(".")).with_suffix(".py")
        known = package == self.directory.name and path.is_file()
        self[name] = read_module(name, path.read_text()) if known else None
        return self[name]

    def names(self) -> Iterator[str]:
        """Give the names of all modules."""
        for path in sorted(self.directory.rglob("*.py")):
            yield ".".join([self.directory.name, *path.relative_to(self.directory).with_suffix("").parts])


def read_module(name: str, source: str) -> Module:
    """Take in what a module defines and imports."""
    module = Module(name, ast.parse(source))
    for node in module.tree.body:
        if isinstance(node, ast.ImportFrom) and node.module:
            module.names |= {one.asname or one.name: (node.module, one.name) for one in node.names}
        if isinstance(node, ast.ClassDef):
            module.names[node.name] = (name, node.name)
            module.attributes[node.name] = dict(attributes_of(node))
    return module


def attributes_of(node: ast.ClassDef) -> Iterator[tuple[str, ast.expr]]:
    """Give what is said of the classes of attributes: by annotations, properties, and the constructor."""
    for part in node.body:
        if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name):
            yield part.target.id, part.annotation
        if isinstance(part, ast.FunctionDef) and part.name == "__init__":
            yield from attributes_made(part)
        elif isinstance(part, ast.FunctionDef) and part.returns and "property" in map(ast.unparse, part.decorator_list):
            yield part.name, part.returns


def attributes_made(constructor: ast.FunctionDef) -> Iterator[tuple[str, ast.expr]]:
    """Give what a constructor says of the classes of the attributes that it makes."""
    given = dict(locals_of(constructor))
    for node in ast.walk(constructor):
        if isinstance(node, ast.AnnAssign) and (name := own_attribute(node.target)):
            yield name, node.annotation
        elif isinstance(node, ast.Assign) and (name := own_attribute(node.targets[0])):
            value = node.value
            yield name, given.get(value.id, value) if isinstance(value, ast.Name) else value


def own_attribute(target: ast.expr) -> str | None:
    """Return the name of an attribute of `self`, None for any other expression."""
    is_own = isinstance(target, ast.Attribute) and isinstance(target.value, ast.Name) and target.value.id == "self"
    return target.attr if is_own and isinstance(target, ast.Attribute) else None


def locals_of(function: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[tuple[str, ast.expr]]:
    """Give what is said of the classes of parameters and local names."""
    arguments = function.args
    for one in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs):
        if one.annotation is not None:
            yield one.arg, one.annotation
    for node in ast.walk(function):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            yield node.targets[0].id, node.value
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id, node.annotation
        if isinstance(node, (ast.For, ast.AsyncFor)) and isinstance(node.target, ast.Name):
            yield node.target.id, ast.Subscript(node.iter, ast.Constant(0))
        if isinstance(node, (ast.With, ast.AsyncWith)):
            for item in node.items:
                if isinstance(item.optional_vars, ast.Name):
                    yield item.optional_vars.id, item.context_expr


class Package:
    """A package whose objects are to be changed only by the modules that define their classes."""

    def __init__(self, modules: Mapping[str, Module | None]) -> None:
        self.modules = modules

    def trespasses(self, name: str) -> Iterator[str]:
        """Give each place where a module changes an attribute of an object of somebody else's class."""
        module = self.modules[name]
        assert module is not None
        for owner, function in functions_of(module.tree):
            changed = [(target, node) for target, node in changed_in(function) if own_attribute(target) is None]
            known = dict(locals_of(function)) if changed else {}
            if owner is not None:
                known["self"] = ast.Name(owner)
            for target, node in changed:
                found = self.class_of(target.value, module, known)
                is_method = isinstance(node, ast.Call) and self.class_of(target, module, known) is not None
                if found is not None and found[0] != name and not is_method:
                    yield f"{name}:{node.lineno}: {ast.unparse(target)}, an attribute of {found[1]} in {found[0]}"

    def class_of(self, value: ast.expr, module: Module, known: Mapping[str, ast.expr], depth: int = 8) -> Class | None:
        """Return the class of an expression as far as the text says it: by names, attributes, calls and annotations."""
        if depth == 0:
            return None
        match value:
            case ast.Name(id=name) if name in known and not (
                isinstance(known[name], ast.Name) and known[name] is value
            ):
                said = known[name]
                return self.class_of(said, module, {one: to for one, to in known.items() if one != name}, depth - 1)
            case ast.Name(id=name):
                return self.defined(module.names.get(name))
            case ast.Constant(value=str(text)):
                return self.class_of(ast.parse(text, mode="eval").body, module, {}, depth - 1)
            case ast.BinOp(left=left, op=ast.BitOr(), right=right):
                return self.class_of(left, module, known, depth - 1) or self.class_of(right, module, known, depth - 1)
            case ast.Call(func=ast.Name() as function):
                return self.class_of(function, module, {}, depth - 1)
            case ast.Attribute():
                held, home = self.held(value, module, known, depth)
                return None if held is None else self.class_of(held, home, {}, depth - 1)
            case ast.Subscript(value=ast.Tuple(elts=[first, *_]) | ast.List(elts=[first, *_])):
                return self.class_of(first, module, known, depth - 1)
            case ast.Subscript(value=ast.Attribute() | ast.Name() as inner):
                return self.element_of(inner, module, known, depth)
        return None

    def element_of(
        self, value: ast.Attribute | ast.Name, module: Module, known: Mapping[str, ast.expr], depth: int
    ) -> Class | None:
        """Return the class of what a collection holds; of a dictionary, of its values."""
        said, home = (
            (known.get(value.id), module) if isinstance(value, ast.Name) else self.held(value, module, known, depth)
        )
        if not (isinstance(said, ast.Subscript) and isinstance(said.value, ast.Name)):
            return None
        parts = said.slice.elts if isinstance(said.slice, ast.Tuple) else [said.slice]
        return self.class_of(parts[said.value.id == "dict"], home, {}, depth - 1)

    def held(
        self, attribute: ast.Attribute, module: Module, known: Mapping[str, ast.expr], depth: int
    ) -> tuple[ast.expr | None, Module]:
        """Return what its class says of an attribute, and the module that says it."""
        holder = self.class_of(attribute.value, module, known, depth - 1)
        home = None if holder is None else self.modules[holder[0]]
        if holder is None or home is None:
            return None, module
        return home.attributes[holder[1]].get(attribute.attr), home

    def defined(self, named: Class | None) -> Class | None:
        """Return a class of this package under its own module, or None for what is not such a class."""
        while named is not None and (home := self.modules[named[0]]) is not None:
            if named[1] in home.attributes:
                return named
            named = home.names.get(named[1])
        return None


def functions_of(tree: ast.Module) -> Iterator[tuple[str | None, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Give every function with the class whose method it is."""
    for node in tree.body:
        for part in node.body if isinstance(node, ast.ClassDef) else [node]:
            if isinstance(part, (ast.FunctionDef, ast.AsyncFunctionDef)):
                yield (node.name if isinstance(node, ast.ClassDef) else None), part


def changed_in(function: ast.AST) -> Iterator[tuple[ast.Attribute, ast.stmt | ast.Call]]:
    """Give each attribute that is assigned, deleted, or changed in place by a method of the standard collections."""
    for node in ast.walk(function):
        targets: list[ast.expr] = []
        if not isinstance(node, (ast.Assign, ast.Delete, ast.AugAssign, ast.AnnAssign, ast.Call)):
            continue
        if isinstance(node, (ast.Assign, ast.Delete)):
            targets = list(node.targets)
        elif isinstance(node, (ast.AugAssign, ast.AnnAssign)):
            targets = [node.target]
        elif isinstance(node.func, ast.Attribute) and node.func.attr in CHANGES:
            targets = [node.func.value]
        while targets:
            target = targets.pop()
            if isinstance(target, (ast.Tuple, ast.List)):
                targets += target.elts
            elif isinstance(target, (ast.Subscript, ast.Starred)):
                targets.append(target.value)
            elif isinstance(target, ast.Attribute):
                yield target, node
