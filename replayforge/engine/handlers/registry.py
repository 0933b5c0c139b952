"""What users write: handlers registered by pattern, and the context that each call gets."""

import fnmatch
import functools
import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from replayforge.daemon_log import attempt_logger
from replayforge.domain.errors import Refused
from replayforge.domain.event import Event
from replayforge.domain.retry import RetryPolicy
from replayforge.engine.handlers.results import shown_details

HandlerFunction = Callable[[Event, "Context"], Any]

PATTERN_CHARACTERS_MAX = 255
DURATION_SECONDS_MAX = 10 * 365 * 86_400


@dataclass(eq=False)
class Context:
    """What a handler may want to know about this attempt beside the event itself.

    `idempotency_key` is the same for every attempt and run of the event: hand it to whatever has effects outside.
    `lease_token` grows with every start, so an outside system can refuse a late writer. `deadline` is on the clock
    of `get_running_loop().time()`. `details` is what the handler last said of itself.
    """

    event: Event = field(repr=False)
    lease_token: int
    deadline: float
    details: Mapping[str, Any] = field(default_factory=dict)
    tell: Callable[[Mapping[str, Any]], None] = field(default=lambda details: None, repr=False)

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
        """Say how far the handler is; people see it on the status page. What is not JSON is shown to them as text."""
        self.details = {**self.details, **shown_details(details)}
        self.tell(self.details)


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
        return inspect.iscoroutinefunction(plain_function(self.function))

    @cached_property
    def name(self) -> str:
        """How people know the function, or the endpoint."""
        if self.endpoint:
            return self.endpoint
        named = plain_function(self.function)
        return f"{named.__module__}.{named.__qualname__}"

    @cached_property
    def specificity(self) -> tuple[bool, int]:
        """Order patterns: one without wildcards first, then the one with more literal characters."""
        return ("*" not in self.pattern, len(self.pattern.replace("*", "")))

    @cached_property
    def glob(self) -> str:
        """The pattern as fnmatch reads it: only `*` stands for anything, every other character for itself."""
        return self.pattern.replace("[", "[[]").replace("?", "[?]")


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

        It is called with the event and a Context. An async function runs on the event loop, a plain one in a thread of
        its own; an awaitable that it returns is awaited. What comes out, if anything, must be JSON and is kept as the
        outcome. At most `concurrency_max` attempts run at once in one daemon; further events wait in the store, and in
        nobody's way. Raises Refused when an option or the function cannot be used.
        """

        def register(function: HandlerFunction) -> HandlerFunction:
            if objection := objection_to_function(function):
                raise Refused(f"The handler for {pattern!r} cannot be used: {objection}.")
            self.add(Handler(pattern, function, max_attempts, timeout_seconds, on_crash, concurrency_max))
            return function

        return register

    def add(self, handler: Handler) -> None:
        """Register a handler, once; raises Refused when its pattern is taken or something about it is wrong."""
        if any(other is handler for other in self.registered):
            return
        if objection := objection_to(handler):
            raise Refused(f"The handler for {handler.pattern!r} cannot be used: {objection}.")
        if any(other.pattern == handler.pattern for other in self.registered):
            raise Refused(f"Two handlers are registered for the pattern {handler.pattern!r}; keep one.")
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
            matching = [one for one in self.registered if fnmatch.fnmatchcase(event_type, one.glob)]
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


def plain_function(function: Any) -> Any:
    """Return the function that is behind a partial or an object that can be called."""
    while isinstance(function, functools.partial):
        function = function.func
    return function if inspect.isroutine(function) or inspect.isclass(function) else type(function).__call__


def objection_to_function(function: Any) -> str:
    """Say in a clause why a function cannot be a handler, or nothing."""
    if not callable(function):
        return f"{function!r:.100} is not a function"
    named = plain_function(function)
    if inspect.isgeneratorfunction(named) or inspect.isasyncgenfunction(named):
        return "it is a generator, which would do nothing when it is called; use `return` in place of `yield`"
    try:
        inspect.signature(function).bind("event", "context")
    except TypeError as error:
        return f"it is called with two arguments, the event and the context, and its signature says: {error}"
    except ValueError:
        pass  # a function of C that does not tell its signature
    return ""


def objection_to(handler: Handler) -> str:
    """Say in a clause which of a handler's options is wrong, or nothing."""
    if not isinstance(handler.pattern, str) or not 1 <= len(handler.pattern) <= PATTERN_CHARACTERS_MAX:
        return f"a pattern is a text of 1 to {PATTERN_CHARACTERS_MAX} characters"
    if not is_count(handler.max_attempts):
        return f"max_attempts={handler.max_attempts!r:.40} must be a whole number, 1 or more"
    if not is_count(handler.concurrency_max):
        return f"concurrency_max={handler.concurrency_max!r:.40} must be a whole number, 1 or more"
    if not is_duration(handler.timeout_seconds):
        return f"timeout_seconds={handler.timeout_seconds!r:.40} must be a number of seconds above 0"
    if handler.on_crash not in ("retry", "hold"):
        return f'on_crash={handler.on_crash!r:.40} must be "retry" or "hold"'
    return ""


def is_count(value: Any) -> bool:
    """Tell whether a value is a number of things, or not given; True is a number to Python, but to nobody else."""
    return value is None or (type(value) is int and value >= 1)


def is_duration(value: Any) -> bool:
    """Tell whether a value is a time that ends, or not given."""
    return value is None or (type(value) in (int, float) and 0 < value <= DURATION_SECONDS_MAX and math.isfinite(value))
