"""`log`: looks at the write-ahead log and repairs it, without the daemon; made to be read at three in the morning."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from msgspec import structs

from replayforge.cli.output import facts
from replayforge.client.terminal import complain, counted
from replayforge.forgelog.check import CheckReport
from replayforge.forgelog.check import verify as verify_log
from replayforge.forgelog.dump import dump as dump_log
from replayforge.forgelog.errors import LogLocked, LogRefused
from replayforge.forgelog.files import OsFiles, make_private_directory
from replayforge.forgelog.findings import LogVerdict
from replayforge.forgelog.header import BadHeader
from replayforge.forgelog.repair import NotAccepted, Plan, apply_plan, make_plan, ranges_in_words, rebuild_manifest
from replayforge.forgelog.sync_bench import measure_syncs
from replayforge.forgelog.transfer import copy_log

LOG_DIRECTORY = "log"
Command = Callable[..., Any]

data_dir = click.option(
    "--data-dir", type=click.Path(path_type=Path), default=Path(".replayforge"), show_default=True,
    help="Where the daemon keeps everything; the log is in log/.",
)  # fmt: skip
as_json = click.option("--json", "json_wanted", is_flag=True, help="Print JSON.")


class WrongUsage(click.UsageError):
    """A wrong call of a tool of the log, which has an exit code of its own."""

    exit_code = int(LogVerdict.USAGE)


class LogGroup(click.Group):
    """Ends with the exit codes of the log's own tools, also for wrong usage."""

    def invoke(self, context: click.Context) -> Any:
        """Run a subcommand; what is wrong ends in one sentence and a code that says which kind it was."""
        try:
            return super().invoke(context)
        except click.UsageError as error:
            raise WrongUsage(error.message, error.ctx) from None
        except LogLocked as error:
            complain(f"{error} Stop it first; verify, dump and stat also work while it runs.")
            context.exit(int(LogVerdict.LOCKED))
        except LogRefused as error:
            complain(str(error))
            context.exit(int(LogVerdict.IO_ERROR if error.code == "E_IO" else LogVerdict.CORRUPT))
        except BadHeader as error:
            complain(f"{error} Look with `replayforge log verify --deep`.")
            context.exit(int(LogVerdict.CORRUPT))
        except OSError as error:
            complain(f"The log cannot be read or written: {error}.")
            context.exit(int(LogVerdict.IO_ERROR))


@click.group(cls=LogGroup)
def log() -> None:
    """Look at the write-ahead log, and repair it.

    Exit codes: 0 clean, 1 torn tail (the next start repairs it), 2 damaged, 3 wrong usage, 4 locked by a running
    daemon, 5 the disk answers with errors. verify, dump and stat change nothing and also work while the daemon runs;
    then they show what is written, and the last of it may not be durable yet.
    """


@log.command()
@data_dir
@click.option("--deep", is_flag=True, help="Read every record of every segment, not only the last segment.")
@as_json
@click.pass_context
def verify(context: click.Context, data_dir: Path, *, deep: bool, json_wanted: bool) -> None:
    """Check the log: what is damaged, which offsets that costs, what can be done."""
    report = verify_log(OsFiles(), log_directory(data_dir), deep=deep)
    if json_wanted:
        click.echo(json.dumps(report_json(report)))
    else:
        tell_report(report)
    context.exit(int(report.verdict))


@log.command()
@data_dir
@as_json
def stat(data_dir: Path, *, json_wanted: bool) -> None:
    """Say what the log holds and who has read how far."""
    report = verify_log(OsFiles(), log_directory(data_dir), deep=False)
    if json_wanted:
        click.echo(json.dumps(report_json(report)))
        return
    facts(stat_facts(report))
    if report.findings:
        complain(f"{counted(len(report.findings), 'finding')}: see `replayforge log verify --deep`.")


@log.command()
@data_dir
@click.option("--from", "first", type=click.IntRange(min=1), default=1, show_default=True, help="First offset.")
@click.option("--to", "last", type=click.IntRange(min=1), help="Last offset.  [default: the end]")
@click.option("--format", "form", type=click.Choice(["ndjson", "hex", "frames"]), default="ndjson", show_default=True)
def dump(data_dir: Path, first: int, last: int | None, form: str) -> None:
    """Print records, or the frames they stand in; goes on behind damage."""
    for line in dump_log(OsFiles(), log_directory(data_dir), first=first, last=last, form=form):
        click.echo(line)


