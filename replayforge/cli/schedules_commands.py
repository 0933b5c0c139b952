"""`schedules`: see when every schedule is due and what became of it, run one by hand, pause and resume."""

from collections.abc import Mapping
from typing import Any

import click

from replayforge.cli.handlers_commands import who
from replayforge.cli.options import as_json, with_client
from replayforge.cli.output import relative, table, verbatim
from replayforge.client.http import ClientConnection
from replayforge.client.terminal import complain, plain

HEADS = ("SCHEDULE", "STATE", "WHEN", "ZONE", "NEXT", "LAST", "NOTED")


@click.group()
def schedules() -> None:
    """Look at schedules, run one by hand, pause or resume them."""


@schedules.command("ls")
@as_json
@with_client
def list_schedules(client: ClientConnection, *, json_wanted: bool) -> None:
    """List every schedule with its next time and its last event."""
    reply = client.get("api", "schedules")
    if json_wanted:
        verbatim(reply.body)
        return
    items = reply.document()["items"]
    if items:
        table(HEADS, [schedule_row(schedule) for schedule in items])
    else:
        complain("There are no schedules; add one as [[schedules]] to replayforge.toml.")


def schedule_row(schedule: Mapping[str, Any]) -> tuple[str, ...]:
    """Return one schedule as a row of the table."""
    following, last = schedule["next"], schedule["last"]
    return (
        plain(schedule["name"]),
        plain(schedule["status"]),
        plain(schedule["cron"] or f"every {schedule['every_seconds']:,} s"),
        plain(schedule["timezone"]),
        plain(following[0]["local"]) if following and not schedule["paused"] else "–",
        plain(last["status"] or "unknown") if last else "–",
        noted(schedule),
    )


def noted(schedule: Mapping[str, Any]) -> str:
    """Say why it is paused, or else what was noted last."""
    pause, notes = schedule["paused"], schedule["notes"]
    if pause:
        return f"{relative(pause['since'])} by {plain(pause['by'])}: {plain(pause['reason'])}"
    if not notes:
        return ""
    slots = f", {notes[0]['slots']:,} slots" if notes[0]["slots"] else ""
    return f"{plain(notes[0]['why'].replace('_', ' '))}{slots}, {relative(notes[0]['at'])}"


@schedules.command("run")
@click.argument("name")
@as_json
@with_client
def run_schedule(client: ClientConnection, *, name: str, json_wanted: bool) -> None:
    """Make an event of a schedule now, beside its slots."""
    reply = client.post("api", "schedules", name, "run")
    if json_wanted:
        verbatim(reply.body)
        return
    click.echo(f"The schedule {plain(name)} has made event {plain(reply.document()['event_id'])}.")


@schedules.command("pause")
@click.argument("name")
@click.option("--reason", required=True, help="Why, for whoever finds it paused.")
@as_json
@with_client
def pause_schedule(client: ClientConnection, *, name: str, reason: str, json_wanted: bool) -> None:
    """Have a schedule make no events until it is resumed."""
    reply = client.post("api", "schedules", name, "pause", document={"reason": reason, "by": who()})
    if json_wanted:
        verbatim(reply.body)
        return
    pause = reply.document()
    since = relative(pause["since"])
    click.echo(f"The schedule {plain(name)} is paused by {plain(pause['by'])}, {since}: {plain(pause['reason'])}")


@schedules.command("resume")
@click.argument("name")
@as_json
@with_client
def resume_schedule(client: ClientConnection, *, name: str, json_wanted: bool) -> None:
    """Have a schedule make events again, from its next slot on."""
    reply = client.post("api", "schedules", name, "resume")
    if json_wanted:
        verbatim(reply.body)
        return
    click.echo(f"The schedule {plain(name)} is resumed.")
