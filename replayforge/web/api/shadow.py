"""Shadow over HTTP: what the handlers of a file on this machine would do with recorded runs. Nothing is replayed."""

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
from aiohttp import web

from replayforge.domain.document import Unacceptable
from replayforge.domain.event import StoredEvent
from replayforge.shadow.desk import KeptReport
from replayforge.shadow.verdicts import ShadowVerdict
from replayforge.web.api.replays import Count, ReplayFilter, event_filter
from replayforge.web.api.shapes import json_response
from replayforge.web.http.context import WebContext, context_of
from replayforge.web.http.reading import read_object

RUNS_MAX = 1000


class ShadowRequest(msgspec.Struct, forbid_unknown_fields=True):
    """With which handlers - a module, or a file on the daemon's disk - and with which events they are compared.

    With a filter the newest `limit` of them; without a status dead letters are.
    """

    handlers: Annotated[str, msgspec.Meta(min_length=1)]
    ids: Annotated[list[str], msgspec.Meta(min_length=1, max_length=RUNS_MAX)] | None = None
    filter: ReplayFilter | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=RUNS_MAX)] = RUNS_MAX


class FirstRun(msgspec.Struct):
    """The oldest run of a group."""

    id: str
    workflow_id: str


class ShadowGroup(msgspec.Struct):
    """Runs in which the same differs, at a JSON pointer, or dead letters that stay so by one error."""

    verdict: ShadowVerdict
    pointer: str
    before: msgspec.Raw | None
    after: msgspec.Raw | None
    count: Count
    first: FirstRun
    ids: list[str]


class ShadowShape(msgspec.Struct):
    """What came of a comparison, as `replayforge shadow --json` prints it.

    A run counts once, under its gravest verdict, and stands in each group of what differs in it. `cured` are the dead
    letters that would succeed, as far as recorded.
    """

    handlers: str
    runs: Count
    verdicts: dict[ShadowVerdict, Count]
    groups: list[ShadowGroup]
    cured: list[str]


async def shadow_runs(request: web.Request) -> web.Response:
    """Run recorded runs against other handlers, in a process of its own, and answer what would be another.

    No step's function is called, effects outside of steps are refused, and nothing is replayed. One comparison at a
    time; POST /api/replays with the ids that are `cured` has these replayed.
    """
    asked, context = await read_object(request, ShadowRequest), context_of(request)
    runs = await context.queries.runs_of(await chosen_events(context, asked))
    return json_response(shadow_shape(await context.shadow.compare(asked.handlers, runs)))


async def chosen_events(context: WebContext, asked: ShadowRequest) -> Sequence[StoredEvent]:
    """Return the events that a request means; raises Unacceptable when it does not say, or says it twice."""
    if (asked.ids is None) == (asked.filter is None):
        raise Unacceptable('Say which events: either "ids", or a "filter", of which {} means dead letters.', "/ids")
    if asked.filter is None:
        return await context.queries.events_by_ids(list(dict.fromkeys(asked.ids or ())))
    return await context.queries.list_rows(event_filter(asked.filter), None, asked.limit)


def shadow_shape(kept: KeptReport) -> ShadowShape:
    """Return a report as the API shows it."""
    report: dict[str, Any] = kept.report
    groups = [ShadowGroup(**group | {"first": FirstRun(**group["first"])}) for group in report["groups"]]
    return ShadowShape(kept.handlers, report["runs"], report["verdicts"], groups, kept.cured)
