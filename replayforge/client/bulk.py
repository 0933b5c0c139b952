"""Sends a file of events, piece by piece, until every line has its answer."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import msgspec

from replayforge.client.http import NDJSON, ClientConnection, Problem, Unreachable, sentence
from replayforge.client.progress import Bar
from replayforge.client.retry_budget import REFUSED_FOR_NOW, RetryBudget, outcome_unknown

CHUNK_LINES_MAX = 500
CHUNK_BYTES_MAX = 2 << 20
LINE_BYTES_MAX = 16 << 20
KEY_FIELD = b'"idempotency_key"'
WRONG_REQUEST = frozenset({400, 413, 422})


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the file, its bytes untouched; `size` counts what was read for it."""

    number: int
    body: bytes
    size: int


@dataclass(slots=True)
class Tally:
    """What became of the lines so far."""

    accepted: int = 0
    duplicates: int = 0
    rejected: int = 0

    @property
    def sent(self) -> int:
        """How many lines have their answer."""
        return self.accepted + self.duplicates + self.rejected

    def in_words(self) -> str:
        """Return the summary line."""
        return (
            f"sent {self.sent:,}: accepted {self.accepted:,}, duplicates {self.duplicates:,}, "
            f"rejected {self.rejected:,}"
        )


class BulkSender:
    """Sends lines in order, a chunk at a time, and again where a refusal or a broken connection can pass.

    `tally` counts what was answered, whatever interrupts the sending. The bar is moved on by the bytes of the file
    that have their answer, and says each rejected line.
    """

    def __init__(self, client: ClientConnection, retry_budget: RetryBudget, tally: Tally, bar: Bar) -> None:
        self.client = client
        self.retry_budget = retry_budget
        self.tally = tally
        self.bar = bar
        self.warned = False

    def send(self, lines: Iterable[Line]) -> None:
        """Send every line; raises Problem or Unreachable when the retry budget is used up."""
        for chunk in chunks(lines):
            waiting = chunk
            while waiting:
                waiting = self.attempt(waiting)

    def attempt(self, lines: list[Line]) -> list[Line]:
        """Send the lines once and return those that have to be sent again."""
        body = b"".join(line.body + b"\n" for line in lines)
        try:
            reply = self.client.request("POST", "/api/events/bulk", body, NDJSON)
        except (Problem, Unreachable) as error:
            if isinstance(error, Problem) and error.status in WRONG_REQUEST:
                return self.narrow_down(lines, error)
            if isinstance(error, Unreachable) and error.partial:
                return self.settle(lines, error.partial)
            self.warn_of_doubles(lines, error)
            self.retry_budget.wait(error)
            return lines
        return self.settle(lines, reply.body)

    def narrow_down(self, lines: list[Line], error: Problem) -> list[Line]:
        """Find the line for which a whole request was refused, by halves."""
        if len(lines) == 1:
            self.reject(lines[0], str(error))
            return []
        middle = len(lines) // 2
        waiting = lines[:middle]
        while waiting:
            waiting = self.attempt(waiting)
        return lines[middle:]

    def settle(self, lines: Sequence[Line], body: bytes) -> list[Line]:
        """Count the answers, line by line, and return the lines that have none or were refused for now."""
        answers = answers_by_index(body)
        refusal: Problem | None = None
        again = []
        for index, line in enumerate(lines):
            answer = answers.get(index)
            problem = None if answer is None else answer.get("problem")
            if answer is None or (problem and problem.get("status") in REFUSED_FOR_NOW):
                refusal = Problem(503, problem or {"detail": "The answer broke off.", "outcome": "unknown"})
                again.append(line)
            elif problem:
                self.reject(line, sentence(problem.get("status", 0), problem))
            else:
                self.accept(line, duplicate=bool(answer.get("duplicate")))
        if len(again) < len(lines):
            self.retry_budget.renew()
        if refusal:
            self.warn_of_doubles(again, refusal)
            self.retry_budget.wait(refusal)
        return again

    def accept(self, line: Line, *, duplicate: bool) -> None:
        """Count a line that is safe with the daemon."""
        self.tally.duplicates += duplicate
        self.tally.accepted += not duplicate
        self.bar.advance(line.size)

    def reject(self, line: Line, problem: str) -> None:
        """Count and name a line that the daemon will never take as it stands."""
        self.tally.rejected += 1
        self.bar.say(f"line {line.number}: {problem}")
        self.bar.advance(line.size)

    def warn_of_doubles(self, lines: Sequence[Line], error: Problem | Unreachable) -> None:
        """Say once that lines without a key may exist twice after they are sent again."""
        without_key = sum(KEY_FIELD not in line.body for line in lines)
        if without_key and not self.warned and outcome_unknown(error):
            self.warned = True
            self.bar.say(
                f"warning: it is not known whether {without_key:,} events from line {lines[0].number} on arrived; "
                "they have no idempotency_key, so sending them again may double them"
            )


def answers_by_index(body: bytes) -> dict[int, dict[str, Any]]:
    """Read the answer to a chunk: one line for each line; a last line that broke off is none."""
    answers: dict[int, dict[str, Any]] = {}
    for text in body.splitlines():
        try:
            answer = msgspec.json.decode(text, type=dict[str, Any])
        except (msgspec.MsgspecError, UnicodeDecodeError):
            break
        if "index" in answer:
            answers[answer["index"]] = answer
    return answers


def read_lines(file: BinaryIO) -> Iterator[Line]:
    """Yield the lines of a file that hold something, however long the file is.

    A line longer than any event may be is cut, so that it never fills the memory and is refused as no JSON.
    """
    number = 0
    while piece := file.readline(LINE_BYTES_MAX):
        number += 1
        size = len(piece)
        ended = piece.endswith(b"\n")
        while not ended and (rest := file.readline(LINE_BYTES_MAX)):
            size += len(rest)
            ended = rest.endswith(b"\n")
        if body := piece.strip(b" \t\r\n"):
            yield Line(number, body, size)


def chunks(lines: Iterable[Line]) -> Iterator[list[Line]]:
    """Gather lines into requests of a bounded number and size."""
    chunk: list[Line] = []
    size = 0
    for line in lines:
        if chunk and (len(chunk) == CHUNK_LINES_MAX or size + len(line.body) > CHUNK_BYTES_MAX):
            yield chunk
            chunk, size = [], 0
        chunk.append(line)
        size += len(line.body)
    if chunk:
        yield chunk
