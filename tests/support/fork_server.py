"""The fork server of tests: its children are `python -m replayforge`.

Only tests for which the start itself is not the subject use it.
"""

import atexit
import importlib
import os
import socket
import sys
import threading
from collections.abc import Callable

from replayforge.fork_server import serve


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
    load()
    request = serve(socket.socket(fileno=int(sys.argv[1])))
    sys.argv[0] = "replayforge"
    sys.path[:2] = [request.directory, *os.environ["PYTHONPATH"].split(os.pathsep)]
    from replayforge.__main__ import main as run

    run_to_the_end(run)
