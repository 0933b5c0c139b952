"""`config`: which settings are in force and why, and whether they are right."""

import importlib
import os
from pathlib import Path
from typing import Any

import click
import msgspec

from replayforge.cli.options import config_file, handler_modules
from replayforge.client.terminal import plain
from replayforge.config import LoadedConfig, load_config
from replayforge.config.loading import SECRET_KEYS, masked
from replayforge.config.settings import values_by_key
from replayforge.config.source_rules import is_reference
from replayforge.domain.api_keys import is_digest

DAEMON = "replayforge.daemon"  # loaded for `check` alone: it takes long


@click.group()
def config() -> None:
    """Show or check the configuration."""


@config.command("show")
@config_file
@click.option("--origin", is_flag=True, help="Say for each setting where its value came from.")
@click.option("--json", "json_wanted", is_flag=True, help="Print JSON.")
def show(config_path: Path | None, *, origin: bool, json_wanted: bool) -> None:
    """Show the settings in force; keys and passwords are hidden."""
    loaded = load_config(config_path, os.environ, {})
    values = {key: shown(key, value) for key, value in values_by_key(loaded.config).items()}
    if json_wanted:
        entries = {key: {"value": value, "origin": loaded.origins[key]} for key, value in values.items()}
        click.echo(msgspec.json.encode(entries if origin else values))
        return
    lines = {key: f"{key} = {msgspec.json.encode(value).decode()}" for key, value in values.items()}
    width = max(len(line) for line in lines.values())
    for key, line in lines.items():
        click.echo(f"{line.ljust(width)}  # {plain(loaded.origins[key])}" if origin else line)


def shown(key: str, value: Any) -> Any:
    """Return a value as it may be shown to anybody."""
    if key == "server.api_keys":
        return [f"{entry.rpartition(':')[0]}:…" if is_digest(entry) else "…" for entry in value]
    if key in ("handlers.http", "alerts"):
        return [{**msgspec.to_builtins(one), "secret": "…" if one.secret else ""} for one in value]
    if key == "sources":
        return [
            {**msgspec.to_builtins(one), "secrets": [secret_shown(secret) for secret in one.secrets]} for one in value
        ]
    return ["…"] * len(value) if key in SECRET_KEYS else masked(value)


def secret_shown(secret: str) -> str:
    """Return where a secret is to be found; one that stands in the file itself is not shown."""
    return secret if is_reference(secret) else "…"


@config.command("check")
@config_file
@handler_modules
def check(config_path: Path | None, handlers: tuple[str, ...]) -> None:
    """Check file and environment, handlers and store: what keeps `serve` from starting ends this with exit code 78.

    Every mistake of file and environment is named, of the rest the first.
    """
    loaded = load_config(config_path, os.environ, {"handlers": handlers})
    count = importlib.import_module(DAEMON).check(loaded.config)
    click.echo(f"The configuration is right: {origins_in_words(loaded)}; handlers: {count}.")


def origins_in_words(loaded: LoadedConfig) -> str:
    """Say how many settings came from where."""
    origins = [origin.split(" ")[0] for origin in loaded.origins.values()]
    return ", ".join(f"{origins.count(origin)} from {plain(origin)}" for origin in dict.fromkeys(sorted(origins)))
