"""`dead`: dead letters by error, and replaying or discarding one, some or all of them."""

from collections.abc import Mapping
from typing import Any

import click

from replayforge.cli.actions import act_on_each, confirm, confirm_effects
from replayforge.cli.bulk_replay import bulk_options, replay_matching
from replayforge.cli.events_commands import dry_run, show_page
from replayforge.cli.options import as_json, begins_from, event_filters, with_client, yes
from replayforge.cli.output import relative, table, verbatim
from replayforge.client.http import ClientConnection
from replayforge.client.terminal import complain, counted, plain

DEAD = {"status": "dead_lettered"}
NOTHING_NAMED = "Name dead letters by their ids, or by filters, or all of them with --all."

ids_or_filters = click.argument("ids", metavar="[ID...]", nargs=-1)
everything = click.option("--all", "everything", is_flag=True, help="Every dead letter there is.")


@click.group()
def dead() -> None:
    """Look at dead letters, replay or discard them."""


@dead.command("ls")
@event_filters
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 200), help="How many at most.")
@click.option("--cursor", help="Where the last page ended.")
@as_json
@with_client
def list_dead(client: ClientConnection, *, filters: dict[str, str], json_wanted: bool, **query: Any) -> None:
    """List dead letters, newest first."""
    reply = client.get("api", "events", **DEAD, **filters, **query)
    if json_wanted:
        verbatim(reply.body)
    else:
        show_page(reply.document())


@dead.command("groups")
@click.option("--by", type=click.Choice(["error", "type", "service"]), default="error", show_default=True)
@as_json
@with_client
def groups(client: ClientConnection, *, by: str, json_wanted: bool) -> None:
    """Count dead letters by what they have in common."""
    reply = client.get("api", "deadletters", group_by=by)
    if json_wanted:
        verbatim(reply.body)
        return
    rows = [group_row(group) for group in reply.document()["items"]]
    if rows:
        table(("COUNT", "FIRST", "LAST", by.upper()), rows)
    else:
        complain("There are no dead letters.")


def group_row(group: Mapping[str, Any]) -> tuple[str, ...]:
    """Return one group as a row of the table."""
    return (
        f"{group.get('count', 0):>5,}{'+' if group.get('count_capped') else ''}",
        relative(group.get("first_at")),
        relative(group.get("last_at")),
        plain(group.get("group")),
    )


@dead.command("replay")
@ids_or_filters
@event_filters
@everything
@click.option("--reason", help="Why, for those who look at it later; needed unless ids are named.")
@bulk_options
@begins_from
@dry_run
@yes
@as_json
@with_client
@click.pass_context
def replay(
    context: click.Context, /, client: ClientConnection, *, ids: tuple[str, ...], reason: str | None, **options: Any
) -> None:
    """Run dead letters again: those named, one by one; those that match the filters, or --all, as a bulk replay.

    A bulk replay goes on in the daemon, whatever becomes of this command; `replays` looks after it.
    """
    if not ids:
        if not options.pop("everything") and not any(options["filters"].values()):
            raise click.UsageError(NOTHING_NAMED)
        options["filters"] = {**DEAD, **options["filters"]}
        context.exit(replay_matching(client, "dead letter", reason=reason, **options))
    selection = {name: options.pop(name) for name in ("filters", "everything", "dry_run", "yes")}
    begins_from = options.pop("begins_from")
    if any(options.values()):
        raise click.UsageError("Named dead letters are replayed one by one; the other options need filters.")
    body = {name: value for name, value in (("reason", reason), ("from", begins_from)) if value}
    if not selection["dry_run"] and not selection["yes"]:
        confirm_effects(client, ids, body)
    act_on_selection(context, client, ("replay", "replayed"), body, ids=ids, **selection)


@dead.command("discard")
@ids_or_filters
@event_filters
@everything
@click.option("--reason", required=True, help="Why; kept with the event.")
@dry_run
@yes
@with_client
@click.pass_context
def discard(context: click.Context, /, client: ClientConnection, *, reason: str, **selection: Any) -> None:
    """Close dead letters for good reason: those named, those that match the filters, or --all."""
    act_on_selection(context, client, ("discard", "discarded"), {"reason": reason}, **selection)


def act_on_selection(
    context: click.Context,
    client: ClientConnection,
    verb: tuple[str, str],
    body: Mapping[str, Any],
    *,
    ids: tuple[str, ...],
    filters: Mapping[str, Any],
    everything: bool,
    dry_run: bool,
    yes: bool,
) -> None:
    """Act on the dead letters that are meant, after their number was confirmed when a filter chose them."""
    infinitive, participle = verb
    chosen_by_filter = everything or any(filters.values())
    if bool(ids) == chosen_by_filter:
        raise click.UsageError(NOTHING_NAMED)
    targets = ids or tuple(event["id"] for event in client.events({**DEAD, **filters}))
    if dry_run or not targets:
        preview(targets, infinitive)
        return
    if chosen_by_filter and not yes:
        confirm(f"{infinitive.capitalize()} {counted(len(targets), 'dead letter')}?")
    context.exit(
        act_on_each(participle, targets, lambda one: client.post("api", "deadletters", one, infinitive, document=body))
    )


def preview(targets: tuple[str, ...], infinitive: str) -> None:
    """Say what would be acted on."""
    for event_id in targets:
        click.echo(plain(event_id))
    complain(f"Would {infinitive} {counted(len(targets), 'dead letter')}; nothing was done.")
