"""Middleware before every handler: authentication, host and origin, query names, errors as problems, headers."""

import difflib
import re
from functools import lru_cache
from urllib.parse import urlsplit

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler
from multidict import istr

from replayforge.domain.acting import acting
from replayforge.domain.api_keys import ApiKey, matching_key
from replayforge.domain.errors import ReplayForgeError
from replayforge.domain.identity import new_request_id
from replayforge.tracebacks import formatted
from replayforge.web.http import problems
from replayforge.web.http.answers import REQUEST_ID_HEADER, complete
from replayforge.web.http.bodies import SHARE
from replayforge.web.http.body_budget import Share
from replayforge.web.http.context import BASE_PATH, CALLER, CONTEXT, PARAMETERS, REQUEST_ID, WebContext, context_of
from replayforge.web.http.problems import HttpProblem
from replayforge.web.http.reading import IDEMPOTENCY_KEY
from replayforge.web.http.routes import ADMIN, EVERYBODY, OPERATE, need_of

SESSION_COOKIE = "replayforge_session"
PORT = re.compile(r":\d+$")
REQUEST_ID_FORM = re.compile(r"[A-Za-z0-9._-]{1,128}")
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
# What needs one of these is done by somebody; an event that is sent says by itself where it comes from.
ACTED_BY_NAME = frozenset({OPERATE, ADMIN})
# What lies below this one proves by itself where it comes from, unless its source says otherwise.
SOURCES_PATH = "/in/"
API_KEY, FETCH_SITE = istr("X-API-Key"), istr("Sec-Fetch-Site")
DECISIVE_HEADERS = (
    IDEMPOTENCY_KEY,
    API_KEY,
    hdrs.AUTHORIZATION,
    hdrs.CONTENT_TYPE,
    hdrs.CONTENT_ENCODING,
    hdrs.ORIGIN,
    FETCH_SITE,
)
# Legacy names beside ours; and the one name of which a page takes several.
SHORT_PARAMETERS = {
    "type": "event_type",
    "service": "service_name",
    "workflow": "workflow_id",
    "application": "application_name",
}
LISTED_PARAMETERS = frozenset({"id"})
# The problems that aiohttp's own errors are; it raises no others for what we use of it.
OF_AIOHTTP = {404: "not-found", 405: "method-not-allowed", 413: "too-large", 417: "expectation-failed"}


