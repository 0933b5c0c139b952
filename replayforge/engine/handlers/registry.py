"""What users write: handlers registered by pattern."""

import copy
import fnmatch
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Literal, TypeVar

import msgspec

from replayforge.domain.errors import Refused
from replayforge.domain.event import ON, Event, parts_of
from replayforge.domain.retry import RetryPolicy
from replayforge.domain.schedule import Missed, Overlap, Schedule
from replayforge.domain.schedule import objection_to as objection_to_timing
from replayforge.engine.handlers.context import Context
from replayforge.engine.handlers.fan_out import fan_out
from replayforge.engine.handlers.functions import (
    hash_of_source,
    is_coroutine_function,
    objection_to_function,
    plain_function,
)
from replayforge.engine.handlers.payloads import called_with_payload, event_class

HandlerFunction = Callable[[Event[Any], Context], Any]
Function = TypeVar("Function", bound=HandlerFunction)  # what is registered comes back as it is

PATTERN_CHARACTERS_MAX = 255
SUBSCRIBER_FORM = re.compile(r"[A-Za-z0-9_.-]{1,63}")
FOUND_MAX = 10_000  # event types come from outside; the memory of them is bounded
SCHEDULE_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
DURATION_SECONDS_MAX = 10 * 365 * 86_400


@dataclass(frozen=True)
class Handler:
    """One registered function and the rules it runs under; None means the configured default, or no limit.

    `endpoint` is the origin of the URL that an HTTP endpoint has; `breaker` says whether it is left alone for a while
    after failures in a row. `deadline_seconds` is how long one run may take, the time included in which it waits. One
    with a `subscriber` name gets a child of each event, beside others. `event_class` is what the function is given.
    """

    pattern: str
    function: HandlerFunction
    max_attempts: int | None = None
    timeout_seconds: float | None = None
    on_crash: Literal["retry", "hold"] = "retry"
    concurrency_max: int | None = None
    endpoint: str = ""
    breaker: bool = False
    deadline_seconds: float | None = None
    on_cancel: Literal["end", "run"] = "end"
    version: str = ""
    subscriber: str | None = None
    event_class: type[Event[Any]] = Event

    @cached_property
    def identity(self) -> str:
        """By what it is told from all others, wherever a handler is named: to pause it, in its limits, on the pages."""
        return self.pattern if self.subscriber is None else f"{self.pattern}@{self.subscriber}"

    @cached_property
    def entry(self) -> HandlerFunction:
        """What an attempt calls: the function, but that a payload which does not fit its type comes before it."""
        return self.function if self.event_class is Event else partial(called_with_payload, self.function)

    @cached_property
    def is_async(self) -> bool:
        """Whether the function runs on the event loop rather than in a thread."""
        return is_coroutine_function(self.function)

    @cached_property
    def name(self) -> str:
        """How people know the function, or the endpoint."""
        if self.endpoint:
            return self.endpoint
        named = plain_function(self.function)
        return f"{named.__module__}.{named.__qualname__}"

    @cached_property
    def label(self) -> str:
        """By what people know the code as it is now: the version it says it has, or a hash of its source file.

        Of an endpoint's code nothing is known.
        """
        return self.version or ("" if self.endpoint else hash_of_source(self.function))

    @cached_property
    def specificity(self) -> tuple[bool, int]:
        """Order patterns: one without wildcards first, then the one with more literal characters."""
        return ("*" not in self.pattern, len(self.pattern.replace("*", "")))

    @cached_property
    def glob(self) -> str:
        """The pattern as fnmatch reads it: only `*` stands for anything, every other character for itself."""
        return self.pattern.replace("[", "[[]").replace("?", "[?]")


FAN_OUT = Handler("(subscribers)", fan_out)  # of every event that has subscribers


