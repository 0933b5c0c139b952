"""One message that survives the redirect after a form: what was done, or why it was not."""

from dataclasses import dataclass
from urllib.parse import quote, unquote

import msgspec
from aiohttp import web
from multidict import MultiMapping

from replayforge.web.http.context import context_of

FLASH_COOKIE = "replayforge_flash"
TEXT_CHARACTERS_MAX = 500
LEVELS = ("ok", "warn", "err")


@dataclass(frozen=True, slots=True)
class Flash:
    """A message and how it is meant: ok, warn or err; `link` is a path that shows more, or empty."""

    level: str
    text: str
    link: str = ""


decode = msgspec.json.Decoder(Flash).decode


def see_other(request: web.Request, path: str, message: Flash | None = None) -> web.Response:
    """Answer a form: go to a path of ours, and show the message there."""
    response = web.Response(status=303, headers={"Location": path, "Cache-Control": "no-store"})
    if message is not None:
        cut = Flash(message.level, message.text[:TEXT_CHARACTERS_MAX], message.link[:TEXT_CHARACTERS_MAX])
        value = quote(msgspec.json.encode(cut).decode(), safe="")
        response.set_cookie(
            FLASH_COOKIE, value, max_age=60, path=cookie_path(request), httponly=True, samesite="Strict"
        )
    return response


def read(request: web.Request) -> Flash | None:
    """Return the message that waits for this browser; one that is not ours is ignored."""
    try:
        message = decode(unquote(request.cookies.get(FLASH_COOKIE, "")))
    except (msgspec.DecodeError, msgspec.ValidationError):
        return None
    return message if message.level in LEVELS and is_ours(message.link) else None


def clear(request: web.Request, response: web.StreamResponse) -> None:
    """Forget the message once it was shown."""
    if FLASH_COOKIE in request.cookies:
        response.del_cookie(FLASH_COOKIE, path=cookie_path(request))


def cookie_path(request: web.Request) -> str:
    """Return the path that our cookies belong to."""
    return context_of(request).base_path or "/"


def is_ours(path: str) -> bool:
    """Tell whether a target given from outside stays on this site: a path, no other host, nothing to split a header."""
    plain = path.isprintable() and "\\" not in path
    return not path or (plain and path.startswith("/") and not path.startswith("//"))


def back_of(values: MultiMapping[str], default: str) -> str:
    """Return where a form wants to go back to, if that is a page of ours."""
    back = values.get("back", "")
    return back if back and is_ours(back) else default
