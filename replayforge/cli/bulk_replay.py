"""Bulk replays as commands make them: of everything that matches, once its number was confirmed."""

from collections.abc import Callable, Mapping
from typing import Any

import click

from replayforge.cli.actions import confirm
from replayforge.cli.output import verbatim
from replayforge.cli.replays_commands import follow, show_preview, wait
from replayforge.client.http import ClientConnection
from replayforge.client.terminal import complain, counted


def bulk_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add to a command what may be said of how a bulk replay goes about it."""
    for option in (
        wait,
        click.option("--detach", is_flag=True, help="Do not wait: the daemon goes on by itself."),
        click.option(
            "--canary", type=int, help="How many to try first; the others follow if none of these fails for good."
        ),
        click.option("--max", type=int, help="How many at most, the oldest first."),
        click.option(
            "--rate", "rate_per_second", type=float, help="How many a second.  [default: as fast as the workers]"
        ),
    ):
        command = option(command)
    return command


def replay_matching(
    client: ClientConnection,
    what: str,
    *,
    filters: Mapping[str, Any],
    reason: str | None,
    dry_run: bool,
    yes: bool,
    json_wanted: bool,
    force: bool = False,
    **options: Any,
) -> int:
    """Make a bulk replay of what matches, once its number was confirmed, and return the exit code.

    `what` is one of those that match, in words; with `force` they may have succeeded.
    """
    if not dry_run and not (reason or "").strip():
        raise click.UsageError("A bulk replay needs a reason, so that the next person knows why: --reason TEXT.")
    options["from"] = options.pop("begins_from")
    order = {name: options[name] for name in ("rate_per_second", "max", "canary", "from") if options[name] is not None}
    order["filter"] = {name: value for name, value in filters.items() if value}
    if force:
        order["force"] = True
    reply = client.post("api", "replays", document={**order, "dry_run": True})
    found = reply.document()
    if dry_run and json_wanted:
        verbatim(reply.body)
    elif dry_run or not found["count"]:
        show_preview(found, what)
    else:
        if not yes:
            again = f"{counted(found['effects_again'], 'recorded effect')} will happen again. "
            question = f"Replay {counted(found['would_replay'], what)}?"
            confirm(again + question if found["effects_again"] else question)
        order |= {"reason": reason, "expected_count": found["count"]}
        return carry_out(client, what, order, json_wanted=json_wanted, detach=options["detach"], wait=options["wait"])
    return 0


def carry_out(
    client: ClientConnection,
    what: str,
    order: Mapping[str, Any],
    *,
    json_wanted: bool,
    detach: bool,
    wait: bool,
    say: Callable[[str], None] = click.echo,
) -> int:
    """Make a bulk replay, follow it unless it is to be left alone, and return the exit code.

    `say` is told in words how it stands.
    """
    reply = client.post("api", "replays", document=order)
    job = reply.document()
    if not detach:
        complain(f"Bulk replay {job['id']} of {counted(job['total'], what)} goes on in the daemon.")
        return follow(client, job["id"], to_every_end=wait, json_wanted=json_wanted, say=say)
    if json_wanted:
        verbatim(reply.body)
    else:
        say(f"{job['id']} of {counted(job['total'], what)}; see `replays watch {job['id']}`")
    return 0
