"""What a handler gets beside its event: what it may know of this attempt, and the calls to its journal."""

import asyncio
import re
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any, ParamSpec, Protocol, TypeVarTuple, overload

import msgspec

from replayforge.daemon_log import attempt_logger
from replayforge.domain.event import Event
from replayforge.domain.trace import trace_headers
from replayforge.engine.handlers.results import encoded_json, shown_details
from replayforge.engine.handlers.step_messages import ReportedStep

# What type checkers know of a step's function: all that it takes, or, beside options of ours, what it takes by place.
P = ParamSpec("P")
Arguments = TypeVarTuple("Arguments")

EPOCH = datetime.fromtimestamp(0, UTC)
NAME_FORM = re.compile(r"[^\x00-\x1f\x7f]{1,255}")

# What gives the key of the step whose function runs in this task or thread; few ask for it.
running_step_key: ContextVar[Callable[[], str] | None] = ContextVar("running_step_key", default=None)


class StepCall(msgspec.Struct, frozen=True):
    """A step as a handler asks for it."""

    name: str
    key: str | None
    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    attempts: int | None
    timeout_seconds: float | None
    once: bool
    pure: bool
    type: Any


class ChildEvent(msgspec.Struct, frozen=True):
    """An event that a handler sends; `payload` is JSON. Without a workflow of its own it belongs to its parent's.

    The step that sends it is called like its type, unless it has a `name`. One for a `subscriber` has always the same
    id; it is what its parent is, its `metadata` and the white space around its JSON included.
    """

    event_type: str
    payload: bytes
    workflow_id: str | None = None
    key: str | None = None
    run_at_us: int | None = None
    name: str | None = None
    subscriber: str | None = None
    metadata: bytes = b"{}"

    @property
    def step_name(self) -> str:
        """What the step that sends it is called."""
        return self.name or self.event_type


class Signal(msgspec.Struct, frozen=True):
    """An event that a handler has waited for."""

    id: str
    event_type: str
    payload: Any
    created_at: str


class Calls(Protocol):
    """What stands behind the calls of one attempt. Each gives an awaitable; to a plain function it gives the answer."""

    def step(self, call: StepCall) -> Any:
        """See Context.step."""

    def sleep(self, name: str, seconds: float) -> Any:
        """See Context.sleep."""

    def sleep_until(self, name: str, at: datetime) -> Any:
        """See Context.sleep_until."""

    def wait_for(self, event_type: str, key: str | None, timeout_seconds: float | None, name: str | None = None) -> Any:
        """See Context.wait_for; the wait is called like the event type, unless it has a name."""

    def send(self, child: ChildEvent) -> Any:
        """See Context.send."""

    def call(self, child: ChildEvent, timeout_seconds: float | None) -> Any:
        """See Context.call."""

    def subscribers(self) -> Any:
        """Give the names of the subscribers that the event goes to, on every pass the same."""

    def first(self, waits: dict[str, Any]) -> Any:
        """See Context.first."""

    def restart(self, payload: bytes) -> Any:
        """See Context.restart."""

    def now(self, name: str) -> Any:
        """See Context.now."""

    def random(self, name: str) -> Any:
        """See Context.random."""

    def uuid(self, name: str) -> Any:
        """See Context.uuid."""

    def remembered(self) -> Any:
        """Give a Remembered: what the journal holds, once nothing that it holds is waited for any more."""

    def report(self, did: tuple[ReportedStep, ...], *, answered: bool) -> Any:
        """Record steps that were taken elsewhere, and that an answer has come; gives how many are new."""


class Backing(Protocol):
    """What stands behind a context: the attempt that it was made for."""

    def note(self, details: Mapping[str, Any]) -> None:
        """Keep what the handler says of itself."""

    def opened_calls(self) -> Calls:
        """Return what answers its code's calls to the journal."""

    def stopping_event(self) -> Any:
        """Return what tells its code that the daemon drains."""

    def current_trace(self) -> str | None:
        """Return the trace that is handed on from here."""


