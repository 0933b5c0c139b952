"""`keys`: makes API keys, of which the configuration holds nothing but digests."""

import click
import msgspec

from replayforge.client.terminal import complain
from replayforge.domain.api_keys import NAMED, Role, new_key


@click.group()
def keys() -> None:
    """Make API keys."""


@keys.command()
@click.argument("name")
@click.option("--role", required=True, type=click.Choice([role.value for role in Role]), help="What it is for.")
@click.option("--json", "json_wanted", is_flag=True, help="Print JSON.")
def new(*, name: str, role: str, json_wanted: bool) -> None:
    """Make a key and print it, and the entry that stands for it in the configuration; nothing is kept of it.

    \b
    metrics   GET /metrics, and nothing else
    ingest    send events, and nothing else
    read      look at everything
    operate   read; replay, discard, cancel, resolve, pause, resume, signal
    admin     everything
    """
    secret, key = new_key(name, Role(role))
    if NAMED.fullmatch(key.entry()) is None:
        raise click.BadParameter("A name has 1 to 63 of a-z, 0-9, - and _, and begins with none of the last two.")
    if json_wanted:
        click.echo(msgspec.json.encode({"name": name, "role": role, "key": secret, "entry": key.entry()}))
        return
    click.echo(f"key    {secret}\nentry  {key.entry()}")
    complain(
        "The key is shown this once: give it to whoever is to use it. The entry goes into the list [server] api_keys;"
        " SIGHUP makes a running daemon read that again."
    )
