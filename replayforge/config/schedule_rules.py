"""What is said of a schedule in the configuration: whether it can be meant, and the schedule itself."""

from collections.abc import Iterator, Sequence

import msgspec

from replayforge.config.errors import doubled_names
from replayforge.config.settings import ScheduleConfig
from replayforge.domain.schedule import Missed, Overlap, Schedule, objection_to


def schedule_problems(schedules: Sequence[ScheduleConfig]) -> Iterator[str]:
    """Yield a sentence for each thing that a schedule cannot mean."""
    yield from doubled_names("schedules", (schedule.name for schedule in schedules))
    for schedule in schedules:
        if objection := objection_to(schedule_of(schedule)):
            yield f"schedules.{schedule.name}: {objection}."


def schedule_of(configured: ScheduleConfig) -> Schedule:
    """Return a schedule as it is configured; what no workflow is named for belongs to one of its name."""
    return Schedule(
        name=configured.name,
        event_type=configured.event_type,
        workflow=configured.workflow or configured.name,
        cron=configured.cron,
        every_seconds=configured.every_seconds or 0,
        timezone=configured.timezone,
        application=configured.application,
        payload=msgspec.json.encode(configured.payload),
        missed=Missed(configured.missed),
        overlap=Overlap(configured.overlap),
        jitter_seconds=configured.jitter_seconds,
    )
