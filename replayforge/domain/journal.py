"""What a workflow remembers: the steps it has taken and what it waits for. Values and decisions only."""

import random
from enum import StrEnum

import msgspec

from replayforge.domain.clock import to_us
from replayforge.domain.identity import hashed_id
from replayforge.domain.retry import RetryPolicy

CHILD_NAMESPACE = b"replayforge/child/1"
STEP_KEY_NAMESPACE = b"replayforge/step/1"
NAME_CHARACTERS_MAX = 255
ARGUMENTS_BYTES_MAX = 4096
# A wait that is so short costs less in memory than a commit and another start.
WAITED_IN_PLACE_SECONDS = 1.0


class StepKind(StrEnum):
    """What a step is."""

    STEP = "step"
    SLEEP = "sleep"
    WAIT = "wait_for"
    SEND = "send"
    CALL = "call"
    FIRST = "first"
    NOW = "now"


class StepState(StrEnum):
    """Where a step stands: `started` is known only of one that is to run once, `pending` ones wait for something."""

    STARTED = "started"
    PENDING = "pending"
    DONE = "done"
    FAILED = "failed"


RECORDED = frozenset({StepState.DONE, StepState.FAILED})
# What may take as long as it likes, and says nothing of how fast events are handled.
WAITS = frozenset({StepKind.SLEEP, StepKind.WAIT, StepKind.CALL})


class StepError(msgspec.Struct, frozen=True):
    """The failure of a step, as data."""

    type: str
    message: str
    trace: str = ""


class StepRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One step of one journal, as the store's row says.

    A step is known by its kind and its name, to which a key and a number may belong: `label[sku-1]`, `charge#2`.
    `generation` rises when a replay has it done again. `begun` and `recorded` are its places in the order of
    everything that its journal has seen; `recorded` is 0 until there is a result or a failure. `token` is that of the
    lease under which it was written last, `tries` how often its function ran, or began to. `due_at_us` is when a wait
    is over, or when it is tried again; `event_type` what it waits for or sends; `other_id` the id of the child that it
    made, or of the signal that it took.
    """

    kind: StepKind
    step: str
    generation: int = 0
    state: StepState
    token: int
    run: int
    begun: int
    recorded: int = 0
    tries: int = 0
    started_at_us: int
    ended_at_us: int | None = None
    due_at_us: int | None = None
    arguments: str = ""
    result: bytes | None = None
    error_type: str | None = None
    error: str | None = None
    trace: str | None = None
    event_type: str | None = None
    other_id: str | None = None
    label: str = ""

    @property
    def size(self) -> int:
        """How many bytes it adds to its journal."""
        return len(self.result or b"") + len(self.arguments) + len(self.error or "") + len(self.trace or "")


class Journal(msgspec.Struct, frozen=True, kw_only=True):
    """What the store holds of an event's current journal, read at `now_us` of the store's own clock.

    `number` is 1 for the first one, and one more for each restart and each replay from the start. `payload` is what a
    restart left for this journal to go on with. `wakes` counts how often the event was woken, `activation` how many
    answers of its endpoint that said what is next were committed, and replays. `run_started_at_us` is what its deadline
    counts from. `records` are the steps of the newest generations.
    """

    number: int = 1
    run_started_at_us: int
    now_us: int
    wakes: int = 0
    cancel_requested: bool = False
    payload: bytes | None = None
    activation: int = 0
    records: tuple[StepRecord, ...] = ()


class AwaitedEvent(msgspec.Struct, frozen=True):
    """A parked event's wait for another event of its workflow."""

    step: str
    event_type: str


class StepDecision(StrEnum):
    """What follows from a step's function that failed."""

    WAIT_IN_PLACE = "wait_in_place"
    PARK = "park"
    FAIL = "fail"


class AfterFailure(msgspec.Struct, frozen=True):
    """What to do after a try of a step failed, and how long to wait before the next."""

    decision: StepDecision
    delay_seconds: float = 0.0


def after_failure(
    *,
    tries: int,
    permanent: bool,
    retry_after_seconds: float | None,
    policy: RetryPolicy,
    in_place_seconds: float,
    rng: random.Random,
) -> AfterFailure:
    """Decide what follows when the function of a step has failed, the `tries`th time that counts.

    A wait of up to `in_place_seconds` happens where it is, for a longer one the event is parked.
    """
    if permanent or tries >= policy.max_attempts:
        return AfterFailure(StepDecision.FAIL)
    delay = policy.delay_seconds(max(1, tries), rng) if retry_after_seconds is None else retry_after_seconds
    in_place = delay <= in_place_seconds
    return AfterFailure(StepDecision.WAIT_IN_PLACE if in_place else StepDecision.PARK, delay)


def step_name(name: str, key: str | None, nth: int) -> str:
    """Return by what the nth step of a name and key is known in its journal; no two have the same.

    A name holds neither `#` nor `[`, see `objection_to_name`.
    """
    whole = name if key is None else f"{name}[{key}]"
    return whole if nth == 1 else f"{whole}#{nth}"


def objection_to_name(name: object, key: object = None) -> str:
    """Say in a clause what is wrong with the name or key of a step, or nothing."""
    if not isinstance(name, str) or not 1 <= len(name) <= NAME_CHARACTERS_MAX:
        return f"the name {name!r:.60} must be a text of 1 to {NAME_CHARACTERS_MAX} characters"
    if "#" in name or "[" in name:
        return f"the name {name!r:.60} must hold neither '#' nor '[', which are set before numbers and keys; use key="
    if key is not None and (not isinstance(key, str) or not 1 <= len(key) <= NAME_CHARACTERS_MAX):
        return f"key={key!r:.60} must be a text of 1 to {NAME_CHARACTERS_MAX} characters"
    return ""


def child_id(parent_id: str, journal: int, kind: StepKind, step: str, generation: int) -> str:
    """Return the id that the child event of a step always has."""
    parts = (parent_id, str(journal), kind, step, str(generation))
    return hashed_id(CHILD_NAMESPACE, *(part.encode() for part in parts))


def step_key(event_id: str, journal: int, step: str, generation: int) -> str:
    """Return what tells this step from all others outside: the same for every try, another after a replay of it."""
    parts = (event_id, str(journal), step, str(generation))
    return hashed_id(STEP_KEY_NAMESPACE, *(part.encode() for part in parts))


def due_in(now_us: int, seconds: float) -> int:
    """Return the time that lies so many seconds after `now_us`."""
    return now_us + to_us(seconds)
