"""`deploy`: checks new code, and prints the files with which others run the daemon and watch it."""

import os
import sys
from importlib import resources
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import click

from replayforge.cli.deploy_check_command import check_deploy
from replayforge.cli.options import config_file
from replayforge.client.terminal import complain
from replayforge.config import load_config
from replayforge.deployment import Place, compose_file, dockerfile, doubts_about_unit, kubernetes_manifest, systemd_unit


@click.group()
def deploy() -> None:
    """Check new code against open runs; print files for systemd, Docker, compose, Kubernetes and Grafana."""


deploy.add_command(check_deploy)


def place_of(config_path: Path | None) -> Place:
    """Return where the daemon is run today."""
    try:
        number = version("replayforge")
    except PackageNotFoundError:
        number = "0.1.0"
    return Place(sys.executable, Path.cwd(), load_config(config_path, os.environ, {}), number)


@deploy.command()
@config_file
def systemd(config_path: Path | None) -> None:
    """Print a unit for this Python, this directory and these settings."""
    place = place_of(config_path)
    click.echo(systemd_unit(place), nl=False)
    for doubt in doubts_about_unit(place):
        complain(f"replayforge: {doubt}")


@deploy.command()
@config_file
def docker(config_path: Path | None) -> None:
    """Print a Dockerfile for this directory."""
    click.echo(dockerfile(place_of(config_path)), nl=False)


@deploy.command()
@config_file
@click.option("--redis", is_flag=True, help="With Redis.  [default: when redis.url is set]")
@click.option("--postgres", is_flag=True, help="With PostgreSQL.  [default: when store.url names one]")
def compose(config_path: Path | None, *, redis: bool, postgres: bool) -> None:
    """Print a compose file for the Dockerfile."""
    place = place_of(config_path)
    config = place.loaded.config
    wanted = {"redis": redis or bool(config.redis.url), "postgres": postgres or config.store.sqlite_path is None}
    click.echo(compose_file(place, **wanted), nl=False)


@deploy.command()
@config_file
def kubernetes(config_path: Path | None) -> None:
    """Print a StatefulSet with its service and its secret."""
    click.echo(kubernetes_manifest(place_of(config_path)), nl=False)


@deploy.command()
def grafana() -> None:
    """Print a dashboard for Grafana, to be imported there."""
    click.echo(resources.files("replayforge").joinpath("docs", "grafana.json").read_text(encoding="utf-8"), nl=False)
