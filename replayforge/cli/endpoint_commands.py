"""`endpoint check`: talks to an endpoint with steps as a daemon would, and says what is wrong with its answers."""

from typing import Any

import click
import msgspec

from replayforge.cli.options import as_json, document
from replayforge.cli.rehearsal import Rehearsed, Scenario, run_rehearsal
from replayforge.client.terminal import counted, plain
from replayforge.config.settings import HttpEndpoint
from replayforge.domain.errors import Refused


@click.group()
def endpoint() -> None:
    """Try HTTP endpoints with steps."""


def named_documents(context: click.Context, parameter: click.Parameter, given: tuple[str, ...]) -> dict[str, bytes]:
    """Read TYPE=JSON, several times."""
    read: dict[str, bytes] = {}
    for one in given:
        name, equals, text = one.partition("=")
        if not equals:
            raise click.BadParameter(f"{one!r} is not TYPE=JSON.")
        read[name] = bytes(document(context, parameter, text) or b"null")
    return read


@endpoint.command("check")
@click.argument("url")
@click.option("--type", "event_type", default="endpoint.check", show_default=True, help="Type of the event it gets.")
@click.option("--payload", metavar="JSON|@FILE|-", callback=document, help="Payload of that event.  [default: {}]")
@click.option("--secret", default="", help="The secret that it verifies signatures with.")
@click.option(
    "--signal", "signals", multiple=True, metavar="TYPE=JSON", callback=named_documents,
    help="Payload of the event that it waits for.  [default: {}]",
)  # fmt: skip
@click.option(
    "--result", "results", multiple=True, metavar="TYPE=JSON", callback=named_documents,
    help="Result of the child that it calls.  [default: null]",
)  # fmt: skip
@click.option("--cancel-at", metavar="STEP", help="The sleep, wait or call in which the event is cancelled.")
@click.option("--answers-max", type=click.IntRange(1), default=100, show_default=True, help="When to give up.")
@click.option("--seconds", type=click.FloatRange(0.1), default=60.0, show_default=True, help="When to give up.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address of this machine that it can reach.")
@as_json
@click.pass_context
def check_endpoint(
    context: click.Context, /, url: str, *, payload: msgspec.Raw | None, secret: str, answers_max: int, seconds: float,
    host: str, json_wanted: bool, **scenario: Any,
) -> None:  # fmt: skip
    """Lead one conversation with an endpoint with steps, to its end.

    Sleeps are passed over, and what it waits for is there at once. What it does has its effects. In the end it is asked
    once more, as after a crash: by then it must not do anything. Exit code 0: nothing is wrong; 1: something is.
    """
    try:
        settings = msgspec.convert(
            {"match": "*", "url": url, "secret": secret, "allow_private": True, "timeout_seconds": seconds},
            HttpEndpoint,
        )
    except msgspec.ValidationError as error:
        raise Refused(f"The endpoint cannot be used: {error}.") from None
    told = Scenario(payload=bytes(payload or b"{}"), activations_max=answers_max, **scenario)
    tell = (lambda _: None) if json_wanted else (lambda line: click.echo(f"  {plain(line)}"))
    found = run_rehearsal(settings, told, host, seconds, tell)
    if json_wanted:
        click.echo(msgspec.json.encode(found))
    else:
        tell_found(found)
    context.exit(1 if found.wrong else 0)


def tell_found(found: Rehearsed) -> None:
    """Say what came of it in words."""
    for words in found.wrong:
        click.echo(f"Wrong: {plain(words)}")
    if not found.wrong:
        result = "nothing" if found.result is None else bytes(found.result).decode()
        answers, steps = counted(found.answers, "answer"), counted(len(found.steps), "step")
        click.echo(f"Finished with {plain(result)} after {answers} and {steps}. Nothing is wrong.")
