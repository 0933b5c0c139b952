"""Tells when an alert begins and when it ends: once each, however many daemons there are and whenever they die."""

import asyncio
from asyncio import gather
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from replayforge import crashpoints
from replayforge.domain.alerts import (
    SUBJECTS_MAX,
    Alert,
    Condition,
    Here,
    Said,
    Sight,
    changes,
    delivered,
    standing,
    undelivered,
)
from replayforge.domain.clock import MICROSECONDS_PER_SECOND, Clock, format_time, to_us
from replayforge.domain.errors import NotFound, Unavailable
from replayforge.domain.identity import new_event_id
from replayforge.domain.reports import NewError
from replayforge.engine.report.alert_delivery import ConfiguredAlert, Undelivered
from replayforge.engine.report.convergence import Convergence, ConvergenceQuery
from replayforge.engine.report.daemon_status import DaemonStatus
from replayforge.engine.service_loop import UNTIL_WOKEN, run_until
from replayforge.stores.store import Store
from replayforge.telemetry import Telemetry

LOOK_SECONDS = 5.0
KEPT_SECONDS = 7 * 86_400.0  # of an alert whose end was said, so that people see when it was
SOON_SECONDS = 0.05


class Message(msgspec.Struct, frozen=True):
    """What a receiver is told: `state` is began, ended or test; a repeat has the same `id`."""

    id: str
    alert: str
    when: Condition
    state: str
    subject: str
    detail: str
    began_at: str
    ended_at: str | None
    node: str


@dataclass(frozen=True, slots=True)
class AlertStatus:
    """An alert as people see it, and what is written down of it for each of its subjects."""

    configured: ConfiguredAlert
    alerts: list[Alert]


