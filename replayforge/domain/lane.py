"""Lanes: which one an event is in, and which of those that wait there may run now."""

import fnmatch
import hashlib
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from replayforge.domain.clock import MICROSECONDS_PER_SECOND, format_time
from replayforge.domain.event import EventRecord
from replayforge.domain.lifecycle import State

RATE = re.compile(r"([1-9][0-9]{0,8})/(s|min|h)")
UNIT_SECONDS = {"s": 1, "min": 60, "h": 3600}
RATE_PER_SECOND_MAX = 10_000
ENVELOPE_KEYS = ("workflow_id", "event_type", "application_name")
PAYLOAD_PREFIX = "payload."
NAME_BYTES_MAX = 512
FAIR_WIDTH = 4  # of one key, however many wait: enough to keep its next ones ready, too few to stand before others
BURST_US = MICROSECONDS_PER_SECOND // 20  # so much of a rate is released at once
LATE_US = (
    450_000  # so late a lane may be, an interval included, and make up for it: less than a twentieth of ten seconds
)
TYPES_KNOWN_MAX = 10_000
BACKLOG_COUNTED_MAX = 10_000  # of one lane, for people


class LaneRules(msgspec.Struct, frozen=True, gc=False):
    """What holds in a lane. `width` is how many of it may be released at once, 0 for all; those that run count among
    them if `counts_running`. Starts are `interval_us` apart, 0 for no rate. A dead letter blocks if `dead_blocks`."""

    strict: bool = False
    dead_blocks: bool = False
    width: int = 0
    counts_running: bool = False
    interval_us: int = 0

    @property
    def burst(self) -> int:
        """How many may be released and not yet started, where there is a rate."""
        return max(1, BURST_US // self.interval_us)


FREE = LaneRules()


class LaneRule(msgspec.Struct, frozen=True):
    """The events of some types are in lanes by a key: workflow_id, or a path such as payload.customer_id."""

    match: str
    key: str
    rules: LaneRules

    @property
    def specificity(self) -> tuple[bool, int]:
        """Order as patterns of handlers are: one without wildcards first, then the one with more literal characters."""
        return ("*" not in self.match, len(self.match.replace("*", "")))

    def matches(self, event_type: str) -> bool:
        """Tell whether events of a type are in these lanes; only `*` stands for anything."""
        glob = self.match.replace("[", "[[]").replace("?", "[?]")
        return fnmatch.fnmatchcase(event_type, glob)


class LaneName(msgspec.Struct, frozen=True):
    """What the name of a lane says; `key` is None where the event has no such value, or where it is hashed."""

    match: str
    subscriber: str | None
    key: object
    digest: str | None = None


class StoredSender(NamedTuple):
    """What decides in which lane an event is that has a row; its payload is empty where no lane asks for it."""

    event_type: str
    subscriber: str | None
    workflow_id: str
    application_name: str
    payload: bytes = b""


Sender = EventRecord | StoredSender


class Lanes:
    """The lanes that the configuration names. The most specific one that matches an event's type has it."""

    def __init__(self, lane_rules: Sequence[LaneRule] = ()) -> None:
        self.by_specificity = sorted(lane_rules, key=lambda one: one.specificity, reverse=True)
        self.by_match = {one.match: one for one in lane_rules}
        self.found: dict[str, LaneRule | None] = {}

    def __bool__(self) -> bool:
        return bool(self.by_match)

    def needs_payload(self, event_type: str) -> bool:
        """Tell whether the lane of an event of this type depends on what it came with."""
        rule = self.rule_for(event_type)
        return rule is not None and rule.key.startswith(PAYLOAD_PREFIX)

    @property
    def digest(self) -> str:
        """What changes with the configuration, whatever the order it is written in."""
        ordered = sorted(self.by_specificity, key=lambda one: one.match)
        return hashlib.sha256(msgspec.json.encode(ordered)).hexdigest()

    def rule_for(self, event_type: str) -> LaneRule | None:
        """Return the most specific rule for a type, or None."""
        try:
            return self.found[event_type]
        except KeyError:
            pass
        if len(self.found) >= TYPES_KNOWN_MAX:
            self.found.clear()
        rule = next((one for one in self.by_specificity if one.matches(event_type)), None)
        self.found[event_type] = rule
        return rule

    def lane_of(self, sender: Sender) -> str | None:
        """Return the name of the lane that an event is in, or None for one in no lane."""
        rule = self.rule_for(sender.event_type)
        return None if rule is None else lane_name(rule, sender)

    def rules_of(self, lane: str) -> LaneRules | None:
        """Return what holds in a lane, given its name; None for one that the configuration does not name."""
        rule = self.by_match.get(parsed_name(lane).match)
        return None if rule is None else rule.rules


def lane_name(rule: LaneRule, sender: Sender) -> str:
    """Return the name of a lane as text; one that is too long, or that no store can keep, has a digest for its key."""
    head = msgspec.json.encode([rule.match, sender.subscriber])[:-1]
    key = key_of(rule.key, sender)
    name = head + b"," + key + b"]"
    if len(name) > NAME_BYTES_MAX or b"\\u0000" in name:
        digest = msgspec.json.encode(hashlib.sha256(key).hexdigest())
        name = head + b",null," + digest + b"]"
    return name.decode()


def names_between(match: str) -> tuple[str, str]:
    """Return two texts between which the names of all lanes of a pattern lie, and no others."""
    head = msgspec.json.encode([match])[:-1].decode()
    return f"{head},", f"{head}-"  # the next character


def key_of(key: str, sender: Sender) -> bytes:
    """Return the value of a key as JSON, null where it is missing."""
    if not key.startswith(PAYLOAD_PREFIX):
        return msgspec.json.encode(getattr(sender, key))
    value = msgspec.Raw(sender.content.payload if isinstance(sender, EventRecord) else sender.payload)
    for name in key.removeprefix(PAYLOAD_PREFIX).split("."):
        try:
            value = msgspec.json.decode(value, type=dict[str, msgspec.Raw])[name]
        except (msgspec.MsgspecError, KeyError, UnicodeDecodeError, RecursionError):
            return b"null"
    text = bytes(value).strip()
    # A text may be written in several ways, and is the same; a number counts as it is written.
    return msgspec.json.encode(msgspec.json.decode(text)) if text.startswith(b'"') else text


def parsed_name(lane: str) -> LaneName:
    """Return what the name of a lane says."""
    return LaneName(*msgspec.json.decode(lane))


def parse_rate(text: str) -> int:
    """Return how many microseconds lie between two starts; raises ValueError for what is no rate such as "100/min"."""
    found = RATE.fullmatch(text)
    if found is None:
        raise ValueError('a rate is a number of starts per s, min or h, such as "5/s" or "100/min"')
    count, seconds = int(found[1]), UNIT_SECONDS[found[2]]
    if count > RATE_PER_SECOND_MAX * seconds:
        raise ValueError(f"a rate is at most {RATE_PER_SECOND_MAX:,}/s")
    return round(seconds * MICROSECONDS_PER_SECOND / count)


def rules_for(*, order: str, on_dead: str, concurrency: int | None, rate: str | None, fair: bool) -> LaneRules:
    """Return what holds in the lanes of a configuration; raises ValueError for what contradicts itself."""
    interval_us = 0 if rate is None else parse_rate(rate)
    if order == "strict":
        if concurrency not in (None, 1):
            raise ValueError("in strict order one runs at a time, so concurrency must be 1 or be left out")
        return LaneRules(strict=True, dead_blocks=on_dead == "block", width=1, interval_us=interval_us)
    if concurrency is None and not interval_us and not fair:
        raise ValueError("neither an order nor a limit is set, so it would have no effect")
    width = concurrency or (FAIR_WIDTH if fair else 0)
    return LaneRules(width=width, counts_running=concurrency is not None, interval_us=interval_us)


# Places


class Unplaced(NamedTuple):
    """An event that takes a place in its lane; `origin` is who made it."""

    lane: str
    seq: int
    state: str
    origin: str | None


class Ancestor(NamedTuple):
    """An open ancestor of an event in the same lane, the nearest first, and the place it has, if it has one."""

    seq: int
    ancestor_seq: int
    place: int | None


def placed(
    unplaced: Iterable[Unplaced], ancestors: Iterable[Ancestor], taken_over: Mapping[int, int], last_place: int
) -> tuple[dict[int, int], int]:
    """Give places to events of one lane, in the order of their row numbers; returns them and the last one given.

    One whose ancestor is open stands with it, so that neither waits for the other; an edited replay has the place of
    what it replaces, by its row number in `taken_over`.
    """
    family: defaultdict[int, list[Ancestor]] = defaultdict(list)
    for one in ancestors:
        family[one.seq].append(one)
    places: dict[int, int] = {}
    for event in sorted(unplaced, key=lambda one: one.seq):  # parents before their children
        known = (places.get(one.ancestor_seq, one.place) for one in family[event.seq])
        inherited = taken_over.get(event.seq, next((place for place in known if place is not None), None))
        if inherited is None:
            inherited = last_place = last_place + 1
        places[event.seq] = inherited
    return places, last_place


# The release


class Candidate(NamedTuple):
    """An event that is not released, in the order in which those of a lane come."""

    place: int
    seq: int


class LaneNow(msgspec.Struct, frozen=True):
    """How a lane stands: `head` is the smallest place that anybody holds, `blocked` the first that are not released.

    `released` are queued, `running` are in the hands of workers; `starting` says that there were starts which
    `next_at_us`, when the next one may be, does not know of yet.
    """

    rules: LaneRules
    now_us: int
    next_at_us: int = 0
    head: int | None = None
    blocked: Sequence[Candidate] = ()
    released: int = 0
    running: int = 0
    starting: bool = False


class Release(NamedTuple):
    """The row numbers of those that may run now, and when to look again although nothing has happened, if ever."""

    seqs: Sequence[int]
    wake_at_us: int | None = None


def decide(lane: LaneNow) -> Release:
    """Return who of a lane may run now. Whoever is not released holds nothing."""
    turn = in_turn(lane)
    if not turn or not lane.rules.interval_us:
        return Release(turn)
    if lane.starting:
        return Release(())
    if lane.next_at_us > lane.now_us:
        return Release((), lane.next_at_us)
    return Release(turn[: max(0, lane.rules.burst - lane.released)])


def in_turn(lane: LaneNow) -> list[int]:
    """Return whose turn it is by order and concurrency: in strict order all that stand at the head."""
    if lane.rules.strict:
        return [one.seq for one in lane.blocked if one.place == lane.head]
    seqs = [one.seq for one in sorted(lane.blocked)]
    if lane.rules.width == 0:
        return seqs
    taken = lane.released + (lane.running if lane.rules.counts_running else 0)
    return seqs[: max(0, lane.rules.width - taken)]


def next_start(rules: LaneRules, next_at_us: int, starts: Collection[int], now_us: int) -> int:
    """Return when the next start may be, after starts at these times.

    A lane that is a little late keeps its pace; an idle one saves nothing up. A clock that was set back makes nobody
    wait for longer than a release takes.
    """
    late_us = max(rules.interval_us, LATE_US - rules.interval_us)
    for at_us in sorted(starts):
        next_at_us = (next_at_us if at_us - next_at_us <= late_us else at_us) + rules.interval_us
    return min(next_at_us, now_us + (rules.burst + 1) * rules.interval_us) if rules.interval_us else 0


# What people are told


class LaneReport(NamedTuple):
    """How a lane stands, for people: how many wait for their turn, counted up to BACKLOG_COUNTED_MAX, and who stands at
    the head, if anybody does."""

    lane: str
    strict: int
    dead_blocks: int
    width: int
    counts_running: int
    interval_us: int
    next_at_us: int
    now_us: int
    blocked: int
    released: int
    running: int
    head_id: str | None
    head_state: str | None

    @property
    def next_start_us(self) -> int | None:
        """When the next start may be, where that is not now."""
        return self.next_at_us if self.interval_us and self.next_at_us > self.now_us else None


class Turn(NamedTuple):
    """What an event waits for in its lane: in words, and the event or the time that they name."""

    words: str
    event_id: str | None = None
    until_us: int | None = None


def turn_of(event_id: str, lane: LaneReport | None) -> Turn:
    """Return what an event waits for that has not been released yet, given how its lane stands."""
    if lane is None:
        return Turn("Its turn in its lane comes next.")
    if lane.strict and lane.head_id is not None and lane.head_id != event_id:
        if lane.head_state == State.DEAD_LETTERED:
            decide = "replay or discard that, and this one goes on"
            return Turn(f"It waits in its lane behind the dead letter {lane.head_id}: {decide}.", lane.head_id)
        return Turn(f"It waits in its lane for event {lane.head_id}, which is {lane.head_state}.", lane.head_id)
    if lane.next_start_us is not None:
        at = format_time(lane.next_start_us)
        return Turn(f"It waits for the rate of its lane: the next start may be at {at}.", None, lane.next_start_us)
    taken = lane.released + (lane.running if lane.counts_running else 0)
    if 0 < lane.width <= taken:
        whose = "1 event of it is" if taken == 1 else f"{taken} events of it are"
        doing = "running or about to" if lane.counts_running else "about to run"
        return Turn(f"It waits for its turn in its lane: {whose} {doing}, and no more may be at once.")
    return Turn("Its turn in its lane comes next.")
