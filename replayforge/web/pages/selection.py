"""Which events an action is meant for: named ones, a group of dead letters, or those of a workflow."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

from multidict import MultiMapping

from replayforge.domain.event import StoredEvent
from replayforge.domain.lifecycle import State
from replayforge.domain.reports import EventFilter
from replayforge.engine.report.event_queries import EventQueries
from replayforge.web.api.dead_letters import GROUPINGS
from replayforge.web.http.context import WebContext
from replayforge.web.http.problems import HttpProblem
from replayforge.web.http.reading import bad_query
from replayforge.web.pages.documents import Reading, hidden

IDS_MAX = 200
GROUP_EVENTS_MAX = 1000
STEP = 100
SCANNED_MAX = 10_000


@dataclass(frozen=True, slots=True)
class Selection:
    """Events by id, or dead letters by what they have in common."""

    ids: tuple[str, ...] = ()
    group_by: str = ""
    group: str = ""

    @property
    def hidden(self) -> list[tuple[str, str]]:
        """The selection as fields of a form."""
        if self.group_by:
            return [("group_by", self.group_by), ("group", self.group)]
        return [("id", event_id) for event_id in self.ids]


def read_selection(values: MultiMapping[str]) -> Selection:
    """Read a selection from a query or a form; raises the problem of one that means nothing."""
    group_by = values.get("group_by", "")
    if group_by:
        if group_by not in GROUPINGS:
            raise bad_query("group_by", group_by, ", ".join(GROUPINGS))
        return Selection(group_by=group_by, group=values.get("group", ""))
    ids = tuple(dict.fromkeys(values.getall("id", [])))
    if not ids:
        raise HttpProblem("nothing-selected", "Choose at least one event and try again.")
    if len(ids) > IDS_MAX:
        raise HttpProblem("too-many-selected", f"At most {IDS_MAX} events at once.")
    return Selection(ids=ids)


async def selected(context: WebContext, selection: Selection) -> list[StoredEvent]:
    """Return the events that are meant; ids that name nothing are left out."""
    if selection.group_by:
        return await group_letters(context, selection.group_by, selection.group, None, GROUP_EVENTS_MAX)
    return await context.queries.events_by_ids(selection.ids)


async def group_letters(
    context: WebContext, group_by: str, group: str | None, before_seq: int | None, limit: int
) -> list[StoredEvent]:
    """Return dead letters of a group, or with None of every group, newest first."""
    letters: list[StoredEvent] = []
    reading = Reading(context.masked_names)
    async for event in scan(context.queries, group_by, group, before_seq):
        if group is None or grouping(event, group_by, reading) == group:
            letters.append(event)
        if len(letters) == limit:
            break
    return letters


async def scan(
    queries: EventQueries, group_by: str, group: str | None, before_seq: int | None
) -> AsyncIterator[StoredEvent]:
    """Yield the newest dead letters that may belong to a group, step by step."""
    wanted = EventFilter(
        state=State.DEAD_LETTERED,
        event_type=group if group_by == "type" and group and "*" not in group else None,
        service_name=group if group_by == "service" and group else None,
    )
    for _ in range(SCANNED_MAX // STEP):
        found = await queries.list_rows(wanted, before_seq, STEP)
        for event in found:
            yield event
        if len(found) < STEP:
            return
        before_seq = found[-1].seq


def grouping(event: StoredEvent, group_by: str, reading: Reading) -> str:
    """Return the group a dead letter belongs to, as the store groups them and pages show them."""
    match group_by:
        case "type":
            return event.event_type
        case "service":
            return event.service_name
        case "reason":
            return str(event.reason)
    return hidden(str(event.error_signature or event.reason), reading)
