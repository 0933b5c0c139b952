"""The release: what waits in lanes gets its place and its turn, in transactions that nobody else has to know of.

Whoever moves events of a lane only leaves news (triggers of the schema do); the releaser takes them. It locks the rows
of the lanes first, in the order of their names, then events in the order of their row numbers; nobody who holds an
event ever waits for a lane. All counts are of rows, so there is nothing that could leak.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from replayforge.domain.event import Entry
from replayforge.domain.lane import (
    BACKLOG_COUNTED_MAX,
    FREE,
    Ancestor,
    Candidate,
    LaneNow,
    LaneReport,
    LaneRules,
    Unplaced,
    decide,
    names_between,
    next_start,
    placed,
)
from replayforge.domain.lifecycle import FAILED, PLACED, State
from replayforge.stores.batches import LaneNews, OpenedLane, PlacedEvent, RemovedLane, SavedLane
from replayforge.stores.driver import Batch, Fetch, Steps

LANES_PER_STEP_MAX = 200
NEWS_SCANNED_MAX = 5_000
NEWS_TAKEN_MAX = 5_000  # beside starts and replays, of which all are needed; others only say that one has to look
PLACED_PER_STEP_MAX = 1_000  # of one lane
RELEASED_PER_STEP_MAX = 100  # of one lane
BEHIND_COUNTED_MAX = 10_000  # of one lane
BLOCKED_COUNTED_MAX = 10_000  # of all lanes of one pattern
LANES_LOOKED_AT_MAX = 2_000  # with a backlog, and as many without, for a list
MISSED = "blocked while free"
DEPTH_MAX = 64  # of children of children that are asked for an open ancestor

RulesOfLane = Callable[[str], LaneRules | None]


@dataclass(frozen=True, slots=True)
class Released:
    """The entries of events that may run now, and how many of the released are to run alone; `paced` says that some are
    released by a rate. With `more` there is more to be done at once; else in `wake_us` from now although nothing
    happens, None for never."""

    entries: list[Entry] = field(default_factory=list)
    suspects: int = 0
    paced: bool = False
    more: bool = False
    wake_us: int | None = None


class News(NamedTuple):
    """What has happened in a lane: that something moved, one was started, or a replay stands for a dead letter."""

    lane: str
    started_at_us: int | None
    replaced: int | None
    replacement: int | None


class Figures(NamedTuple):
    """How a lane stands, by its row and those of its events."""

    lane: str
    last_place: int
    next_at_us: int
    now_us: int
    head: int | None
    released: int
    running: int
    starting: bool


class LanedEvent(NamedTuple):
    """An event of a lane as it stands, locked."""

    seq: int
    id: str
    run: int
    state: str
    suspect: int
    lane: str | None
    place: int | None

    def stands_dead(self, place: int | None) -> bool:
        """Tell whether it is a dead letter that blocks at this place."""
        return place is not None and self.place == place and State(self.state) in FAILED


class LaneStep(NamedTuple):
    """What is decided about one lane: new places, who is released from which place, and the row as it is to be."""

    places: Mapping[int, int]
    released: Mapping[int, int]
    row: SavedLane
    more: bool
    empty: bool
    paced: bool


def any_news(now_us: int) -> Steps[tuple[bool, int | None]]:
    """Tell whether anything has happened in any lane, and in how many microseconds the next is to be looked at."""
    lanes = yield Fetch("lanes_with_news", {"scan_max": 1, "count": 1, "now_us": now_us})
    wake = yield Fetch("next_wake", {"now_us": now_us})
    return bool(lanes), wake[0][0]


def release(rules_of: RulesOfLane, now_us: int) -> Steps[Released]:
    """Look at lanes in which something has happened: give places to whoever has none, and release whose turn it is."""
    asked = {"scan_max": NEWS_SCANNED_MAX, "count": LANES_PER_STEP_MAX, "now_us": now_us}
    lanes = sorted([row[0] for row in (yield Fetch("lanes_with_news", asked))])
    if not lanes:
        return Released()
    rules = yield from opened(lanes, rules_of)
    news = [News(*row) for row in (yield Fetch("take_lane_news", {"lanes": lanes, "count": NEWS_TAKEN_MAX}))]
    replacements = yield from replacements_of(news)
    unplaced = yield from without_place(lanes)
    ancestors = yield from open_ancestors(unplaced, rules)
    figures = [Figures(*row) for row in (yield Fetch("lane_figures", {"lanes": lanes, "now_us": now_us}))]
    blocked = yield from blocked_of(lanes)
    starts = starts_of(news)
    taken_over = {one.replay_seq: one.place for one in replacements if one.same_lane}
    steps = [
        stepped(
            one,
            rules[one.lane],
            Newcomers(unplaced[one.lane], ancestors, taken_over),
            blocked[one.lane],
            starts[one.lane],
        )
        for one in figures
    ]
    entries, suspects = yield from carried_out(steps, replacements)
    yield Batch("save_lanes", [step.row for step in steps if not step.empty])
    yield Batch("delete_lanes", [RemovedLane(lane=step.row.lane) for step in steps if step.empty])
    again = {step.row.lane for step in steps if step.more} | {one.lane for one in replacements}
    yield Batch("add_lane_news", [LaneNews(lane=lane) for lane in sorted(again)])
    starting = any(one.starting for one in figures)
    return Released(
        entries,
        suspects,
        paced=any(step.paced and step.released for step in steps),
        more=bool(again) or starting or len(lanes) == LANES_PER_STEP_MAX,
    )


def opened(lanes: Sequence[str], rules_of: RulesOfLane) -> Steps[dict[str, LaneRules]]:
    """Lock the rows of lanes; what the configuration does not name keeps what its row says, and is free without one."""
    known = {lane: rules_of(lane) for lane in lanes}
    unknown = [lane for lane, rules in known.items() if rules is None]
    noted: dict[str, LaneRules] = {}
    if unknown:
        rows = yield Fetch("lane_rules", {"lanes": unknown})
        noted = {
            lane: LaneRules(bool(strict), bool(dead_blocks), width, bool(counts_running), interval_us)
            for lane, strict, dead_blocks, width, counts_running, interval_us in rows
        }
    rules = {lane: known[lane] or noted.get(lane, FREE) for lane in lanes}
    yield Batch("open_lanes", [opened_lane(lane, rules[lane]) for lane in lanes])
    return rules


def opened_lane(lane: str, rules: LaneRules) -> OpenedLane:
    """Return the row that says what holds in a lane."""
    return OpenedLane(
        lane=lane,
        strict=rules.strict,
        dead_blocks=rules.dead_blocks,
        width=rules.width,
        counts_running=rules.counts_running,
        interval_us=rules.interval_us,
    )


def without_place(lanes: Sequence[str]) -> Steps[defaultdict[str, list[Unplaced]]]:
    """Fetch the first events of lanes that are to have a place."""
    unplaced: defaultdict[str, list[Unplaced]] = defaultdict(list)
    for row in (yield Fetch("unplaced", {"lanes": lanes, "count": PLACED_PER_STEP_MAX})):
        unplaced[row[0]].append(Unplaced(*row))
    return unplaced


def open_ancestors(unplaced: Mapping[str, Sequence[Unplaced]], rules: Mapping[str, LaneRules]) -> Steps[list[Ancestor]]:
    """Fetch the open ancestors, in the same lanes, of those that somebody's handler made; only strict order asks."""
    made = [one.seq for lane, some in unplaced.items() if rules[lane].strict for one in some if one.origin is not None]
    if not made:
        return []
    rows = yield Fetch("open_ancestors", {"seqs": made, "depth_max": DEPTH_MAX})
    return [Ancestor(*row) for row in rows]


