"""The command `replayforge`: finds the module of each subcommand when it is needed, and says what went wrong."""

import contextlib
import errno
import importlib
import io
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from replayforge.client.terminal import complain, with_way_in
from replayforge.domain.errors import ReplayForgeError

PROGRAM = "replayforge"
USAGE_EXIT_CODE = 64
DEFECT_EXIT_CODE = 70
OUTPUT_EXIT_CODE = 74
INTERRUPTED_EXIT_CODE = 130
OUTPUT_ERRORS = frozenset({errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF, errno.EAGAIN})


@dataclass(frozen=True, slots=True)
class Subcommand:
    """Where a subcommand is found, and its line in the help, so that the help loads nothing."""

    module: str
    attribute: str
    summary: str


COMMANDS = {
    "serve": Subcommand("serve_command", "serve", "Run the daemon until it is told to stop."),
    "demo": Subcommand(
        "demo_command", "demo", "Show a daemon being crashed and killed while it works, losing nothing."
    ),
    "send": Subcommand("send_command", "send", "Send one event, or a file of events with --bulk."),
    "events": Subcommand("events_commands", "events", "Look at events and act on them."),
    "dead": Subcommand("dead_commands", "dead", "Look at dead letters, replay or discard them."),
    "indoubt": Subcommand(
        "indoubt_commands",
        "indoubt",
        "List attempts and steps whose effect was not recorded, and decide what becomes of them.",
    ),
    "replays": Subcommand("replays_commands", "replays", "Look at bulk replays, pause, resume or cancel them."),
    "schedules": Subcommand(
        "schedules_commands", "schedules", "Look at schedules, run one by hand, pause or resume them."
    ),
    "alerts": Subcommand("alerts_commands", "alerts", "Look at alerts, and try one out."),
    "lanes": Subcommand("lanes_commands", "lanes", "Look at the keys of lanes in which events wait for each other."),
    "handlers": Subcommand("handlers_commands", "handlers", "Look at handlers, pause or resume them."),
    "sources": Subcommand(
        "sources_commands", "sources", "Look at sources of webhooks, try them, and verify again what they sent."
    ),
    "forward": Subcommand("forward_command", "forward", "Forward a daemon's events to a URL of your own, unchanged."),
    "endpoint": Subcommand("endpoint_commands", "endpoint", "Try HTTP endpoints with steps."),
    "workflows": Subcommand("workflows_commands", "workflows", "Look at workflows."),
    "status": Subcommand(
        "status_command", "status", "Say whether everything accepted that is due has come to its end."
    ),
    "check": Subcommand(
        "check_command", "check", "Compare the log with the store, event by event, while no daemon runs."
    ),
    "shadow": Subcommand(
        "shadow_command", "shadow", "Run recorded history against other handlers and report what would change."
    ),
    "keys": Subcommand("keys_commands", "keys", "Make API keys."),
    "deploy": Subcommand(
        "deploy_commands",
        "deploy",
        "Check new code against open runs; print files for systemd, Docker, compose, Kubernetes and Grafana.",
    ),
    "backup": Subcommand("backup_commands", "backup", "Copy log and store together, while the daemon runs or not."),
    "restore": Subcommand("backup_commands", "restore", "Bring a backup back into an empty data directory."),
    "log": Subcommand("log_commands", "log", "Look at the write-ahead log, and repair it."),
    "chaos": Subcommand("chaos_command", "chaos", "Injure a daemon at random while it works, and prove its ledger."),
    "prove": Subcommand("prove_command", "prove", "Prove on your own handlers that no crash doubles what they do."),
    "config": Subcommand("config_commands", "config", "Show or check the configuration."),
    "version": Subcommand("about_commands", "version", "Say which version this is."),
    "completion": Subcommand("about_commands", "completion", "Print the script that completes commands in a shell."),
}


class OutputLost(ReplayForgeError):
    """What a command had to say could not be written."""

    exit_code = OUTPUT_EXIT_CODE


class OutputUnwanted(OutputLost):
    """Who read the output has read enough, as `head` has: nobody needs a word about it."""


