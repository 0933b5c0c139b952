"""How JSON that users sent is shown: its own tokens to the last digit, with secrets hidden, indented if wished."""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from replayforge.web.pages.words import SHOWN_BYTES_MAX, Text, excerpt

MASK = '"•••"'
STRING = r'"(?:[^"\\]++|\\.)*+"'
PIECE = re.compile(rf'\s+|{STRING}|[\[\]{{}}:,]|[^\s"\[\]{{}}:,]+|"', re.DOTALL)
BRACKET = re.compile(rf"{STRING}|[\[\]{{}}]", re.DOTALL)
# In a text that is no JSON: name=value, "name": "value", 'name': 'value', and so on.
NAME = re.compile(r"""(?<![\w\-])([\w\-]++)["']?\s*[:=]\s*""")
VALUE = re.compile(rf"""{STRING}|'(?:[^'\\]|\\.)*+'|[^\s,;&)}}\]"']++|["'].*+""", re.DOTALL)
STEPS = {"[": 1, "{": 1, "]": -1, "}": -1}
INDENT = "  "


@dataclass(frozen=True, slots=True)
class Reading:
    """How somebody wants to read documents: values of which names stay hidden, and whether lines are indented."""

    masked_names: Sequence[str] = ()
    indented: bool = False


def shown(body: bytes, reading: Reading) -> Text:
    """Return the first 16 KB of a JSON document; no more of it is looked at than that takes."""
    pieces = masked(body.decode("utf-8", "backslashreplace"), [plain(name) for name in reading.masked_names])
    taken, cut = take(indented(pieces) if reading.indented else pieces)
    text = "".join(taken).encode("utf-8", "backslashreplace")[:SHOWN_BYTES_MAX].decode("utf-8", "ignore")
    return Text(text, len(body), cut, sum(piece is MASK for piece in taken))


def masked(text: str, secrets: Sequence[str]) -> Iterator[str]:
    """Cut JSON into pieces, with the mask in place of every value whose name holds one of the secret words."""
    name, is_secret, at = "", False, 0
    while found := PIECE.match(text, at):
        piece, at = found[0], found.end()
        if is_secret and not piece.isspace():
            is_secret = False
            if piece in STEPS:
                at = end_of_value(text, found.start())
            elif piece == '"':  # a string whose end was cut off
                at = len(text)
            yield MASK
            continue
        if piece == ":":
            is_secret = any(secret in name for secret in secrets)
        elif piece[0] == '"':
            name = plain(unescaped(piece))
        yield piece


def masked_text(text: str, reading: Reading) -> Text:
    """Return the first 16 KB of an error or another text, with values hidden that stand behind secret names."""
    whole = excerpt(text.encode("utf-8", "backslashreplace"))
    pieces = list(without_secrets(whole.text, [plain(name) for name in reading.masked_names]))
    return replace(whole, text="".join(pieces), masked_count=sum(piece is MASK for piece in pieces))


def is_secret(name: str, reading: Reading) -> bool:
    """Tell whether values of a name stay hidden."""
    return any(plain(secret) in plain(name) for secret in reading.masked_names)


def hidden(line: str, reading: Reading) -> str:
    """Return one line of an error, or what stands for many like it, with the same values hidden."""
    return masked_text(line, reading).text


def without_secrets(text: str, secrets: Sequence[str]) -> Iterator[str]:
    """Cut a text into pieces, with the mask in place of every value whose name holds one of the secret words."""
    begun, at = 0, 0
    while found := NAME.search(text, at):
        at = found.end()
        value = VALUE.match(text, at) if any(secret in plain(found[1]) for secret in secrets) else None
        if value is not None:
            yield text[begun:at]
            yield MASK
            begun = at = value.end()
    yield text[begun:]


def unescaped(piece: str) -> str:
    """Return a string without its escapes; as it is when it cannot be read."""
    try:
        return str(json.loads(piece)) if "\\" in piece else piece
    except ValueError:
        return piece


def end_of_value(text: str, start: int) -> int:
    """Return where the array or object ends that begins at a place."""
    depth = 0
    for bracket in BRACKET.finditer(text, start):
        depth += STEPS.get(bracket[0], 0)
        if not depth:
            return bracket.end()
    return len(text)


def plain(name: str) -> str:
    """Return a name without case and separators: "API-Key" and "apiKey" are the same."""
    return re.sub(r"[\W_]", "", name.lower())


def indented(pieces: Iterable[str]) -> Iterator[str]:
    """Pass pieces on with line breaks and spaces of our own."""
    depth, begins = 0, False
    for piece in pieces:
        if piece.isspace():
            continue
        step = STEPS.get(piece, 0)
        depth += min(step, 0)
        if begins != (step < 0):  # an empty bracket stays on its line
            yield "\n" + INDENT * depth
        yield piece
        depth += max(step, 0)
        begins = step > 0
        if piece == ":":
            yield " "
        elif piece == ",":
            yield "\n" + INDENT * depth


def take(pieces: Iterable[str]) -> tuple[list[str], bool]:
    """Return the pieces that are shown, and whether there are more, or the last of them is cut."""
    taken: list[str] = []
    bytes_count = 0
    for piece in pieces:
        if bytes_count >= SHOWN_BYTES_MAX:
            return taken, True
        taken.append(piece)
        bytes_count += len(piece.encode("utf-8", "backslashreplace"))
    return taken, bytes_count > SHOWN_BYTES_MAX
