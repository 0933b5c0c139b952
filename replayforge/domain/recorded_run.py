"""One run of one event as the store remembers it: what it was given, what it recorded, how it ended or stands."""

import msgspec

from replayforge.domain.event import Content, StoredEvent
from replayforge.domain.journal import RECORDED, Journal, StepKind, StepRecord, StepState
from replayforge.domain.lifecycle import TERMINAL, Reason, State

# What is recorded so that it is the same on every pass, and has no effect: code may do without it, or want more of it.
HARMLESS = frozenset({StepKind.NOW})


class RecordedRun(msgspec.Struct, frozen=True, kw_only=True):
    """The current run of an event, from one snapshot of the store.

    `event` says how it ended, or how it stands, its result included. `content` is what its handler was given: where a
    restart has left another payload, that one. `journal` holds the steps of its current journal, in their newest
    generations; a handler that records nothing has an empty one. `started_at_us` is when its last attempt began.
    `children` are the payloads of the child events that its steps have made, by their ids, those of retired ones left
    out.
    """

    event: StoredEvent
    content: Content
    journal: Journal
    started_at_us: int
    children: dict[str, bytes] = {}

    @property
    def id(self) -> str:
        """The event's id."""
        return self.event.id

    @property
    def is_open(self) -> bool:
        """Whether it has not come to an end."""
        return self.event.state not in TERMINAL

    @property
    def found_no_handler(self) -> bool:
        """Whether it ended because nobody handles its type."""
        return self.event.state is State.DEAD_LETTERED and self.event.reason == Reason.NO_HANDLER

    @property
    def expected(self) -> list[StepRecord]:
        """The steps that code which does what the recorded code did comes to, in the order in which they began.

        Those that a replay has cleared are left out, and waits that have lost against others, which nobody waits for
        any more: a park writes what is waited for under its own lease.
        """
        return sorted((one for one in self.journal.records if self.is_expected(one)), key=lambda one: one.begun)

    def is_expected(self, record: StepRecord) -> bool:
        """Tell whether one of the steps is among those."""
        if record.kind in HARMLESS or record.begun == 0:
            return False
        stands = record.state is StepState.STARTED or (self.is_open and record.token == self.event.lease_token)
        return record.state in RECORDED or stands