def blocked_of(lanes: Sequence[str]) -> Steps[defaultdict[str, list[Candidate]]]:
    """Fetch the first of each lane that have a place and are not released."""
    blocked: defaultdict[str, list[Candidate]] = defaultdict(list)
    for lane, place, seq in (yield Fetch("blocked_events", {"lanes": lanes, "count": RELEASED_PER_STEP_MAX})):
        blocked[lane].append(Candidate(place, seq))
    return blocked


def starts_of(news: Iterable[News]) -> defaultdict[str, list[int]]:
    """Return when events of each lane were started, as the news say."""
    starts: defaultdict[str, list[int]] = defaultdict(list)
    for one in news:
        if one.started_at_us is not None:
            starts[one.lane].append(one.started_at_us)
    return starts


class Replacement(NamedTuple):
    """A blocking dead letter that blocks no more, since an edited replay stands for it, in this lane or elsewhere."""

    lane: str
    dead_seq: int
    place: int
    replay_seq: int
    same_lane: bool


def replacements_of(news: Iterable[News]) -> Steps[list[Replacement]]:
    """Fetch the blocking dead letters that were replaced; of several replays of one the first stands for it."""
    pairs = {one.replaced: one.replacement for one in reversed(list(news)) if one.replaced is not None}
    if not pairs:
        return []
    rows = yield Fetch("laned_events", {"seqs": sorted({*pairs, *pairs.values()})})
    events = {row[0]: LanedEvent(*row) for row in rows}
    found = []
    for dead_seq, replay_seq in pairs.items():
        dead, replay = events.get(dead_seq), events.get(replay_seq or 0)
        if dead is None or dead.lane is None or dead.place is None or not dead.stands_dead(dead.place):
            continue  # it was replayed itself meanwhile, say
        same_lane = replay is not None and replay.lane == dead.lane and State(replay.state) in PLACED
        found.append(Replacement(dead.lane, dead_seq, dead.place, replay_seq or 0, same_lane))
    return found


