"""The page of the lanes: what holds in them, the keys in which most events wait, and what each of those waits for."""

from dataclasses import dataclass

from aiohttp import web

from replayforge.domain.clock import MICROSECONDS_PER_SECOND
from replayforge.domain.lane import LaneReport, LaneRule, LaneRules, turn_of
from replayforge.domain.lifecycle import State
from replayforge.web.api.lanes import LaneShape, lane_shape
from replayforge.web.http.context import context_of
from replayforge.web.pages.awaited import TurnRow, turn_row
from replayforge.web.pages.rendering import PageTemplate, show
from replayforge.web.pages.words import count, plural

SECTION = "lanes"
KEYS_SHOWN = 50
KEY_CHARACTERS_MAX = 80
RATE_UNITS = ((1, "a second"), (60, "a minute"), (3600, "an hour"))
EXAMPLE = """\
[[lanes]]
match = "order.*"
key = "payload.customer_id"    # or workflow_id
order = "strict"               # one after another for each customer, and customers side by side
on_dead = "block"              # or "skip": a dead letter lets those behind it go on

[[lanes]]
match = "partner.*"
key = "event_type"
rate = "5/s"                   # starts for each key, over all daemons
concurrency = 2                # at once for each key, over all daemons
"""


@dataclass(frozen=True, slots=True)
class LaneRow:
    """The lanes of one table of the configuration: which events, by which key, and what holds, in words."""

    match: str
    key: str
    rules: list[str]


@dataclass(frozen=True, slots=True)
class LaneKeyRow:
    """One key of a lane. `turn` is what the next event that is blocked waits for; `dead_id` is the dead letter that
    blocks the key, if one does."""

    match: str
    subscriber: str
    key: str
    blocked: str
    released: str
    running: str
    turn: TurnRow | None
    dead_id: str


@dataclass(frozen=True, slots=True)
class LanesView:
    """What the configuration says, and the keys with the longest backlogs; `example` is what it could say."""

    lanes: list[LaneRow]
    keys: list[LaneKeyRow]
    keys_shown: int
    example: str


async def lanes(request: web.Request) -> web.Response:
    """Show what holds in the lanes, and the keys in which most events wait."""
    context = context_of(request)
    view = LanesView(
        lanes=[lane_row(rule) for rule in context.lanes.by_specificity],
        keys=[key_row(report) for report in await context.queries.list_lanes(KEYS_SHOWN)],
        keys_shown=KEYS_SHOWN,
        example=EXAMPLE,
    )
    return await show(request, PageTemplate("lanes.html", "Lanes", SECTION), view)


def lane_row(rule: LaneRule) -> LaneRow:
    """Return the row of a table of the configuration."""
    return LaneRow(rule.match, rule.key, rules_in_words(rule.rules))


def rules_in_words(rules: LaneRules) -> list[str]:
    """Say what holds for each key."""
    said = ["one after another, in the order they came"] if rules.strict else []
    if rules.strict and rules.dead_blocks:
        said.append("a dead letter blocks its key until it is replayed or discarded")
    elif rules.strict:
        said.append("a dead letter lets those behind it go on")
    if rules.counts_running:
        said.append(f"at most {count(rules.width)} at once")
    if rules.interval_us:
        said.append(f"at most {rate_in_words(rules.interval_us)}, retries included")
    if not rules.strict and rules.width:
        said.append("keys take turns")
    return said


def rate_in_words(interval_us: int) -> str:
    """Say how many starts there may be in a time that makes it a number one can read."""
    per_second = MICROSECONDS_PER_SECOND / interval_us
    seconds, unit = next((one for one in RATE_UNITS if round(per_second * one[0], 6) >= 1), RATE_UNITS[-1])
    number = round(per_second * seconds, 2)
    return f"{plural(int(number), 'start') if number == int(number) else f'{number:,.2f} starts'} {unit}"


def key_row(report: LaneReport) -> LaneKeyRow:
    """Return the row of a key."""
    shape, turn = lane_shape(report), turn_of("", report)
    blocks = report.strict and report.head_state == State.DEAD_LETTERED
    return LaneKeyRow(
        match=shape.match,
        subscriber=shape.subscriber or "",
        key=key_in_words(shape),
        blocked=count(shape.blocked) + ("+" if shape.count_capped else ""),
        released=count(shape.released),
        running=count(shape.running),
        turn=turn_row(turn.words, turn.event_id) if shape.blocked else None,
        dead_id=(report.head_id or "") if blocks else "",
    )


def key_in_words(shape: LaneShape) -> str:
    """Return the value of a key as people wrote it, cut short where it is long."""
    text = "without this value" if shape.key is None else shape.key if isinstance(shape.key, str) else f"{shape.key}"
    return text if len(text) <= KEY_CHARACTERS_MAX else text[: KEY_CHARACTERS_MAX - 1] + "…"