class NoAttempt:
    """Stands behind a context that no attempt has made."""

    def note(self, _details: Mapping[str, Any]) -> None:
        """Forget them."""

    def opened_calls(self) -> Calls:
        """Refuse."""
        raise RuntimeError("This context belongs to no attempt, so there is no journal.")

    def stopping_event(self) -> asyncio.Event:
        """Return what nobody will set."""
        return asyncio.Event()

    def current_trace(self) -> None:
        """There is none."""


NO_ATTEMPT = NoAttempt()


@dataclass(eq=False)
class Context:
    """What a handler may want to know about this attempt beside the event itself, and what it does step by step.

    `idempotency_key` is the same for every attempt and run of the event: hand it to whatever has effects outside.
    `lease_token` grows with every start, so an outside system can refuse a late writer. `deadline` is on the clock
    of `get_running_loop().time()`, as it was when the attempt began. `details` is what the handler last said of itself.

    The calls from `step` on are awaited by an async handler; a plain one calls them without `await`.
    """

    event: Event = field(repr=False)
    lease_token: int
    deadline: float
    details: Mapping[str, Any] = field(default_factory=dict)
    backing: Backing = field(default=NO_ATTEMPT, repr=False)

    @property
    def idempotency_key(self) -> str:
        """The event's own key, or its id where the sender gave none."""
        return self.event.idempotency_key or self.event.id

    @property
    def step_key(self) -> str:
        """Inside the function of a step: what tells this step from all others, the same however often it is tried.

        Hand it to whatever has effects outside. Raises RuntimeError elsewhere.
        """
        if (key := running_step_key.get()) is None:
            raise RuntimeError("ctx.step_key is known inside the function of a step only.")
        return key()

    @property
    def trace_headers(self) -> dict[str, str]:
        """The headers `traceparent` and `tracestate` that hand the trace of the event on; empty for one without."""
        return trace_headers(self.backing.current_trace())

    @cached_property
    def log(self) -> Any:
        """A structlog logger that names the event, its type, the run and the attempt in every line of the daemon's log.

        It works however structlog and logging are configured.
        """
        event = self.event
        return attempt_logger(event_id=event.id, event_type=event.event_type, run=event.run, attempt=event.attempt)

    @cached_property
    def stopping(self) -> Any:
        """An asyncio.Event that is set when the daemon drains, for a plain handler a threading.Event.

        A long handler that looks at it, or waits for it, can come to an end within the grace period: return, or raise
        Retry(after=0, counts=False) to go on after the restart.
        """
        return self.backing.stopping_event()

    def heartbeat(self, **details: Any) -> None:
        """Say how far the handler is; people see it on the status page. What is not JSON is shown to them as text."""
        self.details = {**self.details, **shown_details(details)}
        self.backing.note(self.details)

    # The journal

    @cached_property
    def calls(self) -> Calls:
        """What carries the calls out; an attempt that makes none has none."""
        return self.backing.opened_calls()

    @overload
    def step(self, name: str, function: Callable[P, Any], /, *args: P.args, **kwargs: P.kwargs) -> Any: ...

    @overload
    def step(
        self,
        name: str,
        function: Callable[[*Arguments], Any],
        /,
        *args: *Arguments,
        key: str | None = None,
        attempts: int | None = None,
        timeout_seconds: float | None = None,
        once: bool = False,
        pure: bool = False,
        type: Any = None,
    ) -> Any: ...

    # For type checkers what the function takes by name goes without options: side by side nothing could check it.
    def step(  # type: ignore[misc]
        self,
        name: str,
        function: Callable[..., Any],
        /,
        *args: Any,
        key: str | None = None,
        attempts: int | None = None,
        timeout_seconds: float | None = None,
        once: bool = False,
        pure: bool = False,
        type: Any = None,  # noqa: A002 - the name is that of the field in JSON tools
        **kwargs: Any,
    ) -> Any:
        """Run `function(*args, **kwargs)` until it has once returned and that is recorded; then never again.

        Gives the recorded JSON value, as `type` if one is named: the same on this pass and on every later one. A
        function that fails is tried again, `attempts` times at most (the handler's number by default); when none is
        left StepFailed is raised, now and on every later pass. With `once` it is never begun a second time: where
        nobody can know whether it ended, the event is held for a person. The result of a `pure` function may be
        recorded later, together with something else. Names repeat in order (`name#2`); at the same time they must have
        keys.
        """
        return self.calls.step(StepCall(name, key, function, args, kwargs, attempts, timeout_seconds, once, pure, type))

    def sleep(self, name: str, seconds: float) -> Any:
        """Wait for so many seconds from the first pass on: no worker is held, and no restart begins it anew."""
        return self.calls.sleep(name, seconds)

    def sleep_until(self, name: str, at: datetime) -> Any:
        """Wait until a time (with its zone), as `sleep` does."""
        return self.calls.sleep_until(name, at)

    def wait_for(self, event_type: str, *, key: str | None = None, timeout_seconds: float | None = None) -> Any:
        """Give the oldest event of a type in this workflow that no wait has taken, a Signal, whenever it comes.

        It may have come before this call. Raises WaitTimedOut, now and on every later pass, when none comes in time.
        `key` names the wait where several stand at once; it filters nothing. The type must be declared, with
        `handlers.signal(event_type)` or in `[handlers] signals`.
        """
        return self.calls.wait_for(event_type, key, timeout_seconds)

    def send(
        self,
        event_type: str,
        payload: Any = None,
        *,
        workflow_id: str | None = None,
        key: str | None = None,
        run_at: datetime | None = None,
    ) -> Any:
        """Send one child event, however often the code passes here; gives its id."""
        return self.calls.send(child_event(event_type, payload, workflow_id, key, run_at))

    def call(
        self,
        event_type: str,
        payload: Any = None,
        *,
        workflow_id: str | None = None,
        key: str | None = None,
        run_at: datetime | None = None,
        timeout_seconds: float | None = None,
    ) -> Any:
        """Send one child event, wait for its end, and give its result.

        A child that becomes a dead letter keeps its parent waiting, since it can be replayed; StepFailed is raised when
        it is discarded or cancelled, WaitTimedOut when it takes too long.
        """
        return self.calls.call(child_event(event_type, payload, workflow_id, key, run_at), timeout_seconds)

    def first(self, **waits: Any) -> Any:
        """Give (name, value) of the wait that came true first, on every pass the same; ties go by the order here.

        Takes what `sleep`, `wait_for` and `call` give, not awaited: `name, value = await ctx.first(paid=ctx.wait_for(
        "paid"), late=ctx.sleep("late", 3600))`. A signal that lost is kept for another wait, a child that lost goes on.
        """
        return self.calls.first(waits)

    def restart(self, payload: Any = None) -> Any:
        """End this journal and go on with the next one, which is empty, in the same run; never comes back.

        The handler is called anew, with `payload` as that of its event; what the event came with stays as it was.
        Steps that run at this moment come to their ends first. `deadline_seconds` goes on counting.
        """
        return self.calls.restart(encoded_json({} if payload is None else payload, "The payload"))

    def now(self, name: str = "now") -> Any:
        """Give the time as a datetime in UTC, the same on every pass."""
        return self.calls.now(name)

    def random(self, name: str = "random") -> Any:
        """Give a number from 0 to 1, the same on every pass."""
        return self.calls.random(name)

    def uuid(self, name: str = "uuid") -> Any:
        """Give a UUID, the same on every pass."""
        return self.calls.uuid(name)


def child_event(
    event_type: str, payload: Any, workflow_id: str | None, key: str | None, run_at: datetime | None
) -> ChildEvent:
    """Return an event that a handler sends; raises ValueError or TypeError for what cannot be one."""
    for name, value in (("event_type", event_type), ("workflow_id", workflow_id)):
        if value is not None and (not isinstance(value, str) or NAME_FORM.fullmatch(value) is None):
            raise ValueError(f"{name}={value!r:.60} must be a text of 1 to 255 characters without control characters.")
    if run_at is not None and (not isinstance(run_at, datetime) or run_at.tzinfo is None):
        raise ValueError(f"run_at={run_at!r:.60} must be a datetime with its zone.")
    encoded = encoded_json({} if payload is None else payload, "The child's payload")
    at_us = None if run_at is None else (run_at - EPOCH) // timedelta(microseconds=1)
    return ChildEvent(event_type, encoded, workflow_id, key, at_us)
