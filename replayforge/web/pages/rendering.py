"""Turns a view into HTML: whole pages with what stands around them, or the parts that a live update asks for."""

import hashlib
from asyncio import get_running_loop
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from typing import Any

import jinja2
import msgspec
from aiohttp import web

from replayforge.domain import signs
from replayforge.domain.clock import format_time
from replayforge.domain.errors import Unavailable
from replayforge.domain.lifecycle import State
from replayforge.domain.reports import Group
from replayforge.engine.report.convergence import Convergence
from replayforge.engine.report.daemon_status import DaemonStatus
from replayforge.turns import computing
from replayforge.web.api.snapshot import convergence_of
from replayforge.web.http.context import CALLER, WebContext, context_of
from replayforge.web.http.guard import session_key
from replayforge.web.http.routes import ADMIN, INGEST, OPERATE
from replayforge.web.live.cached_answer import CachedAnswer
from replayforge.web.live.hints import happened
from replayforge.web.pages import flash, words
from replayforge.web.pages.assets import ASSETS
from replayforge.web.pages.documents import Reading
from replayforge.web.pages.health import Health, Signs, judge
from replayforge.web.pages.rows import groups_of_errors

THEME_COOKIE = "replayforge_theme"
THEMES = ("auto", "light", "dark")
REGIONS_HEADER = "X-Live-Regions"
PARTS = "parts"
LOCKED = "disabled data-locked"  # nothing that happens on the page unlocks a button


@dataclass(frozen=True, slots=True)
class Shell:
    """What every page shows around its content; `base` and `static` begin every link, `keyed`: programs need a key.

    `unless` holds the words that disable a button for each role that the key of whoever looks does not include.
    """

    title: str
    section: str
    base: str
    static: str
    here: str
    theme: str
    health: Health
    dead_count: int
    flash: flash.Flash | None
    chaos: bool
    signed_in: bool
    key: str
    unless: Mapping[str, str]
    keyed: bool
    now: str
    seen: int
    bare: bool = False


@dataclass(frozen=True, slots=True)
class PageTemplate:
    """Which template shows a view, under which title and in which section of the navigation."""

    template: str
    title: str
    section: str = ""
    status: int = 200


