"""What users write: handlers registered by pattern, and the context that each call gets."""

import asyncio
import contextvars
import fnmatch
import importlib
import importlib.util
import inspect
import sys
import threading
import traceback
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from replayforge.daemon_log import attempt_logger
from replayforge.domain.errors import Refused
from replayforge.domain.event import Event
from replayforge.domain.retry import RetryPolicy

HandlerFunction = Callable[[Event, "Context"], Any]


@dataclass(eq=False)
class Context:
    """What a handler may want to know about this attempt beside the event itself.

    `idempotency_key` is the same for every attempt and run of the event: hand it to whatever has effects outside.
    `lease_token` grows with every hand-out, so an outside system can refuse a late writer. `deadline` is on the clock
    of `asyncio.get_running_loop().time()`. `details` is what the handler last said of itself.
    """

    event: Event = field(repr=False)
    lease_token: int
    deadline: float
    details: dict[str, Any]

    @property
    def idempotency_key(self) -> str:
        """The event's own key, or its id where the sender gave none."""
        return self.event.idempotency_key or self.event.id

    @cached_property
    def log(self) -> Any:
        """A structlog logger that names the event, the run and the attempt in every line of the daemon's log.

        It works however structlog and logging are configured.
        """
        event = self.event
        return attempt_logger(event_id=event.id, run=event.run, attempt=event.attempt)

    def heartbeat(self, **details: Any) -> None:
        """Say how far the handler is; people see it on the status page."""
        self.details.update(details)


@dataclass(frozen=True)
class Handler:
    """One registered function and the rules it runs under; None means the configured default, or no limit.

    `endpoint` is the origin of the URL that an HTTP endpoint has; `breaker` says whether it is left alone for a while
    after failures in a row.
    """

    pattern: str
    function: HandlerFunction
    max_attempts: int | None = None
    timeout_seconds: float | None = None
    on_crash: Literal["retry", "hold"] = "retry"
    concurrency_max: int | None = None
    endpoint: str = ""
    breaker: bool = False

    @cached_property
    def is_async(self) -> bool:
        """Whether the function runs on the event loop rather than in a thread."""
        return inspect.iscoroutinefunction(self.function)

    @property
    def name(self) -> str:
        """How people know the function, or the endpoint."""
        if self.endpoint:
            return self.endpoint
        return f"{self.function.__module__}.{getattr(self.function, '__qualname__', repr(self.function))}"

    @property
    def specificity(self) -> tuple[bool, int]:
        """Order patterns: one without wildcards first, then the one with more literal characters."""
        return ("*" not in self.pattern and "?" not in self.pattern, len(self.pattern.replace("*", "")))


class Handlers:
    """A registry of handlers; the most specific pattern that matches an event's type wins."""

    def __init__(self) -> None:
        self.registered: list[Handler] = []
        self.found: dict[str, Handler | None] = {}

    def on(
        self,
        pattern: str,
        *,
        max_attempts: int | None = None,
        timeout_seconds: float | None = None,
        on_crash: Literal["retry", "hold"] = "retry",
        concurrency_max: int | None = None,
    ) -> Callable[[HandlerFunction], HandlerFunction]:
        """Register the decorated function for event types that match `pattern`, in which `*` stands for anything.

        An async function runs on the event loop, a plain one in a thread of its own. Its return value, if any, must
        be JSON and is kept as the outcome. At most `concurrency_max` attempts run at once in one daemon; further events
        wait in the store, and in nobody's way.
        """

        def register(function: HandlerFunction) -> HandlerFunction:
            self.add(Handler(pattern, function, max_attempts, timeout_seconds, on_crash, concurrency_max))
            return function

        return register

    def add(self, handler: Handler) -> None:
        """Register a handler; raises Refused when its pattern is taken."""
        if any(other.pattern == handler.pattern for other in self.registered):
            raise Refused(f"Two handlers are registered for the pattern {handler.pattern!r}; keep one.")
        if handler.concurrency_max is not None and handler.concurrency_max < 1:
            raise Refused(f"The handler for {handler.pattern!r} would never run: let concurrency_max be 1 or more.")
        self.registered.append(handler)
        self.found.clear()

    def include(self, others: "Handlers") -> None:
        """Register everything that another registry holds."""
        for handler in others.registered:
            self.add(handler)

    def find(self, event_type: str) -> Handler | None:
        """Return the handler with the most specific pattern that matches, or None; safe in any thread."""
        try:
            return self.found[event_type]
        except KeyError:
            matching = [one for one in self.registered if fnmatch.fnmatchcase(event_type, one.pattern)]
        handler = max(matching, key=lambda one: one.specificity, default=None)
        if len(self.found) > 10_000:  # event types come from outside; the memory of them is bounded
            self.found.clear()
        self.found[event_type] = handler
        return handler

    def policy(self, event_type: str, own_max_attempts: int | None, default: RetryPolicy) -> RetryPolicy:
        """Return the retry policy of an event: its own number of attempts, else its handler's, else the default."""
        handler = self.find(event_type)
        attempts = own_max_attempts or (handler.max_attempts if handler else None) or default.max_attempts
        if attempts == default.max_attempts:
            return default
        return RetryPolicy(attempts, default.base_seconds, default.factor, default.max_seconds, default.jitter)

    def holds_on_crash(self, event_type: str) -> bool:
        """Tell whether a person must look at an event of this type after a crash in the middle of its handler."""
        handler = self.find(event_type)
        return handler is not None and handler.on_crash == "hold"