@log.command()
@data_dir
@click.option("--apply", "apply_wanted", is_flag=True, help="Carry the plan out; without it nothing is changed.")
@click.option("--accept-loss", "losses", multiple=True, metavar="A-B", help="Accept the loss of these offsets.")
@click.option("--rebuild-manifest", "rebuild", is_flag=True, help="Make the manifest anew from the segments.")
@as_json
@click.pass_context
def repair(
    context: click.Context,
    data_dir: Path,
    *,
    apply_wanted: bool,
    losses: tuple[str, ...],
    rebuild: bool,
    json_wanted: bool,
) -> None:
    """Say what can be done about damage and what it costs; with --apply, do it. Evidence is kept in quarantine/."""
    directory, files = log_directory(data_dir), OsFiles()
    accepted = [parse_range(text) for text in losses]
    report = verify_log(files, directory, deep=False)
    if report.live:
        raise LogLocked("The log is locked by a running daemon.")
    if rebuild:
        manifest = rebuild_manifest(files, directory, apply=apply_wanted)
        made = {"manifest": structs.asdict(manifest), "applied": apply_wanted}
        say(made, rebuilt_in_words(apply_wanted), json_wanted)
        return
    report, plan = make_plan(files, directory)
    if not apply_wanted:
        say({"plan": plan_json(plan), "report": report_json(report)}, plan_in_words(report, plan), json_wanted)
        context.exit(int(report.verdict))
    if plan.blocked:
        complain(plan.blocked)
        context.exit(int(report.verdict))
    try:
        done = apply_plan(files, directory, plan, accepted)
    except NotAccepted as error:
        raise click.UsageError(f"{error} Nothing was changed.") from None
    say({"done": done}, "\n".join([*done, "The log can be opened again."]), json_wanted)


@log.command("export")
@data_dir
@click.argument("target", type=click.Path(path_type=Path))
@as_json
def export_log(data_dir: Path, target: Path, *, json_wanted: bool) -> None:
    """Copy the log to TARGET, verified before and after; also while the daemon runs."""
    copied = copy_log(OsFiles(), log_directory(data_dir), target)
    words = f"Copied {counted(copied.segments, 'segment')}, offsets {copied.first_offset} to {copied.last_offset}."
    say(asdict(copied), words, json_wanted)


@log.command("import")
@data_dir
@click.argument("source", type=click.Path(path_type=Path, exists=True))
@as_json
def import_log(data_dir: Path, source: Path, *, json_wanted: bool) -> None:
    """Copy a log that was exported to SOURCE into an empty data directory, verified before and after."""
    copied = copy_log(OsFiles(), source, data_dir / LOG_DIRECTORY)
    words = f"Copied {counted(copied.segments, 'segment')}, offsets {copied.first_offset} to {copied.last_offset}."
    say(asdict(copied), words, json_wanted)


@log.command("bench-fsync")
@data_dir
@click.option("--syncs", type=click.IntRange(1, 100_000), default=500, show_default=True)
@as_json
def bench_fsync(data_dir: Path, syncs: int, *, json_wanted: bool) -> None:
    """Measure how fast this disk makes 4 KiB durable: the limit of every append."""
    make_private_directory(data_dir)
    figures = [measure_syncs(OsFiles(), data_dir, syncs=syncs, preallocated=way) for way in (True, False)]
    words = "\n".join(
        f"{one.way:<34} p50 {one.p50_ms:.3f}  p99 {one.p99_ms:.3f}  max {one.max_ms:.3f} ms  {one.per_second:,.0f}/s"
        for one in figures
    )
    say({"syncs": [asdict(one) for one in figures]}, words, json_wanted)


# How it is told


def log_directory(data_dir: Path) -> Path:
    """Return the log's own directory, or refuse in one sentence."""
    directory = data_dir / LOG_DIRECTORY
    if not directory.is_dir():
        raise click.UsageError(f"There is no log in {data_dir}.")
    return directory


def parse_range(text: str) -> tuple[int, int]:
    """Read "A-B" or "A"."""
    first, _, last = text.partition("-")
    try:
        found = int(first), int(last or first)
    except ValueError:
        raise click.BadParameter(f"{text!r} is not a range such as 17-20.", param_hint="--accept-loss") from None
    if not 1 <= found[0] <= found[1]:
        raise click.BadParameter(f"{text!r} is not a range such as 17-20.", param_hint="--accept-loss")
    return found


