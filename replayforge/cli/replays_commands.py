"""`replays`: look at bulk replays, follow one to its end, pause, resume or cancel it."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import click

from replayforge.cli.options import as_json, with_client
from replayforge.cli.output import facts, relative, table, verbatim
from replayforge.client.http import ClientConnection, Problem, Reply, Unreachable
from replayforge.client.progress import progress_bar
from replayforge.client.retry_budget import RetryBudget
from replayforge.client.terminal import complain, counted, plain
from replayforge.domain.bulk_replay import AT_WORK

LOOK_SECONDS = 0.5
RETRY_SECONDS = 60.0  # a daemon may restart meanwhile, and the job goes on

wait = click.option("--wait", is_flag=True, help="Until every event that was replayed has come to its end, too.")


@click.group()
def replays() -> None:
    """Look at bulk replays, pause, resume or cancel them."""


@replays.command("ls")
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 200), help="How many at most.")
@click.option("--cursor", help="Where the last page ended.")
@as_json
@with_client
def list_replays(client: ClientConnection, *, json_wanted: bool, **query: Any) -> None:
    """List bulk replays, newest first."""
    reply = client.get("api", "replays", **query)
    if json_wanted:
        verbatim(reply.body)
        return
    page = reply.document()
    if not page["items"]:
        complain("There are no bulk replays.")
        return
    heads = ("REPLAY", "STATE", "TAKEN", "SUCCEEDED", "DEAD AGAIN", "OPEN", "MADE", "REASON")
    table(heads, [replay_row(job) for job in page["items"]])
    if page.get("has_more"):
        complain(f"There are more: --cursor {page.get('next_cursor')}")


def replay_row(job: Mapping[str, Any]) -> tuple[str, ...]:
    """Return one bulk replay as a row of the table."""
    return (
        plain(job["id"]),
        plain(job["status"]),
        f"{taken(job):,} of {job['total']:,}",
        *(f"{job[name]:,}" for name in ("succeeded", "dead_lettered", "open")),
        relative(job["created_at"]),
        plain(job["reason"]),
    )


def taken(job: Mapping[str, Any]) -> int:
    """Return how many members were replayed or skipped."""
    return int(job["replayed"] + job["skipped"])


@replays.command("show")
@click.argument("replay_id", metavar="ID")
@as_json
@with_client
def show(client: ClientConnection, *, replay_id: str, json_wanted: bool) -> None:
    """Show one bulk replay, how far it has come, and why events were left alone."""
    reply = client.get("api", "replays", replay_id)
    if json_wanted:
        verbatim(reply.body)
        return
    job = reply.document()
    rate = f"{job['rate_per_second']:g} a second" if job["rate_per_second"] else "as fast as the workers"
    facts(
        [
            *((name, plain(job[name])) for name in ("id", "status", "note", "reason") if job[name]),
            ("taken", f"{taken(job):,} of {job['total']:,}, {rate}"),
            *((name.replace("_", " "), f"{job[name]:,}") for name in FIGURES),
            *((f"{name}", relative(job[f"{name}_at"])) for name in ("created", "updated")),
        ]
    )
    for skip in job.get("skips", ()):
        click.echo(f"left alone {skip['count']:,}, such as {plain(skip['sample'])}: {plain(skip['reason'])}")


FIGURES = ("waiting", "replayed", "skipped", "succeeded", "dead_lettered", "superseded", "open")


@replays.command("watch")
@click.argument("replay_id", metavar="ID")
@wait
@as_json
@with_client
@click.pass_context
def watch(
    context: click.Context, /, client: ClientConnection, *, replay_id: str, wait: bool, json_wanted: bool
) -> None:
    """Follow a bulk replay until it rests; exit code 1 when it was paused or cancelled."""
    context.exit(follow(client, replay_id, to_every_end=wait, json_wanted=json_wanted))


def follow(
    client: ClientConnection,
    replay_id: str,
    *,
    to_every_end: bool,
    json_wanted: bool,
    say: Callable[[str], None] = click.echo,
) -> int:
    """Show how a bulk replay goes on until it rests, say how it stands then, and return the exit code."""
    reply = client.get("api", "replays", replay_id)
    job = reply.document()
    retry_budget = RetryBudget(RETRY_SECONDS)
    with progress_bar("replaying", job["total"]) as bar:
        bar.advance(taken(job))
        while is_under_way(job, to_every_end=to_every_end):
            time.sleep(LOOK_SECONDS)
            reply = look_again(client, replay_id, retry_budget)
            before, job = taken(job), reply.document()
            bar.advance(taken(job) - before)
    if json_wanted:
        verbatim(reply.body)
    else:
        say(in_words(job))
    return 0 if job["status"] == "done" else 1


def look_again(client: ClientConnection, replay_id: str, retry_budget: RetryBudget) -> Reply:
    """Ask how a bulk replay stands, and wait for a daemon that is being restarted."""
    while True:
        try:
            reply = client.get("api", "replays", replay_id)
        except (Problem, Unreachable) as error:
            retry_budget.wait(error)
        else:
            retry_budget.renew()
            return reply


def is_under_way(job: Mapping[str, Any], *, to_every_end: bool) -> bool:
    """Tell whether a bulk replay goes on by itself."""
    return job["status"] in AT_WORK or bool(to_every_end and job["status"] == "done" and job["open"])


def in_words(job: Mapping[str, Any]) -> str:
    """Say how a bulk replay stands."""
    parts = [
        f"{plain(job['id'])} is {plain(job['status'])}: replayed {job['replayed']:,} of {job['total']:,}",
        *(f"{job[name]:,} {words}" for name, words in ENDS.items() if job[name]),
    ]
    return " · ".join(parts) + (f"\n{plain(job['note'])}" if job["note"] else "")


ENDS = {
    "skipped": "skipped",
    "succeeded": "succeeded",
    "dead_lettered": "dead letters again",
    "superseded": "moved on",
    "open": "open",
}


@replays.command("pause")
@click.argument("replay_id", metavar="ID")
@with_client
def pause(client: ClientConnection, *, replay_id: str) -> None:
    """Let a bulk replay rest; what it has replayed runs on."""
    click.echo(in_words(client.post("api", "replays", replay_id, "pause").document()))


@replays.command("resume")
@click.argument("replay_id", metavar="ID")
@with_client
def resume(client: ClientConnection, *, replay_id: str) -> None:
    """Let a paused bulk replay go on."""
    click.echo(in_words(client.post("api", "replays", replay_id, "resume").document()))


@replays.command("cancel")
@click.argument("replay_id", metavar="ID")
@with_client
def cancel(client: ClientConnection, *, replay_id: str) -> None:
    """End a bulk replay for good; what it has replayed runs on."""
    click.echo(in_words(client.post("api", "replays", replay_id, "cancel").document()))


def show_preview(preview: Mapping[str, Any], what: str) -> None:
    """Say what a bulk replay would take."""
    if preview["groups"]:
        more = "+" if preview.get("groups_capped") else ""
        rows = [(f"{group['count']:>7,}{more}", plain(group["group"])) for group in preview["groups"]]
        table(("COUNT", "ERROR"), rows)
    more = " or more" if preview["more"] else ""
    matching = f" of {preview['count']:,}{more}" if preview["would_replay"] < preview["count"] else ""
    again = preview["effects_again"]
    effects = f" {counted(again, 'recorded effect')} would happen again;" if again else ""
    complain(f"Would replay {counted(preview['would_replay'], what)}{matching};{effects} nothing was done.")
