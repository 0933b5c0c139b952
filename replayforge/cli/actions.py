"""Acting on many events, one after the other: what was done, what was not and why, and an exit code for it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import click

from replayforge.client.http import Client, Problem
from replayforge.client.progress import progress_bar

PAGE_EVENTS = 200


def act_on_each(verb: str, ids: Sequence[str], action: Callable[[str], Any]) -> int:
    """Do something with each event, name each that refused, and return the exit code: 1 when any did."""
    refused = 0
    with progress_bar(verb, len(ids)) as bar:
        for event_id in ids:
            try:
                action(event_id)
            except Problem as problem:
                refused += 1
                bar.say(f"{event_id}: {problem}")
            bar.advance(1)
    click.echo(f"{verb} {len(ids) - refused:,} of {len(ids):,}")
    return 1 if refused else 0


def matching(client: Client, filters: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield every event that matches, page after page."""
    cursor = None
    while True:
        page = client.get("api", "events", **filters, limit=PAGE_EVENTS, cursor=cursor).document()
        yield from page["items"]
        cursor = page.get("next_cursor")
        if not page.get("has_more") or not cursor:
            return


def confirm(question: str) -> None:
    """Ask, and go on only after a yes; where nobody can answer, say how to say yes beforehand."""
    try:
        click.confirm(question, abort=True, err=True)
    except click.Abort:
        click.echo(err=True)
        raise click.ClickException("Nothing was done; answer y, or say --yes beforehand.") from None
