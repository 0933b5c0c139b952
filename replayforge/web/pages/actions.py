"""What people do on the pages: every action a form, answered by a redirect with a message that says what came of it."""

from asyncio import gather
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import msgspec
from aiohttp import web
from multidict import MultiMapping

from replayforge.domain.errors import Conflict, NotFound, Rejected
from replayforge.domain.event import StoredEvent
from replayforge.domain.lifecycle import TRANSITIONS, State
from replayforge.domain.replay_plan import FROM_START, origin_of
from replayforge.domain.signs import STATES
from replayforge.engine.replay.replayer import Replay, Replayer
from replayforge.web.api.demo import generate_workload
from replayforge.web.api.operations import require_chaos
from replayforge.web.http.context import context_of
from replayforge.web.http.problems import HttpProblem
from replayforge.web.http.reading import read_form, reason_in
from replayforge.web.pages import rows, views
from replayforge.web.pages.flash import Flash, back_of, see_other
from replayforge.web.pages.rendering import PageTemplate, show
from replayforge.web.pages.replay_origins import origins_of
from replayforge.web.pages.selection import GROUP_EVENTS_MAX, Selection, read_selection, selected
from replayforge.web.pages.words import link, plural, segment, workflow_path

decode_anything = msgspec.json.Decoder(msgspec.Raw).decode
TOGETHER = 50
SAMPLE_MAX = 5
DONE = {"replay": "replayed", "discard": "discarded", "cancel": "cancelled", "retry": "queued to run now"}


@dataclass(frozen=True, slots=True)
class Order:
    """What is asked for: the verb, why, whether succeeded events are meant as well, and a replay from where."""

    verb: str
    reason: str
    force: bool
    begins_from: str | None = None


def verb_of(request: web.Request) -> str:
    """Return the verb in the path; raises 404 for one that does not exist."""
    verb = request.match_info["verb"]
    if verb not in DONE:
        raise HttpProblem("not-found", f"There is no action {verb!r}.")
    return verb


async def confirm(request: web.Request) -> web.Response:
    """Ask before something is done, and say to how many events."""
    verb = verb_of(request)
    selection = read_selection(request.query)
    context = context_of(request)
    events = await selected(context, selection)
    if not events:
        raise NotFound("None of the selected events exists any more.")
    view = views.ConfirmView(
        verb=verb,
        count=len(events),
        more=len(events) == GROUP_EVENTS_MAX,
        all_of_it=bulk_replay_link(context.base_path, verb, selection, events),
        sample=rows.event_rows(events[:SAMPLE_MAX], context),
        what=selection.group or "",
        hidden=selection.hidden,
        needs_force=verb == "replay" and any(event.state is State.SUCCEEDED for event in events),
        origins=origins_of(await context.queries.past_journals(events)) if verb == "replay" else [],
        back=back_of(request.query, f"{context.base_path}/events"),
    )
    title = f"{verb.capitalize()} {plural(len(events), 'event')}"
    return await show(request, PageTemplate("confirm.html", title, "events"), view)


def bulk_replay_link(base: str, verb: str, selection: Selection, events: Sequence[StoredEvent]) -> str:
    """Return the link to a bulk replay of the whole group, or nothing where a filter cannot name that very group."""
    names = {"error": "error", "type": "type", "service": "service"}
    by_reason = selection.group_by == "error" and events[0].error_signature != selection.group
    if (
        verb != "replay"
        or selection.group_by not in names
        or not selection.group
        or by_reason
        or "*" in selection.group
    ):
        return ""
    return link(f"{base}/replays/new", {"status": State.DEAD_LETTERED, names[selection.group_by]: selection.group})


async def act(request: web.Request) -> web.Response:
    """Carry out a verb on the selected events and go back."""
    form = await read_form(request)
    context = context_of(request)
    order = Order(verb_of(request), reason_in(form), form.get("force") == "on", form.get("from") or None)
    back = back_of(form, f"{context.base_path}/events")
    if order.verb == "discard" and not order.reason.strip():
        return see_other(request, back, Flash("err", "Nothing was discarded: a discard needs a reason."))
    events = await selected(context, read_selection(form))
    done, refusals = await carry_out(context.replayer, order, events)
    return see_other(request, back, outcome(order, events, done, refusals))


async def carry_out(replayer: Replayer, order: Order, events: Sequence[StoredEvent]) -> tuple[list[object], list[str]]:
    """Do it to each event, some together to share commits; returns what came of each, and why others were not."""
    done: list[object] = []
    refusals = []
    for start in range(0, len(events), TOGETHER):
        steps = [one(replayer, order, event) for event in events[start : start + TOGETHER]]
        for result in await gather(*steps, return_exceptions=True):
            if isinstance(result, Rejected):
                refusals.append(str(result))
            elif isinstance(result, BaseException):
                raise result
            else:
                done.append(result)
    return done, refusals


def one(replayer: Replayer, order: Order, event: StoredEvent) -> Awaitable[object]:
    """Begin to carry out an order on one event."""
    steps: dict[str, Callable[[], Awaitable[object]]] = {
        "replay": lambda: replayer.replay(event.id, order.reason, force=order.force, begins_from=order.begins_from),
        "discard": lambda: replayer.discard(event.id, order.reason),
        "cancel": lambda: replayer.cancel(event.id, order.reason),
        "retry": lambda: replayer.retry_now(event.id),
    }
    return steps[order.verb]()


