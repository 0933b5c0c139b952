"""Bulk replays as pages show them, and how they are made from what the engine knows."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from replayforge.domain.bulk_replay import AT_WORK, JOB_TRANSITIONS, MEMBERS_MAX, JobState, ReplayJob
from replayforge.domain.clock import format_time
from replayforge.domain.signs import STATES
from replayforge.web.pages.words import count, plural

FILTER_WORDS = {
    "event_type": "type",
    "service_name": "service",
    "workflow_id": "workflow",
    "application_name": "application",
    "error": "error",
    "since": "accepted since",
    "until": "accepted before",
    "failed_since": "failed since",
    "q": "search",
    "awaits": "waits for",
    "idempotency_key": "key",
}


@dataclass(frozen=True, slots=True)
class ReplayRow:
    """One bulk replay; `taken` of `total` members were replayed or skipped, `pace` says how it goes about it."""

    id: str
    state: str
    what: str
    reason: str
    note: str
    pace: str
    total: int
    matched: int
    taken: int
    waiting: int
    replayed: int
    skipped: int
    succeeded: int
    dead: int
    superseded: int
    open: int
    created_at: str
    updated_at: str
    verbs: frozenset[str]


def replay_row(job: ReplayJob) -> ReplayRow:
    """Return a row for a bulk replay."""
    return ReplayRow(
        id=job.id,
        state=job.state.value,
        what=selection_in_words(job.selection),
        reason=job.reason,
        note=job.note,
        pace=pace_in_words(job),
        total=job.total,
        matched=job.matched,
        taken=job.replayed + job.skipped,
        waiting=job.waiting,
        replayed=job.replayed,
        skipped=job.skipped,
        succeeded=job.succeeded,
        dead=job.dead_lettered,
        superseded=job.superseded,
        open=job.open,
        created_at=format_time(job.created_at_us),
        updated_at=format_time(job.updated_at_us),
        verbs=verbs_of(job.state),
    )


def verbs_of(state: JobState) -> frozenset[str]:
    """Return what may be done to a bulk replay in this state."""
    allowed = {
        "pause": state in AT_WORK,
        "resume": state is JobState.PAUSED,
        "cancel": JobState.CANCELLED in JOB_TRANSITIONS[state],
    }
    return frozenset(verb for verb, fits in allowed.items() if fits)


def selection_in_words(selection: Mapping[str, Any]) -> str:
    """Say which events were meant."""
    origin = f", from {selection['from']}" if "from" in selection else ""
    if "ids" in selection:
        return f"{plural(selection['ids'], 'event')} by id{origin}"
    return filter_in_words(selection.get("filter", {})) + origin


def filter_in_words(given: Mapping[str, Any]) -> str:
    """Say which events pass a filter, given with the names of the API."""
    state = STATES[given.get("status", "dead_lettered")].words
    narrowed = [f"{words} {given[name]}" for name, words in FILTER_WORDS.items() if given.get(name)]
    return ", ".join([f"all {state} events", *narrowed])


def pace_in_words(job: ReplayJob) -> str:
    """Say how a bulk replay goes about it."""
    rate = f"{count(job.rate_per_second)} a second" if job.rate_per_second else "as fast as the workers"
    canary = [f"{job.canary:,} first"] if job.canary else []
    at_most = [f"at most {job.members_max:,}"] if job.members_max < MEMBERS_MAX else []
    return ", ".join([rate, *canary, *at_most])