class Newcomers(NamedTuple):
    """Those of a lane that are to have a place, the open ancestors of such, and the places that are taken over."""

    unplaced: Sequence[Unplaced]
    ancestors: Sequence[Ancestor]
    taken_over: Mapping[int, int]


def stepped(
    figures: Figures, rules: LaneRules, newcomers: Newcomers, blocked: Sequence[Candidate], starts: Sequence[int]
) -> LaneStep:
    """Decide about one lane."""
    places, last_place = placed(*newcomers, figures.last_place)
    queued = [one.seq for one in newcomers.unplaced if one.state == State.QUEUED]
    candidates = sorted([*blocked, *(Candidate(places[seq], seq) for seq in queued)])
    if len(blocked) == RELEASED_PER_STEP_MAX:
        candidates = [one for one in candidates if one.place <= blocked[-1].place]  # what lies behind was not fetched
    held = [*places.values(), *([] if figures.head is None else [figures.head])]
    next_at_us = next_start(rules, figures.next_at_us, starts, figures.now_us)
    chosen = decide(
        LaneNow(
            rules=rules,
            now_us=figures.now_us,
            next_at_us=next_at_us,
            head=min(held, default=None),
            blocked=candidates,
            released=figures.released,
            running=figures.running,
            starting=figures.starting,
        )
    )
    # The row of an idle lane is kept until its next start may be, and then looked at once more.
    idle_until_us = next_at_us if not held and next_at_us > figures.now_us else None
    row = SavedLane(
        lane=figures.lane,
        last_place=last_place,
        next_at_us=next_at_us,
        wake_at_us=chosen.wake_at_us or idle_until_us,
    )
    more = len(newcomers.unplaced) == PLACED_PER_STEP_MAX or len(chosen.seqs) >= RELEASED_PER_STEP_MAX
    place_of = {one.seq: one.place for one in candidates}
    return LaneStep(
        places,
        released={seq: place_of[seq] for seq in chosen.seqs},
        row=row,
        more=more,
        empty=not held and idle_until_us is None,
        paced=rules.interval_us > 0,
    )


