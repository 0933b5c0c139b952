"""`check`: holds the log against the store while no daemon runs, and names every event that is not accounted for."""

import asyncio
import os
from pathlib import Path
from typing import Any

import click
import msgspec

from replayforge.cli.options import as_json, config_file
from replayforge.config import load_config
from replayforge.engine.report.audit import Findings
from replayforge.offline_check import check_offline, tell_findings

CLEAN_EXIT_CODE = 0
NOT_CLEAN_EXIT_CODE = 1


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
    findings = asyncio.run(check_offline(loaded.config))
    if json_wanted:
        click.echo(msgspec.json.encode(as_document(findings)))
    else:
        tell_findings(findings)
    context.exit(CLEAN_EXIT_CODE if findings.clean else NOT_CLEAN_EXIT_CODE)


def as_document(findings: Findings) -> dict[str, Any]:
    """Return the findings as JSON values."""
    return {
        "clean": findings.clean,
        "checked": findings.checked,
        "ledger": findings.ledger.as_json(),
        "lost": [{"id": event_id, "offset": offset} for event_id, offset in findings.lost],
        "doubled": [{"id": one[0], "run": one[1], "outcomes": one[2]} for one in findings.doubled],
        "orphaned": [{"row": seq, "token": token} for seq, token in findings.orphans],
        "inconsistent": [
            dict(zip(("finding", "row", "journal", "step"), one, strict=True)) for one in findings.inconsistent
        ],
        "lanes": [{"finding": finding, "lane": lane} for finding, lane in findings.lanes],
        "miscounted": findings.miscounted,
        "unreadable": findings.unreadable,
        "gaps": [{"first": first, "last": last} for first, last in findings.gaps],
    }
