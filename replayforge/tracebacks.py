"""Tracebacks of errors that may be anybody's: bounded in length and time, and never an error themselves."""

import traceback

CHAIN_MAX = 16  # how many errors may have led to one another
ERRORS_MAX = 500
FRAMES_MAX = 40


def formatted(error: BaseException) -> str:
    """Return an error's traceback; only its places where many errors hang together, or where they cannot be shown."""
    try:
        if not is_long_chain(error):
            return "".join(traceback.format_exception(error, limit=-FRAMES_MAX)).rstrip()
    except BaseException:  # noqa: S110 - what an error says of itself is the user's code
        pass
    return "".join(traceback.format_tb(error.__traceback__, limit=-FRAMES_MAX)).rstrip()


def is_long_chain(error: BaseException) -> bool:
    """Tell whether more errors hang together, as causes, contexts and groups, than anybody would read."""
    seen: dict[int, BaseException] = {}
    level = [error]
    for _ in range(CHAIN_MAX):
        fresh = {id(more): more for one in level for more in linked_to(one) if id(more) not in seen}
        if not fresh:
            return False
        seen |= fresh
        if len(seen) > ERRORS_MAX:
            return True
        level = list(fresh.values())
    return True


def linked_to(error: BaseException) -> list[BaseException]:
    """Return the errors that are shown with this one."""
    found = [one for one in (error.__cause__, error.__context__) if one is not None]
    if issubclass(type(error), BaseExceptionGroup):
        found += BaseExceptionGroup.exceptions.__get__(error)  # past what a subclass makes of it
    return found