class Handlers:
    """A registry of handlers; the most specific pattern that matches an event's type wins, for each subscriber.

    `version`, set before handlers are registered, names their code wherever it is shown; else a hash of it does.
    """

    version = ""

    def __init__(self) -> None:
        self.registered: list[Handler] = []
        self.fan_out = FAN_OUT
        self.signals: set[str] = set()
        self.schedules: list[Schedule] = []
        self.found: dict[str, Handler | None] = {}
        self.lists: dict[str, str | None] = {}

    def on(
        self,
        pattern: str,
        *,
        max_attempts: int | None = None,
        timeout_seconds: float | None = None,
        on_crash: Literal["retry", "hold"] = "retry",
        concurrency_max: int | None = None,
        deadline_seconds: float | None = None,
        on_cancel: Literal["end", "run"] = "end",
    ) -> Callable[[Function], Function]:
        """Register the decorated function for event types that match `pattern`, in which `*` stands for anything.

        It is called with the event and a Context; where it says `event: Event[Payment]` the payload is a Payment. An
        async function runs on the event loop, a plain one in a thread of its own; an awaitable that it returns is
        awaited. What comes out, if anything, must be JSON and is kept as the outcome. At most `concurrency_max`
        attempts run at once in one daemon; further events wait in the store, and in nobody's way. A run that has not
        ended `deadline_seconds` after it began, the time included in which it waits, becomes a dead letter at its next
        call of ctx. `on_cancel="run"` has a cancel raised as `Cancelled`, so that what was done can be undone.
        Raises Refused when an option or the function cannot be used.
        """
        return self.registering(
            pattern,
            max_attempts=max_attempts,
            timeout_seconds=timeout_seconds,
            on_crash=on_crash,
            concurrency_max=concurrency_max,
            deadline_seconds=deadline_seconds,
            on_cancel=on_cancel,
        )

    def subscribe(
        self,
        pattern: str,
        *,
        name: str,
        max_attempts: int | None = None,
        timeout_seconds: float | None = None,
        on_crash: Literal["retry", "hold"] = "retry",
        concurrency_max: int | None = None,
        deadline_seconds: float | None = None,
        on_cancel: Literal["end", "run"] = "end",
    ) -> Callable[[Function], Function]:
        """Register the decorated function beside others for the same events; the options are those of `on`.

        An event goes to everybody who subscribes to its type when it is dispatched, and to a handler that `on` has
        registered: each gets a child event of its own, with attempts, dead letter, pause and replay of its own.
        Of several with one name the most specific pattern wins.
        """
        return self.registering(
            pattern,
            subscriber=name,
            max_attempts=max_attempts,
            timeout_seconds=timeout_seconds,
            on_crash=on_crash,
            concurrency_max=concurrency_max,
            deadline_seconds=deadline_seconds,
            on_cancel=on_cancel,
        )

    def registering(self, pattern: str, **options: Any) -> Callable[[Function], Function]:
        """Return what registers a function under a pattern."""

        def register(function: Function) -> Function:
            if objection := objection_to_function(function):
                raise Refused(f"The handler for {pattern!r} cannot be used: {objection}.")
            try:
                event_is = event_class(function)
            except ValueError as error:
                raise Refused(f"The handler for {pattern!r} cannot be used: {error}.") from None
            self.add(Handler(pattern, function, version=self.version, event_class=event_is, **options))
            return function

        return register

    def every(
        self,
        when: str | int,
        *,
        timezone: str = "UTC",
        name: str = "",
        missed: Literal["last", "all", "skip"] = "last",
        overlap: Literal["queue", "skip"] = "queue",
        jitter_seconds: float = 0.0,
        **options: Any,
    ) -> Callable[[Function], Function]:
        """Have the decorated function called by a schedule: a cron expression, or a number of seconds.

        The schedule is known by the function's name, unless another is given, and makes events of the type
        `schedule.NAME`, which the function is the handler for; `options` are those of `on`. All else is as in
        `[[schedules]]`. Raises Refused when something of it cannot be used.
        """

        def register(function: Function) -> Function:
            chosen = name or getattr(plain_function(function), "__name__", "")
            timing = {"cron": when} if isinstance(when, str) else {"every_seconds": when}
            schedule = Schedule(
                name=chosen,
                event_type=f"schedule.{chosen}",
                workflow=chosen,
                timezone=timezone,
                missed=Missed(missed),
                overlap=Overlap(overlap),
                jitter_seconds=jitter_seconds,
                **timing,
            )
            if objection := objection_to_schedule(schedule):
                raise Refused(f"The schedule {chosen!r} cannot be used: {objection}.")
            self.on(schedule.event_type, **options)(function)
            self.schedules.append(schedule)
            return function

        return register

    def signal(self, event_type: str) -> None:
        """Declare that events of a type are awaited, not handled: each is kept until a wait of its workflow takes it.

        This beats every pattern that matches the type. Raises Refused for one that a handler is registered for by name.
        """
        if not isinstance(event_type, str) or not 1 <= len(event_type) <= PATTERN_CHARACTERS_MAX or "*" in event_type:
            raise Refused(f"{event_type!r:.60} cannot be a signal: name one event type, without `*`.")
        if any(handler.pattern == event_type for handler in self.registered):
            raise Refused(f"{event_type!r} is both handled and declared as a signal; keep one.")
        self.signals.add(event_type)
        self.forget_found()

    def is_signal(self, event_type: str) -> bool:
        """Tell whether events of a type are awaited, not handled; safe in any thread."""
        return event_type in self.signals

    def add(self, handler: Handler) -> None:
        """Register a handler, once; raises Refused when its pattern is taken or something about it is wrong."""
        if any(other is handler for other in self.registered):
            return
        if objection := objection_to(handler):
            raise Refused(f"The handler for {handler.pattern!r} cannot be used: {objection}.")
        if any(other.identity == handler.identity for other in (*self.registered, self.fan_out)):
            raise Refused(f"Two handlers are registered for the pattern {handler.identity!r}; keep one.")
        if handler.pattern in self.signals:
            raise Refused(f"{handler.pattern!r} is both handled and declared as a signal; keep one.")
        self.registered.append(handler)
        self.forget_found()

    def include(self, others: "Handlers") -> None:
        """Register everything that another registry holds."""
        for handler in others.registered:
            self.add(handler)
        for event_type in others.signals:
            self.signal(event_type)
        self.fan_out = others.fan_out
        self.schedules.extend(others.schedules)

    def changed(self, change: Callable[[Handler], Handler]) -> "Handlers":
        """Return the same registry with each handler as `change` returns it; this one stays as it is."""
        others = copy.copy(self)
        others.registered, others.fan_out = [change(handler) for handler in self.registered], change(self.fan_out)
        others.found, others.lists = {}, {}
        return others

    def forget_found(self) -> None:
        """Look for handlers anew: there are others."""
        self.found.clear()
        self.lists.clear()

    def find(self, route: str) -> Handler | None:
        """Return the handler of events with a route, see event.route, or None; safe in any thread."""
        try:
            return self.found[route]
        except KeyError:
            handler = self.best(*parts_of(route))
        if len(self.found) > FOUND_MAX:
            self.found.clear()
        self.found[route] = handler
        return handler

    def best(self, event_type: str, subscriber: str | None) -> Handler | None:
        """Return the handler with the most specific pattern that matches.

        An event that was dispatched before anybody subscribed to its type goes to its handler, if it has one.
        """
        if subscriber == "":
            return self.fan_out
        name = None if subscriber == ON else subscriber
        matching = [one for one in self.matching(event_type) if one.subscriber == name]
        found = max(matching, key=lambda one: one.specificity, default=None)
        return self.fan_out if found is None and subscriber is None and self.subscribers(event_type) else found

    @property
    def labels(self) -> frozenset[str]:
        """The labels of the code of all handlers, as far as they have one."""
        return frozenset(label for one in self.registered if (label := one.label))

    def matching(self, event_type: str) -> list[Handler]:
        """Return all handlers whose patterns match a type."""
        return [one for one in self.registered if fnmatch.fnmatchcase(event_type, one.glob)]

    @property
    def has_subscribers(self) -> bool:
        """Whether anybody subscribes to anything."""
        return any(one.subscriber is not None for one in self.registered)

    def subscribers(self, event_type: str) -> str | None:
        """Return whom events of a type go to, as a JSON list; None where nobody subscribes. Safe in any thread."""
        try:
            return self.lists[event_type]
        except KeyError:
            matching = [] if event_type in self.signals else self.matching(event_type)
        names = sorted({one.subscriber for one in matching if one.subscriber is not None})
        handled = [ON] if any(one.subscriber is None for one in matching) else []
        listed = msgspec.json.encode(handled + names).decode() if names else None
        if len(self.lists) > FOUND_MAX:
            self.lists.clear()
        self.lists[event_type] = listed
        return listed

    def policy(self, route: str, own_max_attempts: int | None, default: RetryPolicy) -> RetryPolicy:
        """Return the retry policy of an event, see policy_of."""
        return policy_of(self.find(route), own_max_attempts, default)

    def compensates(self, route: str) -> bool:
        """Tell whether events with this route go on when they are cancelled, to undo what has to be undone."""
        handler = self.find(route)
        return handler is not None and handler.on_cancel == "run"

    def holds_on_crash(self, route: str) -> bool:
        """Tell whether a person must look at an event with this route after a crash in the middle of its handler."""
        handler = self.find(route)
        return handler is not None and handler.on_crash == "hold"


