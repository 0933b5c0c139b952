"""`events`: look at events, one or many, and act on them."""

from collections.abc import Mapping
from typing import Any

import click
import msgspec

from replayforge.cli.actions import act_on_each, confirm_effects
from replayforge.cli.bulk_replay import bulk_options, replay_matching
from replayforge.cli.options import as_json, begins_from, document, event_filters, with_client, yes
from replayforge.cli.output import facts, relative, state, table, verbatim
from replayforge.client.http import ClientConnection
from replayforge.client.terminal import NOTHING, complain, first_line, plain, printable
from replayforge.domain.lifecycle import REPLAYABLE, TERMINAL, TRANSITIONS, State
from replayforge.domain.replay_plan import FROM_START, origin_of

PAYLOAD_SHOWN_CHARACTERS = 16_384
STEPS_SHOWN = 200
BULK_ONLY = ("rate_per_second", "max", "canary", "detach", "wait", "json_wanted")

several_ids = click.argument("ids", metavar="ID...", nargs=-1, required=True)
dry_run = click.option("--dry-run", is_flag=True, help="Only say what would be done.")


@click.group()
def events() -> None:
    """Look at events and act on them."""


@events.command("ls")
@click.option("--status", type=click.Choice([state.value for state in State]), help="State.")
@event_filters
@click.option("--contains", help="A text in the payload or the metadata, exactly as it was sent; looks at the newest.")
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 200), help="How many at most.")
@click.option("--cursor", help="Where the last page ended.")
@as_json
@with_client
def list_events(client: ClientConnection, *, filters: dict[str, str], json_wanted: bool, **query: Any) -> None:
    """List events, newest first."""
    reply = client.get("api", "events", **filters, **query)
    if json_wanted:
        verbatim(reply.body)
    else:
        show_page(reply.document())


def show_page(page: Mapping[str, Any]) -> None:
    """Print a page of events as a table, and how to get the next one."""
    items = page["items"]
    if not items:
        complain("No events match.")
    heads = ("STATE", "ID", "TYPE", "WORKFLOW", "FAILED", "CREATED", "LAST ERROR")
    if items:
        table(heads, [event_row(event) for event in items])
    if not page.get("search_complete", True):
        complain(
            f"Looked at {plain(page.get('searched'))} events, not at older ones: --cursor {page.get('next_cursor')}"
        )
    elif page.get("has_more"):
        complain(f"There are more: --cursor {page.get('next_cursor')}")


def event_row(event: Mapping[str, Any]) -> tuple[str, ...]:
    """Return one event as a row of the table."""
    return (
        state_in_words(event),
        plain(event.get("id")),
        plain(event.get("event_type")),
        plain(event.get("workflow_id")),
        attempts(event),
        relative(event.get("created_at")),
        first_line(event.get("last_error")),
    )


def state_in_words(event: Mapping[str, Any]) -> str:
    """Return the state, and when it will change by itself."""
    due = relative(event.get("next_run_at"))
    return state(event.get("status")) + ("" if due == NOTHING else f" ({due})")


def attempts(event: Mapping[str, Any]) -> str:
    """Return the attempts that failed or timed out, and how many may."""
    return f"{plain(event.get('attempt_count'))}/{plain(event.get('max_attempts'))}"


@events.command("show")
@click.argument("event_id", metavar="ID")
@as_json
@with_client
def show(client: ClientConnection, *, event_id: str, json_wanted: bool) -> None:
    """Show one event with its payload, its steps, every attempt, and what was done to it, newest first."""
    reply = client.get("api", "events", event_id)
    if json_wanted:
        verbatim(reply.body)
        return
    event, untouched = reply.document(), msgspec.json.decode(reply.body, type=dict[str, msgspec.Raw])
    open_now = event.get("status") not in TERMINAL
    why = client.get("api", "events", event_id, "why").document()["sentence"] if open_now else None
    facts(
        [
            ("state", state_in_words(event)),
            *([("why", plain(why))] if why else []),
            *((name.replace("_", " "), plain(event[name])) for name in SHOWN if event.get(name)),
            ("failed", f"{attempts(event)} attempts of run {plain(event.get('run'))}"),
            *((name, f"{plain(event.get(f'{name}_at'))}  ({relative(event.get(f'{name}_at'))})") for name in TIMES),
            ("log", f"offset {plain(event.get('log_offset'))} of {plain(event.get('log_id'))}"),
            *relations(event),
            *(("replayed as", plain(one)) for one in event.get("edited_replays") or ()),
            *((name, shortened(untouched[name])) for name in CONTENT if bytes(untouched.get(name, b"null")) != b"null"),
        ]
    )
    if event.get("steps"):
        show_steps(client.get("api", "events", event_id, "steps", limit=STEPS_SHOWN).document())
    show_attempts(event.get("attempts") or [])
    show_actions(event.get("actions") or [])
    if event.get("last_error"):
        click.echo(f"\n{click.style('LAST ERROR', bold=True)}\n{printable(event['last_error'].rstrip())}")


