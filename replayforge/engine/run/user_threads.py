"""Threads for user code: each call gets one of its own, which never holds up the exit of the process."""

import asyncio
import contextlib
import threading
from asyncio import get_running_loop
from collections.abc import Callable
from contextvars import copy_context
from typing import TypeVar

Answer = TypeVar("Answer")


def call_in_thread(call: Callable[[], Answer], name: str) -> "asyncio.Future[Answer]":
    """Call what never raises in a daemon thread of its own, with this task's context variables."""
    loop = get_running_loop()
    future: asyncio.Future[Answer] = loop.create_future()
    variables = copy_context()

    def finish(answer: Answer) -> None:
        if not future.done():
            future.set_result(answer)

    def work() -> None:
        answer = variables.run(call)
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(finish, answer)

    threading.Thread(target=work, name=f"handler {name}", daemon=True).start()
    return future
