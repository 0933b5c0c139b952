"""`backup` and `restore`: log and store copied together, and brought back."""

import asyncio
import os
from pathlib import Path

import click
import msgspec

from replayforge.backups.making import back_up
from replayforge.backups.record import BackupRecord
from replayforge.backups.restoring import restore as bring_back
from replayforge.cli.options import as_json, config_file
from replayforge.client.terminal import complain, plain
from replayforge.config import load_config
from replayforge.engine.report.audit import Findings
from replayforge.offline_check import tell_findings

DUMP_FIRST = (
    "The database is not in it. The dump that belongs to it is one that was made before, with pg_dump: what the log has"
    " and the dump has not is dispatched again, but a database that knows more than the log is refused."
)
DUMP_RESTORED = (
    "Bring the dump back that was made before this backup, then start once with `serve --adopt-store`: it names the"
    " range that runs again. The original must not run any more: two daemons must not run copies of one log, and the"
    " first to notice ends itself."
)
AFTERWARDS = (
    "What was accepted after that is not there, and what ended after that runs again. It is a store of its own now: the"
    " original may run beside it, but then both run what was open."
)
NOT_CLEAN = "The copy is whole, but what was copied is not clean: `replayforge check` names what is wrong."
data_dir = click.option("--data-dir", help="Where the daemon keeps everything.")


@click.command()
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@config_file
@data_dir
@as_json
@click.pass_context
def backup(
    context: click.Context,
    /,
    directory: Path,
    config_path: Path | None,
    data_dir: str | None,
    *,
    json_wanted: bool,
) -> None:
    """Copy log and store together, while the daemon runs or not.

    It is not held up. DIR must not be there yet, and appears when the copy is whole, durable and verified. Exit code 1
    when log and store do not agree; `check` says what that is about. With PostgreSQL the copy is of the log: run
    pg_dump first.
    """
    loaded = load_config(config_path, os.environ, {"data_dir": data_dir})
    record, findings = asyncio.run(back_up(loaded.config, directory))
    if json_wanted:
        click.echo(msgspec.json.encode(record))
    else:
        click.echo(f"Backed up to {directory}: {extent(record)}.")
        tell_end(findings, DUMP_FIRST)
    context.exit(0 if record.clean else 1)


@click.command()
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@config_file
@data_dir
@as_json
@click.pass_context
def restore(
    context: click.Context,
    /,
    directory: Path,
    config_path: Path | None,
    data_dir: str | None,
    *,
    json_wanted: bool,
) -> None:
    """Bring a backup back into an empty data directory.

    It is verified before and after. Settings are not part of a backup: those in force here say where data directory,
    log and store lie.
    """
    loaded = load_config(config_path, os.environ, {"data_dir": data_dir})
    record, findings = asyncio.run(bring_back(directory, loaded.config))
    if json_wanted:
        click.echo(msgspec.json.encode(record))
    else:
        click.echo(f"Restored to {loaded.config.data_dir}: {extent(record)}.")
        if findings is not None:
            click.echo(AFTERWARDS)
        tell_end(findings, DUMP_RESTORED)
    context.exit(0 if record.clean else 1)


def extent(record: BackupRecord) -> str:
    """Say what a backup holds."""
    stored = f", the store up to {record.projected_offset:,}" if record.store == "sqlite" else ""
    return (
        f"log {plain(record.log_id)} up to offset {record.last_offset:,}{stored}, as it was at {plain(record.made_at)}"
    )


def tell_end(findings: Findings | None, without_store: str) -> None:
    """Say what the comparison of log and store said, or what to do about the database that is not in it."""
    if findings is None:
        click.echo(without_store)
        return
    tell_findings(findings)
    if not findings.clean:
        complain(NOT_CLEAN)