class Alerter:
    """Looks every few seconds which alerts stand, writes that down, and then says it.

    What is written down is said at least once: whoever dies in between says it again, with the same id. Of several
    daemons one writes an alert down and says it; once that daemon is gone, another one does. A message that does not
    arrive is tried again, and `alert_failures` of the status say so meanwhile.
    """

    name = "alerter"

    def __init__(
        self,
        configured: Sequence[ConfiguredAlert],
        store: Store,
        convergence: ConvergenceQuery,
        status: DaemonStatus,
        clock: Clock,
        telemetry: Telemetry,
    ) -> None:
        self.by_name = {one.rule.name: one for one in configured}
        new_errors = [one.rule for one in configured if one.rule.condition is Condition.NEW_ERROR_SIGNATURE]
        self.new_for_seconds = sorted({rule.threshold for rule in new_errors})
        self.store = store
        self.convergence = convergence
        self.status = status
        self.clock = clock
        self.telemetry = telemetry
        self.looked_at: float | None = None

    async def run(self, stopping: asyncio.Event) -> None:
        """Look and tell until told to stop."""
        await run_until(stopping, self.tick)

    async def tick(self) -> float:
        """Look when it is time, say what is due; returns the seconds until there is something to do again."""
        if not self.by_name:
            return UNTIL_WOKEN
        now = self.clock.monotonic()
        if self.looked_at is None or now - self.looked_at >= LOOK_SECONDS:
            await self.look()
            self.looked_at = now
        own = [one for one in await self.known() if one.owner == self.store.node and one.unsaid is not None]
        now_us = self.clock.now_us()
        await gather(*(self.say(alert) for alert in own if alert.due_at_us <= now_us))
        return await self.seconds_to_wait()

    async def known(self) -> list[Alert]:
        """Return what is written down of the alerts that are configured here."""
        return [alert for alert in await self.store.alerts() if alert.name in self.by_name]

    async def seconds_to_wait(self) -> float:
        """Note who could not be told, and return how long there is nothing to do."""
        known = await self.known()
        self.status.note_alert_failures({one.name: failure_in_words(one) for one in known if one.last_error})
        now_us = self.clock.now_us()
        due = [max(0, one.due_at_us - now_us) for one in known if one.unsaid and one.owner == self.store.node]
        return min([LOOK_SECONDS, *(max(SOON_SECONDS, wait_us / MICROSECONDS_PER_SECOND) for wait_us in due)])

    # What stands

    async def look(self) -> None:
        """Write down what has begun and what has ended.

        What was written down is read first: whoever has changed it since then has seen something newer.
        """
        known: dict[str, dict[str, Alert]] = defaultdict(dict)
        for alert in await self.known():
            known[alert.name][alert.subject] = alert
        report = await self.convergence.read()
        sight = await self.sight(report)
        here = Here(self.store.node, {self.store.node, *(node.name for node in report.living)}, sight.now_us)
        for name, one in self.by_name.items():
            found = standing(one.rule, sight)
            if found is not None:
                for change in changes(one.rule, known[name], found, here, lambda: new_event_id(here.now_us)):
                    await self.write_down(change)
        await self.store.forget_alerts(sight.now_us - to_us(KEPT_SECONDS))

    async def sight(self, report: Convergence) -> Sight:
        """Return what the conditions are judged by."""
        now_us = self.clock.now_us()
        return Sight(
            node=self.store.node,
            now_us=now_us,
            ledger=report.ledger,
            oldest_queued_seconds=report.oldest_queued_seconds,
            pauses=report.pauses,
            new_errors={seconds: await self.new_errors(now_us - to_us(seconds)) for seconds in self.new_for_seconds},
            disk_free_bytes=self.status.disk_free_bytes(),
            accepts_for_disk=not self.status.intake.disk_low,
        )

    async def new_errors(self, since_us: int) -> list[NewError] | None:
        """Return the errors that no dead letter had before; None where there are so many that it takes too long."""
        try:
            return await self.store.new_errors(since_us, SUBJECTS_MAX)
        except Unavailable:
            return None

    async def write_down(self, change: Alert) -> None:
        """Write an alert down, and report it, unless somebody else has changed it."""
        if await self.store.write_alert(change) is None:
            return
        if change.said is Said.NOTHING and change.ended_at_us is None:
            self.telemetry.emit("alert.began", alert=change.name, subject=change.subject, detail=change.detail)
            crashpoints.reach("alert.recorded")
        elif change.ended_at_us is not None:
            self.telemetry.emit("alert.ended", alert=change.name, subject=change.subject)

    # What is said

    async def say(self, alert: Alert) -> None:
        """Say what is next of an alert, and write down how that went."""
        one = self.by_name[alert.name]
        try:
            await one.target.deliver(alert.message_id, self.message(alert))
        except Undelivered as error:
            after = undelivered(alert, str(error), self.clock.now_us())
            self.telemetry.emit("alert.undelivered", alert=alert.name, error=str(error), failures=after.failures)
        else:
            crashpoints.reach("alert.delivered")
            after = delivered(alert)
        await self.store.write_alert(after)

    def message(self, alert: Alert) -> bytes:
        """Return what is said of an alert next."""
        ended_at = alert.ended_at_us if alert.unsaid is Said.ENDED else None
        return msgspec.json.encode(
            Message(
                id=alert.message_id,
                alert=alert.name,
                when=self.by_name[alert.name].rule.condition,
                state=str(alert.unsaid),
                subject=alert.subject,
                detail=alert.detail,
                began_at=format_time(alert.began_at_us),
                ended_at=None if ended_at is None else format_time(ended_at),
                node=self.store.node,
            )
        )

    # What people do

    async def report(self) -> list[AlertStatus]:
        """Return how every alert stands."""
        known = await self.known() if self.by_name else []
        return [
            AlertStatus(one, [alert for alert in known if alert.name == name]) for name, one in self.by_name.items()
        ]

    async def test(self, name: str) -> str:
        """Send a message that says it is a test; returns what went wrong, or nothing. Raises NotFound."""
        one = self.by_name.get(name)
        if one is None:
            raise NotFound(f"There is no alert {name!r}; add it as [[alerts]] to replayforge.toml.")
        now_us = self.clock.now_us()
        message = Message(
            id=f"{new_event_id(now_us)}.test",
            alert=name,
            when=one.rule.condition,
            state="test",
            subject="",
            detail="This is a test: somebody asked for it, and nothing is the matter.",
            began_at=format_time(now_us),
            ended_at=None,
            node=self.store.node,
        )
        try:
            await one.target.deliver(message.id, msgspec.json.encode(message))
        except Undelivered as error:
            return str(error)
        return ""


def failure_in_words(alert: Alert) -> str:
    """Say of an alert that its receiver could not be told."""
    return f"The alert {alert.name} could not be said, {alert.failures:,} times so far: {alert.last_error}"
