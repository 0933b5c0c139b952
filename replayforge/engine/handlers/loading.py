"""Finds the handlers in users' modules and files."""

import contextlib
import importlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Sequence
from os.path import samestat
from pathlib import Path
from types import ModuleType

from replayforge.domain.errors import Refused
from replayforge.engine.handlers.registry import Handlers
from replayforge.engine.handlers.results import name_of, words_of


def load_handlers(modules: Sequence[str]) -> Handlers:
    """Import modules (`app.handlers`) or files (`handlers.py`) and return everything they register.

    Every `Handlers` object at a module's top level counts, once, however many names and modules it has. Raises Refused
    with the module and the reason.
    """
    collected, seen = Handlers(), list[Handlers]()
    for name in modules:
        module = import_handlers(name)
        found = [value for value in vars(module).values() if issubclass(type(value), Handlers)]
        if not found:
            raise Refused(f"The handler module {name} defines no Handlers(); write `handlers = Handlers()` in it.")
        for handlers in found:
            if not any(handlers is one for one in seen):
                seen.append(handlers)
                collected.include(handlers)
    return collected


def import_handlers(name: str) -> ModuleType:
    """Import a module by its dotted name or by the path of its file; files beside it can be imported from it."""
    try:
        if name.endswith(".py"):
            return import_file(Path(name))
        look_in(Path.cwd())
        return importlib.import_module(name)
    except Refused as error:
        raise (
            error if name in str(error) else Refused(f"The handler module {name} cannot be loaded: {error}")
        ) from error
    except (Exception, SystemExit) as error:  # a module that ends the program has not registered its handlers
        frame = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{frame.filename}:{frame.lineno}"
        raise Refused(
            f"The handler module {name} cannot be loaded: {name_of(error)}: {words_of(error)} ({place})."
        ) from error


def look_in(directory: Path) -> None:
    """Have modules looked for in a directory, wherever the process may go."""
    if str(directory) not in sys.path:
        sys.path.insert(0, str(directory))


def import_file(path: Path) -> ModuleType:
    """Run a file as a module, unless it was imported already: as part of its package if it is in one."""
    if not path.is_file():
        raise Refused(f"The handler file {path} does not exist.")
    path = path.resolve()
    if (known := imported(path)) is not None:
        return known
    look_in(Path.cwd())
    look_in(path.parent)
    root = path.parent
    while (root / "__init__.py").is_file():
        root = root.parent
    if root != path.parent:
        return import_in_package(path, root)
    try:
        return run_file(path, path.stem)
    except ImportError as error:
        # A folder needs no __init__.py to be a package; that it is meant to be one shows only here.
        if "no known parent package" not in str(error):
            raise
        return import_in_package(path, root.parent)


def imported(path: Path) -> ModuleType | None:
    """Return the module that a file was imported as."""
    here = path.stat()
    for module in list(sys.modules.values()):
        with contextlib.suppress(Exception):  # whatever stands among the modules may be no module
            # There are a thousand of them, and to follow each path to its end would be most of what a start takes.
            there = os.stat(module.__file__ or "")  # noqa: PTH116
            if samestat(here, there) and Path(module.__file__ or "").resolve() == path:
                return module
    return None


def import_in_package(path: Path, root: Path) -> ModuleType:
    """Import a file by the dotted name that it has below a directory."""
    look_in(root)
    return importlib.import_module(".".join(path.relative_to(root).with_suffix("").parts))


def run_file(path: Path, name: str) -> ModuleType:
    """Run a file as a module of its own name, or a longer one when another module has that."""
    if name in sys.modules:
        name = f"{name}_{path.parent.name}"
    specification = importlib.util.spec_from_file_location(name, path)
    if specification is None or specification.loader is None:
        raise Refused(f"The handler file {path} is not a Python file.")
    module = importlib.util.module_from_spec(specification)
    sys.modules[name] = module
    try:
        specification.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