def policy_of(handler: Handler | None, own_max_attempts: int | None, default: RetryPolicy) -> RetryPolicy:
    """Return the retry policy of an event: its own number of attempts, else its handler's, else the default."""
    attempts = own_max_attempts or (handler.max_attempts if handler else None) or default.max_attempts
    if attempts == default.max_attempts:
        return default
    return RetryPolicy(attempts, default.base_seconds, default.factor, default.max_seconds, default.jitter)


def objection_to_schedule(schedule: Schedule) -> str:
    """Say in a clause what of a schedule that a handler brings cannot be used, or nothing."""
    if not SCHEDULE_NAME.fullmatch(schedule.name):
        return 'give it a name of small letters, digits, - and _: name="nightly-report"'
    if type(schedule.every_seconds) is not int or schedule.every_seconds < 0:
        return f"{schedule.every_seconds!r:.40} must be a whole number of seconds, 1 or more, or a cron expression"
    if schedule.jitter_seconds and not is_duration(schedule.jitter_seconds):
        return f"jitter_seconds={schedule.jitter_seconds!r:.40} must be a number of seconds"
    return objection_to_timing(schedule)


def objection_to(handler: Handler) -> str:
    """Say in a clause which of a handler's options is wrong, or nothing."""
    if not isinstance(handler.pattern, str) or not 1 <= len(handler.pattern) <= PATTERN_CHARACTERS_MAX:
        return f"a pattern is a text of 1 to {PATTERN_CHARACTERS_MAX} characters"
    if handler.subscriber is not None and objection_to_subscriber(handler.subscriber):
        return objection_to_subscriber(handler.subscriber)
    if not is_count(handler.max_attempts):
        return f"max_attempts={handler.max_attempts!r:.40} must be a whole number, 1 or more"
    if not is_count(handler.concurrency_max):
        return f"concurrency_max={handler.concurrency_max!r:.40} must be a whole number, 1 or more"
    if not is_duration(handler.timeout_seconds):
        return f"timeout_seconds={handler.timeout_seconds!r:.40} must be a number of seconds above 0"
    if not is_duration(handler.deadline_seconds):
        return f"deadline_seconds={handler.deadline_seconds!r:.40} must be a number of seconds above 0"
    if handler.on_crash not in ("retry", "hold"):
        return f'on_crash={handler.on_crash!r:.40} must be "retry" or "hold"'
    if handler.on_cancel not in ("end", "run"):
        return f'on_cancel={handler.on_cancel!r:.40} must be "end" or "run"'
    return ""


def objection_to_subscriber(name: Any) -> str:
    """Say in a clause why a subscriber cannot be called so, or nothing."""
    if not isinstance(name, str) or SUBSCRIBER_FORM.fullmatch(name) is None:
        return f"name={name!r:.80} must be 1 to 63 letters, digits, `-`, `_` and `.`"
    return f"the name {ON!r} stands for the handler that `on` registers" if name == ON else ""


def is_count(value: Any) -> bool:
    """Tell whether a value is a number of things, or not given; True is a number to Python, but to nobody else."""
    return value is None or (type(value) is int and value >= 1)


def is_duration(value: Any) -> bool:
    """Tell whether a value is a time that ends, or not given."""
    return value is None or (type(value) in (int, float) and 0 < value <= DURATION_SECONDS_MAX and math.isfinite(value))
