"""`version` and `completion`: what this program is, and how a shell completes its commands."""

import platform
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version

import click
from click.shell_completion import get_completion_class

COMPLETE_VARIABLE = "_REPLAYFORGE_COMPLETE"


@click.command()
def version() -> None:
    """Say which version this is."""
    try:
        number = installed_version("replayforge")
    except PackageNotFoundError:
        number = "(not installed, run from its source)"
    click.echo(f"replayforge {number}, Python {platform.python_version()}, {platform.system()}")


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the script that completes commands in a shell.

    For bash: eval "$(replayforge completion bash)"; for fish: replayforge completion fish | source
    """
    root = context.find_root()
    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(root.command, {}, root.info_name or "replayforge", COMPLETE_VARIABLE).source())
