"""Which events an action is meant for: named ones, a group of dead letters, or those of a workflow."""

from dataclasses import dataclass

from multidict import MultiMapping

from replayforge.domain.event import StoredEvent
from replayforge.domain.lifecycle import State
from replayforge.domain.reports import EventFilter
from replayforge.web.api.dead_letters import GROUPINGS
from replayforge.web.http.context import WebContext
from replayforge.web.http.problems import HttpProblem
from replayforge.web.http.reading import bad_query
from replayforge.web.pages.documents import Reading, hidden

IDS_MAX = 200
GROUP_EVENTS_MAX = 1000
NAMED_AS_STORED = frozenset({"type", "service", "reason"})


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
    """Return dead letters of a group, or with None of every group, newest first.

    A group has the name that pages show, in which values may be hidden: several of the store's may be one.
    """
    if group is None:
        return await context.queries.list_rows(EventFilter(state=State.DEAD_LETTERED), before_seq, limit)
    reading = Reading(context.masked_names)

    def belongs(name: str) -> bool:
        return (name if group_by in NAMED_AS_STORED else hidden(name, reading)) == group

    return await context.queries.dead_letters_of(group_by, belongs, before_seq, limit)
