"""The daemons that are proved: each tells whoever asks where its handlers stand, and lets nothing out past the proxy.

All of that is done here, in processes of their own; a daemon that serves knows nothing of it. They are forks of one
process that has loaded the program, but no code of the user's.
"""

import importlib
import os
import runpy
import signal
import socket
import sys
import threading
from pathlib import Path
from typing import Any

import msgspec

from replayforge import crashpoints
from replayforge.crashpoints import STEP_BEGAN
from replayforge.fork_server import FIRST_HANDLE, serve
from replayforge.prove.whereabouts import Site, site_in, sites_of, stack

RULES_VARIABLE = "REPLAYFORGE_PROVE_RULES"
OWN_CALLS = 2  # of this module, on top of whoever connects
LOADED = ("cli.main", "cli.serve_command")


class ChildRules(msgspec.Struct, frozen=True):
    """What holds for a proved daemon: whose code is the user's, what it may connect to, where it notes what it did.

    `armed_times` is what all points are armed with, so that it can be told how often each was passed.
    """

    roots: tuple[str, ...]
    open_to: tuple[str, ...]
    notes: str
    armed_times: int


class DaemonAnswer(msgspec.Struct, frozen=True):
    """An answer to whoever asked: the calls that wait outside, and how often each crash point was passed."""

    sites: list[Site]
    passes: dict[str, int]


class Noted(msgspec.Struct, frozen=True):
    """A line of the notes: a step's function that is about to be called, or a connection that was refused."""

    step: str = ""
    refused: str = ""
    site: Site | None = None


class Observer:
    """Answers questions in a thread of its own, hears audit events, and ends with whoever asks."""

    def __init__(self, rules: ChildRules, line: socket.socket) -> None:
        self.rules = rules
        self.line = line
        self.notes = os.open(rules.notes, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def answer(self) -> None:
        """Answer each question; when nobody is left to ask, the daemon has no business any more."""
        while self.line.recv(1):
            asked = DaemonAnswer(sites_of(self.rules.roots, threading.get_ident()), self.passes())
            self.line.sendall(msgspec.json.encode(asked) + b"\n")
        os.kill(os.getpid(), signal.SIGKILL)

    def passes(self) -> dict[str, int]:
        """Return how often each point was passed that would have killed at its last pass only."""
        left = {point: times for (_, point), times in list(crashpoints.armed.items())}
        return {
            point: self.rules.armed_times - times for point, times in left.items() if times < self.rules.armed_times
        }

    def note(self, noted: Noted) -> None:
        """Write down what happened so that it outlives this process."""
        os.write(self.notes, msgspec.json.encode(noted) + b"\n")

    def hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Note steps as they begin, and refuse connections that would pass the proxy."""
        if event == STEP_BEGAN:
            self.note(Noted(step=arguments[0]))
        elif event == "socket.connect" and (address := arguments[1]) and isinstance(address, tuple):
            self.check(f"{address[0]}:{address[1]}", str(address[0]))

    def check(self, address: str, host: str) -> None:
        """Raise PermissionError for an address that nobody has opened."""
        if address in self.rules.open_to or host in self.rules.open_to:
            return
        here = sys._current_frames()[threading.get_ident()]  # noqa: SLF001 - public, whatever it is called
        found = site_in(stack(here)[:-OWN_CALLS], threading.current_thread().name, self.rules.roots)
        self.note(Noted(refused=address, site=found[0] if found else None))
        raise PermissionError(f"replayforge prove lets nothing out past its proxy: {address} (--forward opens it)")


def load() -> None:
    """Load what every daemon would."""
    sys.modules["uvloop"] = None  # type: ignore[assignment]  # its connections are not to be heard of
    for module in LOADED:
        importlib.import_module(f"replayforge.{module}")


def main() -> None:
    """Load, and in each fork be the daemon that is asked for."""
    load()
    serve(socket.socket(fileno=int(sys.argv[1])))
    rules = msgspec.json.decode(os.environ.pop(RULES_VARIABLE), type=ChildRules)
    line = socket.socket(fileno=FIRST_HANDLE)
    line.set_inheritable(False)
    observer = Observer(rules, line)
    threading.Thread(target=observer.answer, name="prove", daemon=True).start()
    sys.addaudithook(observer.hear)
    sys.path.insert(0, str(Path.cwd()))
    runpy.run_module("replayforge", run_name="__main__")


if __name__ == "__main__":
    main()