def outcome(order: Order, events: Sequence[StoredEvent], done: Sequence[object], refusals: list[str]) -> Flash:
    """Say what came of it."""
    asked = sum(1 for one in done if isinstance(one, tuple) and not one[1])
    what = f"{plural(len(done) - asked, 'event')} {DONE[order.verb]}."
    if asked:
        what += f" {plural(asked, 'event')} asked to end: that happens at the next step."
    gone = [name for one in done if isinstance(one, Replay) and one.done is not None for name in one.done.gone]
    if gone:
        what += f" Their waits had taken signals that retention has removed: {', '.join(gone[:SAMPLE_MAX])}."
    path = f"/events/{segment(events[0].id)}" if len(events) == 1 else ""
    if not events:
        return Flash("err", "Nothing was done: none of the selected events exists any more.")
    if not refusals:
        return Flash("ok", what, path)
    return Flash("warn" if done else "err", f"{what} {plural(len(refusals), 'event')} left alone: {refusals[0]}", path)


async def replay_workflow(request: web.Request) -> web.Response:
    """Replay the failed events of a workflow."""
    form, context = await read_form(request), context_of(request)
    workflow_id = form.get("workflow", "")
    back = context.base_path + workflow_path(workflow_id)
    try:
        result = await context.replayer.replay_workflow(workflow_id, only="failed", reason=reason_in(form))
    except Conflict as conflict:
        return see_other(request, back, Flash("err", str(conflict)))
    message = f"{plural(len(result.replayed), 'failed event')} of this workflow replayed."
    return see_other(request, back, Flash("ok" if result.replayed else "warn", message))


async def replay_subscribers(request: web.Request) -> web.Response:
    """Replay what an event has sent to its subscribers: what failed, all of it, or what one of them got."""
    form, context = await read_form(request), context_of(request)
    event_id, which = form.get("id", ""), form.get("subscribers") or "failed"
    back = back_of(form, f"{context.base_path}/events/{segment(event_id)}")
    chosen = which if which in ("failed", "all") else (which,)
    try:
        result = await context.replayer.replay_subscribers(event_id, chosen, reason_in(form))
    except Rejected as error:
        return see_other(request, back, Flash("err", str(error)))
    message = f"{plural(len(result.replayed), 'event')} of its subscribers replayed."
    left = f" {next(iter(result.skipped.values()))}" if result.skipped else ""
    return see_other(request, back, Flash("ok" if result.replayed else "warn", message + left))


async def resolve(request: web.Request) -> web.Response:
    """Decide about an event that was held after a crash."""
    form, context = await read_form(request), context_of(request)
    event_id, status = form.get("id", ""), form.get("status", "")
    back = back_of(form, f"{context.base_path}/events")
    try:
        step, result = resolution_in(form)
    except msgspec.DecodeError as error:
        return see_other(request, back, Flash("err", f"The result of a step is JSON: {error}."))
    origin = origin_in(form)
    status = "queued" if status in ("again", "restart", "from") else status
    if status not in TRANSITIONS[State.HELD]:
        return see_other(request, back, Flash("err", "Say whether it is to run again, had succeeded, or had failed."))
    try:
        await context.replayer.resolve(
            event_id, State(status), reason_in(form), step=step, result=result, begins_from=origin
        )
    except Rejected as error:
        return see_other(request, back, Flash("err", str(error)))
    return see_other(request, back, Flash("ok", f"Decided: {STATES[status].words}."))


def resolution_in(form: MultiMapping[str]) -> tuple[str | None, bytes | None]:
    """Return the step in doubt that a form decides about, and its result if it has ended; raises DecodeError."""
    step = form.get("step") or None
    if step is None or form.get("status") != "queued":
        return step, None
    return step, bytes(decode_anything((form.get("result") or "null").encode(errors="surrogatepass")))


def origin_in(form: MultiMapping[str]) -> str | None:
    """Return from where an event whose code has changed is to go on; None for where it stands."""
    if form.get("status") == "restart":
        return FROM_START
    return origin_of(form.get("from", "")) if form.get("status") == "from" else None


async def crash_worker(request: web.Request) -> web.Response:
    """Crash one worker, where simulated crashes are enabled."""
    form, context = await read_form(request), context_of(request)
    require_chaos(context)
    name = form.get("worker", "")
    back = back_of(form, f"{context.base_path}/runtime")
    if name not in {worker.name for worker in context.status.workers()}:
        return see_other(request, back, Flash("err", f"There is no worker {name!r}."))
    context.supervisor.crash(name)
    return see_other(request, back, Flash("ok", f"{name} was crashed; the supervisor starts it again."))


async def demo_load(request: web.Request) -> web.Response:
    """Accept some checkouts that partly fail and crash, where simulated crashes are enabled."""
    back = back_of(await read_form(request), f"{context_of(request).base_path}/")
    await generate_workload(request)
    return see_other(request, back, Flash("ok", "Ten checkouts of seven events each are on their way."))
