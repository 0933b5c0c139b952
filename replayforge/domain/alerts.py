"""Alerts: when one stands, what is written down of it, and what follows from both; no I/O."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import msgspec
from msgspec.structs import replace

from replayforge.domain.admission import EVERYTHING, Pause
from replayforge.domain.clock import MICROSECONDS_PER_SECOND, to_us
from replayforge.domain.lifecycle import State
from replayforge.domain.reports import Ledger, NewError, dead_in_words, held_in_words

NEW_SECONDS = 3600.0  # for so long an error signature is new
SUBJECTS_MAX = 20  # of one alert; further ones follow as those end
RETRY_SECONDS_MAX = 300.0
DOUBLINGS_MAX = 9


class Condition(StrEnum):
    """What an alert is about."""

    DEAD_LETTERS = "dead_letters"
    NEW_ERROR_SIGNATURE = "new_error_signature"
    OLDEST_WAITING = "oldest_waiting"
    HELD = "held"
    LEDGER_NOT_CLEAN = "ledger_not_clean"
    DISK_LOW = "disk_low"
    HANDLER_PAUSED = "handler_paused"


class Said(StrEnum):
    """How much of an alert has reached its receiver."""

    NOTHING = "nothing"
    BEGAN = "began"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class AlertRule:
    """When an alert stands; the threshold counts events, seconds or bytes, as its condition does."""

    name: str
    condition: Condition
    threshold: float


@dataclass(frozen=True, slots=True)
class Sight:
    """How the daemon and its store are at a moment.

    `new_errors` are the first of those that no dead letter had so many seconds ago, by these seconds, for which a rule
    asks; None where they could not be told. `accepts_for_disk` is false while the disk is too full to accept anything.
    """

    node: str
    now_us: int
    ledger: Ledger
    oldest_queued_seconds: float
    pauses: Sequence[Pause]
    new_errors: Mapping[float, Sequence[NewError] | None]
    disk_free_bytes: int
    accepts_for_disk: bool


class Alert(msgspec.Struct, frozen=True):
    """What is written down of an alert about one subject, from its beginning until its end has been said.

    `version` is one more with every change. `owner` is the node that says it, `failures` how often that failed since
    the receiver was last reached, and `due_at_us` when it is tried next.
    """

    name: str
    subject: str
    version: int
    id: str
    owner: str
    detail: str
    began_at_us: int
    ended_at_us: int | None
    said: Said
    failures: int
    due_at_us: int
    last_error: str | None

    @property
    def unsaid(self) -> Said | None:
        """What has to be said next: that it began, or, after that, that it ended; None when nothing has."""
        if self.said is Said.NOTHING:
            return Said.BEGAN
        return Said.ENDED if self.said is Said.BEGAN and self.ended_at_us is not None else None

    @property
    def message_id(self) -> str:
        """What a receiver knows a repeat of the next message by."""
        return f"{self.id}.{self.unsaid}"


# Whether a condition holds: subject -> what is the matter, in words. An alert about the whole has the subject "".


def standing(rule: AlertRule, sight: Sight) -> dict[str, str] | None:
    """Return the subjects for which the condition holds; None where that cannot be told now."""
    return CONDITIONS[rule.condition](rule.threshold, sight)


def dead_letters(threshold: float, sight: Sight) -> dict[str, str]:
    """Tell whether more dead letters than so many wait for a decision."""
    count = sight.ledger.states.get(State.DEAD_LETTERED, 0)
    return {"": dead_in_words(count)} if count > threshold else {}


def new_error_signature(threshold: float, sight: Sight) -> dict[str, str] | None:
    """Name the errors of dead letters that none of those that are there had so many seconds ago."""
    new = sight.new_errors[threshold]
    return None if new is None else {one.name: f"A new error, {one.count:,} times so far: {one.name}" for one in new}


def oldest_waiting(threshold: float, sight: Sight) -> dict[str, str]:
    """Tell whether a queued event has waited for more than so many seconds."""
    seconds = sight.oldest_queued_seconds
    return {"": f"The oldest queued event has waited {seconds:,.0f} s."} if seconds > threshold else {}


def held(threshold: float, sight: Sight) -> dict[str, str]:
    """Tell whether more events than so many are in doubt after a crash, and held until somebody decides."""
    count = sight.ledger.states.get(State.HELD, 0)
    return {"": f"{held_in_words(count)}."} if count > threshold else {}


def ledger_not_clean(_: float, sight: Sight) -> dict[str, str]:
    """Name what the ledger shows that must never be; each is told apart, so that one that stays hides no other."""
    ledger = sight.ledger
    wrong = {
        "lost": (ledger.lost, "acknowledged events have no row"),
        "unreadable": (ledger.unreadable, "records of the log are unreadable"),
        "gaps": (ledger.gaps, "records of the log were gone before they had rows"),
    }
    return {name: f"{count:,} {words}: run `replayforge check`." for name, (count, words) in wrong.items() if count}


def disk_low(threshold: float, sight: Sight) -> dict[str, str]:
    """Tell whether fewer bytes than so many are free here, or so few that nothing is accepted."""
    if sight.accepts_for_disk and sight.disk_free_bytes >= threshold:
        return {}
    closed = "" if sight.accepts_for_disk else "; no events are accepted"
    return {sight.node: f"The disk of {sight.node} has {sight.disk_free_bytes >> 20:,} MiB left{closed}."}


def handler_paused(threshold: float, sight: Sight) -> dict[str, str]:
    """Name what has been paused for more than so many seconds."""
    forgotten = {}
    for pause in sight.pauses:
        seconds = (sight.now_us - pause.since_us) / MICROSECONDS_PER_SECOND
        if seconds > threshold:
            what = "Everything is" if pause.pattern == EVERYTHING else f"The handler {pause.pattern} is"
            forgotten[pause.pattern] = f"{what} paused for {seconds:,.0f} s, by {pause.by}: {pause.reason}"
    return forgotten


CONDITIONS: dict[Condition, Callable[[float, Sight], dict[str, str] | None]] = {
    Condition.DEAD_LETTERS: dead_letters,
    Condition.NEW_ERROR_SIGNATURE: new_error_signature,
    Condition.OLDEST_WAITING: oldest_waiting,
    Condition.HELD: held,
    Condition.LEDGER_NOT_CLEAN: ledger_not_clean,
    Condition.DISK_LOW: disk_low,
    Condition.HANDLER_PAUSED: handler_paused,
}


# What follows


@dataclass(frozen=True, slots=True)
class Here:
    """Who decides, and when; `living` are the nodes whose alerts are left to them, this one among them."""

    node: str
    living: Collection[str]
    now_us: int

    def may_move(self, alert: Alert) -> bool:
        """Tell whether an alert is this node's to move: its own, or that of one that is gone."""
        return alert.owner == self.node or alert.owner not in self.living


