"""What is known of one event beside its history: where it lies, whose it is, how it stands."""

from collections.abc import Mapping
from typing import Any

import msgspec

from replayforge.domain.clock import MICROSECONDS_PER_SECOND
from replayforge.domain.event import ON, StoredEvent
from replayforge.domain.poison import Isolation
from replayforge.domain.schedule import schedule_of
from replayforge.domain.trace import trace_id
from replayforge.engine.accept.intake import Receipt
from replayforge.engine.report.event_queries import History
from replayforge.stores.suspicions import Suspect
from replayforge.web.pages.documents import Reading, hidden
from replayforge.web.pages.rows import Fact
from replayforge.web.pages.words import count, duration, link, plural, workflow_path

NEXT_RUN = {
    Isolation.RUNS_ALONE: "alone, while everything else waits for it a little",
    Isolation.SET_ASIDE: "alone, once the daemon has lived for a while without it",
}


def receipt_facts(receipt: Receipt) -> list[Fact]:
    """Return the facts of an event that is only in the log yet."""
    record = receipt.record
    return [
        Fact("Event", record.id),
        *origin(record.workflow_id, record.service_name, record.application_name, record.idempotency_key),
        *traced(record.trace),
        Fact("Log offset", f"offset {count(receipt.log_offset)}", "its place in ForgeLog"),
    ]


def history_facts(found: History, reading: Reading) -> list[Fact]:
    """Return the facts of an event that has a row."""
    event = found.event
    return [
        Fact("Event", event.id),
        *subscriptions(event),
        *origin(event.workflow_id, event.service_name, event.application_name, event.idempotency_key),
        *made_by(event),
        *traced(event.trace),
        Fact("Log offset", f"offset {count(event.log_offset)}", f"its place in ForgeLog {event.log_id}"),
        Fact("Run", f"{event.run}", "one more for each replay"),
        Fact("Starts", plural(event.starts, "time"), "how often a worker was given this event"),
        *ending(event, reading),
        *suspicion(found.suspect),
    ]


def told_facts(details: Mapping[str, Any]) -> list[Fact]:
    """Return what a handler says of itself."""
    return [Fact(name, value if isinstance(value, str) else one_line_json(value)) for name, value in details.items()]


def one_line_json(value: Any) -> str:
    """Return a value as JSON."""
    return msgspec.json.encode(value).decode()


def origin(workflow_id: str, service_name: str, application_name: str, key: str | None) -> list[Fact]:
    """Return whose event it is."""
    return [
        Fact("Workflow", workflow_id, "", workflow_path(workflow_id)),
        Fact("Service", service_name or "–", "", link("/events", {"service": service_name}) if service_name else ""),
        Fact("Application", application_name),
        Fact("Idempotency key", key or "–", "the same key always names the same event"),
    ]


def traced(trace: str | None) -> list[Fact]:
    """Return to which trace it belongs, if it came with one."""
    found = trace_id(trace)
    return [] if found is None else [Fact("Trace", found, "the W3C trace that it came with")]


def subscriptions(event: StoredEvent) -> list[Fact]:
    """Return for whom of several an event is, or to whom it goes."""
    if event.subscriber is not None:
        whom = "the handler of the type" if event.subscriber == ON else event.subscriber
        return [Fact("Subscriber", whom, "the others of its parent have events of their own")]
    names = ", ".join(event.subscriber_names)
    return [Fact("Subscribers", names, "each has an event of its own, made by a step of its name")] if names else []


def made_by(event: StoredEvent) -> list[Fact]:
    """Return which schedule has made it, if one has."""
    name = schedule_of(event.origin)
    return [] if name is None else [Fact("Schedule", name, "which has made this event", "/schedules")]


def ending(event: StoredEvent, reading: Reading) -> list[Fact]:
    """Return how the event stands."""
    took = duration((event.updated_at_us - event.created_at_us) / MICROSECONDS_PER_SECOND)
    facts = [Fact("From first to last", took, "from its acceptance to its last change")]
    if event.waits_for is not None:
        facts.append(Fact("Waits for", event.waits_for or "no handler", "its handler takes none now", "/handlers"))
    if event.crashes:
        facts.append(Fact("Crashes charged", count(event.crashes), "after three it is buried as poison"))
    if event.reason:
        facts.append(Fact("Reason", event.reason.replace("_", " ")))
    if event.error_signature:
        group = hidden(event.error_signature, reading)
        to = link("/events", {"error": group}) if group == event.error_signature else ""  # it would show what is hidden
        facts.append(Fact("Error group", group, "", to))
    return facts


def suspicion(suspect: Suspect | None) -> list[Fact]:
    """Return what deaths of the process say of the event."""
    if suspect is None or not suspect.known.deaths:
        return []
    facts = [Fact("In flight at a crash", plural(suspect.known.deaths, "time"), "of the whole process")]
    if suspect.known.alone:
        times = ", ".join("?" if one is None else f"{one:.1f} s" for one in suspect.known.alone)
        facts.append(Fact("Alone at a crash", f"after {times}", "three in a row that agree make it poison"))
    if suspect.isolation is not Isolation.FREE:
        facts.append(Fact("Runs next", NEXT_RUN[suspect.isolation]))
    return facts
