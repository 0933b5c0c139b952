"""Alerts in the store: each is written down before it is said, and moved by whoever knows how it stands."""

from msgspec.structs import replace

from replayforge.domain.alerts import Alert, Said
from replayforge.stores.driver import Batch, Fetch, Steps


def standing() -> Steps[list[Alert]]:
    """Fetch what is written down of every alert."""
    rows = yield Fetch("alerts")
    return [replace(alert, said=Said(alert.said)) for alert in (Alert(*row) for row in rows)]


def write(alert: Alert) -> Steps[Alert | None]:
    """Write an alert down, if it still has its version, or has none and is new; returns it with its next version."""
    written = replace(alert, version=alert.version + 1)
    statement = Batch("change_alerts", [alert]) if alert.version else Batch("insert_alerts", [written])
    changed = yield statement
    return written if changed[0][0] else None


def forget(before_us: int) -> Steps[int]:
    """Let go of alerts whose end was said before a time; returns how many."""
    return len((yield Fetch("forget_alerts", {"before_us": before_us})))
