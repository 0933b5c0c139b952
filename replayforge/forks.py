"""What a forked child leaves to its parent: port, locks, files, connections and signals.

A handler may fork (multiprocessing, os.fork, a subprocess with a preexec_fn). Whatever the child inherits of the daemon
would outlive it: the port and the locks would refuse a restart, and clients would wait on connections that nobody
serves. In the child every such descriptor is therefore replaced by one of /dev/null: its number stays taken, so that no
object that still knows it can close or write what is the child's own.
"""

import asyncio
import contextlib
import os
import signal
import socket
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FDS = Path("/proc/self/fd")
FDINFO = Path("/proc/self/fdinfo")
WATCHED = "tfd:"


@dataclass
class Belongings:
    """What of this process is the daemon's own.

    `directories` and `files` are beginnings of paths, `port` is where it listens, `opened` are the descriptors of its
    event loop and what else it had open before any code of a user's ran.
    """

    directories: tuple[str, ...]
    files: tuple[str, ...]
    port: int
    opened: frozenset[int]

    def own(self, descriptor: int) -> bool:
        """Tell whether a descriptor leads to something of ours by its name or by its address."""
        try:
            link, mode = link_of(descriptor), os.fstat(descriptor).st_mode
        except OSError:
            return False
        if stat.S_ISSOCK(mode):
            return self.is_own_port(descriptor)
        inside = any(link == directory or link.startswith(f"{directory}/") for directory in self.directories)
        return inside or link.removesuffix(" (deleted)").startswith(self.files)

    def is_own_port(self, descriptor: int) -> bool:
        """Tell whether a socket is the one that listens, or a client's."""
        try:
            with contextlib.closing(socket.socket(fileno=os.dup(descriptor))) as copy:
                address = copy.getsockname()
        except OSError:
            return False
        return isinstance(address, tuple) and len(address) > 1 and address[1] == self.port

    def descriptors(self) -> set[int]:
        """Return the descriptors of all that, as far as this system tells."""
        found = set(self.opened) | loops
        for descriptor in self.opened | loops:
            found |= watched_by(descriptor)
        if FDS.is_dir():
            found |= {descriptor for descriptor in open_descriptors() if self.own(descriptor)}
        return found


belongings: Belongings | None = None
loops: set[int] = set()  # the descriptors of event loops that threads of the daemon's own run
parent = os.getpid()
process = parent  # the one that runs; known, since to ask the system after each attempt takes long


def link_of(descriptor: int) -> str:
    """Return what a descriptor leads to, in the system's words."""
    return str((FDS / str(descriptor)).readlink())


def open_descriptors() -> set[int]:
    """Return the open descriptors of this process but the standard ones; none where the system does not tell."""
    found = set()
    with contextlib.suppress(OSError):
        for number in map(int, os.listdir(FDS)):  # noqa: PTH208
            with contextlib.suppress(OSError):
                os.fstat(number)  # not the one that listed them
                found.add(number)
    return found - {0, 1, 2}


def watched_by(polled: int) -> set[int]:
    """Return what a descriptor watches: with an event loop's epoll, every socket and pipe that is registered there."""
    try:
        lines = (FDINFO / str(polled)).read_text().splitlines()
    except OSError:
        return set()
    return {int(line.split()[1]) for line in lines if line.startswith(WATCHED)}


def keep_from_children(own: Belongings | None) -> None:
    """From now on let no forked child keep what is the daemon's own; None: there is nothing any more."""
    global belongings
    belongings = own


@contextlib.contextmanager
def kept_loop(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """Let no forked child keep what this event loop, of a thread of the daemon's own, waits for."""
    selector: Any = getattr(loop, "_selector", None)  # the loops of asyncio have one, whatever it is made of
    polled: int = selector.fileno() if hasattr(selector, "fileno") else -1
    loops.add(polled)
    try:
        yield
    finally:
        loops.discard(polled)


def is_child() -> bool:
    """Tell whether this is a forked child of the process that loaded the module."""
    return process != parent


def begin_child() -> None:
    """In a forked child: let go of all that is the parent's, and be an ordinary process to signals."""
    global process
    process = os.getpid()
    if belongings is None:
        return
    for name, action in (
        ("SIGTERM", signal.SIG_DFL),
        ("SIGINT", signal.default_int_handler),
        ("SIGHUP", signal.SIG_DFL),
        ("SIGUSR1", signal.SIG_DFL),
        ("SIGUSR2", signal.SIG_DFL),
    ):
        with contextlib.suppress(ValueError, OSError):
            signal.signal(getattr(signal, name), action)
    with contextlib.suppress(ValueError, OSError):
        signal.set_wakeup_fd(-1)
    nowhere = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for descriptor in belongings.descriptors() - {nowhere, 0, 1, 2}:
        with contextlib.suppress(OSError):
            os.fstat(descriptor)
            os.dup2(nowhere, descriptor, inheritable=False)
    os.close(nowhere)


os.register_at_fork(after_in_child=begin_child)
