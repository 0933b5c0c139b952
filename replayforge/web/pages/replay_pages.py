"""The pages of bulk replays: the list, one of them, the question before one is made, and the forms that move one."""

from typing import Any

import msgspec
from aiohttp import web
from multidict import MultiMapping

from replayforge.domain.bulk_replay import MEMBERS_MAX, ReplayJob
from replayforge.domain.document import Unacceptable
from replayforge.domain.errors import NotFound, Rejected
from replayforge.domain.identity import new_request_id
from replayforge.domain.lifecycle import TERMINAL, State
from replayforge.domain.replay_plan import FROM_START, origin_of
from replayforge.engine.replay.jobs import ReplayJobs
from replayforge.web.api.replays import BulkReplayRequest, ReplayFilter, chosen_events, order_of
from replayforge.web.http.context import context_of
from replayforge.web.http.problems import HttpProblem
from replayforge.web.http.reading import form_key, query_cursor, read_form
from replayforge.web.pages import views
from replayforge.web.pages.documents import Reading, hidden
from replayforge.web.pages.event_list import api_query, read_filters
from replayforge.web.pages.flash import Flash, back_of, is_ours, see_other
from replayforge.web.pages.paging import PAGE_SIZE, older
from replayforge.web.pages.rendering import PageTemplate, show
from replayforge.web.pages.replay_rows import filter_in_words, replay_row
from replayforge.web.pages.words import plural

NUMBERS = ("expected_count", "rate_per_second", "max", "canary")
MOVES = {
    "pause": (ReplayJobs.pause, "is paused"),
    "resume": (ReplayJobs.resume, "goes on"),
    "cancel": (ReplayJobs.cancel, "is cancelled; what it has replayed runs on"),
}


async def replays(request: web.Request) -> web.Response:
    """Show bulk replays, newest first."""
    cursor = query_cursor(request)
    found = await context_of(request).replay_jobs.list(cursor, PAGE_SIZE + 1)
    view = views.ReplaysView(
        rows=[replay_row(job) for job in found[:PAGE_SIZE]],
        first_page=cursor is None,
        older=older(request, [job.seq for job in found]),
    )
    return await show(request, PageTemplate("replays.html", "Replays", "replays"), view)


async def replay(request: web.Request) -> web.Response:
    """Show one bulk replay and how far it has come."""
    job, skips = await context_of(request).replay_jobs.find(request.match_info["id"])
    view = views.ReplayView(replay=replay_row(job), skips=skips)
    return await show(request, PageTemplate("replay.html", f"Bulk replay {job.id}", "replays"), view)


async def ask(request: web.Request) -> web.Response:
    """Say how many events a bulk replay would take, and ask how and why."""
    context = context_of(request)
    given = given_filter(read_filters(request), context.clock.now_us())
    wanted = msgspec.convert(given, ReplayFilter)
    force = wanted.status is State.SUCCEEDED
    preview = await context.replay_jobs.preview(
        chosen_events(BulkReplayRequest(filter=wanted, force=force)), FROM_START
    )
    reading = Reading(context.masked_names)
    if not preview.matched:
        raise NotFound(f"There is nothing to replay: none of {filter_in_words(given)}.")
    view = views.NewReplayView(
        what=filter_in_words(given),
        count=preview.matched,
        more=preview.more,
        members_max=MEMBERS_MAX,
        groups=[(hidden(name, reading), number) for name, number in preview.groups],
        groups_capped=preview.groups_capped,
        effects=preview.effects,
        hidden=[*given.items(), ("expected_count", str(preview.matched)), ("key", new_request_id())],
        needs_force=force,
        again=request.path_qs,
        back=back_of(request.query, f"{context.base_path}/dead-letters"),
    )
    return await show(
        request, PageTemplate("new_replay.html", f"Replay {plural(preview.matched, 'event')}", "replays"), view
    )


def given_filter(filters: views.Filters, now_us: int) -> dict[str, str]:
    """Return the filters of a page with the names of the API; without a state, dead letters are meant."""
    given = {"status": State.DEAD_LETTERED.value} | api_query(filters, now_us)
    if given["status"] not in TERMINAL:
        raise Unacceptable("Only finished events can be replayed; filter by one of their states.", "?status")
    return given


async def make(request: web.Request) -> web.Response:
    """Make a bulk replay and go to it; what is wrong is said where it was asked for."""
    form, context = await read_form(request), context_of(request)
    again = form.get("again", "")
    again = again if again and is_ours(again) else f"{context.base_path}/replays/new"
    try:
        asked = request_of(form)
        job, is_new = await context.replay_jobs.create(chosen_events(asked), order_of(asked, form_key(form)))
    except (Rejected, msgspec.ValidationError) as error:
        return see_other(request, again, Flash("err", str(error)))
    return see_other(request, f"{context.base_path}/replays/{job.id}", made(job, is_new=is_new))


def request_of(form: MultiMapping[str]) -> BulkReplayRequest:
    """Read the form as the API reads its body; raises ValidationError."""
    given: dict[str, Any] = {name: form[name] for name in NUMBERS if form.get(name)}
    wanted = {name: form[name] for name in ReplayFilter.__struct_fields__ if form.get(name)}
    chosen = {"ids": ids.split()} if (ids := form.get("ids")) else {"filter": wanted}
    more: dict[str, Any] = {"reason": form.get("reason", ""), "force": form.get("force") == "on"}
    if step := form.get("step"):
        more["from"] = origin_of(step)
    elif begins_from := form.get("from"):
        more["from"] = begins_from
    return msgspec.convert(given | more | chosen, BulkReplayRequest, strict=False)


def made(job: ReplayJob, *, is_new: bool) -> Flash:
    """Say what came of it."""
    if not is_new:
        return Flash("warn", f"This form was sent before: {job.id} is what it has made.")
    return Flash("ok", f"Bulk replay {job.id} of {plural(job.total, 'event')} was made; it goes on by itself.")


async def move(request: web.Request) -> web.Response:
    """Pause, resume or cancel a bulk replay and go back to it."""
    job_id, verb, context = request.match_info["id"], request.match_info["verb"], context_of(request)
    await read_form(request)
    if verb not in MOVES:
        raise HttpProblem("not-found", f"There is no action {verb!r}.")
    work, words = MOVES[verb]
    path = f"{context.base_path}/replays/{job_id}"
    try:
        job = await work(context.replay_jobs, job_id)
    except NotFound:
        raise
    except Rejected as error:
        return see_other(request, path, Flash("err", str(error)))
    return see_other(request, path, Flash("ok", f"Bulk replay {job.id} {words}."))
