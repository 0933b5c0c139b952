"""Who of the handlers costs others something, or fails: counted by handler and kind, and said for a while."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from time import monotonic
from typing import Any

from replayforge.engine.handlers.registry import Handlers

REMEMBERED_SECONDS = 300.0
SHOWN_MAX = 20
REMEMBERED_MAX = 100
WORDS_MAX = 1_000
NO_HANDLER = "none"
# What happened -> the kind of fault it is; an attempt that failed has its outcome for a kind.
KINDS = {
    "attempt.abandoned": "abandoned",
    "attempt.failed": "",
    "callback.exited": "exited",
    "interpreter.restored": "changed_for_all",
    "task.failed": "task_failed",
    "thread.failed": "thread_failed",
    "worker.crashed": "crashed",
}


@dataclass(frozen=True, slots=True)
class HandlerFault:
    """The latest fault of its kind that hit others."""

    at: float
    words: str


class HandlerFaults:
    """Listens to what happens. `counts` are by handler's pattern and kind, since the start of the process."""

    def __init__(self, handlers: Handlers, clock: Callable[[], float] = monotonic) -> None:
        self.handlers = handlers
        self.clock = clock
        self.counts: Counter[tuple[str, str]] = Counter()
        self.latest: dict[tuple[str, str], HandlerFault] = {}

    def listen(self, name: str, count: int, fields: dict[str, Any]) -> None:
        """Take in what happened; called in any thread."""
        handler = self.handler_of(fields)
        kind = KINDS[name] or str(fields["outcome"])
        self.counts[handler, kind] += count
        for what, words in in_words(kind, handler, fields):
            self.latest.pop((kind, what), None)
            self.latest[kind, what] = HandlerFault(self.clock(), words)
            if len(self.latest) > REMEMBERED_MAX:
                self.latest.pop(next(iter(self.latest)), None)

    def handler_of(self, fields: dict[str, Any]) -> str:
        """Return the pattern of the handler that it was."""
        if "handler" in fields:
            return str(fields["handler"])
        event_type = fields.get("event_type")
        found = self.handlers.find(event_type) if event_type else None
        return NO_HANDLER if found is None else found.identity

    def issues(self) -> list[str]:
        """Say what handlers did to others in the last five minutes: exits, then changes, the newest of each first."""
        now = self.clock()
        latest = sorted(self.latest.copy().items(), key=lambda item: (item[0][0] != "exited", -item[1].at))
        fresh = [fault for _, fault in latest if now - fault.at < REMEMBERED_SECONDS]
        shown = [f"{fault.words} ({now - fault.at:.0f} s ago)." for fault in fresh[:SHOWN_MAX]]
        more = len(fresh) - len(shown)
        return [*shown, f"{more:,} more such things were done."] if more else shown


def in_words(kind: str, handler: str, fields: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what was done to others, each with a sentence; nothing of what hits nobody else, or is said elsewhere."""
    who = f"the handler {handler} (event {fields['event_id']})" if "event_id" in fields else "a handler"
    if kind == "exited":
        error = fields["error"]
        hint = f", perhaps that of {fields['suspect']}," if "event_id" not in fields and "suspect" in fields else ""
        yield f"{handler} {error}", f"{capital(who)}{hint} tried to end the daemon with {error} at {fields['place']}"
    if kind == "changed_for_all":
        what = str(fields["changed"])[:WORDS_MAX]
        yield what, f"After an attempt of {who} this was put back, changed for all handlers: {what}"


def capital(words: str) -> str:
    """Return words as the beginning of a sentence."""
    return words[:1].upper() + words[1:]
