"""Names made of what a request brings: `github.{header:x-github-event}.{body:action}`."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

PART = re.compile(r"\{(?:(header|body):([^{}:]+)|source)\}")
NAME_CHARACTERS_MAX = 255
CONTROLS = re.compile("[\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Placeholder:
    """What stands in braces: a header, a value of the body by its path, or the name of the source."""

    kind: str
    name: str = ""


Find = Callable[[Placeholder], str | None]
Segment = tuple[str | Placeholder, ...]


@dataclass(frozen=True, slots=True)
class Template:
    """A name with parts to be filled in, by the segments between its dots."""

    text: str
    segments: tuple[Segment, ...]

    def filled(self, find: Find) -> tuple[str, bool]:
        """Return the name, and whether it has all its parts.

        A part that is missing drops out, and with it its dot where nothing else stands there.
        """
        texts, whole = [], True
        for segment in self.segments:
            text = ""
            for piece in segment:
                found = piece if isinstance(piece, str) else find(piece)
                text += found or ""
                whole = whole and bool(found)
            if text:
                texts.append(text)
        return ".".join(texts), whole


def template_of(text: str) -> Template:
    """Read a template; raises ValueError for braces that name nothing."""
    left = PART.sub("", text)
    if "{" in left or "}" in left:
        raise ValueError(f"{text!r} has braces that name nothing; known: {{header:NAME}}, {{body:PATH}}, {{source}}.")
    segments: list[list[str | Placeholder]] = [[]]
    end = 0
    for found in PART.finditer(text):
        add_text(segments, text[end : found.start()])
        kind, name = found[1] or "source", found[2] or ""
        segments[-1].append(Placeholder(kind, name.lower() if kind == "header" else name))
        end = found.end()
    add_text(segments, text[end:])
    return Template(text, tuple(map(tuple, segments)))


def add_text(segments: list[list[str | Placeholder]], text: str) -> None:
    """Add text that stands between two parts; each dot in it begins another segment."""
    first, *others = text.split(".")
    segments[-1] += [first] if first else []
    segments.extend([one] if one else [] for one in others)


def first_filled(templates: Sequence[Template], find: Find) -> str:
    """Return the first name that has all its parts, else the last one with what there is; cleaned, perhaps empty."""
    name = ""
    for template in templates:
        name, whole = template.filled(find)
        if whole:
            break
    return cleaned(name)


def cleaned(name: str) -> str:
    """Return a name as the store keeps it: no control characters, and not too long."""
    return CONTROLS.sub("?", name)[:NAME_CHARACTERS_MAX]