def carried_out(steps: Sequence[LaneStep], replacements: Sequence[Replacement]) -> Steps[tuple[list[Entry], int]]:
    """Write places and release; returns the entries of what may run, and how many of it are to run alone.

    What has moved since it was looked at is left alone; it has left news of its own.
    """
    places = {seq: place for step in steps for seq, place in step.places.items()}
    released = {seq: place for step in steps for seq, place in step.released.items()}
    paced = {seq for step in steps if step.paced for seq in (*step.places, *step.released)}
    touched = {*places, *released, *(one.dead_seq for one in replacements)}
    if not touched:
        return [], 0
    events = {row[0]: LanedEvent(*row) for row in (yield Fetch("lock_laned", {"seqs": sorted(touched)}))}
    cleared = {one.dead_seq for one in replacements if events[one.dead_seq].stands_dead(one.place)}
    void = {one.replay_seq for one in replacements if one.dead_seq not in cleared}
    rows = [PlacedEvent(seq=seq, place=None, blocked=False) for seq in cleared]
    running: list[LanedEvent] = []
    for seq, event in events.items():
        place = places.get(seq) if event.place is None else event.place
        if State(event.state) not in PLACED or place is None or seq in void:
            continue
        may_run = event.state == State.QUEUED and released.get(seq) == place
        rows.append(PlacedEvent(seq=seq, place=place, blocked=not may_run, paced=seq in paced))
        if may_run:
            running.append(event)
    yield Batch("place_events", rows)
    entries = [Entry(event.id, event.run) for event in running if not event.suspect]
    return entries, len(running) - len(entries)


# What people see, and what must not be


def by_backlog(now_us: int, limit: int) -> Steps[list[LaneReport]]:
    """Fetch the lanes in which most events wait for their turn; however many wait, few rows are looked at."""
    asked = {"count": limit, "now_us": now_us, "counted_max": BACKLOG_COUNTED_MAX, "looked_max": LANES_LOOKED_AT_MAX}
    return [LaneReport(*row) for row in (yield Fetch("lanes_by_backlog", asked))]


def one_lane(lane: str, now_us: int) -> Steps[LaneReport | None]:
    """Fetch how a lane stands; None for one without a row, in which nobody is known yet."""
    rows = yield Fetch("lane", {"lane": lane, "now_us": now_us, "counted_max": BACKLOG_COUNTED_MAX})
    return LaneReport(*rows[0]) if rows else None


class Behind(NamedTuple):
    """How many events wait behind such as stand like this at the heads of their lanes."""

    state: str
    waits_for: str | None
    later: bool
    events: int


def behind(now_us: int, soon_us: int) -> Steps[list[Behind]]:
    """Fetch how many events wait in strict lanes, by how those stand that they wait for."""
    asked = {"scan_max": BEHIND_COUNTED_MAX, "now_us": now_us, "soon_us": soon_us}
    return [Behind(*row) for row in (yield Fetch("blocked_behind", asked))]


def blocked_by(matches: Iterable[str]) -> Steps[dict[str, int]]:
    """Count the events that wait for their turn in the lanes of each pattern, up to a number."""
    counts = {}
    for match in matches:
        lower, upper = names_between(match)
        asked = {"lower": lower, "upper": upper, "count": BLOCKED_COUNTED_MAX}
        counts[match] = (yield Fetch("blocked_between", asked))[0][0]
    return counts


def problems(limit: int) -> Steps[list[tuple[str, str]]]:
    """Fetch (what is wrong, lane) of lanes that are not as they must be; those without a row are not looked for."""
    return [(row[0], row[1]) for row in (yield Fetch("lane_problems", {"count": limit}))]


def all_problems(limit: int) -> Steps[list[tuple[str, str]]]:
    """Fetch the same, and look at every event that waits for its turn."""
    known = yield from problems(limit)
    rows = yield Fetch("lanes_unknown", {"count": limit})
    return known + [(MISSED, row[0]) for row in rows]


def mend(lanes: Sequence[str]) -> Steps[None]:
    """Have these lanes looked at again."""
    yield Batch("add_lane_news", [LaneNews(lane=lane) for lane in lanes])
