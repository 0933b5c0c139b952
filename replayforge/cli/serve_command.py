"""`serve`: the daemon with the settings of flags, environment and file."""

import os
from pathlib import Path
from typing import Any

import click

from replayforge.cli.options import config_file, handler_modules
from replayforge.code_watch import CHECK_ONLY
from replayforge.config import load_config
from replayforge.daemon import check, run


@click.command()
@config_file
@click.option("--host", help="Address to listen on.")
@click.option("--port", type=int, help="Port to listen on; 0 takes a free one.")
@click.option("--data-dir", help="Data directory: log, store, state.")
@click.option("--workers", type=int, help="How many events are handled at once.")
@handler_modules
@click.option("--simulate-crashes", is_flag=True, help="Let payload flags and rates cause real crashes.")
@click.option("--fail-rate", type=float, help="Share of attempts that fail.")
@click.option("--crash-rate", type=float, help="Share of attempts whose worker dies.")
@click.option("--exit-rate", type=float, help="Share of attempts at which the process dies.")
@click.option("--crash-at", multiple=True, help='Crash point to die at, "POINT" or "POINT:N"; repeatable.')
@click.option(
    "--log-level", type=click.Choice(["debug", "info", "warning", "error"]), help="The least message that is written."
)
@click.option("--log-format", type=click.Choice(["auto", "json", "console"]), help="How messages look.")
@click.option(
    "--allow-network-fs", is_flag=True, default=None, help="Keep the log on NFS, CIFS or FUSE: its fsync must hold."
)
@click.option(
    "--adopt-store",
    is_flag=True,
    help="Start even if log and store do not match; what is given up or runs again is named.",
)
@click.option("--reload", is_flag=True, help="Begin anew when files of handlers change; for development.")
@click.option(CHECK_ONLY, is_flag=True, hidden=True, help="Say whether it would start.")
@click.pass_context
def serve(
    context: click.Context, /, config_path: Path | None, adopt_store: bool, simulate_crashes: bool, reload: bool,
    check_only: bool, **flags: Any,
) -> None:  # fmt: skip
    """Run the daemon until it is told to stop.

    Settings come from flags, then the environment (REPLAYFORGE__SECTION__KEY), then replayforge.toml. SIGTERM or
    Ctrl-C stops it cleanly, a second one at once; SIGHUP reads [logging] and API keys again.
    """
    loaded = load_config(config_path, os.environ, {**flags, "simulate_crashes": simulate_crashes or None})
    if check_only:
        check(loaded.config)
        return
    context.exit(run(loaded, adopt_store, reload=reload))
