"""A process that has loaded ReplayForge and forks a child for each start: what a start costs is mostly its imports.

Only tests for which the start itself is not the subject use it. A child is what `python -m replayforge` would be: its
arguments, environment, folder and standard streams are those of the request, and nothing else of this process is open.
"""

import atexit
import contextlib
import gc
import importlib
import json
import os
import selectors
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

REQUEST_BYTES_MAX = 128 * 1024
CODE = struct.Struct("=i")


def main(channel: socket.socket) -> None:
    """Fork for each request until the other side is gone; returns in every child, once it is what was asked for."""
    load()
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
            message, handles, _, _ = socket.recv_fds(channel, REQUEST_BYTES_MAX, 3)
            if not message:
                end([pid for pid, _ in children.values()])
            pid = os.fork()
            if pid == 0:
                channel.detach()
                become(json.loads(message), *handles)
                return
            pidfd, waiting = os.pidfd_open(pid), handles.pop()
            children[pidfd] = pid, waiting
            watched.register(pidfd, selectors.EVENT_READ)
            for handle in handles:
                os.close(handle)
            channel.send(str(pid).encode())


def load() -> None:
    """Import what a start would, but for uvloop, which tests hide; compile what a start and the first page would."""
    from aiohttp import web

    from replayforge.cli.main import COMMANDS
    from replayforge.stores.queries import DIALECTS, load_book
    from replayforge.web import app, status_page
    from replayforge.web.http import routes
    from replayforge.web.pages import rendering

    for place in COMMANDS.values():
        importlib.import_module(f"replayforge.cli.{place.module}")
    for chosen in ("stores.postgres", "streams.redis_stream"):
        importlib.import_module(f"replayforge.{chosen}")
    rendering.compile_templates(rendering.build_environment())
    for dialect in DIALECTS:
        load_book(dialect)
    for more in (app.routes(), status_page.routes()):
        routes.add_routes(web.Application(), more)  # `re` remembers their patterns


def report(pidfd: int, pid: int, waiting: int) -> None:
    """Tell how a child ended."""
    os.close(pidfd)
    _, status = os.waitpid(pid, 0)
    with contextlib.suppress(BrokenPipeError):  # nobody waits any more
        os.write(waiting, CODE.pack(os.waitstatus_to_exitcode(status)))
    os.close(waiting)


def end(children: list[int]) -> None:
    """Leave no child behind."""
    for pid in children:
        os.kill(pid, signal.SIGKILL)
    os._exit(0)


def become(request: dict[str, Any], out: int, err: int, *_: int) -> None:
    """In the child: be what a new interpreter would be that runs the command."""
    from replayforge import daemon_log, forks

    os.dup2(out, 1)
    os.dup2(err, 2)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    # A stream remembers what kind of file it was opened on.
    sys.stdout = os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", 1, errors="backslashreplace", closefd=False)
    os.environ.clear()
    os.environ.update(request["environment"])
    time.tzset()
    os.chdir(request["directory"])
    paths = os.environ["PYTHONPATH"].split(os.pathsep)
    sys.path[:2] = [request["directory"], *paths]
    sys.argv = ["replayforge", *request["arguments"]]
    # It is the first process of its program, not the child of one.
    forks.parent = os.getpid()
    for sink in (daemon_log.output.out, daemon_log.output.err):
        sink.in_child = False


def run_to_the_end(command: Callable[[], None]) -> None:
    """In the child: run the command and end as an interpreter does, except that nothing is taken apart: a child that
    takes apart what it shares with the server copies all of it first, which is most of what a short command costs."""
    try:
        command()
    except SystemExit as leaving:
        if not isinstance(leaving.code, int):
            raise
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(leaving.code)


if __name__ == "__main__":
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whatever the tests themselves were started with
    main(socket.socket(fileno=int(sys.argv[1])))
    from replayforge.__main__ import main as run

    run_to_the_end(run)
