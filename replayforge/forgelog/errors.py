"""What can go wrong with the log, named by what the caller can do about it."""

from replayforge.domain.errors import Corrupt, Full, OutcomeUnknown, Overloaded, Refused, Rejected, Unavailable

REMEDY = "Look with `replayforge log verify --deep`, then see what `replayforge log repair` proposes."

NEWER = "Use the newer ReplayForge; with this one, change nothing here."


class LogFull(Full):
    """The disk of the log is full; the records were not accepted. The log accepts again when there is space.

    `accepted` counts the records at the head of the same call that had been made durable before the disk was full; it
    is above zero only for calls too large for one batch.
    """

    retry_after_seconds = 5.0

    def __init__(self, message: str = "The disk of the log is full", *, accepted: int = 0) -> None:
        super().__init__(f"{message}; {accepted_in_words(accepted)} It resumes when there is space.")
        self.accepted = accepted


class LogPoisoned(OutcomeUnknown):
    """Writing the log failed: whether the records survive is unknown, and nothing is accepted until a restart."""


class LogBusy(Overloaded):
    """The append queue of the log is full, or the process is out of handles; the records were not accepted.

    `accepted` is what it is for LogFull.
    """

    def __init__(self, reason: str, *, accepted: int = 0) -> None:
        super().__init__(f"{reason}; {accepted_in_words(accepted)}")
        self.reason = reason
        self.accepted = accepted


class LogStalled(Unavailable):
    """The disk of the log has not answered for seconds; the records were not accepted."""


class LogUnreadable(Unavailable):
    """The disk of the log did not give the records asked for; nothing is known to be lost."""


class LogClosed(Unavailable):
    """The log is closing or closed; the records were not accepted."""


class LogMoved(OSError):
    """The directory of the log is no longer what its name leads to: nothing more may be acknowledged from there."""


class RecordRejected(Rejected):
    """A record is outside the limits of the log; it was not accepted."""


class LogLocked(Refused):
    """Another process has the log open."""

    exit_code = 75


class LogRefused(Refused):
    """The log does not open: going on could hide the loss of acknowledged records.

    `code` names the rule, `first_lost` and `last_lost` the offsets that are in doubt (None when unknown). The message
    names the place and what to do next.
    """

    def __init__(
        self,
        code: str,
        what: str,
        *,
        segment: str | None = None,
        position: int | None = None,
        first_lost: int | None = None,
        last_lost: int | None = None,
        remedy: str = REMEDY,
    ) -> None:
        place = f" in {segment}" if segment else ""
        place += f" at byte {position:,}" if position is not None else ""
        super().__init__(f"{code}{place}: {what}{lost_in_words(first_lost, last_lost)} {remedy}")
        self.code = code
        self.what = what
        self.segment = segment
        self.position = position
        self.first_lost = first_lost
        self.last_lost = last_lost


class CorruptRecord(Corrupt):
    """A record does not match its checksum."""

    def __init__(self, offset: int, segment: str, position: int) -> None:
        super().__init__(f"The record at offset {offset} is damaged ({segment}, byte {position:,}). {REMEDY}")
        self.offset = offset
        self.segment = segment
        self.position = position


class GapError(Corrupt):
    """Records are gone: removed by retention, or their loss was accepted by the operator."""

    def __init__(self, first: int, last: int) -> None:
        super().__init__(f"Offsets {first} to {last} are gone (retention or accepted loss); read on after {last}.")
        self.first = first
        self.last = last


def accepted_in_words(accepted: int) -> str:
    """Say how much of a call was accepted, as the end of a sentence."""
    return f"of this call only the first {accepted:,} records were accepted." if accepted else "nothing was accepted."


def lost_in_words(first: int | None, last: int | None) -> str:
    """Say which offsets are in doubt, as the end of a sentence."""
    if first is None:
        return ""
    if last is None:
        return f" Records from offset {first} on are in doubt."
    if last == first:
        return f" The record at offset {first} is in doubt."
    return f" Offsets {first} to {last} ({last - first + 1} records) are in doubt."
