"""`chaos`: injures a daemon and its servers in every way while it works, and proves that nothing was lost."""

import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import msgspec

from replayforge.chaos.page import page
from replayforge.chaos.report import in_words
from replayforge.chaos.run import ChaosOptions, wreak
from replayforge.chaos.scene import Servers, find_servers
from replayforge.cli.options import as_json
from replayforge.client.terminal import complain
from replayforge.demo.session import data_directory, told_to_end
from replayforge.demo.story import tell
from replayforge.forgelog.files import make_private_directory


@click.command()
@click.option("--events", default=4_000, show_default=True, type=click.IntRange(min=1), help="How many events to send.")
@click.option("--kills", default=10, show_default=True, type=click.IntRange(min=0), help="How often to kill -9.")
@click.option(
    "--injuries",
    default=12,
    show_default=True,
    type=click.IntRange(min=0),
    help="How many other injuries: crash points, worker crashes, hangs, SIGSTOP, and those of servers.",
)
@click.option("--redis", is_flag=True, help="On a private Redis, which is wiped, killed, and cut off.")
@click.option("--postgres", is_flag=True, help="On a private PostgreSQL, which is stopped at once, and cut off.")
@click.option("--seed", type=int, help="Repeat the injuries of an earlier run.  [default: a new one]")
@click.option("--data-dir", type=click.Path(path_type=Path), help="A new directory.  [default: a temporary one]")
@click.option("--workers", default=16, show_default=True, type=click.IntRange(min=1), help="How many workers.")
@click.option("--timeout", "timeout_seconds", default=300.0, show_default=True, help="When to give up, in seconds.")
@click.option("--html", type=click.Path(path_type=Path, dir_okay=False), help="Write the report as one HTML file, too.")
@as_json
@click.pass_context
def chaos(
    context: click.Context,
    /,
    events: int,
    kills: int,
    injuries: int,
    seed: int | None,
    data_dir: Path | None,
    workers: int,
    timeout_seconds: float,
    html: Path | None,
    *,
    redis: bool,
    postgres: bool,
    json_wanted: bool,
) -> None:
    """Injure a daemon at random while it works, and prove its ledger.

    It is killed, crashed at named points, stopped and hung, and started again each time. With --redis and --postgres it
    relies on private servers, which are wiped, killed and cut off. What was acknowledged and which effects handlers had
    is written down outside the daemon and held against its events, its ledger, and the offline check. Exit code 0: all
    of it agrees.
    """
    if data_dir is not None and data_dir.exists() and any(data_dir.iterdir()):
        raise click.ClickException(f"{data_dir} is not empty; chaos needs a directory of its own.")
    chosen = secrets.randbelow(2**32) if seed is None else seed
    options = ChaosOptions(chosen, events, kills, injuries, workers, timeout_seconds)
    say = complain if json_wanted else tell
    with told_to_end(), data_directory(data_dir) as data:
        make_private_directory(data)
        servers = find_servers(data, redis=redis, postgres=postgres)
        with removed_if_told_to_end(servers):
            report = wreak(options, servers, data, say)
        if html is not None:
            html.write_text(page(report, time.strftime("%Y-%m-%d %H:%M")), encoding="utf-8")
        if json_wanted:
            click.echo(msgspec.json.encode(report))
        else:
            for line in in_words(report):
                tell(line)
        left = [str(data), *([str(servers.postgres.directory)] if servers.postgres else [])]
        if not report.ok:
            say(f"everything is left in {' and '.join(left)}")
            context.exit(1)
        if data_dir is None and servers.postgres:
            shutil.rmtree(servers.postgres.directory, ignore_errors=True)


@contextmanager
def removed_if_told_to_end(servers: Servers) -> Iterator[None]:
    """Leave nothing of a PostgreSQL that was stopped for Ctrl-C: root has its files outside of the data directory."""
    try:
        yield
    except KeyboardInterrupt:
        if servers.postgres:
            shutil.rmtree(servers.postgres.directory, ignore_errors=True)
        raise
