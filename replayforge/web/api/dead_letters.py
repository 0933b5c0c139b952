"""Dead letters: the list, the groups, replay and discard."""

from typing import Any

import msgspec
from aiohttp import web

from replayforge.domain.clock import format_time
from replayforge.domain.event import StoredEvent
from replayforge.domain.lifecycle import State
from replayforge.domain.reports import EventFilter
from replayforge.web.api import shapes
from replayforge.web.api.events import ReasonRequest, StepName, replayed
from replayforge.web.api.shapes import NeededWords, json_response
from replayforge.web.http.context import context_of
from replayforge.web.http.reading import (
    bad_query,
    cut_page,
    header_key,
    query_cursor,
    query_limit,
    query_time,
    read_object,
)


class DeadLetterReplayRequest(ReasonRequest, forbid_unknown_fields=True):
    """What may be said with a replay of a dead letter; `from` as in the replay of an event."""

    begins_from: StepName | None = msgspec.field(default=None, name="from")


class DiscardRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Why a dead letter is set aside, so that the next person knows."""

    reason: NeededWords


GROUPINGS = ("error", "type", "service", "reason")


async def list_dead_letters(request: web.Request) -> web.Response:
    """Answer with a page of dead letters, or with their groups."""
    context, group_by = context_of(request), request.query.get("group_by")
    limit, cursor = query_limit(request), query_cursor(request)
    if group_by is not None:
        if group_by not in GROUPINGS:
            raise bad_query("group_by", group_by, ", ".join(GROUPINGS))
        groups = await context.queries.dead_letter_groups(group_by)
        capped = any(group.capped for group in groups)
        items = [shapes.group(group) for group in groups]
        return json_response({"group_by": group_by, "count_capped": capped, "items": items})
    wanted = EventFilter(
        state=State.DEAD_LETTERED,
        error_signature=request.query.get("error") or None,
        failed_since_us=query_time(request, "failed_since"),
    )
    found = await context.queries.page_of_rows(wanted, cursor, limit)
    return json_response(cut_page([dead_letter(event) for event in found.events], found.next_seq))


def dead_letter(event: StoredEvent) -> dict[str, Any]:
    """Show a dead letter with its legacy names: it has no id but its event's."""
    answer = {
        "id": event.id,
        "application_name": event.application_name,
        "workflow_id": event.workflow_id,
        "event_type": event.event_type,
        "service_name": event.service_name,
        "reason": event.reason,
        "last_error": event.last_error,
        "error_signature": event.error_signature,
        "run": event.run,
        "attempt_count": event.attempt_count,
        "updated_at": format_time(event.updated_at_us),
        "replayed_at": None,
        "replay_status": None,
    }
    return shapes.with_legacy_names("DeadLetter", answer)


async def replay_dead_letter(request: web.Request) -> web.Response:
    """Replay a dead letter; 409 when that was done already."""
    asked = await read_object(request, DeadLetterReplayRequest)
    replay = await context_of(request).replayer.replay_dead_letter(
        request.match_info["id"], asked.reason, key=header_key(request), begins_from=asked.begins_from
    )
    return replayed(replay)


async def discard_dead_letter(request: web.Request) -> web.Response:
    """Set a dead letter aside for a reason."""
    asked = await read_object(request, DiscardRequest)
    event = await context_of(request).replayer.discard(request.match_info["id"], asked.reason)
    return json_response({"id": event.id, "run": event.run, "status": "discarded"})
