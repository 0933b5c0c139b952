"""`check`: holds the log against the store while no daemon runs, and names every event that is not accounted for."""

import asyncio
import os
from pathlib import Path
from typing import Any

import click
import msgspec

from replayforge.cli.options import as_json, config_file
from replayforge.cli.progress import progress_bar
from replayforge.config import Config, load_config
from replayforge.engine.report.audit import Findings, audit
from replayforge.opening import opened_for_check

CLEAN_EXIT_CODE = 0
NOT_CLEAN_EXIT_CODE = 1
NAMED_MAX = 20


@click.command()
@config_file
@click.option("--data-dir", help="Where the daemon keeps everything.")
@as_json
@click.pass_context
def check(context: click.Context, /, config_path: Path | None, data_dir: str | None, *, json_wanted: bool) -> None:
    """Compare the log with the store, event by event, while no daemon runs.

    Exit code 0: every acknowledged event is accounted for exactly once; 1: not, and the output names which.
    """
    loaded = load_config(config_path, os.environ, {"data_dir": data_dir})
    findings = asyncio.run(run_audit(loaded.config))
    if json_wanted:
        click.echo(msgspec.json.encode(as_document(findings)))
    else:
        tell(findings)
    context.exit(CLEAN_EXIT_CODE if findings.clean else NOT_CLEAN_EXIT_CODE)


async def run_audit(config: Config) -> Findings:
    """Open log and store, compare, close."""
    async with opened_for_check(config) as (log, store):
        with progress_bar("checking", log.durable_offset) as bar:
            reached = log.first_offset - 1

            def progress(offset: int) -> None:
                nonlocal reached
                bar.advance(offset - reached)
                reached = offset

            return await audit(log, store, progress)


def tell(findings: Findings) -> None:
    """Say in words what was compared and what is wrong."""
    click.echo(f"compared {findings.checked:,} events of the log with the store")
    click.echo(findings.ledger.in_words())
    lines = [f"lost: event {event_id}, offset {offset} of the log, has no row" for event_id, offset in findings.lost]
    lines += [
        f"doubled: event {event_id} has {count} outcomes for run {run}" for event_id, run, count in findings.doubled
    ]
    lines += [f"orphaned: an attempt of row {seq}, token {token}, has no event" for seq, token in findings.orphans]
    lines += [f"miscounted: {line}" for line in findings.miscounted]
    lines += [f"unreadable: the record at offset {offset} of the log is not an event" for offset in findings.unreadable]
    lines += [f"gap: offsets {first} to {last} are gone from the log" for first, last in findings.gaps]
    for line in lines[:NAMED_MAX]:
        click.echo(line)
    if len(lines) > NAMED_MAX:
        click.echo(f"… and {len(lines) - NAMED_MAX:,} more; --json names them all")
    click.echo("✓ clean" if findings.clean else "✕ not clean")


def as_document(findings: Findings) -> dict[str, Any]:
    """Return the findings as JSON values."""
    return {
        "clean": findings.clean,
        "checked": findings.checked,
        "ledger": findings.ledger.as_json(),
        "lost": [{"id": event_id, "offset": offset} for event_id, offset in findings.lost],
        "doubled": [{"id": one[0], "run": one[1], "outcomes": one[2]} for one in findings.doubled],
        "orphaned": [{"row": seq, "token": token} for seq, token in findings.orphans],
        "miscounted": findings.miscounted,
        "unreadable": findings.unreadable,
        "gaps": [{"first": first, "last": last} for first, last in findings.gaps],
    }
