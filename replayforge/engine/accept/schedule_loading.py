"""Brings together the schedules that the configuration names and those that handlers bring."""

from collections.abc import Sequence

from replayforge.config import ScheduleConfig
from replayforge.config.schedule_rules import schedule_of
from replayforge.domain.errors import Refused
from replayforge.domain.schedule import Schedule
from replayforge.engine.handlers.registry import Handlers


def load_schedules(configured: Sequence[ScheduleConfig], handlers: Handlers) -> list[Schedule]:
    """Return all schedules; raises Refused where two have one name."""
    schedules = [*map(schedule_of, configured), *handlers.schedules]
    names = [schedule.name for schedule in schedules]
    for name in names:
        if names.count(name) > 1:
            raise Refused(f"Two schedules are called {name!r}; give one of them another name.")
    return schedules
