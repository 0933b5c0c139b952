"""The filter of events: one builder, whoever asks."""

from dataclasses import fields
from typing import get_args

from replayforge.domain.lifecycle import TRANSITIONS, State
from replayforge.domain.reports import FILTER_NAMES, EventFilter
from replayforge.stores.lookups import FILTERS
from replayforge.web.api.events import SHORT_NAMES, Ending
from replayforge.web.api.replays import ReplayFilter


def test_a_filter_is_built_from_the_names_it_has_outside() -> None:
    """Every name counts, and what is empty means any."""
    given = {name: name for name in FILTER_NAMES} | {"status": "held"}
    whole = EventFilter.of(given, 1, 2, 3)
    texts = ("event_type", "service_name", "workflow_id", "application_name", "error")
    assert whole == EventFilter(State.HELD, *texts, 1, 2, 3, "q", "awaits", "idempotency_key")
    assert EventFilter.of(dict.fromkeys(FILTER_NAMES, "")) == EventFilter.of({}) == EventFilter()


def test_whoever_filters_knows_the_same_names() -> None:
    """Bulk replays take every name that lists take, lists some shorter ones besides, and the store has SQL for each."""
    assert ReplayFilter.__struct_fields__ == FILTER_NAMES
    assert SHORT_NAMES.keys() <= set(FILTER_NAMES)
    assert {*FILTERS, "text"} == {field.name for field in fields(EventFilter)}


def test_a_held_event_is_resolved_as_the_lifecycle_allows() -> None:
    """What may be said of a held event is where the lifecycle leads from there."""
    assert set(get_args(Ending)) == TRANSITIONS[State.HELD]
