"""A whole daemon for a test: opened on a directory of its own, moved through time, killed and started again."""

import os
import shutil
import tempfile
from asyncio import Event, get_running_loop, timeout, wait, wrap_future
from collections.abc import Coroutine, Iterator, Mapping
from contextlib import AsyncExitStack, ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import msgspec
from msgspec.structs import replace

from replayforge.assembly import Daemon, opened
from replayforge.config import Config, load_config
from replayforge.config.sources import environment_of
from replayforge.daemon import listen, site, web_context
from replayforge.domain.clock import MICROSECONDS_PER_SECOND, format_time, to_us
from replayforge.domain.errors import NotFound
from replayforge.domain.reports import EventFilter
from replayforge.engine.accept.intake import Receipt
from replayforge.engine.handlers.registry import Handler, Handlers
from replayforge.engine.replay.replayer import Replay
from replayforge.telemetry import Telemetry
from replayforge.testing.due import Due
from replayforge.testing.hand_clock import HandClock
from replayforge.testing.life import Crashed, Life, NotCrashed, mortal, tasks_by_life
from replayforge.testing.sent_event import SentEvent
from replayforge.testing.store_view import StoreView
from replayforge.threads import own_threads
from replayforge.web.http.reading import read_envelope

T = TypeVar("T")

MEMORY = Path("/dev/shm")  # noqa: S108 - a directory of our own is made in it
MEMORY_BYTES_MIN = 256 << 20
SEGMENT_BYTES = 4 << 20
RESTART_SECONDS = 1.0
THREADS_SECONDS = 5.0
EVENTS_MAX = 1000
# Nothing is removed by age while somebody looks at it, a full disk of the machine is none of the test's business, and
# a suspect is run again after a restart.
SETTINGS: Mapping[str, Any] = {
    "log.disk_free_bytes_min": 0,
    "log.retention_seconds": 0,
    "retention.succeeded_seconds": 0,
    "retention.dead_seconds": 0,
    "retention.keys_seconds": 0,
    "workers.control_seconds": RESTART_SECONDS / 2,
}


