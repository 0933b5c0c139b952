"""`sources`: see how every source stands, send one a signed trial, verify again what was refused, pause and resume."""

import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import msgspec

from replayforge.cli.handlers_commands import who
from replayforge.cli.options import as_json, config_file, with_client
from replayforge.cli.output import relative, table, verbatim
from replayforge.client.http import ClientConnection, at
from replayforge.client.terminal import complain, plain
from replayforge.config import load_config
from replayforge.domain.errors import NotFound
from replayforge.domain.webhook_presets import Scheme
from replayforge.domain.webhook_signature import FORM, WebhookDelivery, signed
from replayforge.domain.webhook_source import Source
from replayforge.engine.accept.source_loading import source_of

HEADS = ("SOURCE", "PRESET", "STATE", "ARRIVED", "REFUSED", "KEPT", "LAST", "ADDRESS")
JSON = "application/json"


@click.group()
def sources() -> None:
    """Look at sources of webhooks, try them, and verify again what they sent."""


@sources.command("ls")
@as_json
@with_client
def list_sources(client: ClientConnection, *, json_wanted: bool) -> None:
    """List every source with what it has sent since the daemon started."""
    reply = client.get("api", "sources")
    if json_wanted:
        verbatim(reply.body)
        return
    items = reply.document()["items"]
    if items:
        table(HEADS, [source_row(source) for source in items])
    else:
        complain("There are no sources; add one as [[sources]] to replayforge.toml.")


def source_row(source: Mapping[str, Any]) -> tuple[str, ...]:
    """Return one source as a row of the table."""
    return (
        plain(source["name"]),
        plain(source["preset"]),
        plain(source["status"]),
        f"{source['accepted']:,}",
        f"{sum(source['refused'].values()):,}",
        f"{source['refusals_kept']:,}",
        relative(source["last_delivery_at"]),
        plain(source["url"]),
    )


@sources.command("test")
@click.argument("name")
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
@click.option("-H", "--header", "headers", multiple=True, metavar="NAME:VALUE", help="A header to send along.")
@click.option("--type", "content_type", help=f"Its media type.  [default: {JSON}, and a form for Twilio]")
@config_file
@as_json
@with_client
def test_source(
    client: ClientConnection,
    *,
    name: str,
    file: Path,
    headers: tuple[str, ...],
    content_type: str | None,
    config_path: Path | None,
    json_wanted: bool,
) -> None:
    """Send a file to a source, signed here as its provider signs, with the secret of the configuration read here.

    The event that comes of it is a real one. `-` reads stdin.
    """
    source, public_url = configured(name, config_path)
    target = at("in", name)
    origin = public_url or client.url.removesuffix(client.base_path)
    given = {"content-type": content_type or (FORM if source.preset.scheme is Scheme.URL else JSON)}
    given |= dict(map(header, headers))
    body = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
    unsigned = WebhookDelivery(f"{origin}{client.base_path}{target}", given, body)
    trial = signed(source.preset, source.keys[0], unsigned, int(time.time())) if source.keys else unsigned
    further = {name: value for name, value in trial.headers.items() if name != "content-type"}
    reply = client.request("POST", target, body, given["content-type"], further)
    event_id = reply.headers.get("replayforge-event-id")
    duplicate = reply.headers.get("replayforge-duplicate") == "true"
    if json_wanted:
        verbatim(reply_document(event_id, duplicate, reply.body))
    elif event_id is None:
        click.echo(f"Answered, and no event: {plain(reply.body.decode(errors='replace'))}")
    else:
        click.echo(f"{'Known already' if duplicate else 'Accepted'}: event {event_id}")


def reply_document(event_id: str | None, duplicate: bool, body: bytes) -> bytes:
    """Return what came of a trial as JSON."""
    return msgspec.json.encode({"event_id": event_id, "duplicate": duplicate, "answer": body.decode(errors="replace")})


def header(text: str) -> tuple[str, str]:
    """Read `NAME:VALUE`."""
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise click.BadParameter(f"{text!r} is no header; write NAME:VALUE.")
    return name.strip().lower(), value.strip()


def configured(name: str, config_path: Path | None) -> tuple[Source, str]:
    """Return a source with its secrets as the configuration here has it, and the daemon's public URL."""
    config = load_config(config_path, os.environ, {}).config
    for one in config.sources:
        if one.name == name:
            return source_of(one, os.environ), config.server.public_url
    raise NotFound(f"The configuration here has no source {name!r}; name its file with --config.")


@sources.command("verify")
@click.argument("name")
@as_json
@with_client
@click.pass_context
def verify_refused(context: click.Context, /, client: ClientConnection, *, name: str, json_wanted: bool) -> None:
    """Verify again what was refused of a source, once its secret was put right; what is right is accepted and run.

    The time is judged as it was at arrival. Exits with 1 when nothing of it was right.
    """
    reply = client.post("api", "sources", name, "refusals", "verify")
    found = reply.document()
    if json_wanted:
        verbatim(reply.body)
    else:
        accepted = len(found["accepted"])
        click.echo(
            f"{accepted:,} accepted, {found['duplicates']:,} known already, {found['still_refused']:,} refused as"
            f" before, {found['cut']:,} too large to be kept whole."
        )
        for event_id in found["accepted"]:
            click.echo(plain(event_id))
    if not found["accepted"] and not found["duplicates"]:
        context.exit(1)


@sources.command("pause")
@click.argument("name")
@click.option("--reason", required=True, help="Why, for whoever finds it paused.")
@as_json
@with_client
def pause_source(client: ClientConnection, *, name: str, reason: str, json_wanted: bool) -> None:
    """Have a source answered 503, on every daemon; its provider sends again later."""
    reply = client.post("api", "sources", name, "pause", document={"reason": reason, "by": who()})
    if json_wanted:
        verbatim(reply.body)
        return
    pause = reply.document()
    since = relative(pause["since"])
    click.echo(f"The source {plain(name)} is paused by {plain(pause['by'])}, {since}: {plain(pause['reason'])}")


@sources.command("resume")
@click.argument("name")
@as_json
@with_client
def resume_source(client: ClientConnection, *, name: str, json_wanted: bool) -> None:
    """Take in again what a source sends."""
    reply = client.post("api", "sources", name, "resume")
    if json_wanted:
        verbatim(reply.body)
        return
    click.echo(f"The source {plain(name)} is resumed.")
