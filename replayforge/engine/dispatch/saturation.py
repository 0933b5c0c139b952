"""Whether this process is out of processor time, and what it gets done then; measured when it is asked for."""

from time import process_time

SATURATED = 0.9  # of a processor
MEASURED_SECONDS = 1.0


class Saturation:
    """The last measurement, at least `MEASURED_SECONDS` long: whether a processor was used up, and the rate of rows.

    Half of the rate is that of the measurements before: what goes by it changes it, and would overshoot.
    """

    def __init__(self) -> None:
        self.is_there = False
        self.rows_per_second = 0.0
        self.since = 0.0
        self.used_before = 0.0
        self.rows_before = 0

    def measure(self, now: float, rows: int) -> bool:
        """Measure anew if it is time, and tell whether there is none left; `rows` is how many were made in all."""
        if (seconds := now - self.since) >= MEASURED_SECONDS:
            used = process_time()
            self.is_there = used - self.used_before >= SATURATED * seconds
            self.rows_per_second = (self.rows_per_second + (rows - self.rows_before) / seconds) / 2
            self.since, self.used_before, self.rows_before = now, used, rows
        return self.is_there
