"""`indoubt`: lists attempts and steps whose effect was not recorded, and decides what becomes of them."""

from collections.abc import Mapping
from typing import Any

import click

from replayforge.cli.actions import act_on_each
from replayforge.cli.events_commands import several_ids
from replayforge.cli.options import as_json, document, with_client
from replayforge.cli.output import relative, table, verbatim
from replayforge.client.http import ClientConnection
from replayforge.client.terminal import NOTHING, complain, plain

HEADS = ("STANDING", "TYPE", "WORKFLOW", "EVENT", "STARTS", "STARTED", "FOUND", "BY", "STEPS IN DOUBT")
UNDECIDED = "undecided"
NONE_FOUND = {True: "No event waits for such a decision.", False: "No attempt was cut short."}

with_reason = click.option("--reason", default="", help="Why, for those who look at it later.")
of_step = click.option("--step", help="The step that is meant, where several of an event are in doubt.")


@click.group()
def indoubt() -> None:
    """List attempts and steps whose effect was not recorded, and decide what becomes of them."""


@indoubt.command("ls")
@click.option("--undecided", is_flag=True, help="Only events that are held until somebody decides.")
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 200), help="How many at most.")
@click.option("--cursor", help="Where the last page ended.")
@as_json
@with_client
def list_in_doubt(client: ClientConnection, *, undecided: bool, json_wanted: bool, **query: Any) -> None:
    """List events with attempts or steps that were cut short, newest first."""
    reply = client.get("api", "indoubt", **query, **({"standing": UNDECIDED} if undecided else {}))
    if json_wanted:
        verbatim(reply.body)
        return
    page = reply.document()
    if page["items"]:
        table(HEADS, [row_of(one) for one in page["items"]])
    else:
        complain(NONE_FOUND[undecided])
    if page["has_more"]:
        complain(f"More of them with --cursor {page['next_cursor']}.")


def row_of(one: Mapping[str, Any]) -> tuple[str, ...]:
    """Return one event in doubt as a row of the table."""
    newest: Mapping[str, Any] = one["attempts"][0] if one["attempts"] else {}
    return (
        one["standing"].replace("_", " "),
        plain(one["event_type"]),
        plain(one["workflow_id"]),
        plain(one["id"]),
        f"{one['starts']:,}",
        relative(newest.get("started_at")),
        relative(newest.get("finished_at")),
        plain(newest["owner"]) if newest else NOTHING,
        plain(", ".join(step["name"] for step in one["steps"])) or NOTHING,
    )


@indoubt.command("confirm")
@several_ids
@of_step
@click.option("--result", metavar="JSON|@FILE|-", callback=document, help="What it has come to.")
@with_reason
@with_client
@click.pass_context
def confirm(context: click.Context, /, client: ClientConnection, *, ids: tuple[str, ...], **given: Any) -> None:
    """Say that what was begun is done: the event has succeeded, or goes on after the step."""
    decide(context, client, "done", ids, given)


@indoubt.command("rerun")
@several_ids
@of_step
@with_reason
@with_client
@click.pass_context
def rerun(context: click.Context, /, client: ClientConnection, *, ids: tuple[str, ...], **given: Any) -> None:
    """Say that it is to run again, whatever it has done."""
    decide(context, client, "again", ids, given)


@indoubt.command("dead-letter")
@several_ids
@of_step
@with_reason
@with_client
@click.pass_context
def dead_letter(context: click.Context, /, client: ClientConnection, *, ids: tuple[str, ...], **given: Any) -> None:
    """Say that it has failed: it becomes a dead letter, which can be replayed."""
    decide(context, client, "dead_lettered", ids, given)


def decide(
    context: click.Context, client: ClientConnection, decision: str, ids: tuple[str, ...], given: Mapping[str, Any]
) -> None:
    """Carry out a decision about each event, and set the exit code."""
    body = {"decision": decision} | {name: value for name, value in given.items() if value is not None}
    context.exit(act_on_each("decided", ids, lambda one: client.post("api", "indoubt", one, "resolve", document=body)))