@web.middleware
async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Check the request, let it through, and see that every answer has an id and every error a form."""
    context = request.app[CONTEXT]
    request_id = request[REQUEST_ID] = request_id_of(request, context)
    request[BASE_PATH] = context.base_path
    share = request[SHARE] = Share(context.bodies)
    try:
        check_headers(request)
        key = check_access(request, context)
        check_query(request)
        response = await (handler(request) if key is None or not is_action(request) else acted(request, handler, key))
    except (ReplayForgeError, HttpProblem) as error:
        response = problems.respond(request, error)
    except web.HTTPException as error:
        response = from_aiohttp(request, error)
    except (ConnectionResetError, TimeoutError):
        raise
    except Exception as error:  # the last wall: a defect of ours is told without its inside
        response = unexpected(request, error)
    finally:
        share.give_back(share.held)
    if not response.prepared:
        complete(response, request_id)
    return response


def request_id_of(request: web.Request, context: WebContext) -> str:
    """Return what a request goes by: the id that it brings, if that is well formed, or a new one."""
    # Below a base path the guard stands twice, around the whole and around what lies below; the first names it.
    named: str | None = request.get(REQUEST_ID) if context.base_path else None
    if named is not None:
        return named
    given = request.headers.get(REQUEST_ID_HEADER, "")
    return given if REQUEST_ID_FORM.fullmatch(given) else new_request_id()


def is_action(request: web.Request) -> bool:
    """Tell whether a request that was let in with a key may change what becomes of events."""
    innermost = request.match_info.apps[-1] is request.app
    return request.method not in SAFE_METHODS and innermost and need_of(request) in ACTED_BY_NAME


async def acted(request: web.Request, handler: Handler, key: ApiKey) -> web.StreamResponse:
    """Carry out a request in the name of its key: what records anything finds that, and the log says who did what."""
    token = acting.set(key.name)
    try:
        response = await handler(request)
    finally:
        acting.reset(token)
    if response.status < 400:
        request.app[CONTEXT].telemetry.emit(
            "action.taken", key=key.name, what=f"{request.method} {request.path}", request_id=request[REQUEST_ID]
        )
    return response


def check_headers(request: web.Request) -> None:
    """Refuse a request that says two things at once in a header that decides what becomes of it."""
    for name in DECISIVE_HEADERS:
        given = request.headers.getall(name, ())
        if len(given) > 1 and len(set(given)) > 1:
            detail = f"The header {name} is given {len(given)} times, and not the same; send it once."
            raise HttpProblem("doubled-header", detail)


def check_query(request: web.Request) -> None:
    """Refuse parameters that are given twice, and those that a path of the API does not know.

    Pages pass over what they do not know, since links gather what mail programs and searches hang on them; and so do
    health checks, whose callers want to hear of nothing else.
    """
    if not request.query_string:
        return
    known = known_parameters(request)
    seen: set[str] = set()
    for given in request.query:
        name = SHORT_PARAMETERS.get(given, given)
        if known is not None and name not in known:
            raise unknown_parameter(given, known)
        twice = name in seen or len(request.query.getall(given)) > 1
        if twice and name not in LISTED_PARAMETERS:
            detail = f"The parameter {name!r} is given twice; send it once."
            raise HttpProblem("doubled-parameter", detail, f"?{given}")
        seen.add(name)


def unknown_parameter(given: str, known: frozenset[str]) -> HttpProblem:
    """Return the problem of a parameter that nobody reads here; the one that may be meant is named first."""
    accepted = [*sorted(known), *(short for short, name in SHORT_PARAMETERS.items() if name in known)]
    near = difflib.get_close_matches(given, accepted, 1)
    meant = f"the nearest is {near[0]!r}; " if near else ""
    detail = f"There is no parameter {given!r} here; {meant}known: {', '.join(sorted(known)) or 'none'}."
    return HttpProblem("unknown-parameter", detail, f"?{given}")


def known_parameters(request: web.Request) -> frozenset[str] | None:
    """Return the parameters that the path knows, or None where it does not mind others."""
    route = request.match_info.route
    path = route.resource.canonical.removeprefix(request.app[CONTEXT].base_path) if route.resource else ""
    if path.startswith(("/health", SOURCES_PATH)):
        return None
    method = "GET" if request.method == "HEAD" else request.method
    return request.config_dict.get(PARAMETERS, {}).get(f"{method} {path}")


def check_access(request: web.Request, context: WebContext) -> ApiKey | None:
    """Raise the problem of a request that may not come in; returns the key that lets it in, where one is needed."""
    if is_signed_by_its_sender(request, context):
        return None
    access = context.access
    if access.allowed_hosts and host_name(request.host) not in access.allowed_hosts and not is_probe(request, context):
        detail = f"The daemon does not answer to the host {request.host!r}; add it to [server] allowed_hosts."
        raise HttpProblem("wrong-host", detail)
    shown = given_key(request) if access.keys else None
    key = None if shown is None else matching_key(shown, access.keys)
    caller = check_role(request, key or session_key(request)) if access.keys else None
    if request.method not in SAFE_METHODS and key is None:
        check_same_origin(request)
    return caller


def is_probe(request: web.Request, context: WebContext) -> bool:
    """Tell whether somebody asks whether the daemon lives, which probes do by whatever address they know."""
    return request.path.removeprefix(context.base_path).startswith("/health")


def check_role(request: web.Request, key: ApiKey | None) -> ApiKey | None:
    """Raise the problem of a request whose key does not include the role that it needs, and note whose request it is.

    What leads nowhere needs a key as well, of whatever role: who has none learns of nothing what there is.
    """
    leads_nowhere = request.match_info.http_exception is not None
    needed = None if leads_nowhere else need_of(request)
    if needed is EVERYBODY and not leads_nowhere:
        return None
    if key is None:
        raise HttpProblem("unauthorized", "Send one of the configured keys in X-API-Key.")
    if needed is not None and not key.may(needed):
        detail = f"This needs a key with the role {needed}; the key {key.name!r} has the role {key.role}."
        raise HttpProblem("role-needed", detail)
    request[CALLER] = key
    return key


def is_signed_by_its_sender(request: web.Request, context: WebContext) -> bool:
    """Tell whether a request is for a source whose deliveries are verified, and by nothing else."""
    path = request.path.removeprefix(context.base_path)
    return path.startswith(SOURCES_PATH) and context.sources.is_signed(path.removeprefix(SOURCES_PATH))


def session_key(request: web.Request) -> ApiKey | None:
    """Return the key that somebody signed in to the pages with, from where the request comes."""
    context = request.app[CONTEXT]
    token = request.cookies.get(SESSION_COOKIE)
    return None if token is None else context.sessions.key_of(token, context.access.keys)


def given_key(request: web.Request) -> str | None:
    """Return the key that the request shows: in X-API-Key, or as a bearer token."""
    key = request.headers.get(API_KEY)
    if key is None:
        scheme, _, token = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
        key = token.strip() if scheme.lower() == "bearer" else None
    return key


def check_same_origin(request: web.Request) -> None:
    """Refuse what another site makes a browser send: forms and scripts of elsewhere change nothing here."""
    site = request.headers.get(FETCH_SITE)
    origin = request.headers.get(hdrs.ORIGIN)
    fits = site in ("same-origin", "none") if site else origin is None or urlsplit(origin).netloc == request.host
    if not fits:
        raise HttpProblem("cross-site", "Send it from this site, or with a key.")


@lru_cache(maxsize=64)
def host_name(host: str) -> str:
    """Return the name of a Host header without its port."""
    return (host.rpartition(":")[0] if PORT.search(host) else host).strip("[]").lower()


def from_aiohttp(request: web.Request, error: web.HTTPException) -> web.StreamResponse:
    """Turn aiohttp's own errors into problems; redirects pass."""
    if error.status < 400:
        return error
    name = OF_AIOHTTP.get(error.status)
    if name is None:
        return unexpected(request, error)
    response = problems.respond(request, HttpProblem(name, error.text or error.reason))
    if "Allow" in error.headers:
        response.headers["Allow"] = error.headers["Allow"]
    return response


def unexpected(request: web.Request, error: Exception) -> web.Response:
    """Answer for a defect of ours and report it."""
    telemetry = context_of(request).telemetry
    trace = formatted(error)[-8000:]
    telemetry.emit("request.failed", path=request.path, error=trace, request_id=request[REQUEST_ID])
    detail = "The daemon met an error it did not expect; its log has the details under this request id."
    return problems.respond(request, HttpProblem("internal-error", detail))