def say(document: dict[str, Any], words: str, json_wanted: bool) -> None:
    """Print a document for programs or words for people."""
    click.echo(json.dumps(document) if json_wanted else words)


def report_json(report: CheckReport) -> dict[str, Any]:
    """Return a report as JSON values."""
    content = asdict(report)
    for finding in content["findings"]:
        finding["verdict"] = LogVerdict(finding["verdict"]).name.lower()
    return {"verdict": report.verdict.name.lower(), "exit_code": int(report.verdict), **content}


def plan_json(plan: Plan) -> dict[str, Any]:
    """Return a plan as JSON values."""
    return {**asdict(plan), "lost_records": plan.lost_records}


def stat_facts(report: CheckReport) -> list[tuple[str, str]]:
    """Return what a log is, name by name."""
    consumers = ", ".join(f"{name} at {offset}" for name, offset in sorted(report.consumers.items())) or "none"
    gaps = ranges_in_words(report.gaps)
    return [
        ("directory", report.directory),
        ("log", f"{report.log_id or 'none'}{' (open in a running process)' if report.live else ''}"),
        ("store", f"{report.store_id or 'none yet'}, projected up to {report.projected_offset}"),
        ("offsets", f"{report.first_offset} to {report.last_offset}"),
        ("segments", str(report.segments)),
        ("consumers", consumers),
        ("accepted losses", gaps),
        ("end", ("clean" if report.clean_end else "not closed cleanly") + (", POISONED" if report.poisoned else "")),
    ]


def tell_report(report: CheckReport) -> None:
    """Say how the log fares: the verdict first, then each finding, then what to do."""
    depth = "every record" if report.deep else "the headers and the last segment; --deep reads every record"
    words = {
        LogVerdict.CLEAN: "✓ The log is sound.",
        LogVerdict.TORN: "✓ The log is sound up to a torn tail: a write that was never acknowledged.",
        LogVerdict.CORRUPT: "✕ The log is DAMAGED. Nothing has been changed.",
        LogVerdict.IO_ERROR: "✕ The disk answers with ERRORS; what is on it is not known.",
    }
    click.echo(words[report.verdict])
    segments = counted(report.segments, "segment")
    click.echo(f"Offsets {report.first_offset} to {report.last_offset} in {segments}; checked: {depth}.")
    if report.poisoned:
        click.echo("POISONED stands: the log gave up while it was written. The next start reads every live byte back.")
    for finding in report.findings:
        click.echo(f"  {finding.in_words()}")
    if report.verdict is LogVerdict.CORRUPT:
        click.echo("What can be done, and what it costs: `replayforge log repair`.")


def plan_in_words(report: CheckReport, plan: Plan) -> str:
    """Say what a repair would do, and the one command that does it."""
    if plan.blocked:
        return plan.blocked
    lines = [finding.in_words() for finding in report.findings]
    if not plan.actions:
        return "Nothing is wrong; there is nothing to repair."
    if all(action.kind == "nothing" for action in plan.actions):
        return "\n".join([*lines, "Nothing needs to be repaired by hand: the next start takes care of it."])
    lines += ["", "The plan:"]
    lines += [f"  {number}. {action.segment or 'log'}: {action.what}" for number, action in enumerate(plan.actions, 1)]
    if plan.actions[0].kind == "rebuild_manifest":
        return "\n".join([*lines, "", "To do it: replayforge log repair --rebuild-manifest --apply"])
    cost = f"{counted(plan.lost_records, 'record')}, offsets {ranges_in_words(plan.lost)}" if plan.lost else "no record"
    accept = "".join(f" --accept-loss {ranges_in_words([one])}" for one in plan.lost)
    lines += ["", f"It costs {cost}. A copy of each damaged file is kept in quarantine/."]
    return "\n".join([*lines, f"To do it: replayforge log repair --apply{accept}"])


def rebuilt_in_words(applied: bool) -> str:
    """Say whether the manifest was rebuilt."""
    if applied:
        return "The manifest was made anew; the old one is kept in quarantine/."
    return "It can be made anew from the segments. To do it: replayforge log repair --rebuild-manifest --apply"
