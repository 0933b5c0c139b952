"""Report once: every telemetry event has a name in one catalog, and listeners decide how it sounds."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

from replayforge.domain.lifecycle import ATTEMPT_SPENDING, Reason


class Kind(NamedTuple):
    """What is known beforehand of a telemetry event: how loud it is and what happened.

    `metric` stands for `replayforge_…_total`, the counter of those that somebody watches or is woken by; `label` is
    the field that tells its series apart, whose values are few, and `values` are those shown before they happen.
    """

    level: str
    sentence: str
    metric: str | None = None
    label: str | None = None
    values: tuple[str, ...] = ()


# Names are noun.verb_past; "debug" ones are too frequent to be logged one by one.
CATALOG: dict[str, Kind] = {
    "log.opened": Kind("info", "ForgeLog was opened and recovered"),
    "log.rolled": Kind("debug", "ForgeLog began a new segment"),
    "log.filled": Kind("warning", "ForgeLog could not write because the disk is full", "log_full"),
    "log.poisoned": Kind(
        "error",
        "a sync of ForgeLog failed, so nothing more is acknowledged until a verified restart",
        "log_syncs_failed",
    ),
    "log.slowed": Kind("warning", "a sync of ForgeLog took longer than a second", "log_syncs_slow"),
    "log.retained": Kind("info", "retention removed whole segments of ForgeLog"),
    "log.skipped": Kind("warning", "the dispatcher passed over records that are gone", "log_records_skipped"),
    "event.unreadable": Kind(
        "error", "a record of the log should be an event and cannot be read as one", "events_unreadable"
    ),
    "log.damaged": Kind("error", "a record of ForgeLog does not match its checksum", "log_records_damaged"),
    "log.scrubbed": Kind("debug", "the scrubber finished a pass over ForgeLog"),
    "event.accepted": Kind("debug", "events were made durable in ForgeLog", "events_accepted"),
    "event.duplicated": Kind("debug", "a request named an event that was already accepted", "events_duplicated"),
    "delivery.refused": Kind("debug", "a delivery of a source was not accepted", "deliveries_refused", "source"),
    "delivery.kept": Kind("warning", "a delivery of a source was refused, and is kept to be looked at again"),
    "delivery.differed": Kind(
        "info",
        "a source has sent other content under the id of an earlier delivery, which stands",
        "deliveries_differing",
        "source",
    ),
    "delivery.verified": Kind("info", "refused deliveries of a source were verified again"),
    "source.paused": Kind("info", "a source is answered 503 until somebody resumes it"),
    "source.resumed": Kind("info", "a source may send again"),
    "schedule.fired": Kind("info", "a schedule has made its event", "schedule_events"),
    "schedule.missed": Kind("warning", "slots of a schedule were missed and get no event", "schedule_slots_missed"),
    "schedule.moved_back": Kind("warning", "the place of a schedule lay beyond now and was moved back"),
    "schedule.paused": Kind("info", "a schedule makes no events until somebody resumes it"),
    "schedule.resumed": Kind("info", "a schedule makes events again"),
    "alert.began": Kind("warning", "an alert has begun, and its receiver will be told", "alerts_begun", "alert"),
    "alert.ended": Kind("info", "an alert has ended, and its receiver will be told"),
    "alert.undelivered": Kind(
        "warning", "the receiver of an alert could not be told, and will be tried again", "alerts_undelivered", "alert"
    ),
    "event.dispatched": Kind("debug", "rows for accepted events were committed to the store", "events_dispatched"),
    "event.copied": Kind(
        "info", "the log held a second record of an event that is already in the store", "events_copied"
    ),
    "entry.published": Kind("debug", "entries were put on the stream", "entries_published"),
    "entry.reclaimed": Kind("info", "pending entries of a reader that went away were taken over", "entries_reclaimed"),
    "stream.key_moved_aside": Kind(
        "warning", "somebody else's value had the name of a key of the stream, and was renamed"
    ),
    "stream.wiped": Kind("warning", "the stream lost its entries and was made anew", "stream_wipes"),
    "stream.refilled": Kind("debug", "the stream was refilled from the store"),
    "event.claimed": Kind("debug", "workers took events under a lease", "events_claimed"),
    "attempt.started": Kind("debug", "a handler was called", "attempts_started"),
    "attempt.settled": Kind("debug", "the outcome of an attempt was committed", "attempts_settled"),
    "attempt.duplicated": Kind(
        "warning", "a handler had succeeded when its lease was gone: the event ran elsewhere too", "attempts_duplicated"
    ),
    "attempt.failed": Kind(
        "warning",
        "an attempt failed or ran out of time, and what follows from it",
        "attempts_failed",
        "outcome",
        tuple(sorted(ATTEMPT_SPENDING)),
    ),
    "attempt.abandoned": Kind(
        "warning", "an attempt was settled while code of its handler still runs", "attempts_abandoned"
    ),
    "attempt.ended_late": Kind("info", "what a settled attempt had left running has ended"),
    "interpreter.restored": Kind(
        "warning", "something that all handlers share had been changed by one, and was put back", "interpreter_restored"
    ),
    "attempt.fenced": Kind("warning", "a result came after its lease was lost, and was dropped", "attempts_fenced"),
    "attempt.unsettled": Kind(
        "error", "the store could not take an outcome, so the event will run again", "attempts_unsettled"
    ),
    "event.parked": Kind("debug", "events were parked by their handlers until something comes true", "events_parked"),
    "journal.half_full": Kind(
        "warning",
        "a journal holds more than half of what it may: full, its run ends",
        "journals_half_full",
    ),
    "park.work_cut": Kind(
        "warning", "a handler was parked while it worked outside of its steps, so that work begins anew at the wake"
    ),
    "park.result_dropped": Kind(
        "warning", "a handler returned or raised something while it was being parked, which was dropped"
    ),
    "step.recorded": Kind(
        "debug",
        "steps of handlers were committed to their journals by attempts",
        "steps",
        "outcome",
        ("done", "failed"),
    ),
    "attempt.reclaimed": Kind("warning", "an event whose worker or process died was taken back", "attempts_reclaimed"),
    "suspect.released": Kind("info", "events whose control is over are no longer set aside and run alone again"),
    "event.dead_lettered": Kind(
        "warning", "an event ended in the dead-letter queue", "events_dead_lettered", "reason", tuple(Reason)
    ),
    "event.recalled": Kind("debug", "events that had waited for their handler were claimed"),
    "event.released": Kind("debug", "events may run whose turn came in their lanes"),
    "lanes.sorted": Kind("info", "lanes are configured otherwise than at the last start: open events were sorted"),
    "handler.paused": Kind("info", "a handler is given no events until somebody resumes it"),
    "handler.resumed": Kind("info", "a handler is given events again"),
    "breaker.opened": Kind(
        "warning", "an endpoint failed again and again and is left alone for a while", "breakers_opened", "handler"
    ),
    "breaker.closed": Kind("info", "an endpoint answers again"),
    "event.promoted": Kind("debug", "events whose time has come were queued"),
    "event.replayed": Kind("info", "events were queued again for a new run", "events_replayed"),
    "replay.created": Kind("info", "a bulk replay was made and its membership frozen"),
    "replay.advanced": Kind("debug", "a bulk replay queued its next events again", "events_replayed_in_bulk"),
    "replay.followed": Kind("debug", "events that a bulk replay had queued came to their ends"),
    "replay.moved": Kind("info", "a bulk replay was started, paused, resumed, cancelled or came to its end"),
    "event.discarded": Kind("info", "a dead letter was discarded", "events_discarded"),
    "event.cancelled": Kind("info", "an event was cancelled", "events_cancelled"),
    "event.cancel_requested": Kind("info", "an event that is running was asked to end"),
    "event.repaired": Kind("error", "events had missed what they waited for, and go on", "repaired"),
    "event.retired": Kind("info", "retention removed finished events from the store", "events_retired"),
    "metrics.written": Kind("debug", "what was counted lately was written to the metrics history"),
    "service.started": Kind("debug", "a service began to run"),
    "service.crashed": Kind(
        "error", "a service ended with an error and will be restarted", "services_crashed", "service"
    ),
    "service.restarted": Kind("info", "a service runs again after a crash"),
    "service.gave_up": Kind("error", "a service crashed too often, so the daemon ends"),
    "worker.crashed": Kind("warning", "a worker coroutine died and was replaced", "workers_crashed"),
    "lease.renewed": Kind("debug", "leases of running events were extended", "leases_renewed"),
    "lease.lost": Kind(
        "warning", "leases were lost or could not be renewed, so their attempts were cut short", "leases_lost"
    ),
    "store.adopted": Kind(
        "warning", "the operator had the daemon start although log, store and node do not fit together"
    ),
    "store.held": Kind(
        "warning", "a foreign transaction has been open for long and keeps the database from cleaning up"
    ),
    "store.unlocked": Kind("warning", "daemons that stand still held rows locked, and hold them no more"),
    "store.failed": Kind("warning", "the store did not answer", "store_failures"),
    "store.recovered": Kind("info", "the store answers again"),
    "stream.failed": Kind("warning", "the stream did not answer", "stream_failures"),
    "stream.recovered": Kind("info", "the stream answers again"),
    "tracing.missing": Kind(
        "warning", "traces are to be sent, and what sends them is not installed: pip install 'replayforge[otel]'"
    ),
    "code.changed": Kind("info", "files of handlers have changed, and the daemon begins anew with them"),
    "code.refused": Kind("warning", "files of handlers have changed and do not load, so the daemon goes on without"),
    "daemon.started": Kind("info", "the daemon accepts events"),
    "daemon.draining": Kind("info", "the daemon stops: nothing more is claimed, running handlers may finish"),
    "config.reread": Kind("info", "settings were read again after SIGHUP, and what may change now was taken over"),
    "config.refused": Kind("error", "settings read again after SIGHUP are wrong, and all stays as it was"),
    "signal.ignored": Kind("info", "a signal came that ends other programs, and the daemon went on"),
    "daemon.stopped": Kind("info", "the daemon has stopped"),
    "callback.exited": Kind(
        "error", "user code tried to end the loop from outside of its attempt; the daemon goes on", "callbacks_exited"
    ),
    "loop.blocked": Kind("warning", "something holds the event loop, so nothing else can run: here is who, and where"),
    "loop.turned": Kind("info", "the event loop turns again after something had held it"),
    "output.dropped": Kind(
        "warning", "lines of this log were dropped because nothing could be written, or nobody read it"
    ),
    "task.failed": Kind("error", "a task or callback that nobody waits for ended with an error", "tasks_failed"),
    "thread.failed": Kind("error", "a thread that nobody waits for ended with an error", "threads_failed"),
    "destructor.failed": Kind("error", "an object raised an error while it was being destroyed"),
    "process.failed": Kind("error", "the process ends with an error that nobody caught"),
    "chore.failed": Kind(
        "error",
        "a chore of the janitor ended with an unexpected error and will be tried again",
        "chores_failed",
        "chore",
    ),
    "clock.jumped": Kind(
        "warning", "the wall clock was set; while it differs from that of the start, age removes nothing", "clock_jumps"
    ),
    "deploy.checked": Kind("info", "open runs were held against the code, which goes on with all of them"),
    "deploy.broke": Kind("warning", "open runs were held against the code, which does not go on with all of them"),
    "deploy.held": Kind("warning", "open runs are held, since the code would not go on with them", "deploy_runs_held"),
    "deploy.released": Kind(
        "info", "runs that were held go on, since the code continues them again", "deploy_runs_released"
    ),
    "action.taken": Kind("info", "somebody did something with an API key, by a request or on the pages"),
    "crash.simulated": Kind("warning", "a simulated crash was carried out"),
    "connection.refused": Kind(
        "debug", "a connection was closed on: no HTTP, too long, too slow, or one too many", "connections_refused"
    ),
    "request.failed": Kind("error", "a request ended in an unexpected error", "requests_failed"),
}

# What is worth a line of its own.
LOUD = frozenset(name for name, kind in CATALOG.items() if kind.level != "debug")

Listener = Callable[[str, int, dict[str, Any]], None]

# event_id, event_type, run and attempt while a handler's code runs, in its task and in its threads; else None.
attempt_context: ContextVar[Mapping[str, Any] | None] = ContextVar("attempt_context", default=None)


class Telemetry:
    """Hands each telemetry event to the counters and to those who listen to its name, in the caller's thread.

    Listeners must be quick and must not raise. `counts` holds how often each name happened, and `counts_by_label` how
    often with each value of its label, for those that have one.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.counts_by_label: Counter[tuple[str, str]] = Counter()
        self.listeners: dict[str, list[Listener]] = {name: [] for name in CATALOG}

    def listen(self, listener: Listener, names: Iterable[str] = CATALOG) -> None:
        """Have a listener told of what has these names from now on; of everything, unless it says of what."""
        for name in names:
            self.listeners[name].append(listener)

    def listen_only(self, listener: Listener, names: Iterable[str]) -> None:
        """Have a listener told of what has these names, and no more of what else it has listened to; in any thread."""
        wanted = frozenset(names)
        for name, listeners in self.listeners.items():
            others = [one for one in listeners if one != listener]
            self.listeners[name] = [*others, listener] if name in wanted else others

    def emit(self, name: str, count: int = 1, **fields: Any) -> None:
        """Report that `name` happened `count` times; raises KeyError for a name outside the catalog."""
        if (kind := CATALOG.get(name)) is None:
            raise KeyError(f"the catalog has no telemetry event called {name!r}")
        self.counts[name] += count
        if kind.label is not None:
            self.counts_by_label[name, fields[kind.label]] += count
        for listener in self.listeners[name]:
            listener(name, count, fields)

    @contextmanager
    def heard_by(self, listener: Listener, names: Iterable[str]) -> Iterator[None]:
        """Let a listener hear what has these names and is reported meanwhile."""
        self.listen(listener, names)
        try:
            yield
        finally:
            for name in names:
                self.listeners[name].remove(listener)