def load_handlers(modules: Sequence[str]) -> Handlers:
    """Import modules (`app.handlers`) or files (`handlers.py`) and return everything they register.

    Every `Handlers` object at a module's top level counts. Raises Refused with the module and the reason.
    """
    collected = Handlers()
    for name in modules:
        module = import_handlers(name)
        found = [value for value in vars(module).values() if isinstance(value, Handlers)]
        if not found:
            raise Refused(f"The handler module {name} defines no Handlers(); write `handlers = Handlers()` in it.")
        for handlers in found:
            collected.include(handlers)
    return collected


def import_handlers(name: str) -> Any:
    """Import a module by its dotted name or by the path of its file."""
    try:
        if name.endswith(".py"):
            return import_file(Path(name))
        if "" not in sys.path:
            sys.path.insert(0, "")
        return importlib.import_module(name)
    except Refused as error:
        raise (
            error if name in str(error) else Refused(f"The handler module {name} cannot be loaded: {error}")
        ) from error
    except (Exception, SystemExit) as error:  # a module that ends the program has not registered its handlers
        frame = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{frame.filename}:{frame.lineno}"
        raise Refused(
            f"The handler module {name} cannot be loaded: {type(error).__name__}: {error} ({place})."
        ) from error


def import_file(path: Path) -> Any:
    """Run a file as a module of its own name."""
    if not path.is_file():
        raise Refused(f"The handler file {path} does not exist.")
    specification = importlib.util.spec_from_file_location(path.stem, path)
    if specification is None or specification.loader is None:
        raise Refused(f"The handler file {path} is no Python file.")
    module = importlib.util.module_from_spec(specification)
    sys.modules[path.stem] = module
    specification.loader.exec_module(module)
    return module


def call(handler: Handler, event: Event, context: Context) -> "Awaitable[Any]":
    """Begin to run the handler; a plain function runs in a daemon thread and the awaitable follows it."""
    if handler.is_async:
        coroutine: Awaitable[Any] = handler.function(event, context)
        return coroutine
    return call_in_thread(handler.function, event, context)


def call_in_thread(function: HandlerFunction, event: Event, context: Context) -> asyncio.Future[Any]:
    """Run a plain function in a daemon thread of its own, which never holds up the exit of the process."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Any] = loop.create_future()
    variables = contextvars.copy_context()

    def finish(value: Any, error: BaseException | None) -> None:
        if future.cancelled():
            return
        if error is None:
            future.set_result(value)
        else:
            future.set_exception(error if isinstance(error, Exception) else HandlerExited(repr(error)))

    def work() -> None:
        value, error = None, None
        try:
            value = variables.run(function, event, context)
        except BaseException as raised:  # whatever ends the function must reach the worker
            error = raised
        if not loop.is_closed():
            loop.call_soon_threadsafe(finish, value, error)

    threading.Thread(target=work, name=f"handler {event.event_type}", daemon=True).start()
    return future


class HandlerExited(Exception):
    """A handler ended with an exception that ends programs, such as SystemExit."""
