"""Samples from recorded history: the latest event of each type that succeeded, read from a snapshot of the store."""

import asyncio
from collections.abc import Collection
from typing import Any

import msgspec

from replayforge.config import Config
from replayforge.domain.event import Content, StoredEvent
from replayforge.domain.lifecycle import State
from replayforge.domain.reports import EventFilter
from replayforge.prove.samples import SampleEvent, sample_of
from replayforge.stores.driver import Steps
from replayforge.stores.lookups import contents_of, list_rows
from replayforge.stores.snapshot import read_snapshot

PAGE_EVENTS = 500
PAGES_MAX = 200


def samples_of_history(config: Config, known: Collection[str]) -> list[SampleEvent]:
    """Return the latest event of each type that succeeded, but for known types; nothing is changed or locked."""
    latest = asyncio.run(read_snapshot(config.store.url, lambda: latest_of_types(known)))
    return [sample_of(f"event {event.id}", body_of(event, content)) for event, content in latest]


def latest_of_types(known: Collection[str]) -> Steps[list[tuple[StoredEvent, Content]]]:
    """Fetch the newest event of each type among the newest ones."""
    found: dict[str, StoredEvent] = {}
    wanted, before_seq = EventFilter(state=State.SUCCEEDED), None
    for _ in range(PAGES_MAX):
        page = yield from list_rows(wanted, before_seq, PAGE_EVENTS)
        for event in page:
            if event.subscriber is None and event.event_type not in known:
                found.setdefault(event.event_type, event)
        if len(page) < PAGE_EVENTS:
            break
        before_seq = page[-1].seq
    if not found:
        return []
    contents = yield from contents_of(list(found.values()))
    return [(event, contents[event.seq]) for event in found.values()]


def body_of(event: StoredEvent, content: Content) -> dict[str, Any]:
    """Return an event as it was sent."""
    body = {
        "application_name": event.application_name,
        "workflow_id": event.workflow_id,
        "event_type": event.event_type,
        "service_name": event.service_name,
        "payload": msgspec.Raw(content.payload),
        "metadata": msgspec.Raw(content.metadata),
        "idempotency_key": event.idempotency_key,
    }
    return {name: value for name, value in body.items() if value is not None and value != ""}
