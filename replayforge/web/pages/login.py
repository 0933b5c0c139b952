"""A browser's session and taste: signing in with a key, signing out, the theme."""

from contextlib import suppress

from aiohttp import web

from replayforge.domain.api_keys import matching_key
from replayforge.domain.errors import Unavailable
from replayforge.web.http.context import CONTEXT, context_of
from replayforge.web.http.guard import SESSION_COOKIE
from replayforge.web.http.reading import FORM_BYTES_MAX, read_form
from replayforge.web.http.routes import READ
from replayforge.web.http.sessions import SESSION_SECONDS
from replayforge.web.pages.flash import back_of, cookie_path, is_ours, see_other
from replayforge.web.pages.rendering import THEME_COOKIE, THEMES, PageTemplate, show_bare
from replayforge.web.pages.views import LoginView

THEME_SECONDS = 365 * 86_400


async def show_login(request: web.Request) -> web.Response:
    """Ask for a key, unless none is needed."""
    context = context_of(request)
    if not context.access.keys:
        return see_other(request, f"{context.base_path}/")
    return await show_bare(
        request, PageTemplate("login.html", "Sign in"), LoginView(wanted(request.query.get("next", "")), "")
    )


async def login(request: web.Request) -> web.Response:
    """Begin a session for a key that fits; the cookie is out of reach for scripts and for other sites."""
    form, context = await read_form(request, FORM_BYTES_MAX), context_of(request)  # anybody may send one
    key, target = matching_key(form.get("key", "").strip(), context.access.keys), wanted(form.get("next", ""))
    if key is None or not key.may(READ):
        refusal = "This key is none of ours." if key is None else f"Pages need the role read; this key has {key.role}."
        page = PageTemplate("login.html", "Sign in", status=401 if key is None else 403)
        return await show_bare(request, page, LoginView(target, refusal))
    # Nobody is kept from signing in by a store that is away: what came along goes on then until it is over by itself.
    with suppress(Unavailable):
        await end_session(request)
    response = see_other(request, target or f"{context.base_path}/")
    response.set_cookie(
        SESSION_COOKIE,
        context.sessions.begin(key),
        max_age=SESSION_SECONDS,
        path=cookie_path(request),
        httponly=True,
        samesite="Strict",
        secure=request.secure,
    )
    return response


def wanted(target: str) -> str:
    """Return where to go after signing in, if that is a page of ours."""
    return target if is_ours(target) else ""


async def end_session(request: web.Request) -> None:
    """End the session that a request comes with, if there is one; raises Unavailable, and then it has not ended."""
    if token := request.cookies.get(SESSION_COOKIE):
        await context_of(request).sessions.end(token, context_of(request).access.keys)


async def learn_of_ended(app: web.Application) -> None:
    """Know who had signed out before this daemon started."""
    await app[CONTEXT].sessions.look()


async def logout(request: web.Request) -> web.Response:
    """End the session, for whoever else has its cookie as well, for good and on every daemon of the store."""
    await end_session(request)
    response = see_other(request, f"{context_of(request).base_path}/login")
    response.del_cookie(SESSION_COOKIE, path=cookie_path(request))
    return response


async def choose_theme(request: web.Request) -> web.Response:
    """Remember the theme and go back."""
    form = await read_form(request)
    theme = form.get("theme", "")
    response = see_other(request, back_of(form, f"{context_of(request).base_path}/"))
    response.set_cookie(
        THEME_COOKIE,
        theme if theme in THEMES else "auto",
        max_age=THEME_SECONDS,
        path=cookie_path(request),
        httponly=True,
        samesite="Strict",
    )
    return response
