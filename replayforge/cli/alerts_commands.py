"""`alerts`: see which alerts stand and whether their receivers were told, and try one out."""

from collections.abc import Iterator, Mapping
from typing import Any

import click

from replayforge.cli.options import as_json, with_client
from replayforge.cli.output import relative, table, verbatim
from replayforge.client.http import ClientConnection
from replayforge.client.terminal import complain, plain

HEADS = ("ALERT", "WHEN", "STATE", "RECEIVER", "SINCE", "WHAT", "TROUBLE")
NOT_DELIVERED = 1


@click.group()
def alerts() -> None:
    """Look at alerts, and try one out."""


@alerts.command("ls")
@as_json
@with_client
def list_alerts(client: ClientConnection, *, json_wanted: bool) -> None:
    """List every alert, for what it stands, and whether its receiver was told."""
    reply = client.get("api", "alerts")
    if json_wanted:
        verbatim(reply.body)
        return
    items = reply.document()["items"]
    if items:
        table(HEADS, [row for alert in items for row in alert_rows(alert)])
    else:
        complain("There are no alerts; add one as [[alerts]] to replayforge.toml.")


def alert_rows(alert: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """Yield one row for each subject that an alert stands for or could not tell of; one at least."""
    shown = [one for one in alert["subjects"] if one["ended_at"] is None or one["last_error"]]
    for one in shown or [None]:
        yield (
            plain(alert["name"]),
            plain(alert["when"]),
            "quiet" if one is None else "active" if one["ended_at"] is None else "ended",
            plain(alert["receiver"]),
            "–" if one is None else relative(one["began_at"]),
            "" if one is None else plain(one["detail"]),
            "" if one is None else plain(one["last_error"] or ""),
        )


@alerts.command("test")
@click.argument("name")
@as_json
@with_client
def send_test_alert(client: ClientConnection, *, name: str, json_wanted: bool) -> None:
    """Send the receiver of an alert a message that says it is a test; exit code 1 when it does not arrive."""
    reply = client.post("api", "alerts", name, "test")
    told = reply.document()
    if json_wanted:
        verbatim(reply.body)
    elif told["delivered"]:
        click.echo(f"The receiver of the alert {plain(name)} has taken a test message.")
    else:
        complain(f"The receiver of the alert {plain(name)} was not reached: {plain(told['error'])}")
    if not told["delivered"]:
        raise SystemExit(NOT_DELIVERED)
