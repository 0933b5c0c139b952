"""`lanes`: see in which keys of the lanes most events wait, and for what."""

from collections.abc import Mapping
from typing import Any

import click

from replayforge.cli.options import as_json, with_client
from replayforge.cli.output import table, verbatim
from replayforge.client.http import ClientConnection
from replayforge.client.terminal import complain, plain

HEADS = ("LANE", "KEY", "BLOCKED", "RELEASED", "RUNNING", "BEHIND", "NEXT START")


@click.group()
def lanes() -> None:
    """Look at the keys of lanes in which events wait for each other."""


@lanes.command("ls")
@as_json
@with_client
def list_lanes(client: ClientConnection, *, json_wanted: bool) -> None:
    """List the keys in which most events wait, and what each waits for."""
    reply = client.get("api", "lanes")
    if json_wanted:
        verbatim(reply.body)
        return
    items = reply.document()["items"]
    if items:
        table(HEADS, [lane_row(lane) for lane in items])
    else:
        complain("No event is in a lane; lanes are made as [[lanes]] in replayforge.toml.")


def lane_row(lane: Mapping[str, Any]) -> tuple[str, ...]:
    """Return one key of a lane as a row of the table."""
    subscriber = f" for {lane['subscriber']}" if lane["subscriber"] else ""
    return (
        plain(lane["match"] + subscriber),
        "–" if lane["key"] is None else plain(str(lane["key"])),
        f"{lane['blocked']:,}" + ("+" if lane["count_capped"] else ""),
        f"{lane['released']:,}",
        f"{lane['running']:,}",
        behind(lane),
        plain(lane["next_start_at"] or "–"),
    )


def behind(lane: Mapping[str, Any]) -> str:
    """Return the event that blocks a key in strict order, and how it stands."""
    if lane["order"] != "strict" or not lane["head_event"] or not lane["blocked"]:
        return "–"
    return plain(f"{lane['head_event']} ({lane['head_status']})")
