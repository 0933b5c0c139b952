"""`handlers`: see how every handler stands, pause and resume one or all of them."""

import getpass
import socket
from collections.abc import Mapping
from typing import Any

import click

from replayforge.cli.actions import confirm
from replayforge.cli.options import as_json, with_client
from replayforge.cli.output import relative, table, verbatim
from replayforge.client.http import ClientConnection
from replayforge.client.terminal import complain, counted, plain

EVERYTHING = "*"
HEADS = ("PATTERN", "STATE", "HANDLER", "RUNNING", "WAITING", "SUCCEEDED", "FAILED", "WHY")


@click.group()
def handlers() -> None:
    """Look at handlers, pause or resume them."""


@handlers.command("ls")
@as_json
@with_client
def list_handlers(client: ClientConnection, *, json_wanted: bool) -> None:
    """List every handler, and the event types that found none."""
    reply = client.get("api", "handlers")
    if json_wanted:
        verbatim(reply.body)
        return
    report = reply.document()
    if report["items"]:
        table(HEADS, [handler_row(handler) for handler in report["items"]])
    else:
        complain("There are no handlers, so every event becomes a dead letter.")
    for orphan in report["without_handler"]:
        remedy = "there is one by now: replay them" if orphan["has_handler_now"] else "add one, then replay them"
        letters = counted(orphan["dead_letters"], "dead letter") + (" or more" if orphan.get("count_capped") else "")
        click.echo(f"No handler for type {plain(orphan['event_type'])}: {letters}; {remedy}.")


def handler_row(handler: Mapping[str, Any]) -> tuple[str, ...]:
    """Return one handler as a row of the table."""
    limit = f" of {handler['concurrency_max']:,}" if handler["concurrency_max"] else ""
    return (
        plain(handler["pattern"]),
        plain(handler["status"]),
        plain(handler["name"]),
        f"{handler['running']:,}{limit}",
        *(f"{handler[name]:,}" for name in ("waiting", "successes", "failures")),
        why(handler),
    )


def why(handler: Mapping[str, Any]) -> str:
    """Say why a handler is given no events."""
    pause = handler["paused"]
    if pause:
        return f"{relative(pause['since'])} by {plain(pause['by'])}: {plain(pause['reason'])}"
    if handler["breaker"] == "open":
        return f"its breaker is open for {handler['breaker_seconds']:.0f} s yet"
    return ""


@handlers.command("pause")
@click.argument("pattern")
@click.option("--reason", required=True, help="Why, for whoever finds it paused.")
@click.option("--yes", is_flag=True, help="Pause everything without asking.")
@as_json
@with_client
def pause_handler(client: ClientConnection, *, pattern: str, reason: str, yes: bool, json_wanted: bool) -> None:
    """Give a handler no more events; they wait. The pattern '*' pauses everything."""
    if pattern == EVERYTHING and not yes:
        confirm("Pause every handler of every daemon?")
    reply = client.post("api", "handlers", pattern, "pause", document={"reason": reason, "by": who()})
    if json_wanted:
        verbatim(reply.body)
        return
    pause = reply.document()
    since = relative(pause["since"])
    click.echo(f"{named(pattern)} paused by {plain(pause['by'])}, {since}: {plain(pause['reason'])}")


@handlers.command("resume")
@click.argument("pattern")
@as_json
@with_client
def resume_handler(client: ClientConnection, *, pattern: str, json_wanted: bool) -> None:
    """Give a handler events again, those first that have waited. The pattern '*' lifts the pause of everything."""
    reply = client.post("api", "handlers", pattern, "resume")
    if json_wanted:
        verbatim(reply.body)
        return
    click.echo(f"{named(pattern)} resumed.")


def named(pattern: str) -> str:
    """Name what a pause is about."""
    return "Everything is" if pattern == EVERYTHING else f"The handler {plain(pattern)} is"


def who() -> str:
    """Return who asks, as user and machine."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # no such user where the process runs
        user = "somebody"
    return f"{user}@{socket.gethostname()}"
