"""Tells of steps that are durable by now: how many came to an end, and how."""

from collections.abc import Sequence

from replayforge.domain.journal import RECORDED, StepRecord
from replayforge.telemetry import Telemetry


def tell_recorded(telemetry: Telemetry, records: Sequence[StepRecord]) -> None:
    """Tell how many of the steps came to an end, and how."""
    for state in RECORDED:
        if ended := [record for record in records if record.state is state]:
            telemetry.emit("step.recorded", len(ended), outcome=state, records=ended)
