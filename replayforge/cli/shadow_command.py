"""`shadow`: says what other handlers would do with recorded history, and touches nothing."""

import asyncio
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click
import msgspec

from replayforge.cli.actions import confirm
from replayforge.cli.address import find_address
from replayforge.cli.bulk_replay import carry_out
from replayforge.cli.options import as_json, config_file, moment, patient, understood
from replayforge.client.progress import progress_bar
from replayforge.client.terminal import complain, counted
from replayforge.config import Config, load_config
from replayforge.domain.bulk_replay import IDS_MAX
from replayforge.domain.clock import SystemClock, format_time, parse_time
from replayforge.domain.lifecycle import State
from replayforge.domain.recorded_run import RecordedRun
from replayforge.domain.reports import EventFilter
from replayforge.shadow.comparing import Comparison, Question, compare
from replayforge.shadow.html_report import html_of
from replayforge.shadow.replayed import Job
from replayforge.shadow.replaying import HandlersNotLoaded
from replayforge.shadow.report import UNDECIDABLE_EXIT_CODE, exit_code, in_words, report_of
from replayforge.stores.recordings import COMPARABLE, recorded_runs
from replayforge.stores.snapshot import read_snapshot

RUNS_MAX = 100_000
STATES = sorted(state.value for state in COMPARABLE)


@click.command()
@click.option(
    "--handlers",
    multiple=True,
    required=True,
    help='Module or file with the new handlers, such as "new.py"; repeatable.',
)
@click.option("--against", multiple=True, help="Module or file with the old handlers: what they change does not count.")
@click.option("--type", "event_type", help='Event type, with "*".')
@click.option(
    "--state",
    type=click.Choice(sorted(str(one) for one in COMPARABLE)),
    help="Runs in this state only.  [default: all of these]",
)
@click.option("--since", callback=moment, help='Earliest time: RFC 3339, or a distance such as "24h".')
@click.option("--workflow", "workflow_id", help="Workflow.")
@click.option("--error", help="Error signature, as `dead groups` shows it.")
@click.option(
    "--limit", default=1000, show_default=True, type=click.IntRange(1, RUNS_MAX), help="How many, the newest."
)
@click.option("--ignore", "ignored", multiple=True, metavar="POINTER", help="What may differ, /result/at; repeatable.")
@click.option(
    "--html", "html_path", type=click.Path(path_type=Path, dir_okay=False), help="Write the report as one HTML file."
)
@click.option("--replay-cured", is_flag=True, help="Make a bulk replay of the dead letters that are cured.")
@click.option("--reason", help="Why they are replayed, for those who look at it later.")
@click.option("--url", envvar="REPLAYFORGE_URL", help="The daemon that is to replay them.")
@click.option("--api-key", envvar="REPLAYFORGE_API_KEY", help="Its key.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@config_file
@click.option("--data-dir", help="Where the daemon keeps everything.")
@as_json
@click.pass_context
def shadow(
    context: click.Context, /, config_path: Path | None, data_dir: str | None, *, handlers: tuple[str, ...],
    against: tuple[str, ...], ignored: tuple[str, ...], limit: int, json_wanted: bool, html_path: Path | None,
    replay_cured: bool, **options: Any,
) -> None:  # fmt: skip
    """Run recorded history against other handlers and report what would change.

    Field by field. Reads one snapshot of the store, beside a running daemon. No step's function is called, and effects
    outside of steps are refused. Exit code 0: all the same; 1: something is another; 2: undecidable, or importing the
    handlers has an effect.
    """
    config = load_config(config_path, os.environ, {"data_dir": data_dir}).config
    question = Question(job_of(handlers, config), against, ignored)
    try:
        comparison = asyncio.run(compared(config, question, wanted(options), options["state"], limit))
    except HandlersNotLoaded as error:
        complain(f"replayforge: {error}")
        context.exit(UNDECIDABLE_EXIT_CODE)
    report = report_of(comparison)
    if html_path is not None:
        now = format_time(SystemClock().now_us())
        html_path.write_text(html_of(report, f"{', '.join(handlers)} against history, {now}"))
    if json_wanted:
        click.echo(msgspec.json.encode(report))
    else:
        click.echo("\n".join(in_words(report)))
    if replay_cured:
        say = complain if json_wanted else click.echo
        context.exit(replay(comparison.cured, handlers, options, say))
    context.exit(exit_code(report))


def job_of(handlers: tuple[str, ...], config: Config) -> Job:
    """Return what the child processes are to do, by the daemon's own settings."""
    return Job(handlers, signals=config.handlers.signals, timeout_seconds=config.workers.handler_timeout_seconds)


def wanted(options: Mapping[str, Any]) -> EventFilter:
    """Return which runs are meant."""
    since = options["since"]
    try:
        since_us = parse_time(since) if since else None
    except ValueError:
        raise click.BadParameter(f"{since!r} is no time.", param_hint="--since") from None
    given = {"event_type": options["event_type"], "workflow_id": options["workflow_id"], "error": options["error"]}
    return EventFilter.of(given | {"status": options["state"]}, since_us)


async def compared(config: Config, question: Question, which: EventFilter, state: str | None, limit: int) -> Comparison:
    """Read the history and compare the handlers with it."""
    states = frozenset({State(state)}) if state else COMPARABLE
    runs: list[RecordedRun] = await read_snapshot(config.store.url, lambda: recorded_runs(which, states, limit))
    with progress_bar("replaying", len(runs)) as bar:
        return await compare(question, runs, lambda _: bar.advance(1))


def replay(cured: list[str], handlers: tuple[str, ...], options: Mapping[str, Any], say: Callable[[str], None]) -> int:
    """Have exactly the cured dead letters replayed, once their number was confirmed; returns the exit code."""
    if not cured:
        complain("None is cured, so nothing is replayed.")
        return 0
    if not options["yes"]:
        confirm(f"Replay {counted(len(cured), 'cured dead letter')}?")
    reason = options["reason"] or f"cured by {', '.join(handlers)}, as shadow says"
    address = find_address(options["url"], options["api_key"], os.environ)
    with patient(address.url, address.api_key) as client, understood(address.url):
        return max(
            carry_out(client, "cured dead letter", order, json_wanted=False, detach=False, wait=True, say=say)
            for start in range(0, len(cured), IDS_MAX)
            if (order := {"ids": cured[start : start + IDS_MAX], "reason": reason})
        )
