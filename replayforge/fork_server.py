"""A process that has loaded the program and forks a child for each start: what a start costs is mostly its imports.

It runs no event loop and has one thread, so that a fork is all of it. A child is what a new interpreter would be: its
arguments, environment, folder and standard streams are those of the request, and of this process nothing else is open.
"""

import fcntl
import gc
import os
import selectors
import signal
import socket
import struct
import sys
import time
from contextlib import suppress

import msgspec

from replayforge import daemon_log, forks

REQUEST_BYTES_MAX = 128 * 1024
HANDLES_MAX = 8
FIRST_HANDLE = 3  # behind the standard streams
CODE = struct.Struct("=i")


class ForkRequest(msgspec.Struct, frozen=True):
    """What a child is to be. With it travel its output and its error output, what else it is to have open, and last
    where its exit code is waited for."""

    arguments: list[str]
    directory: str
    environment: dict[str, str]


def serve(channel: socket.socket) -> ForkRequest:
    """Fork for each request until the other side is gone; returns in every child, once it is what was asked for.

    What is open for it beside the standard streams are the descriptors from 3 on, in the order of the request.
    """
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whatever this process was started with
    gc.collect()
    gc.freeze()
    watched = selectors.PollSelector()  # an epoll would be a descriptor more that a child has to get rid of
    watched.register(channel, selectors.EVENT_READ)
    children: dict[int, tuple[int, int]] = {}  # by pidfd: pid, and where its exit code is waited for
    while True:
        for key, _ in watched.select():
            if key.fd in children:
                watched.unregister(key.fd)
                report(key.fd, *children.pop(key.fd))
                continue
            message, handles, _, _ = socket.recv_fds(channel, REQUEST_BYTES_MAX, HANDLES_MAX)
            if not message:
                end([pid for pid, _ in children.values()])
            pid = os.fork()
            if pid == 0:
                channel.detach()
                request = msgspec.json.decode(message, type=ForkRequest)
                become(request, handles[:-1])
                return request
            pidfd, waiting = os.pidfd_open(pid), handles.pop()
            children[pidfd] = pid, waiting
            watched.register(pidfd, selectors.EVENT_READ)
            for handle in handles:
                os.close(handle)
            channel.send(str(pid).encode())


def report(pidfd: int, pid: int, waiting: int) -> None:
    """Tell how a child ended."""
    os.close(pidfd)
    _, status = os.waitpid(pid, 0)
    with suppress(BrokenPipeError):  # nobody waits any more
        os.write(waiting, CODE.pack(os.waitstatus_to_exitcode(status)))
    os.close(waiting)


def end(children: list[int]) -> None:
    """Leave no child behind."""
    for pid in children:
        os.kill(pid, signal.SIGKILL)
    os._exit(0)


def become(request: ForkRequest, handles: list[int]) -> None:
    """In the child: be what a new interpreter would be that was started so."""
    place(handles)
    # A stream remembers what kind of file it was opened on.
    sys.stdout = os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", 1, errors="backslashreplace", closefd=False)
    os.environ.clear()
    os.environ.update(request.environment)
    time.tzset()
    os.chdir(request.directory)
    sys.argv[1:] = request.arguments
    # It is the first process of its program, not the child of one.
    forks.parent = os.getpid()
    for sink in (daemon_log.output.out, daemon_log.output.err):
        sink.in_child = False


def place(handles: list[int]) -> None:
    """In the child: have these open as output, error output and behind that, and nothing else but standard input."""
    above = FIRST_HANDLE + len(handles)
    moved = [fcntl.fcntl(handle, fcntl.F_DUPFD, above) for handle in handles]
    for number, handle in enumerate(moved, start=1):
        os.dup2(handle, number)
    os.closerange(1 + len(handles), os.sysconf("SC_OPEN_MAX"))
