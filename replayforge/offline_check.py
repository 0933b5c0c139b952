"""The offline check as people run it: opens log and store while no daemon has them, compares, says what is wrong."""

import click

from replayforge.client.progress import progress_bar
from replayforge.config import Config
from replayforge.engine.report.audit import Findings, audit
from replayforge.opening import opened_for_check

NAMED_MAX = 20


async def check_offline(config: Config) -> Findings:
    """Open log and store, compare, close; raises Refused while a daemon has them."""
    async with opened_for_check(config) as (log, store):
        with progress_bar("checking", log.durable_offset) as bar:
            reached = log.first_offset - 1

            def progress(offset: int) -> None:
                nonlocal reached
                bar.advance(offset - reached)
                reached = offset

            return await audit(log, store, progress)


def tell_findings(findings: Findings) -> None:
    """Say in words what was compared and what is wrong."""
    click.echo(f"compared {findings.checked:,} events of the log with the store")
    click.echo(findings.ledger.in_words())
    lines = [f"lost: event {event_id}, offset {offset} of the log, has no row" for event_id, offset in findings.lost]
    lines += [
        f"doubled: event {event_id} has {count} outcomes for run {run}" for event_id, run, count in findings.doubled
    ]
    lines += [f"orphaned: an attempt of row {seq}, token {token}, has no event" for seq, token in findings.orphans]
    lines += [
        f"inconsistent: step {step!r} of row {seq}, journal {number}: {finding}"
        for finding, seq, number, step in findings.inconsistent
    ]
    lines += [f"lane {lane}: {finding}" for finding, lane in findings.lanes]
    lines += [f"miscounted: {line}" for line in findings.miscounted]
    lines += [f"unreadable: the record at offset {offset} of the log is not an event" for offset in findings.unreadable]
    lines += [f"gap: offsets {first} to {last} are gone from the log" for first, last in findings.gaps]
    for line in lines[:NAMED_MAX]:
        click.echo(line)
    if len(lines) > NAMED_MAX:
        click.echo(f"… and {len(lines) - NAMED_MAX:,} more; --json names them all")
    click.echo("✓ clean" if findings.clean else "✕ not clean")
