"""Says which handlers a file has and which of them get events of a type; users' code runs in a process of its own."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence

import msgspec

from replayforge.domain.errors import Refused
from replayforge.engine.handlers.functions import plain_function
from replayforge.engine.handlers.loading import load_handlers
from replayforge.engine.handlers.registry import Handler, Handlers
from replayforge.serve_process import python_module

MODULE = "replayforge.prove.described"
SECONDS_MAX = 60


class Described(msgspec.Struct, frozen=True):
    """What there is to prove: each handler with its place in the code, what is a signal, and whom each type goes to."""

    handlers: dict[str, str] = {}
    signals: list[str] = []
    routes: dict[str, list[str]] = {}
    refused: str = ""


def describe(modules: Sequence[str], event_types: Sequence[str]) -> Described:
    """Ask a process of its own; raises Refused for modules that cannot be loaded, in the words that `serve` has."""
    request = json.dumps([list(modules), list(event_types)])
    done = subprocess.run(  # noqa: S603  (this very program)
        python_module(MODULE), input=request.encode(), capture_output=True, check=False, timeout=SECONDS_MAX
    )
    if done.returncode:
        raise Refused(f"The handlers cannot be loaded: {done.stderr.decode(errors='replace').strip()[-2000:]}")
    described = msgspec.json.decode(done.stdout.splitlines()[-1], type=Described)
    if described.refused:
        raise Refused(described.refused)
    return described


def described(handlers: Handlers, event_types: Sequence[str]) -> Described:
    """Describe a registry."""
    places = {one.identity: place_of(one) for one in handlers.registered}
    return Described(places, sorted(handlers.signals), {one: routed(handlers, one) for one in event_types})


def place_of(handler: Handler) -> str:
    """Return file and line of a handler's function."""
    code = getattr(plain_function(handler.function), "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno}" if code is not None else ""


def routed(handlers: Handlers, event_type: str) -> list[str]:
    """Return the handlers that get events of a type."""
    listed = handlers.subscribers(event_type)
    names = [None] if listed is None else json.loads(listed)
    found = (handlers.best(event_type, name) for name in names)
    return [one.identity for one in found if one is not None]


def main() -> None:
    """Answer one request: what handlers print as they are loaded is not part of it."""
    modules, event_types = json.loads(sys.stdin.buffer.read())
    answer = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    try:
        told = described(load_handlers(modules), event_types)
    except Refused as error:
        told = Described(refused=str(error))
    answer.write(msgspec.json.encode(told))
    answer.flush()


if __name__ == "__main__":
    main()
