"""Options that many commands share, and the words in which people give times and documents."""

import contextlib
import functools
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import msgspec

from replayforge.cli.address import find_address
from replayforge.client.http import DEFAULT_URL, ClientConnection, Misunderstood
from replayforge.client.patience import PatientConnection
from replayforge.client.retry_budget import RetryBudget
from replayforge.client.terminal import printable
from replayforge.domain.clock import SystemClock, format_time, to_us
from replayforge.domain.document import Malformed, text_of
from replayforge.domain.reports import FILTER_NAMES

RETRY_SECONDS = 5.0
UNIT_SECONDS = {"s": 1, "m": 60, "min": 60, "h": 3_600, "d": 86_400}
Command = Callable[..., Any]

as_json = click.option("--json", "json_wanted", is_flag=True, help="Print the daemon's answer as JSON.")
config_file = click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path),
    envvar="REPLAYFORGE_CONFIG",
    help="The TOML file to read.  [default: ./replayforge.toml if there is one]",
)
handler_modules = click.option(
    "--handlers", multiple=True, help='Module or file with handlers, such as "handlers.py"; repeatable.'
)


def with_client(command: Command) -> Command:
    """Add --url and --api-key to a command, and hand it the client they make as its first argument.

    It waits a little for a daemon that starts, or that refuses for now.
    """
    return connected(command, patient)


def patient(url: str, api_key: str | None) -> ClientConnection:
    """Return a connection that waits so long for the daemon at an address."""
    return PatientConnection(url, api_key, RetryBudget(RETRY_SECONDS))


def with_impatient_client(command: Command) -> Command:
    """Do so for a command that has a way of its own to wait for a daemon, or is to say at once that there is none."""
    return connected(command, ClientConnection)


def connected(command: Command, connection: Callable[[str, str | None], ClientConnection]) -> Command:
    """Add --url and --api-key to a command, and hand it the connection to the daemon that they name."""

    @click.option(
        "--url",
        envvar="REPLAYFORGE_URL",
        help=f"The daemon to ask.  [default: what ./replayforge.toml says, or {DEFAULT_URL}]",
    )
    @click.option(
        "--api-key", envvar="REPLAYFORGE_API_KEY", help="Its key.  [default: the first that ./replayforge.toml names]"
    )
    @functools.wraps(command)
    def with_url(*, url: str | None, api_key: str | None, **arguments: Any) -> Any:
        address = find_address(url, api_key, os.environ)
        with connection(address.url, address.api_key) as client, understood(address.url):
            return command(client, **arguments)

    return with_url


@contextlib.contextmanager
def understood(url: str) -> Iterator[None]:
    """Raise Misunderstood where an answer is not what a daemon says, but a page, or JSON of another shape."""
    try:
        yield
    except (msgspec.MsgspecError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise Misunderstood(url, error) from error


begins_from = click.option(
    "--from",
    "begins_from",
    metavar="failure|start|STEP",
    help="From where in its journal an event goes on: the failure that ended it (the default), its start, or a step"
    " (step:start for one that is called start).",
)
yes = click.option("--yes", is_flag=True, help="Do not ask.")


def event_filters(command: Command) -> Command:
    """Add the filters of the events list to a command; it gets them as one mapping, ready for the query."""

    @click.option("--type", "event_type", help='Event type, with "*".')
    @click.option("--service", "service_name", help="Service.")
    @click.option("--workflow", "workflow_id", help="Workflow.")
    @click.option("--app", "application_name", help="Application.")
    @click.option("--error", help="Error signature, as `dead groups` shows it.")
    @click.option("--since", callback=moment, help='Earliest time: RFC 3339, or a distance such as "1h".')
    @click.option("--until", callback=moment, help="Latest time, in the same forms.")
    @click.option(
        "--failed-since",
        callback=moment,
        help="Those whose last attempt failed, at this time or later: in the same forms.",
    )
    @click.option("--awaits", help="Type of the event that parked ones wait for.")
    @click.option("--key", "idempotency_key", help="Idempotency key, whole.")
    @click.option("--search", "q", help="Id, key or workflow; a beginning is enough.")
    @functools.wraps(command)
    def with_filters(*positional: Any, **arguments: Any) -> Any:
        filters = {name: arguments.pop(name) for name in FILTER_NAMES if name != "status"}
        return command(*positional, filters=filters, **arguments)

    return with_filters


def moment(context: click.Context, parameter: click.Parameter, text: str | None) -> str | None:
    """Turn "1h" into the time one hour ago; any other text stays as it is."""
    return at_distance(text, -1, "ago is before all time")


def moment_to_come(context: click.Context, parameter: click.Parameter, text: str | None) -> str | None:
    """Turn "3d" into the time in three days; any other text stays as it is."""
    return at_distance(text, 1, "from now is after all time")


def at_distance(text: str | None, sign: int, beyond: str) -> str | None:
    """Turn a distance into the time so far from now, behind it or before; any other text stays as it is."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|m|min|h|d)", text or "")
    if not match:
        return text
    try:
        return format_time(SystemClock().now_us() + sign * to_us(float(match[1]) * UNIT_SECONDS[match[2]]))
    except (ValueError, OverflowError):
        raise click.BadParameter(f"{text} {beyond}.") from None


def document(context: click.Context, parameter: click.Parameter, text: str | None) -> msgspec.Raw | None:
    """Read JSON given as it is, as @file, or as - for stdin; its bytes stay untouched."""
    if text is None:
        return None
    try:
        body = document_bytes(text)
        text_of(body)
        msgspec.json.decode(body, type=msgspec.Raw)
    except OSError as error:
        raise click.BadParameter(f"{text[1:]} cannot be read: {error.strerror}.") from None
    except Malformed as error:
        raise click.BadParameter(str(error).replace("The body", "The document")) from None
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise click.BadParameter(f"This is not JSON: {error}.") from None
    except ValueError as error:  # a path that no file can have
        raise click.BadParameter(f"{printable(text[1:])} cannot be read: {error}.") from None
    return msgspec.Raw(body)


def document_bytes(text: str) -> bytes:
    """Return the bytes that an argument stands for."""
    if text == "-":
        return sys.stdin.buffer.read()
    return Path(text[1:]).read_bytes() if text.startswith("@") else text.encode()
