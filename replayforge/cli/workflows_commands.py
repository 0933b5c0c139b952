"""`workflows`: how the events of a workflow stand, and what happened in which order."""

from collections.abc import Mapping, Sequence
from typing import Any

import click
import msgspec

from replayforge.cli.events_commands import attempts, state_in_words
from replayforge.cli.options import as_json, with_client
from replayforge.cli.output import facts, relative, table, verbatim
from replayforge.client.http import ClientConnection
from replayforge.client.terminal import complain, first_line, plain

TOTALS = ("total_events", "succeeded", "failed", "dead_lettered", "in_flight")


@click.group()
def workflows() -> None:
    """Look at workflows."""


@workflows.command("ls")
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 200), help="How many at most.")
@click.option("--cursor", help="Where the last page ended.")
@as_json
@with_client
def list_workflows(client: ClientConnection, *, json_wanted: bool, **query: Any) -> None:
    """List workflows, the one that changed last first."""
    reply = client.get("api", "workflows", **query)
    if json_wanted:
        verbatim(reply.body)
        return
    page = reply.document()
    if not page["items"]:
        complain("There are no workflows.")
        return
    heads = ("WORKFLOW", *(name.upper().replace("_", " ") for name in TOTALS), "UPDATED")
    table(heads, [workflow_row(workflow) for workflow in page["items"]])
    if page.get("has_more"):
        complain(f"There are more: --cursor {page.get('next_cursor')}")


def workflow_row(workflow: Mapping[str, Any]) -> tuple[str, ...]:
    """Return one workflow as a row of the table."""
    return (
        plain(workflow.get("workflow_id")),
        *(plain(workflow.get(name)) + ("+" if workflow.get("count_capped") else "") for name in TOTALS),
        relative(workflow.get("last_updated_at")),
    )


@workflows.command("show")
@click.argument("workflow_id", metavar="WORKFLOW")
@as_json
@with_client
def show(client: ClientConnection, *, workflow_id: str, json_wanted: bool) -> None:
    """Show the totals of a workflow and its timeline."""
    summary = client.get("api", "workflows", workflow_id)
    timeline = client.get("api", "workflows", workflow_id, "timeline")
    if json_wanted:
        both = {"workflow": msgspec.Raw(summary.body), "timeline": msgspec.Raw(timeline.body)}
        verbatim(msgspec.json.encode(both))
        return
    workflow = summary.document()
    facts(
        [
            ("workflow", plain(workflow_id)),
            *((name.replace("_", " "), plain(workflow.get(name))) for name in TOTALS),
            ("updated", relative(workflow.get("last_updated_at"))),
        ]
    )
    show_timeline(timeline.document()["events"])


def show_timeline(steps: Sequence[Mapping[str, Any]]) -> None:
    """Print the events of a workflow in the order in which they were accepted."""
    if steps:
        click.echo()
        table(("STATE", "ID", "TYPE", "FAILED", "CREATED", "LAST ERROR"), [step_row(step) for step in steps])


def step_row(step: Mapping[str, Any]) -> tuple[str, ...]:
    """Return one event as a row of the timeline."""
    return (
        state_in_words(step),
        plain(step.get("id")),
        plain(step.get("event_type")),
        attempts(step),
        plain(step.get("created_at")),
        first_line(step.get("last_error")),
    )
