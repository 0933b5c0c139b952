"""Alerts over HTTP: which stand, whether their receivers were told, and a message that tries one out."""

from typing import Literal

import msgspec
from aiohttp import web

from replayforge.domain.alerts import Alert, Condition, Said
from replayforge.domain.clock import format_time
from replayforge.engine.report.alerter import AlertStatus
from replayforge.web.api.shapes import Time, json_response
from replayforge.web.http.context import context_of


class AlertSubjectShape(msgspec.Struct):
    """What an alert is about, since when and until when, and how much of that its receiver was told.

    `said` is nothing, began or ended; `failures` are the tries since the receiver was last reached.
    """

    subject: str
    detail: str
    began_at: Time
    ended_at: Time | None
    said: Said
    failures: int
    next_try_at: Time | None
    last_error: str | None


class AlertShape(msgspec.Struct):
    """An alert as the API shows it: its status is `quiet`, or `active` while it stands for any subject.

    `threshold` counts events, seconds or bytes; `receiver` is the host, or the program, that is told.
    """

    name: str
    when: Condition
    threshold: float
    receiver: str
    status: Literal["active", "quiet"]
    subjects: list[AlertSubjectShape]


class AlertTestShape(msgspec.Struct):
    """Whether a message that says it is a test has reached the receiver of an alert, and why not."""

    name: str
    delivered: bool
    error: str | None


async def list_alerts(request: web.Request) -> web.Response:
    """Answer with every alert, for what it stands, and whether its receiver was told."""
    return json_response({"items": await alert_shapes(request)})


async def alert_shapes(request: web.Request) -> list[AlertShape]:
    """Return every alert as it is shown."""
    return [alert_shape(status) for status in await context_of(request).alerter.report()]


def alert_shape(status: AlertStatus) -> AlertShape:
    """Show one alert."""
    rule = status.configured.rule
    return AlertShape(
        name=rule.name,
        when=rule.condition,
        threshold=rule.threshold,
        receiver=status.configured.target.place,
        status="active" if any(alert.ended_at_us is None for alert in status.alerts) else "quiet",
        subjects=[subject_shape(alert) for alert in status.alerts],
    )


def subject_shape(alert: Alert) -> AlertSubjectShape:
    """Show what is written down of an alert about one subject."""
    waits = alert.unsaid is not None and alert.failures > 0
    return AlertSubjectShape(
        subject=alert.subject,
        detail=alert.detail,
        began_at=format_time(alert.began_at_us),
        ended_at=None if alert.ended_at_us is None else format_time(alert.ended_at_us),
        said=alert.said,
        failures=alert.failures,
        next_try_at=format_time(alert.due_at_us) if waits else None,
        last_error=alert.last_error,
    )


async def send_test_alert(request: web.Request) -> web.Response:
    """Send the receiver of an alert a message that says it is a test, and tell whether it arrived."""
    name = request.match_info["name"]
    error = await context_of(request).alerter.test(name)
    return json_response(AlertTestShape(name, not error, error or None))