@contextlib.contextmanager
def lost_output_named() -> Iterator[None]:
    """Raise OutputLost where output cannot be written, before click ends without a word about it."""
    try:
        yield
    except OSError as error:
        if error.errno not in OUTPUT_ERRORS or error.filename is not None:
            raise
        kind = OutputUnwanted if error.errno == errno.EPIPE else OutputLost
        raise kind(f"The output cannot be written: {error.strerror}.") from None


class LazyGroup(click.Group):
    """Knows its subcommands by name and imports the module of one only when it is called."""

    def make_context(self, *arguments: Any, **options: Any) -> click.Context:
        """Read the command line, and print the help that it asks for."""
        with lost_output_named():
            return super().make_context(*arguments, **options)

    def invoke(self, context: click.Context) -> Any:
        """Carry out a subcommand."""
        with lost_output_named():
            result = super().invoke(context)
            sys.stdout.flush()
        return result

    def list_commands(self, context: click.Context) -> list[str]:
        """Return the subcommands in the order of the table."""
        return list(COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        """Load a subcommand, or return None when there is none of that name."""
        return load(COMMANDS[name]) if name in COMMANDS else None

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of subcommands without loading any."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, place.summary) for name, place in COMMANDS.items()])


def load(place: Subcommand) -> click.Command:
    """Import the module of a subcommand and return the subcommand."""
    command = getattr(importlib.import_module(f"replayforge.cli.{place.module}"), place.attribute)
    assert isinstance(command, click.Command)
    return command


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
def commands() -> None:
    """Crash recovery for asynchronous workflows: what is acknowledged is never lost.

    Exit codes: 0 done; 1 the answer is no, or the daemon said no; 2 no daemon answers; 64 wrong usage; 70 a defect
    of ReplayForge; 74 the output could not be written; 78 wrong configuration or refused start-up; 130 interrupted.
    """


def run(arguments: Sequence[str] | None = None) -> int:
    """Carry out one command line and return its exit code; what a user can get wrong ends in one sentence."""
    say_what_can_be_said()
    try:
        if any("\0" in argument for argument in arguments or ()):
            raise click.UsageError("An argument holds a NUL character.")
        result = commands.main(arguments, prog_name=PROGRAM, standalone_mode=False)
    except click.UsageError as error:
        error.show()
        return USAGE_EXIT_CODE if error.exit_code == click.UsageError.exit_code else error.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        complain("Interrupted.")
        return INTERRUPTED_EXIT_CODE
    except OutputLost:
        raise
    except ReplayForgeError as error:
        complain(f"{PROGRAM}: {with_way_in(error)}")
        return int(getattr(error, "exit_code", 1))
    except OSError as error:
        if error.filename is None:
            raise
        complain(f"{PROGRAM}: {error.filename} cannot be used: {error.strerror}.")
        return 1
    return result if isinstance(result, int) else 0


def main() -> None:
    """Run the command line of this process."""
    hold_standard_descriptors()
    code = guarded()
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        forget_output()
        code = code or OUTPUT_EXIT_CODE
    sys.exit(code)


def hold_standard_descriptors() -> None:
    """Open /dev/null for each standard descriptor that is closed, lest a file of ours be given its number."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115 - as long as we live


def say_what_can_be_said() -> None:
    """Write characters that the terminal's encoding lacks by their numbers."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def guarded() -> int:
    """Carry out the command line; a defect of ours ends in one sentence, too, unless a daemon has its own words."""
    try:
        return run()
    except OutputLost as error:
        forget_output()
        if not isinstance(error, OutputUnwanted):
            complain(f"{PROGRAM}: {error}")
        return error.exit_code
    except Exception as error:
        if sys.excepthook is not sys.__excepthook__:
            sys.excepthook(type(error), error, error.__traceback__)
        else:
            complain(f"{PROGRAM}: This is a defect of ReplayForge: {type(error).__name__}: {error}.")
        return DEFECT_EXIT_CODE


def forget_output() -> None:
    """Let what is still to be written go nowhere, so that the end of the process does not stumble over it."""
    with contextlib.suppress(OSError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.close(nowhere)
