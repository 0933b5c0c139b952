"""`status`: whether everything accepted has come to its end, in words and as an exit code."""

import time
from collections.abc import Mapping
from typing import Any

import click

from replayforge.cli.options import as_json, with_impatient_client
from replayforge.cli.output import verbatim
from replayforge.client.http import ClientConnection, Problem, Reply, Unreachable
from replayforge.client.terminal import complain, plain, with_way_in

CONVERGED_EXIT_CODE = 0
NOT_CONVERGED_EXIT_CODE = 1
UNKNOWN_EXIT_CODE = 2
POLL_SECONDS = 0.5
APART = {
    "scheduled_events": "scheduled",
    "retrying_later_events": "to be tried again later",
    "waiting": "parked by their handlers",
    "kept": "kept until somebody waits for them",
    "paused_events": "paused",
    "blocked_events": "blocked in their lanes",
    "held_events": "held",
}


@click.command()
@click.option("--wait", "wait_seconds", type=float, default=0.0, help="Wait up to so many seconds for convergence.")
@as_json
@with_impatient_client
@click.pass_context
def status(context: click.Context, /, client: ClientConnection, *, wait_seconds: float, json_wanted: bool) -> None:
    """Say whether everything accepted that is due has come to its end.

    What is scheduled, tried again later than in a few seconds, parked, kept, paused, held, or blocked in its lane
    by such, is not due, and is named apart.

    Exit code 0: converged, 1: not, 2: nobody knows, since no daemon answers, or it does not tell (a wrong key or host).
    """
    try:
        reply = report(client, wait_seconds)
    except Problem as problem:
        complain(with_way_in(problem))
        context.exit(UNKNOWN_EXIT_CODE)
    document = reply.document()
    if json_wanted:
        verbatim(reply.body)
    else:
        tell(document)
    context.exit(CONVERGED_EXIT_CODE if document["converged"] else NOT_CONVERGED_EXIT_CODE)


def report(client: ClientConnection, wait_seconds: float) -> Reply:
    """Return the report, as soon as it says converged or the time is over; a daemon may restart meanwhile."""
    deadline = time.monotonic() + wait_seconds
    while True:
        try:
            reply = client.get("api", "convergence")
        except Unreachable:
            if time.monotonic() >= deadline:
                raise
        else:
            if reply.document()["converged"] or time.monotonic() >= deadline:
                return reply
        time.sleep(POLL_SECONDS)


def tell(report: Mapping[str, Any]) -> None:
    """Say it in words: the answer, its reasons, and the ledger that proves it."""
    converged = report["converged"]
    answer = "✓ converged: all that is due has ended" if converged else "✕ not converged"
    click.echo(click.style(answer, fg="green" if converged else "red", bold=True))
    apart = [f"{report[name]:,} {words}" for name, words in APART.items() if report.get(name)]
    if apart:
        click.echo(f"  not due: {', '.join(apart)}")
    for issue in report.get("issues") or ():
        click.echo(f"  - {plain(issue)}")
    click.echo(plain(report["ledger_in_words"]))
