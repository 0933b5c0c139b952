"""What users hand over as a handler or as a step: the function behind it, and whether it can be a handler."""

import functools
import hashlib
import inspect
from pathlib import Path
from types import FunctionType
from typing import Any


def plain_function(function: Any) -> Any:
    """Return the function that is behind a partial, a static method, or an object that can be called."""
    while isinstance(function, (functools.partial, staticmethod)):
        function = function.func if isinstance(function, functools.partial) else function.__func__
    return function if inspect.isroutine(function) or inspect.isclass(function) else type(function).__call__


def is_coroutine_function(function: Any) -> bool:
    """Tell whether a function is async."""
    if type(function) is FunctionType and function.__code__.co_flags & inspect.CO_COROUTINE:
        return True
    return inspect.iscoroutinefunction(plain_function(function))


def hash_of_source(function: Any) -> str:
    """Return the first digits of the hash of the file that a function was written in, if there is one."""
    try:
        file = inspect.getsourcefile(plain_function(function))
        return "" if file is None else hashlib.sha256(Path(file).read_bytes()).hexdigest()[:12]
    except (OSError, TypeError):
        return ""


def in_words(function: Any) -> str:
    """Return what a function is called and where it stands: `app.pay (/srv/app.py, line 12)`."""
    named = plain_function(function)
    name = f"{getattr(named, '__module__', None)}.{getattr(named, '__qualname__', repr(function))}"
    code = getattr(inspect.unwrap(named), "__code__", None)
    return name if code is None else f"{name} ({code.co_filename}, line {code.co_firstlineno})"


def remedy(function: Any) -> str:
    """Return how a function that cannot be a handler should begin."""
    named = plain_function(function)
    start = "async def" if inspect.iscoroutinefunction(named) or inspect.isasyncgenfunction(named) else "def"
    name = getattr(named, "__name__", "handler")
    return f"`{start} {name if name.isidentifier() and name != '__call__' else 'handler'}(event, ctx):`"


def objection_to_function(function: Any) -> str:
    """Say in a clause why a function cannot be a handler, where it stands and what helps; nothing if it can.

    What counts is how it is called itself, not what a decorator says that it wraps.
    """
    if not callable(function):
        return f"{function!r:.100} is not a function"
    named = plain_function(function)
    if inspect.isgeneratorfunction(named) or inspect.isasyncgenfunction(named):
        return (
            f"{in_words(function)} is a generator, which would do nothing when it is called; use `return` in place of"
            f" `yield`, in {remedy(function)}"
        )
    try:
        signature = inspect.signature(function, follow_wrapped=False)
        signature.bind("event", "context")
    except TypeError as error:
        first = next(iter(signature.parameters), "")
        further = "; of a class, register the method of an object: `on(pattern)(Handler().method)`"
        return (
            f"{in_words(function)} is called with two arguments, the event and the context, and with its signature"
            f" {signature} that is: {error}; write {remedy(function)}{further if first == 'self' else ''}"
        )
    except ValueError:
        pass  # a function of C that does not tell its signature
    return ""
