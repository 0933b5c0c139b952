"""`deploy check`: says which open runs new code continues, and which it would break, before it is deployed."""

import asyncio
import os
from pathlib import Path

import click
import msgspec

from replayforge.cli.options import as_json, config_file
from replayforge.cli.shadow_command import job_of
from replayforge.client.progress import progress_bar
from replayforge.client.terminal import complain
from replayforge.config import Config, load_config
from replayforge.domain.clock import SystemClock, format_time
from replayforge.domain.code_change import CodeChange
from replayforge.shadow.deploy_check import Code, check
from replayforge.shadow.deploy_report import as_page, deploy_report, exit_code, in_words
from replayforge.shadow.replaying import HandlersNotLoaded
from replayforge.shadow.report import UNDECIDABLE_EXIT_CODE
from replayforge.stores.code_changes import OPEN_RUNS, OpenRun, open_runs
from replayforge.stores.snapshot import read_snapshot

PAGE_RUNS = 1000


@click.command("check")
@click.option(
    "--handlers",
    multiple=True,
    required=True,
    help='Module or file with the new handlers, such as "new.py"; repeatable.',
)
@config_file
@click.option("--data-dir", help="Where the daemon keeps everything.")
@as_json
@click.option("--html", type=click.Path(dir_okay=False, path_type=Path), help="Write the report as one HTML file.")
@click.pass_context
def check_deploy(
    context: click.Context, /, config_path: Path | None, data_dir: str | None, *, handlers: tuple[str, ...],
    json_wanted: bool, html: Path | None,
) -> None:  # fmt: skip
    """Run what open runs have recorded against new handlers, and say which of them would not go on.

    Reads the store beside a running daemon and touches nothing; no step's function is called. Exit code 0: all go on;
    1: some would break; 2: that cannot be said, or the handlers cannot be loaded.
    """
    config = load_config(config_path, os.environ, {"data_dir": data_dir}).config
    code = Code(job_of(handlers, config), tuple(one.match for one in config.handlers.http))
    try:
        runs, changes = asyncio.run(checked(config, code))
    except HandlersNotLoaded as error:
        complain(f"replayforge: {error}")
        context.exit(UNDECIDABLE_EXIT_CODE)
    report = deploy_report(runs, changes)
    if html is not None:
        made = f"{', '.join(handlers)}, {format_time(SystemClock().now_us())}"
        html.write_text(as_page(report, made), encoding="utf-8")
    click.echo(msgspec.json.encode(report) if json_wanted else "\n".join(in_words(report)))
    context.exit(exit_code(report))


async def checked(config: Config, code: Code) -> tuple[list[OpenRun], list[CodeChange]]:
    """Read the open runs, page by page, and hold the code against them."""
    runs: list[OpenRun] = []
    changes: list[CodeChange] = []
    with progress_bar("replaying", None) as bar:
        for state in OPEN_RUNS:
            page: list[OpenRun] | None = None
            while page is None or len(page) == PAGE_RUNS:
                after = page[-1].event.seq if page else 0
                page = await read_snapshot(config.store.url, lambda: open_runs(state, after, PAGE_RUNS))  # noqa: B023
                changes += await check(code, page) if page else []
                runs += page
                bar.advance(len(page))
        if not runs:
            await check(code, ())
    return runs, changes