@cache
def build_environment() -> jinja2.Environment:
    """Return the templates with the filters and parts that all of them use."""
    loader = jinja2.PackageLoader("replayforge.web", "templates")
    environment = jinja2.Environment(
        loader=loader,
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.filters.update(
        segment=words.segment, size=words.size, duration=words.duration, number=words.count, first_line=words.first_line
    )
    environment.globals.update(
        link=words.link,
        plural=words.plural,
        workflow_path=words.workflow_path,
        STATES=signs.STATES,
        OUTCOMES=signs.OUTCOMES,
        STEP_STATES=signs.STEP_STATES,
        JOB_STATES=signs.JOB_STATES,
        HANDLER_STATES=signs.HANDLER_STATES,
    )
    return environment


def compile_templates(environment: jinja2.Environment) -> None:
    """Compile every template, and let all of them use the parts."""
    for name in environment.list_templates():
        environment.get_template(name)
    environment.globals[PARTS] = environment.get_template("parts.html").module


async def compiled(request: web.Request) -> jinja2.Environment:
    """Return the templates, compiled.

    That takes longer than a request may hold the loop, and longer than a restart after a crash should: a thread does it
    for the first page that somebody asks for.
    """
    environment = request.config_dict[ENVIRONMENT]
    if PARTS not in environment.globals:
        await get_running_loop().run_in_executor(computing, compile_templates, environment)
    return environment


ENVIRONMENT: web.AppKey[jinja2.Environment] = web.AppKey("environment", jinja2.Environment)
LETTER_GROUPS: web.AppKey[CachedAnswer[list[Group]]] = web.AppKey("letter_groups", CachedAnswer)


async def show(request: web.Request, page: PageTemplate, view: Any) -> web.Response:
    """Answer with a page, or with those regions of it that a live update asks for."""
    environment = await compiled(request)
    wanted = request.headers.get(REGIONS_HEADER)
    values = {"shell": await build_shell(request, page, partial=wanted is not None)} | values_of(view)
    if wanted is not None:
        return show_regions(request, environment, page, values, wanted.split(","))
    html = environment.get_template(page.template).render(values)
    response = html_response(html, page)
    flash.clear(request, response)
    return response


async def show_bare(request: web.Request, page: PageTemplate, view: Any) -> web.Response:
    """Answer with a page that says nothing of the daemon, for those who have shown no key."""
    values = {"shell": bare_shell(request, page)} | values_of(view)
    html = (await compiled(request)).get_template(page.template).render(values)
    return html_response(html, page)


def html_response(html: str, page: PageTemplate) -> web.Response:
    """Answer with a page that nobody keeps."""
    return web.Response(text=html, content_type="text/html", status=page.status, headers={"Cache-Control": "no-store"})


def values_of(view: Any) -> dict[str, Any]:
    """Return a view's fields by name; the values stay as they are."""
    return {field.name: getattr(view, field.name) for field in fields(view)}


def show_regions(
    request: web.Request, environment: jinja2.Environment, page: PageTemplate, values: dict[str, Any], names: list[str]
) -> web.Response:
    """Answer with the named blocks of a page as JSON, or with 304 when they are as the client knows them."""
    templates = [environment.get_template(page.template), environment.get_template("layout.html")]
    regions = {}
    for name in names:
        template = next((template for template in templates if name in template.blocks), None)
        if template is not None:
            regions[name] = "".join(template.blocks[name](template.new_context(values)))
    body = msgspec.json.encode({"title": values["shell"].title, "regions": regions})
    tag = f'"{hashlib.blake2b(body, digest_size=12).hexdigest()}"'
    headers = {"ETag": tag, "Cache-Control": "no-store", "Vary": REGIONS_HEADER}
    if request.headers.get("If-None-Match") == tag:
        return web.Response(status=304, headers=headers)
    return web.Response(body=body, content_type="application/json", headers=headers)


def bare_shell(request: web.Request, page: PageTemplate) -> Shell:
    """Return what stands around a page for strangers."""
    base = context_of(request).base_path
    return Shell(
        title=page.title,
        section="",
        base=base,
        static=f"{base}/static/{request.config_dict[ASSETS].digest}",
        here=request.path_qs,
        theme=theme_of(request),
        health=Health("", "", "", ""),
        dead_count=0,
        flash=None,
        chaos=False,
        signed_in=False,
        key="",
        unless={},
        keyed=False,
        now="",
        seen=0,
        bare=True,
    )


def theme_of(request: web.Request) -> str:
    """Return the theme that the browser asked for."""
    theme = request.cookies.get(THEME_COOKIE, "auto")
    return theme if theme in THEMES else "auto"


async def build_shell(request: web.Request, page: PageTemplate, *, partial: bool) -> Shell:
    """Return what stands around every page; a store that does not answer is part of the news, not an error."""
    context, key = context_of(request), request.get(CALLER)
    seen = happened(context.telemetry)
    report, groups = await ledger_and_groups(request)
    now_us = context.clock.now_us()
    return Shell(
        title=page.title,
        section=page.section,
        base=context.base_path,
        static=f"{context.base_path}/static/{request.config_dict[ASSETS].digest}",
        here=request.path_qs,
        theme=theme_of(request),
        health=await judge_now(context.status, report, groups, now_us),
        dead_count=report.ledger.states[State.DEAD_LETTERED] if report else 0,
        flash=None if partial else flash.read(request),
        chaos=context.chaos is not None,
        signed_in=session_key(request) is not None,
        key=f"{key.name} ({key.role})" if key else "",
        unless={role: "" if key is None or key.may(role) else LOCKED for role in (INGEST, OPERATE, ADMIN)},
        keyed=bool(context.access.keys),
        now=format_time(now_us),
        seen=seen,
    )


async def ledger_and_groups(request: web.Request) -> tuple[Convergence | None, list[Group]]:
    """Return how the ledger stands and the groups of dead letters, or nothing while the store is away."""
    context, cached = context_of(request), request.config_dict[LETTER_GROUPS]
    try:
        report = await convergence_of(request)
        any_dead = report.ledger.states[State.DEAD_LETTERED] > 0
        groups = await cached.get(lambda: letter_groups(context)) if any_dead else []
    except Unavailable:
        return None, []
    return report, groups


async def letter_groups(context: WebContext) -> list[Group]:
    """Return dead letters by their errors, as pages name these."""
    return groups_of_errors(await context.queries.dead_letter_groups("error"), Reading(context.masked_names))


async def judge_now(status: DaemonStatus, report: Convergence | None, groups: list[Group], now_us: int) -> Health:
    """Return the word for the daemon as it is now."""
    recovery = status.log_recovery()
    return judge(
        Signs(
            unready_because=status.unready_because(),
            checks=await status.checks(),
            services=status.services(),
            report=report,
            dead_letters=groups,
            unclean_start=not recovery.clean and recovery.last_offset > 0,
            started_at_us=status.started_at_us,
            now_us=now_us,
            deploy=status.deploy,
        )
    )
