"""Bulk replays over HTTP: look what one would take, make one, watch it, pause, resume and cancel it."""

from typing import Annotated, Any

import msgspec
from aiohttp import web

from replayforge.domain.bulk_replay import (
    CANARY_MAX,
    IDS_MAX,
    MEMBERS_MAX,
    JobState,
    Miscounted,
    Preview,
    ReplayJob,
    ReplayOrder,
    Skip,
)
from replayforge.domain.clock import format_time, parse_time
from replayforge.domain.document import Unacceptable
from replayforge.domain.lifecycle import State
from replayforge.domain.reports import EventFilter
from replayforge.engine.replay.jobs import Chosen
from replayforge.web.api.events import StepName
from replayforge.web.api.shapes import Time, json_response
from replayforge.web.http import problems
from replayforge.web.http.context import context_of
from replayforge.web.http.reading import REASON_CHARACTERS_MAX, header_key, page, query_cursor, query_limit, read_object

RATE_MAX = 100_000

Count = Annotated[int, msgspec.Meta(ge=0)]


class ReplayFilter(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """Which events are meant, as in GET /api/events; without a status dead letters are."""

    status: State = State.DEAD_LETTERED
    event_type: str | None = None
    service_name: str | None = None
    workflow_id: str | None = None
    application_name: str | None = None
    error: str | None = None
    since: Time | None = None
    until: Time | None = None
    failed_since: Time | None = None
    q: str | None = None
    awaits: str | None = None
    idempotency_key: str | None = None


class BulkReplayRequest(msgspec.Struct, forbid_unknown_fields=True):
    """What may be said with a bulk replay: which events, how many are expected, how fast, how carefully, and why.

    `canary` are replayed first; the others follow only when none of these becomes a dead letter again. `from` is that
    of each replay: `failure`, `start`, or the name of a step (`step:NAME` where it is called so).
    """

    ids: Annotated[list[str], msgspec.Meta(min_length=1, max_length=IDS_MAX)] | None = None
    filter: ReplayFilter | None = None
    expected_count: Count | None = None
    rate_per_second: Annotated[float, msgspec.Meta(gt=0, le=RATE_MAX)] | None = None
    members_max: Annotated[int, msgspec.Meta(ge=1, le=MEMBERS_MAX)] = msgspec.field(default=MEMBERS_MAX, name="max")
    canary: Annotated[int, msgspec.Meta(ge=0, le=CANARY_MAX)] = 0
    reason: Annotated[str, msgspec.Meta(max_length=REASON_CHARACTERS_MAX)] = ""
    force: bool = False
    begins_from: StepName | None = msgspec.field(default=None, name="from")
    dry_run: bool = False


class ReplayShape(msgspec.Struct):
    """A bulk replay as the API shows it.

    matched events fitted, total of them are members; total = waiting + replayed + skipped, and replayed = succeeded +
    dead_lettered + superseded + open. `note` says in words why it stands where it stands.
    """

    id: str
    status: JobState
    note: str
    reason: str
    selection: dict[str, Any]
    max: int
    canary: int
    rate_per_second: float | None
    matched: int
    total: int
    waiting: int
    replayed: int
    skipped: int
    succeeded: int
    dead_lettered: int
    superseded: int
    open: int
    created_at: Time
    updated_at: Time


async def create_replay(request: web.Request) -> web.Response:
    """Make a bulk replay, its membership frozen now; with dry_run only say what it would take."""
    asked = await read_object(request, BulkReplayRequest)
    jobs, chosen = context_of(request).replay_jobs, chosen_events(asked)
    try:
        if asked.dry_run:
            return json_response(preview_shape(asked, await jobs.preview(chosen, asked.begins_from)))
        job, is_new = await jobs.create(chosen, order_of(asked, header_key(request)))
    except Miscounted as error:
        return problems.respond(request, error, expected_count=error.expected, count=error.found)
    location = f"{context_of(request).base_path}/api/replays/{job.id}"
    answer = msgspec.to_builtins(replay_shape(job)) | {"duplicate": not is_new}
    return json_response(answer, status=202 if is_new else 200, headers={"Location": location})


def chosen_events(asked: BulkReplayRequest) -> Chosen:
    """Return which events a request means; raises Unacceptable when it does not say, or says it twice."""
    if (asked.ids is None) == (asked.filter is None):
        raise Unacceptable(
            'Say which events: either "ids", or a "filter", of which {} means every dead letter.', "/ids"
        )
    if asked.filter is None:
        return Chosen(ids=tuple(dict.fromkeys(asked.ids or ())), force=asked.force)
    return Chosen(wanted=event_filter(asked.filter), force=asked.force)


def event_filter(given: ReplayFilter) -> EventFilter:
    """Return what the store is asked for."""
    since_us, until_us = moment(given.since, "/filter/since"), moment(given.until, "/filter/until")
    failed_since_us = moment(given.failed_since, "/filter/failed_since")
    return EventFilter.of(msgspec.structs.asdict(given), since_us, until_us, failed_since_us)


def moment(text: str | None, pointer: str) -> int | None:
    """Read a time of a filter; raises Unacceptable."""
    try:
        return parse_time(text) if text else None
    except ValueError:
        raise Unacceptable(f"{text!r} is not an RFC 3339 time such as 2026-11-22T10:00:00Z.", pointer) from None


def order_of(asked: BulkReplayRequest, key: str | None) -> ReplayOrder:
    """Return how the chosen events are to be replayed."""
    chosen = {"ids": len(asked.ids)} if asked.ids is not None else {"filter": msgspec.to_builtins(asked.filter)}
    return ReplayOrder(
        reason=asked.reason,
        selection=chosen
        | ({"force": True} if asked.force else {})
        | ({} if asked.begins_from is None else {"from": asked.begins_from}),
        members_max=asked.members_max,
        canary=asked.canary,
        rate_per_second=asked.rate_per_second,
        expected_count=asked.expected_count,
        request_key=key,
    )


def preview_shape(asked: BulkReplayRequest, preview: Preview) -> dict[str, Any]:
    """Show what a bulk replay would take; raises Miscounted as the real one would."""
    if asked.expected_count is not None and asked.expected_count != preview.matched:
        raise Miscounted(asked.expected_count, preview.matched)
    return {
        "dry_run": True,
        "count": preview.matched,
        "more": preview.more,
        "max": asked.members_max,
        "would_replay": min(preview.matched, asked.members_max),
        "sample": preview.sample,
        "groups": [{"group": name, "count": count} for name, count in preview.groups],
        "groups_capped": preview.groups_capped,
        "effects_again": preview.effects,
    }


async def list_replays(request: web.Request) -> web.Response:
    """Answer with a page of bulk replays, newest first."""
    limit = query_limit(request)
    found = await context_of(request).replay_jobs.list(query_cursor(request), limit + 1)
    return json_response(page([replay_shape(job) for job in found], [job.seq for job in found], limit))


async def show_replay(request: web.Request) -> web.Response:
    """Answer with a bulk replay, how far it has come, and why members of it were left alone."""
    job, skips = await context_of(request).replay_jobs.find(request.match_info["id"])
    return json_response(msgspec.to_builtins(replay_shape(job)) | {"skips": [skip_shape(skip) for skip in skips]})


async def pause_replay(request: web.Request) -> web.Response:
    """Let a bulk replay rest where it is."""
    return json_response(replay_shape(await context_of(request).replay_jobs.pause(request.match_info["id"])))


async def resume_replay(request: web.Request) -> web.Response:
    """Let a paused bulk replay go on."""
    return json_response(replay_shape(await context_of(request).replay_jobs.resume(request.match_info["id"])))


async def cancel_replay(request: web.Request) -> web.Response:
    """End a bulk replay for good; what it has replayed runs on."""
    return json_response(replay_shape(await context_of(request).replay_jobs.cancel(request.match_info["id"])))


def replay_shape(job: ReplayJob) -> ReplayShape:
    """Show a bulk replay."""
    return ReplayShape(
        id=job.id,
        status=job.state,
        note=job.note,
        reason=job.reason,
        selection=job.selection,
        max=job.members_max,
        canary=job.canary,
        rate_per_second=job.rate_per_second,
        matched=job.matched,
        total=job.total,
        waiting=job.waiting,
        replayed=job.replayed,
        skipped=job.skipped,
        succeeded=job.succeeded,
        dead_lettered=job.dead_lettered,
        superseded=job.superseded,
        open=job.open,
        created_at=format_time(job.created_at_us),
        updated_at=format_time(job.updated_at_us),
    )


def skip_shape(skip: Skip) -> dict[str, Any]:
    """Show why members were left alone."""
    return {"reason": skip.reason, "count": skip.count, "sample": skip.sample}
