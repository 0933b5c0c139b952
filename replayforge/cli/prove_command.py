"""`prove`: kills real daemons at every crash point on the way of a user's handlers, and says what happened twice."""

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import msgspec

from replayforge.cli.options import config_file
from replayforge.client.terminal import complain, printable
from replayforge.config import Config, load_config
from replayforge.crashpoints import POINTS
from replayforge.demo.session import told_to_end
from replayforge.domain.clock import SystemClock, format_time
from replayforge.domain.errors import Refused, ReplayForgeError
from replayforge.prove.described import Described, describe
from replayforge.prove.history import samples_of_history
from replayforge.prove.in_words import lines_of
from replayforge.prove.junit import junit
from replayforge.prove.page import page_of
from replayforge.prove.proof import UNDECIDED, Proof, Prover, TrialLimits, without_sample
from replayforge.prove.proved_daemon import Subject
from replayforge.prove.proxy import OutsideRules
from replayforge.prove.samples import SampleEvent, samples_in


class Undecided(ReplayForgeError):
    """Nothing could be proved."""

    exit_code = UNDECIDED


@click.command()
@config_file
@click.option("--handlers", multiple=True, help="Module or file to prove; repeatable.  [default: those configured]")
@click.option(
    "--event", "events", multiple=True, type=click.Path(path_type=Path),
    help="File with an event, or a list of them, as POST /api/events takes them; repeatable.",
)  # fmt: skip
@click.option("--from-history", is_flag=True, help="Try the latest event of each type that succeeded as well.")
@click.option("--answers", type=click.Path(path_type=Path), help="JSON file: what beginnings of URLs are answered.")
@click.option("--forward", multiple=True, metavar="HOST[:PORT]", help="Really call this host; repeatable.")
@click.option(
    "--key-header", default="Idempotency-Key", show_default=True, help="By what receivers tell repeated calls."
)
@click.option("--junit", "junit_file", type=click.Path(path_type=Path), help="Write a JUnit file.")
@click.option("--html", "html_file", type=click.Path(path_type=Path), help="Write the report as one HTML file.")
@click.option("--json", "json_wanted", is_flag=True, help="Print the report as JSON.")
@click.option("--point", "points", multiple=True, type=click.Choice(list(POINTS)), help="Die here only; repeatable.")
@click.option("--passes", default=10, show_default=True, type=click.IntRange(min=1), help="Passes tried of one point.")
@click.option("--timeout", "timeout_seconds", default=30.0, show_default=True, help="When to give a trial up, in s.")
@click.option("--keep", type=click.Path(path_type=Path), help="Leave logs and stores of all trials in a new directory.")
@click.pass_context
def prove(
    context: click.Context, /, config_path: Path | None, handlers: tuple[str, ...], events: tuple[Path, ...],
    answers: Path | None, forward: tuple[str, ...], key_header: str, junit_file: Path | None, html_file: Path | None,
    points: tuple[str, ...], passes: int, timeout_seconds: float, keep: Path | None, *, from_history: bool,
    json_wanted: bool,
) -> None:  # fmt: skip
    """Prove on your own handlers that no crash doubles what they do.

    A real daemon takes a sample, dies at a crash point, is started again and has to bring everything to its end, for
    every point on the way of every handler, in a directory of its own. What handlers call over HTTP comes to a proxy
    that counts it and lets nothing out. Exit code 0: nothing was doubled and everything converged; 1: something was,
    or did not; 2: a handler has no sample, or nobody can say.
    """
    config = load_config(config_path, os.environ, {}).config
    began = time.monotonic()
    with told_to_end(), undecided_if_refused():
        modules = handlers or tuple(config.handlers.modules)
        if not modules:
            raise Refused("There are no handlers to prove: name them with --handlers.")
        samples = [sample for path in events for sample in samples_in(path)]
        if from_history:
            samples += samples_of_history(config, {sample.event_type for sample in samples})
        told = describe(modules, [sample.event_type for sample in samples])
        subject = Subject(modules, roots_of(modules), settings_of(config), outside(answers, forward, key_header))
        with scratch(keep) as directory:
            prover = Prover(subject, directory, TrialLimits(timeout_seconds, passes, points or tuple(POINTS)), complain)
            rows = prover.prove(*sorted_out(samples, told, config), told)
        reached = {one for row in rows for one in (row.event_type, *row.reached)}
        if not reached <= told.routes.keys():
            told = describe(modules, sorted(reached))
    made_at = format_time(SystemClock().now_us())
    proof = Proof(modules, tuple(rows), without_sample(told, reached), round(time.monotonic() - began, 3), made_at)
    for path, write in ((junit_file, junit), (html_file, page_of)):
        if path is not None:
            path.write_text(write(proof), encoding="utf-8")
    show(proof, json_wanted=json_wanted)
    context.exit(proof.exit_code)


def show(proof: Proof, *, json_wanted: bool) -> None:
    """Print the report."""
    if json_wanted:
        click.echo(msgspec.json.encode({"exit_code": proof.exit_code, **msgspec.to_builtins(proof)}))
        return
    for line in lines_of(proof):
        click.echo(printable(line))


@contextmanager
def undecided_if_refused() -> Iterator[None]:
    """Raise Undecided where nothing can be tried."""
    try:
        yield
    except Refused as error:
        raise Undecided(str(error)) from error


@contextmanager
def scratch(keep: Path | None) -> Iterator[Path]:
    """Return the directory of the trials, which is removed at the end unless it is to be kept."""
    if keep is not None:
        keep.mkdir(parents=True)
        yield keep.resolve()
        return
    made = Path(tempfile.mkdtemp(prefix="replayforge-prove-"))
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


def roots_of(modules: tuple[str, ...]) -> tuple[str, ...]:
    """Return the directories whose code is the user's."""
    files = (Path(one).resolve().parent for one in modules if one.endswith(".py"))
    return tuple(dict.fromkeys(f"{one}{os.sep}" for one in (Path.cwd(), *files)))


def settings_of(config: Config) -> dict[str, object]:
    """Return what of the configuration belongs to the handlers."""
    return {"handlers.signals": list(config.handlers.signals)} if config.handlers.signals else {}


def outside(answers: Path | None, forward: tuple[str, ...], key_header: str) -> OutsideRules:
    """Return how the world outside answers."""
    try:
        told = msgspec.json.decode(answers.read_bytes(), type=dict[str, msgspec.Raw]) if answers is not None else {}
    except (OSError, msgspec.MsgspecError) as error:
        raise Refused(f"The answers in {answers} cannot be read: {error}.") from None
    return OutsideRules({url: answer.copy() for url, answer in told.items()}, forward, key_header)


def sorted_out(
    samples: list[SampleEvent], told: Described, config: Config
) -> tuple[list[SampleEvent], list[SampleEvent]]:
    """Return the samples that handlers get, and those that they wait for; raises Refused for one that nobody wants."""
    signals = [sample for sample in samples if sample.event_type in {*told.signals, *config.handlers.signals}]
    tried = [sample for sample in samples if sample not in signals]
    for sample in tried:
        if not told.routes[sample.event_type]:
            raise Refused(f"No handler wants the sample {sample.name}: its type is {sample.event_type!r}.")
    return tried, signals
