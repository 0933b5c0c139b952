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

    def filled(self, find: Find) -> str:
        """Return the name; a part that is missing drops out, and with it its dot where nothing else stands there."""
        texts = [self.segment(segment, find) for segment in self.segments]
        return ".".join(text for text in texts if text)

    def segment(self, segment: Segment, find: Find) -> str:
        """Fill in one segment."""
        return "".join(piece if isinstance(piece, str) else find(piece) or "" for piece in segment)

    def whole(self, find: Find) -> str | None:
        """Return the name when no part of it is missing, else None."""
        parts = (piece for segment in self.segments for piece in segment if isinstance(piece, Placeholder))
        return self.filled(find) if all(find(part) for part in parts) else None


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
    for template in templates:
        name = template.whole(find)
        if name:
            return cleaned(name)
    return cleaned(templates[-1].filled(find))


def cleaned(name: str) -> str:
    """Return a name as the store keeps it: no control characters, and not too long."""
    return CONTROLS.sub("?", name)[:NAME_CHARACTERS_MAX]
