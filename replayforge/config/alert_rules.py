"""What is said of an alert in the configuration: whether it can be meant, and when it stands."""

from collections.abc import Iterator, Sequence

from replayforge.config.errors import doubled_names
from replayforge.config.settings import AlertConfig
from replayforge.domain.alerts import NEW_SECONDS, AlertRule, Condition

OLDEST_SECONDS = 600.0
PAUSED_SECONDS = 3600.0
DISK_FREE_BYTES = 1 << 30
# The threshold that each condition takes, and what it is without one.
THRESHOLDS: dict[Condition, tuple[str, float]] = {
    Condition.DEAD_LETTERS: ("above_events", 0),
    Condition.HELD: ("above_events", 0),
    Condition.OLDEST_WAITING: ("above_seconds", OLDEST_SECONDS),
    Condition.HANDLER_PAUSED: ("above_seconds", PAUSED_SECONDS),
    Condition.NEW_ERROR_SIGNATURE: ("above_seconds", NEW_SECONDS),
    Condition.DISK_LOW: ("below_bytes", DISK_FREE_BYTES),
}
KEYS = ("above_events", "above_seconds", "below_bytes")


def alert_problems(alerts: Sequence[AlertConfig]) -> Iterator[str]:
    """Yield a sentence for each thing that an alert cannot mean."""
    yield from doubled_names("alerts", (alert.name for alert in alerts))
    for alert in alerts:
        yield from (f"alerts.{alert.name}: {problem}" for problem in problems_of(alert))


def problems_of(alert: AlertConfig) -> Iterator[str]:
    """Yield what is wrong with one alert; no secret is repeated."""
    if bool(alert.url) == bool(alert.command):
        yield 'exactly one of url and command says whom to tell: give it url = "https://…" or command = ["…"].'
    if alert.command and not alert.command[0]:
        yield "the first item of command is the program, and may not be empty."
    if alert.command and (alert.secret or alert.allow_private):
        yield "secret and allow_private belong to a url, so leave them out beside command."
    takes = THRESHOLDS.get(Condition(alert.when), ("", 0))[0]
    for key in KEYS:
        if getattr(alert, key) is not None and key != takes:
            remedy = f"use {takes} instead" if takes else "it takes no threshold, so leave it out"
            yield f"{key} says nothing about {alert.when}; {remedy}."


def rule_of(alert: AlertConfig) -> AlertRule:
    """Return when an alert stands."""
    condition = Condition(alert.when)
    key, default = THRESHOLDS.get(condition, ("", 0))
    given = getattr(alert, key) if key else None
    return AlertRule(alert.name, condition, default if given is None else given)
