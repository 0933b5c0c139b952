"""Threads that never hold up the exit: those of the daemon's own, and those that handlers share."""

import threading
from asyncio import get_running_loop
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import Any, ParamSpec, TypeVar
from weakref import WeakSet

from replayforge.telemetry import attempt_context

P = ParamSpec("P")
T = TypeVar("T")

OWN_THREADS_MAX = 8
HANDLER_THREADS_MAX = 128
JOIN_SECONDS = 0.1

Job = tuple["Future[Any]", Callable[[], Any]]


class DaemonThreads(ThreadPoolExecutor):
    """At most `threads_max` daemon threads, started as they are needed; to shut it down waits for none of them.

    It is a ThreadPoolExecutor because asyncio accepts nothing else as a loop's default. `calls` are those that have not
    ended, each with the attempt that made it.
    """

    def __init__(self, threads_max: int, name: str) -> None:
        super().__init__(threads_max, thread_name_prefix=name)
        self.threads_max = threads_max
        self.name = name
        self.calls: dict[Future[Any], Mapping[str, Any] | None] = {}
        self.queued: deque[Job] = deque()
        self.idle = 0
        self.started = 0
        self.dismissed = 0
        self.threads: WeakSet[threading.Thread] = WeakSet()
        self.changed = threading.Condition()

    def submit(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> "Future[T]":
        """Have a thread call the function as soon as one is free; what a handler's code has called belongs to it."""
        future: Future[T] = Future()
        self.calls[future] = attempt = attempt_context.get()
        future.add_done_callback(self.forget)
        call: Callable[[], T] = partial(function, *args, **kwargs)
        if attempt is not None:  # so that what it logs names its event; asyncio does so for `to_thread` alone
            call = partial(copy_context().run, call)
        with self.changed:
            self.queued.append((future, call))
            if len(self.queued) <= self.idle or self.started == self.threads_max:
                self.changed.notify()
                return future
            self.started += 1
        self.start_thread()
        return future

    def start_thread(self) -> None:
        """Start one more; when the system gives none, those that there are have to take the call."""
        thread = threading.Thread(target=self.serve, name=f"{self.name} {self.started}", daemon=True)
        self.threads.add(thread)
        try:
            thread.start()
        except RuntimeError:
            with self.changed:
                self.started -= 1
            if not self.started:
                raise

    def forget(self, future: "Future[Any]") -> None:
        """Note that a call has ended."""
        self.calls.pop(future, None)

    def dismiss(self) -> None:
        """Have each thread end as soon as it has nothing to do, and wait for that where none has; others are started
        when they are needed."""
        with self.changed:
            self.dismissed, threads = self.started, list(self.threads)
            self.changed.notify_all()
        for thread in threads:
            if not self.calls:
                thread.join(JOIN_SECONDS)

    def serve(self) -> None:
        """Make one call after the other, until dismissed or for as long as the process lives."""
        try:
            while self.serve_once():
                pass
        except BaseException:  # raised in this thread by another one, as the interpreter's C interface allows
            with self.changed:
                self.started -= 1
                wanted = len(self.queued) > self.idle
                self.started += wanted
            if wanted:
                self.start_thread()

    def serve_once(self) -> bool:
        """Wait for a call and make it; a thread without work must not keep the last result alive.

        False when the thread is to end.
        """
        with self.changed:
            self.idle += 1
            try:
                while not self.queued:
                    if self.dismissed:
                        self.dismissed -= 1
                        self.started -= 1
                        return False
                    self.changed.wait()
            finally:
                self.idle -= 1
            future, call = self.queued.popleft()
        carry_out(future, call)
        return True

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Return at once: what still runs ends with the process."""

    def unfinished(self, attempt: Mapping[str, Any]) -> "list[Future[Any]]":
        """Return the calls of an attempt that have not ended."""
        return [future for future, caller in list(self.calls.items()) if caller is attempt]

    def issues(self) -> list[str]:
        """Say that every thread is taken, and by whom most of them."""
        with self.changed:
            waiting, taken = len(self.queued), self.started == self.threads_max
        if not waiting or not taken:
            return []
        types = [caller["event_type"] for caller in list(self.calls.values()) if caller is not None]
        most = max(set(types), key=types.count, default="")
        who = f"; most belong to events of type {most}" if most else ""
        return [f"All {self.threads_max} threads that handlers share are taken and {waiting:,} calls wait{who}."]


def carry_out(future: "Future[Any]", call: Callable[[], Any]) -> None:
    """Make one call, whatever it raises, unless nobody waits for it any more."""
    if not future.set_running_or_notify_cancel():
        return
    try:
        value = call()
    except StopIteration as error:  # asyncio's futures cannot carry it: whoever awaits the call would wait for ever
        stop = RuntimeError("the function raised StopIteration")
        stop.__cause__ = error
        future.set_exception(stop)
    except BaseException as error:  # whatever ends the call belongs to whoever made it
        future.set_exception(error)
    else:
        future.set_result(value)


own_threads = DaemonThreads(OWN_THREADS_MAX, "daemon")


async def in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function in one of the daemon's own threads, which no handler can take."""
    return await get_running_loop().run_in_executor(own_threads, partial(function, *args, **kwargs))
