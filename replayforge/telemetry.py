"""Report once: every telemetry event has a name in one table, and listeners decide how it sounds."""

from collections import Counter
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any

# name -> (log level, one sentence). Names are noun.verb_past; "debug" names are too frequent to be logged one by one.
TELEMETRY_EVENTS: dict[str, tuple[str, str]] = {
    "log.opened": ("info", "ForgeLog was opened and recovered"),
    "log.rolled": ("debug", "ForgeLog began a new segment"),
    "log.filled": ("warning", "ForgeLog could not write because the disk is full"),
    "log.poisoned": ("error", "a sync of ForgeLog failed, so nothing more is acknowledged until a verified restart"),
    "log.slowed": ("warning", "a sync of ForgeLog took longer than a second"),
    "log.retained": ("info", "retention removed whole segments of ForgeLog"),
    "log.skipped": ("warning", "the dispatcher passed over records that are gone"),
    "event.unreadable": ("error", "a record of the log should be an event and cannot be read as one"),
    "log.damaged": ("error", "a record of ForgeLog does not match its checksum"),
    "log.scrubbed": ("debug", "the scrubber finished a pass over ForgeLog"),
    "event.accepted": ("debug", "events were made durable in ForgeLog"),
    "event.duplicated": ("debug", "a request named an event that was already accepted"),
    "event.refused": ("debug", "a request was refused at ingest"),
    "event.dispatched": ("debug", "rows for accepted events were committed to the store"),
    "event.copied": ("info", "the log held a second record of an event that is already in the store"),
    "entry.published": ("debug", "entries were put on the stream"),
    "entry.reclaimed": ("info", "pending entries of a reader that went away were taken over"),
    "stream.key_moved_aside": ("warning", "somebody else's value had the name of a key of the stream, and was renamed"),
    "stream.wiped": ("warning", "the stream lost its entries and was made anew"),
    "stream.refilled": ("debug", "the stream was refilled from the store"),
    "event.claimed": ("debug", "workers took events under a lease"),
    "attempt.started": ("debug", "a handler was called"),
    "attempt.settled": ("debug", "the outcome of an attempt was committed"),
    "attempt.duplicated": (
        "warning",
        "a handler had succeeded when its lease was gone: the event ran elsewhere too",
    ),
    "attempt.failed": ("warning", "an attempt failed or ran out of time, and what follows from it"),
    "attempt.abandoned": ("warning", "an attempt was settled while code of its handler still runs"),
    "attempt.ended_late": ("info", "what a settled attempt had left running has ended"),
    "interpreter.restored": ("warning", "something that all handlers share had been changed by one, and was put back"),
    "attempt.fenced": ("warning", "a result came after its lease was lost, and was dropped"),
    "attempt.unsettled": ("error", "the store could not take an outcome, so the event will run again"),
    "attempt.reclaimed": ("warning", "an event whose worker or process died was taken back"),
    "suspect.released": ("info", "events whose control is over are no longer set aside and run alone again"),
    "event.dead_lettered": ("warning", "an event ended in the dead-letter queue"),
    "event.recalled": ("debug", "events that had waited for their handler were claimed"),
    "handler.paused": ("info", "a handler is given no events until somebody resumes it"),
    "handler.resumed": ("info", "a handler is given events again"),
    "breaker.opened": ("warning", "an endpoint failed again and again and is left alone for a while"),
    "breaker.closed": ("info", "an endpoint answers again"),
    "event.promoted": ("debug", "events whose time has come were queued"),
    "event.replayed": ("info", "events were queued again for a new run"),
    "replay.created": ("info", "a bulk replay was made and its membership frozen"),
    "replay.advanced": ("debug", "a bulk replay queued its next events again"),
    "replay.followed": ("debug", "events that a bulk replay had queued came to their ends"),
    "replay.moved": ("info", "a bulk replay was started, paused, resumed, cancelled or came to its end"),
    "event.discarded": ("info", "a dead letter was discarded"),
    "event.cancelled": ("info", "an event was cancelled"),
    "event.retired": ("info", "retention removed finished events from the store"),
    "metrics.written": ("debug", "what was counted lately was written to the metrics history"),
    "service.started": ("debug", "a service began to run"),
    "service.crashed": ("error", "a service ended with an error and will be restarted"),
    "service.restarted": ("info", "a service runs again after a crash"),
    "service.gave_up": ("error", "a service crashed too often, so the daemon ends"),
    "worker.crashed": ("warning", "a worker coroutine died and was replaced"),
    "lease.renewed": ("debug", "leases of running events were extended"),
    "lease.lost": ("warning", "leases were lost or could not be renewed, so their attempts were cut short"),
    "store.adopted": ("warning", "the operator had the daemon start although log, store and node do not fit together"),
    "store.held": ("warning", "a foreign transaction has been open for long and keeps the database from cleaning up"),
    "store.failed": ("warning", "the store did not answer"),
    "store.recovered": ("info", "the store answers again"),
    "stream.failed": ("warning", "the stream did not answer"),
    "stream.recovered": ("info", "the stream answers again"),
    "daemon.started": ("info", "the daemon accepts events"),
    "daemon.draining": ("info", "the daemon stops: no new events, running handlers may finish"),
    "signal.ignored": ("info", "a signal came that ends other programs, and the daemon went on"),
    "daemon.stopped": ("info", "the daemon has stopped"),
    "callback.exited": ("error", "user code tried to end the loop from outside of its attempt; the daemon goes on"),
    "loop.blocked": ("warning", "something holds the event loop, so nothing else can run: here is who, and where"),
    "loop.turned": ("info", "the event loop turns again after something had held it"),
    "output.dropped": ("warning", "lines of this log were dropped because nothing could be written, or nobody read it"),
    "task.failed": ("error", "a task or callback that nobody waits for ended with an error"),
    "thread.failed": ("error", "a thread that nobody waits for ended with an error"),
    "destructor.failed": ("error", "an object raised an error while it was being destroyed"),
    "process.failed": ("error", "the process ends with an error that nobody caught"),
    "chore.failed": ("error", "a chore of the janitor ended with an unexpected error and will be tried again"),
    "clock.jumped": ("warning", "the wall clock was set; while it differs from that of the start, age removes nothing"),
    "crash.simulated": ("warning", "a simulated crash was carried out"),
    "connection.refused": ("debug", "a connection was closed on: no HTTP, too long, too slow, or one too many"),
    "request.failed": ("error", "a request ended in an unexpected error"),
}

Listener = Callable[[str, int, dict[str, Any]], None]

# event_id, event_type, run and attempt while a handler's code runs, in its task and in its threads; else None.
attempt_context: ContextVar[Mapping[str, Any] | None] = ContextVar("attempt_context", default=None)


class Telemetry:
    """Hands each telemetry event to the counters and to every listener, in the caller's thread.

    Listeners must be quick and must not raise. `counts` holds how often each name happened.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.listeners: list[Listener] = []

    def emit(self, name: str, count: int = 1, **fields: Any) -> None:
        """Report that `name` happened `count` times; raises KeyError for a name outside the table."""
        if name not in TELEMETRY_EVENTS:
            raise KeyError(f"the catalog has no telemetry event called {name!r}")
        self.counts[name] += count
        for listener in self.listeners:
            listener(name, count, fields)