class Forge:
    """A daemon in the test's own process and on its loop: `async with Forge(handlers) as forge`.

    It is the one that `replayforge serve` runs, with log, store and stream, on a temporary directory (or `directory`,
    which stays). `settings` go by keys such as "retry.max_attempts"; `serve` has it listen on a free port, at `url`.
    Time stands still until `advance`. What is due runs at once, beside the test, as far as the loop turns.

    Other than with `serve` nothing is installed for the process: no signal handlers, no log, no executor, nobody who
    puts right what a handler breaks or watches the loop. The loop gets a task factory, for as long as a Forge is open.
    A call that waits gives up with TimeoutError after `patience_seconds` of real time.
    """

    def __init__(
        self,
        handlers: Handlers,
        *,
        directory: Path | None = None,
        settings: Mapping[str, Any] | None = None,
        serve: bool = False,
        patience_seconds: float = 30.0,
    ) -> None:
        self.handlers = handlers
        self.given = directory
        self.settings = settings or {}
        self.serve = serve
        self.patience_seconds = patience_seconds
        self.clock = HandClock()
        self.url = ""
        self.changed = Event()
        self.to_come: list[str] = []
        self.outside = ExitStack()

    # The daemon's life

    async def __aenter__(self) -> Self:
        with ExitStack() as stack:
            self.directory = self.given or Path(stack.enter_context(temporary_directory()))
            stack.enter_context(tasks_by_life(get_running_loop()))
            self.config = configuration(self.directory, self.settings)
            await self.start()
            self.outside = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self.close()
        finally:
            self.outside.close()
            own_threads.dismiss()

    async def start(self) -> None:
        """Have a daemon run on the directory."""
        self.life, self.inside = Life(self.abandon), AsyncExitStack()
        try:
            while self.to_come:
                self.life.arm(self.to_come.pop())
            self.daemon = await self.do(self.opened())
            self.due, self.view = Due(self.daemon), StoreView(self.daemon.store)
        except BaseException:
            await self.inside.aclose()
            raise

    async def opened(self) -> Daemon:
        """Open the daemon and let it run."""
        opening = opened(
            self.config, handlers=self.handlers, clock=self.clock, telemetry=Telemetry(), guest=True,
            changed=self.as_mortal,
        )  # fmt: skip
        daemon = await self.inside.enter_async_context(opening)
        daemon.store.call_when_written(self.changed.set)
        if self.serve:
            self.url = await self.inside.enter_async_context(site(daemon, web_context(daemon), listen("127.0.0.1", 0)))
            daemon.callbacks.lead_to(self.url)
        daemon.start_without_clock()
        return daemon

    def as_mortal(self, handler: Handler) -> Handler:
        """Return a handler that dies with this daemon."""
        life = self.life
        return mortal(handler, lambda: life)

    def abandon(self) -> None:
        """Let nothing more be written, and whoever waits look again."""
        self.daemon.abandon()
        self.changed.set()

    async def close(self) -> None:
        """End the daemon, whatever it does; handlers that run are cancelled. Safe after a crash, and twice."""
        if not self.life.over:
            self.daemon.buffer.close()
            await self.daemon.supervisor.stop([worker.name for worker in self.daemon.workers], 0)
            self.life.end()
        await self.life.bury()
        if calls := [wrap_future(call) for call in list(own_threads.calls)]:
            await wait(calls, timeout=THREADS_SECONDS)
        self.view.close()
        await self.inside.aclose()

    def crash_at(self, point: str) -> None:
        """Have the daemon die when it next comes to a crash point, or with "POINT:N" the Nth time.

        From that moment on nothing is written any more, no handler goes on (its `finally` blocks neither), and nothing
        is closed in order: the directory is left as a killed process leaves it. Of a daemon that is dead, the next one
        will die there. Raises Refused for an unknown point.
        """
        if self.life.over:
            self.to_come.append(point)
        else:
            self.life.arm(point)

    async def crashed(self) -> None:
        """Return once the daemon has died at a crash point; raises NotCrashed when nothing is due and it has not."""
        try:
            await self.settled()
        except Crashed:
            return
        raise NotCrashed("Nothing is due any more, and the daemon has not come to a crash point that was armed.")

    async def restart(self) -> None:
        """Start another daemon on the same directory, a second after the one before it, which is killed if it lives."""
        if not self.life.over:
            self.life.end()
        await self.close()
        await self.start()
        self.clock.move_to(self.clock.now_us() + to_us(RESTART_SECONDS))
        await self.do(self.daemon.janitor.tick())

    # Events

    async def send(
        self,
        event_type: str,
        payload: Any = None,
        *,
        workflow_id: str = "workflow",
        run_at: datetime | str | None = None,
        **fields: Any,
    ) -> SentEvent:
        """Send an event, a signal too, and return it once it is accepted; what it sets off goes on beside the test.

        `fields` are those of the API: `idempotency_key`, `application_name`, `service_name`, `metadata`,
        `max_attempts`. Raises as the API refuses, and Crashed when the daemon died before it had answered.
        """
        body: dict[str, Any] = {"workflow_id": workflow_id, "event_type": event_type, **fields}
        if payload is not None:
            body["payload"] = payload
        if run_at is not None:
            body["run_at"] = run_at if isinstance(run_at, str) else format_time(to_us(run_at.timestamp()))
        receipt = await self.do(self.accept(msgspec.json.encode(body)))
        return self.event_of(receipt.record, duplicate=receipt.duplicate)

    async def accept(self, body: bytes) -> Receipt:
        """Accept an event as if it had come by HTTP."""
        envelope = await read_envelope(body, event_bytes_max=self.config.server.event_bytes_max)
        return await self.daemon.intake.accept(envelope)

    def event(self, event_id: str) -> SentEvent:
        """Return an event that has a row, by its id; raises NotFound."""
        found = self.view.event(event_id)
        if found is None:
            raise NotFound(f"There is no event {event_id}.")
        return self.event_of(found[0])

    async def events(self, event_type: str | None = None, *, workflow_id: str | None = None) -> list[SentEvent]:
        """Return the events of a type, in which `*` stands for anything, or of a workflow, in their order."""
        wanted = EventFilter.of({"event_type": event_type, "workflow_id": workflow_id}, None, None)
        rows = await self.do(self.daemon.queries.list_rows(wanted, None, EVENTS_MAX))
        return [self.event_of(row) for row in reversed(rows)]

    async def replay(self, event: SentEvent, reason: str = "a test", **options: Any) -> Replay:
        """Have a finished event run once more, with the options of the replayer."""
        return await self.do(self.daemon.replayer.replay(event.id, reason, **options))

    def event_of(self, record: Any, *, duplicate: bool = False) -> SentEvent:
        """Return what shows an event."""
        return SentEvent(record, lambda: self.view, self.settled, duplicate=duplicate)

    # Time

    @property
    def now(self) -> datetime:
        """What time it is for the daemon."""
        return datetime.fromtimestamp(self.clock.now_us() / MICROSECONDS_PER_SECOND, UTC)

    async def settled(self) -> None:
        """Return once nothing is due: what is not over waits for a time, a signal, a child, or a person.

        Raises Crashed when the daemon has died, or dies meanwhile, and what ended it when it gave up.
        """
        failed = self.daemon.supervisor.failed
        try:
            async with timeout(self.patience_seconds):
                while True:
                    self.changed.clear()
                    if await self.do(self.due.nothing()) and not self.life.over:
                        return
                    if self.life.over:
                        raise self.life.crashed()
                    await self.changed.wait()
                    if failed.done():
                        raise failed.result()
        except TimeoutError:
            found = await self.do(self.daemon.convergence.read())
            states = ", ".join(f"{count} {state}" for state, count in found.ledger.states.items() if count)
            raise TimeoutError(f"After {self.patience_seconds:g} s something is still due: {states}.") from None

    async def advance(self, *, days: float = 0, hours: float = 0, minutes: float = 0, seconds: float = 0) -> None:
        """Let time pass, from one due time to the next; return once everything that fell due on the way has run.

        Whatever runs finds the time for which it was due. A handler's own time-outs and sleeps are those of the loop.
        """
        delta = timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
        target_us = self.clock.now_us() + to_us(delta.total_seconds())
        await self.settled()
        while (due_us := await self.do(self.due.next_us())) is not None and due_us <= target_us:
            await self.move_to(due_us)
        self.clock.move_to(target_us)
        await self.do(self.daemon.janitor.tick())
        await self.move_to(target_us)

    async def move_to(self, at_us: int) -> None:
        """Let it be this time, and return once what is due then has run."""
        self.clock.move_to(at_us)
        self.due.wake()
        await self.settled()

    async def do(self, work: Coroutine[Any, Any, T]) -> T:
        """Do something as part of the daemon that lives now; raises Crashed when it is dead, or dies meanwhile."""
        return await self.life.do(work)


def configuration(directory: Path, settings: Mapping[str, Any]) -> Config:
    """Return the settings of a daemon on a directory."""
    chosen = environment_of({**SETTINGS, **settings})
    config = load_config(Path(os.devnull), chosen, {"data_dir": str(directory)}).config
    return replace(config, log=replace(config.log, segment_bytes=SEGMENT_BYTES))


@contextmanager
def temporary_directory() -> Iterator[str]:
    """Make a directory and remove it at the end; in memory, where there is room, since no kill of ours needs a disk."""
    in_memory = MEMORY.is_dir() and os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > MEMORY_BYTES_MIN
    directory = tempfile.mkdtemp(prefix="replayforge-", dir=MEMORY if in_memory else None)
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)