SHOWN = ("id", "event_type", "subscriber", "workflow_id", "application_name", "service_name", "idempotency_key",
         "replay_of", "reason", "trace_id")  # fmt: skip
TIMES = ("created", "updated")
CONTENT = ("metadata", "payload", "result")


def relations(event: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what the event waits for, and its parent and children."""
    parent, children = event.get("parent"), event.get("children") or []
    return [
        *((("code change", plain(change["sentence"])),) if (change := event.get("code_change")) else ()),
        *(("waits for", awaited(one)) for one in event.get("awaits") or []),
        *((("parent", relative_in_words(parent)),) if parent else ()),
        *(("child", relative_in_words(child)) for child in children),
        *((("cancel", "is asked for, and comes at the next step"),) if event.get("cancel_requested") else ()),
    ]


def awaited(one: Mapping[str, Any]) -> str:
    """Return what a parked event waits for, and until when."""
    subject, until = plain(one.get("event_type") or one.get("name")), relative(one.get("until"))
    ends = "" if until == NOTHING else f", until {plain(one['until'])} ({until})"
    return f"{subject} ({plain(one.get('kind'))}){ends}"


def relative_in_words(one: Mapping[str, Any]) -> str:
    """Return a parent or a child."""
    status = state(one["status"]) if one.get("status") else "gone"
    return f"{plain(one.get('id'))}  {plain(one.get('event_type'))}  {status}"


def show_steps(page: Mapping[str, Any]) -> None:
    """Print the steps of the current journal as a table."""
    click.echo()
    heads = ("STATE", "STEP", "KIND", "TRIES", "TOOK", "ENDS", "EVENT", "ERROR")
    table(heads, [step_row(one) for one in page["items"]])
    if page.get("has_more"):
        complain(f"There are more than {STEPS_SHOWN} steps; GET /api/events/ID/steps has all of them.")


def step_row(one: Mapping[str, Any]) -> tuple[str, ...]:
    """Return one step as a row of the table."""
    took, error = one.get("duration_ms"), one.get("error")
    pending = one.get("state") in ("pending", "started")
    return (
        state(one.get("state")),
        plain(one.get("name")),
        plain(one.get("kind")),
        plain(one.get("tries")),
        NOTHING if took is None else f"{took / 1000:,.3f} s",
        relative(one.get("due_at")) if pending else NOTHING,
        plain(one.get("event_id")),
        first_line(f"{error['type']}: {error['message']}") if error else NOTHING,
    )


def shortened(value: msgspec.Raw) -> str:
    """Return a JSON value as it was sent, on one line, cut when it is long."""
    text = plain(bytes(value).decode())
    if len(text) <= PAYLOAD_SHOWN_CHARACTERS:
        return text
    return f"{text[:PAYLOAD_SHOWN_CHARACTERS]}… ({len(text):,} characters; all of it with --json)"


def show_attempts(attempts: list[dict[str, Any]]) -> None:
    """Print the attempts as a table."""
    if attempts:
        click.echo()
        heads = ("OUTCOME", "RUN", "ATTEMPT", "STARTED", "ENDED", "WORKER", "ERROR")
        table(heads, [attempt_row(one) for one in attempts])


def attempt_row(attempt: Mapping[str, Any]) -> tuple[str, ...]:
    """Return one attempt as a row of the table."""
    names = ("run", "attempt_number", "started_at", "finished_at", "worker_name")
    return (
        state(attempt.get("outcome")),
        *(plain(attempt.get(name)) for name in names),
        first_line(attempt.get("error")),
    )


def show_actions(actions: list[dict[str, Any]]) -> None:
    """Print what was done to the event as a table, newest first."""
    if actions:
        click.echo()
        table(("DONE", "RUN", "AT", "WITH KEY", "WHY"), [action_row(one) for one in reversed(actions)])


def action_row(action: Mapping[str, Any]) -> tuple[str, ...]:
    """Return something that was done as a row of the table."""
    return (*(plain(action.get(name)) for name in ("action", "run", "at", "by")), first_line(action.get("detail")))


@events.command("replay")
@click.argument("ids", metavar="[ID...]", nargs=-1)
@click.option(
    "--status", type=click.Choice([state.value for state in sorted(REPLAYABLE)]), help="State, for a bulk replay."
)
@event_filters
@click.option(
    "--payload", metavar="JSON|@FILE|-", callback=document, help="Send a new event with this payload instead."
)
@click.option("--reason", help="Why, for those who look at it later; needed unless ids are named.")
@click.option("--force", is_flag=True, help="Replay events that succeeded, too.")
@bulk_options
@begins_from
@click.option(
    "--subscribers",
    metavar="failed|all|NAME,…",
    help="Replay what an event has sent to its subscribers: what failed, all of it, or what the named ones got.",
)
@dry_run
@yes
@as_json
@with_client
@click.pass_context
def replay(
    context: click.Context,
    /,
    client: ClientConnection,
    *,
    ids: tuple[str, ...],
    payload: msgspec.Raw | None,
    subscribers: str | None,
    status: str | None,
    filters: dict[str, str],
    **options: Any,
) -> None:
    """Run events again: those named, one by one; those of a --status that match the filters, as a bulk replay.

    Same id and key, a new run with its full number of attempts. What the steps of an event have done stays done,
    unless --from says otherwise.
    """
    if ids:
        if status or any(filters.values()) or any(options[name] for name in BULK_ONLY):
            raise click.UsageError("Named events are replayed one by one; filters and the pace are for a bulk replay.")
        chosen = {name: options[name] for name in ("dry_run", "yes", "force", "begins_from", "reason")}
        replay_named(context, client, ids, subscribers, payload=payload, **chosen)
        return
    if status is None or payload is not None or subscribers is not None:
        raise click.UsageError(
            "Name events by their ids, or by their --status and filters; --payload and --subscribers need ids."
        )
    context.exit(replay_matching(client, "event", filters={"status": status, **filters}, **options))


def replay_named(
    context: click.Context,
    client: ClientConnection,
    ids: tuple[str, ...],
    subscribers: str | None,
    *,
    dry_run: bool,
    yes: bool,
    force: bool,
    begins_from: str | None,
    **given: Any,
) -> None:
    """Replay events one by one, once effects that would happen again were confirmed."""
    chosen = subscribers if subscribers in (None, "failed", "all") else subscribers.split(",")
    given |= {"force": force or None, "from": begins_from, "subscribers": chosen}
    body = {name: value for name, value in given.items() if value is not None}
    if not dry_run and not yes:
        confirm_effects(client, ids, body)
    act(context, client, "replay", ids, body, dry_run=dry_run)


@events.command("retry")
@several_ids
@dry_run
@with_client
@click.pass_context
def retry(context: click.Context, /, client: ClientConnection, *, ids: tuple[str, ...], dry_run: bool) -> None:
    """Try retrying events now, without waiting for their backoff."""
    act(context, client, "retry", ids, {}, dry_run=dry_run)


@events.command("cancel")
@several_ids
@dry_run
@with_client
@click.pass_context
def cancel(context: click.Context, /, client: ClientConnection, *, ids: tuple[str, ...], dry_run: bool) -> None:
    """Cancel events that have not begun."""
    act(context, client, "cancel", ids, {}, dry_run=dry_run)


@events.command("resolve")
@several_ids
@click.option(
    "--as",
    "status",
    type=click.Choice([state.value for state in State if state in TRANSITIONS[State.HELD]]),
    help="What it becomes: its effect has happened, it has failed, or it is to run again.",
)
@click.option("--as-is", is_flag=True, help="It goes on with code that does something else than it has recorded.")
@click.option("--restart", is_flag=True, help="It begins anew with that code, and has all its effects again.")
@click.option("--from", "begins_from", metavar="STEP", help="It goes on with that code from before this step.")
@click.option("--reason", default="", help="Why, for those who look at it later.")
@click.option("--step", help="The step in doubt that this is about: queued, it is done again unless it has a result.")
@click.option("--result", metavar="JSON|@FILE|-", callback=document, help="What the step in doubt has come to.")
@dry_run
@with_client
@click.pass_context
def resolve(
    context: click.Context,
    /,
    client: ClientConnection,
    *,
    ids: tuple[str, ...],
    dry_run: bool,
    status: str | None,
    as_is: bool,
    restart: bool,
    begins_from: str | None,
    **given: Any,
) -> None:
    """Decide about events that are held: whether they had their effect, or what changed code is to do with them."""
    ways = [as_is, restart, begins_from is not None]
    if sum(ways) > 1 or any(ways) is (status is not None):
        raise click.UsageError("Say one of --as, --as-is, --restart and --from.")
    origin = FROM_START if restart else None if begins_from is None else origin_of(begins_from)
    said = given | {"from": origin, "to": status or State.QUEUED.value}
    body = {name: value for name, value in said.items() if value is not None}
    act(context, client, "resolve", ids, body, dry_run=dry_run)


def act(
    context: click.Context,
    client: ClientConnection,
    action: str,
    ids: tuple[str, ...],
    body: Mapping[str, Any],
    *,
    dry_run: bool,
) -> None:
    """Carry out an action on each event, or say what it would be carried out on, and set the exit code."""
    if dry_run:
        show_page({"items": [client.get("api", "events", event_id).document() for event_id in ids]})
        complain(f"Would {action} {len(ids)}; nothing was done.")
        return
    context.exit(
        act_on_each(DONE[action], ids, lambda event_id: client.post("api", "events", event_id, action, document=body))
    )


DONE = {"replay": "replayed", "retry": "retried", "cancel": "cancelled", "resolve": "resolved"}