def changes(
    rule: AlertRule, known: Mapping[str, Alert], found: Mapping[str, str], here: Here, new_id: Callable[[], str]
) -> Iterator[Alert]:
    """Yield every alert as it has to be written down next, with the version that it was known by.

    One whose end has not been said yet begins again only after that.
    """
    for subject, detail in found.items():
        before = known.get(subject)
        if before is None or before.said is Said.ENDED:
            version = 0 if before is None else before.version
            yield Alert(
                rule.name, subject, version, new_id(), here.node, detail, here.now_us, None, Said.NOTHING, 0, 0, None
            )
    for subject, alert in known.items():
        if not here.may_move(alert):
            continue
        # What a disk of another node is like, nobody here can tell.
        is_told_here = rule.condition is not Condition.DISK_LOW or subject == here.node
        if alert.ended_at_us is None and subject not in found and is_told_here:
            yield replace(alert, owner=here.node, ended_at_us=here.now_us)
        elif alert.owner != here.node and alert.unsaid is not None:
            yield replace(alert, owner=here.node)


def delivered(alert: Alert) -> Alert:
    """Return an alert whose next message has reached its receiver."""
    return replace(alert, said=alert.unsaid or alert.said, failures=0, due_at_us=0, last_error=None)


def undelivered(alert: Alert, error: str, now_us: int) -> Alert:
    """Return an alert whose next message has not reached its receiver; it is tried again, later each time."""
    seconds = min(RETRY_SECONDS_MAX, 2.0 ** min(alert.failures, DOUBLINGS_MAX))
    return replace(alert, failures=alert.failures + 1, due_at_us=now_us + to_us(seconds), last_error=error)
