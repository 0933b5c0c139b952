"""How pages write things: durations, sizes, excerpts of what users sent, links with odd names in them."""

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote, urlencode

SHOWN_BYTES_MAX = 16 * 1024
LINE_CHARACTERS_MAX = 200


@dataclass(frozen=True, slots=True)
class Text:
    """What of a larger text is shown; `cut` tells that there is more, `masked_count` how many values are hidden."""

    text: str
    bytes_count: int
    cut: bool
    masked_count: int = 0


def excerpt(body: bytes) -> Text:
    """Return the first 16 KB of some bytes as text, exactly as they were sent."""
    shown = body[:SHOWN_BYTES_MAX]
    cut = len(shown) < len(body)
    text = shown.decode("utf-8", "ignore" if cut else "backslashreplace")
    return Text(text, len(body), cut)


def first_line(text: str | None) -> str:
    """Return the first line of an error, short enough for a table."""
    line = (text or "").strip().partition("\n")[0]
    return line if len(line) <= LINE_CHARACTERS_MAX else line[: LINE_CHARACTERS_MAX - 1] + "…"


def duration(seconds: float) -> str:
    """Write a duration with two significant parts."""
    seconds = max(0.0, seconds)
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    return f"{hours // 24} d {hours % 24} h"


def size(bytes_count: float) -> str:
    """Write a number of bytes."""
    if bytes_count < 1024:
        return f"{bytes_count:.0f} B"
    for unit in ("KB", "MB", "GB"):
        bytes_count /= 1024
        if bytes_count < 1024 or unit == "GB":
            break
    return f"{bytes_count:.1f} {unit}"


def count(number: float) -> str:
    """Write a number with separators; small fractions keep one digit."""
    return f"{number:,.1f}" if 0 < number < 10 and number != int(number) else f"{number:,.0f}"


def plural(number: int, one: str, many: str | None = None) -> str:
    """Write a number with its noun."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def segment(name: str) -> str:
    """Quote a name as one segment of a path."""
    return quote(name, safe="")


def link(path: str, query: Mapping[str, str | int | None]) -> str:
    """Return a path with those parameters that have a value."""
    given = {name: value for name, value in query.items() if value not in (None, "")}
    return f"{path}?{urlencode(given)}" if given else path


def workflow_path(workflow_id: str) -> str:
    """Return the page of a workflow; browsers would swallow the names "." and "..", so these go by a query."""
    if workflow_id in (".", ".."):
        return link("/events", {"workflow": workflow_id})
    return f"/workflows/{segment(workflow_id)}"
