"""`send`: one event from the command line, or a whole file of them."""

import os
import secrets
from collections.abc import Mapping
from typing import BinaryIO

import click
import msgspec

from replayforge.cli.options import as_json, document, moment_to_come, with_impatient_client
from replayforge.cli.output import state, verbatim
from replayforge.client.bulk import BulkSender, Tally, read_lines
from replayforge.client.http import ClientConnection, Problem, Reply, Unreachable
from replayforge.client.progress import progress_bar
from replayforge.client.retry_budget import RetryBudget, outcome_unknown
from replayforge.client.terminal import complain, plain


@click.command()
@click.argument("event_type", metavar="[TYPE]", required=False)
@click.argument("payload", metavar="[JSON|@FILE|-]", required=False, callback=document)
@click.option(
    "--workflow", "workflow_id", help="Workflow the event belongs to.  [default: one of its own, named like the key]"
)
@click.option("--key", "idempotency_key", help="Idempotency key: the same key is the same event.")
@click.option("--app", "application_name", help="Application.")
@click.option("--service", "service_name", help="Service.")
@click.option("--metadata", metavar="JSON|@FILE", callback=document, help="Metadata, a JSON object.")
@click.option("--max-attempts", type=int, help="Attempts before it becomes a dead letter.")
@click.option(
    "--run-at", callback=moment_to_come, help='When to run it: RFC 3339, or a distance such as "3d".  [default: now]'
)
@click.option("--bulk", metavar="FILE.ndjson", type=click.File("rb"), help="Send a file, one event a line; - is stdin.")
@click.option("--retry-seconds", default=60.0, show_default=True, help="How long to wait for a daemon that refuses.")
@as_json
@with_impatient_client
@click.pass_context
def send(
    context: click.Context,
    /,
    client: ClientConnection,
    *,
    bulk: BinaryIO | None,
    retry_seconds: float,
    json_wanted: bool,
    **fields: object,
) -> None:
    """Send one event, or a file of events with --bulk.

    Refusals that can pass (429, 503, no connection) are waited for and tried again. Exit code 0 only when every
    event was accepted or is a duplicate of one that was.
    """
    retry_budget = RetryBudget(retry_seconds)
    if bulk is not None:
        if any(value is not None for value in fields.values()):
            raise click.UsageError("With --bulk everything stands in the file; leave TYPE, JSON and the fields out.")
        context.exit(send_file(client, retry_budget, bulk, json_wanted=json_wanted))
    if not fields["event_type"]:
        raise click.UsageError("Missing argument TYPE, the event type, or --bulk FILE.")
    event = {name: value for name, value in fields.items() if value is not None}
    reply = send_event(client, retry_budget, {"workflow_id": own_workflow(event), **event})
    if json_wanted:
        verbatim(reply.body)
    else:
        tell(reply)


def own_workflow(event: Mapping[str, object]) -> str:
    """Name the workflow of an event that was given none; the same key names the same one, as its content must."""
    return str(event.get("idempotency_key") or f"manual-{secrets.token_hex(4)}")


def send_event(client: ClientConnection, retry_budget: RetryBudget, event: Mapping[str, object]) -> Reply:
    """Send one event until it has its answer, or the retry budget is used up."""
    body = msgspec.json.encode(event)
    while True:
        try:
            return client.request("POST", "/api/events", body)
        except (Problem, Unreachable) as error:
            if outcome_unknown(error) and "idempotency_key" not in event:
                complain(f"{error} It is not known whether the event arrived; without --key it is not sent again.")
                raise
            retry_budget.wait(error)


def tell(reply: Reply) -> None:
    """Say in one line what became of the event."""
    event = reply.document()
    word = "duplicate of" if event.get("duplicate") else "accepted"
    about = (plain(event.get(name)) for name in ("id", "event_type"))
    click.echo("  ".join((word, *about, f"workflow {plain(event.get('workflow_id'))}", state(event.get("status")))))


def send_file(client: ClientConnection, retry_budget: RetryBudget, file: BinaryIO, *, json_wanted: bool) -> int:
    """Send a file, sum up whatever happens, and return the exit code."""
    tally = Tally()
    try:
        with progress_bar("sending", size_of(file), in_bytes=True) as bar:
            BulkSender(client, retry_budget, tally, bar).send(read_lines(file))
    except (Problem, Unreachable):
        complain(f"Gave up after {tally.sent:,} lines had their answer; send the file again to go on.")
        raise
    finally:
        sum_up(tally, json_wanted=json_wanted)
    return 1 if tally.rejected else 0


def size_of(file: BinaryIO) -> int | None:
    """Return the bytes of a file, or None for a pipe."""
    try:
        return os.fstat(file.fileno()).st_size or None
    except OSError:
        return None


def sum_up(tally: Tally, *, json_wanted: bool) -> None:
    """Print the summary line."""
    click.echo(
        msgspec.json.encode({"sent": tally.sent} | msgspec.to_builtins(tally)) if json_wanted else tally.in_words()
    )
