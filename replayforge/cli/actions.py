"""Acting on many events, one after the other: what was done, what was not and why, and an exit code for it."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import click

from replayforge.client.http import ClientConnection, Problem, Reply
from replayforge.client.progress import progress_bar
from replayforge.client.terminal import counted, plain
from replayforge.domain.replay_plan import FROM_FAILURE


def act_on_each(verb: str, ids: Sequence[str], action: Callable[[str], Reply]) -> int:
    """Do something with each event, name each that refused, and return the exit code: 1 when any did.

    Signals that could not be given back are named, too, and those are counted apart whose cancel is only asked for.
    """
    refused = asked = 0
    with progress_bar(verb, len(ids)) as bar:
        for event_id in ids:
            try:
                answer = action(event_id).document()
            except Problem as problem:
                refused += 1
                bar.say(f"{event_id}: {problem}")
            else:
                asked += answer.get("status") == "cancel_requested"
                if gone := answer.get("gone"):
                    taken = ", ".join(map(plain, gone))
                    bar.say(f"{event_id}: its waits had taken signals that retention has removed: {taken}")
            bar.advance(1)
    later = f"; {asked:,} asked to end at the next step" if asked else ""
    click.echo(f"{verb} {len(ids) - refused - asked:,} of {len(ids):,}{later}")
    return 1 if refused else 0


def confirm_effects(client: ClientConnection, ids: Sequence[str], body: Mapping[str, Any]) -> None:
    """Ask before effects that the journals of events have recorded happen once more, and say how many."""
    if body.get("from") in (None, FROM_FAILURE):
        return
    if effects := effects_again(client, ids, body):
        confirm(f"{counted(effects, 'recorded effect')} will happen again. Replay {counted(len(ids), 'event')}?")


def effects_again(client: ClientConnection, ids: Sequence[str], body: Mapping[str, Any]) -> int:
    """Return how many effects that are recorded replays would repeat; what is refused now is said when it is done."""
    effects = 0
    for event_id in ids:
        with suppress(Problem):
            plan = client.post("api", "events", event_id, "replay", document={**body, "dry_run": True}).document()
            effects += plan["effects_again"]
    return effects


def confirm(question: str) -> None:
    """Ask, and go on only after a yes; where nobody can answer, say how to say yes beforehand."""
    try:
        click.confirm(question, abort=True, err=True)
    except click.Abort:
        click.echo(err=True)
        raise click.ClickException("Nothing was done; answer y, or say --yes beforehand.") from None
