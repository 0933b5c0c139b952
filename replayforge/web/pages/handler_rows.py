"""Handlers as the page shows them, and how they are made from what the API tells."""

from dataclasses import dataclass

from replayforge.domain.admission import EVERYTHING
from replayforge.domain.lifecycle import State
from replayforge.domain.reports import Group
from replayforge.web.api.handlers import HandlerShape
from replayforge.web.pages.words import count, duration, link, plural


@dataclass(frozen=True, slots=True)
class HandlerRow:
    """One handler. `paused_at` is empty unless it is paused, `why` says of a pause or a breaker what there is to know.

    `verb` is what may be done to it alone, or nothing while everything is paused.
    """

    pattern: str
    name: str
    is_endpoint: bool
    state: str
    why: str
    paused_at: str
    running: str
    deferred: int
    deferred_link: str
    succeeded: str
    attempts: str
    rules: str
    verb: str


@dataclass(frozen=True, slots=True)
class OrphanRow:
    """An event type whose events found no handler, and where to look at them or replay them."""

    event_type: str
    count: int
    capped: bool
    has_handler: bool
    link: str


def handler_row(shape: HandlerShape) -> HandlerRow:
    """Return a row for a handler."""
    pause, attempts = shape.paused, shape.successes + shape.failures
    return HandlerRow(
        pattern=shape.pattern,
        name=shape.name,
        is_endpoint=shape.kind == "http",
        state=shape.status,
        why=why(shape),
        paused_at=pause.since if pause else "",
        running=count(shape.running) + (f" of {count(shape.concurrency_max)}" if shape.concurrency_max else ""),
        deferred=shape.waiting,
        deferred_link=link("/events", {"status": State.QUEUED, "type": shape.event_types}),
        succeeded=f"{100 * shape.successes / attempts:.4g} %" if attempts else "–",
        attempts=f"{count(shape.successes)} succeeded, {count(shape.failures)} failed",
        rules=rules_in_words(shape),
        verb=verb_of(shape),
    )


def why(shape: HandlerShape) -> str:
    """Say why a handler is given no events."""
    if shape.paused is not None:
        everything = "everything, " if shape.paused.pattern == EVERYTHING else ""
        return f"{everything}by {shape.paused.by}: {shape.paused.reason}"
    if shape.breaker == "open":
        return f"its breaker is open; one event is tried in {duration(shape.breaker_seconds)}"
    if shape.breaker == "half_open":
        return "its breaker lets one event through, which decides"
    return ""


def rules_in_words(shape: HandlerShape) -> str:
    """Say under which rules a handler runs."""
    rules = shape.rules
    parts = [plural(rules["max_attempts"], "attempt"), duration(rules["timeout_seconds"])]
    return ", ".join([*parts, "held after a crash"] if rules["on_crash"] == "hold" else parts)


def verb_of(shape: HandlerShape) -> str:
    """Return what may be done to a handler alone; one for everything is paused with everything."""
    if shape.pattern == EVERYTHING:
        return ""
    if shape.paused is None:
        return "pause"
    return "resume" if shape.paused.pattern == shape.pattern else ""


def orphan_row(group: Group, *, has_handler: bool) -> OrphanRow:
    """Return a row for the dead letters of a type that found no handler."""
    query = {"status": State.DEAD_LETTERED, "type": group.name}
    path = "/replays/new" if has_handler else "/events"
    return OrphanRow(group.name, group.count, group.capped, has_handler, link(path, query))
