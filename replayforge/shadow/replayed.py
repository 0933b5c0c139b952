"""What came of a recorded run that other code was given: values that travel between processes."""

from enum import StrEnum

import msgspec

from replayforge.domain.recorded_run import RecordedRun


class End(StrEnum):
    """Where the code came to with what is recorded."""

    RETURNED = "returned"  # it returned, and that is JSON
    RAISED = "raised"  # its run would have failed: it raised, took too long, or returned what is no JSON
    BEGINS = "begins"  # it asked for what is not recorded, and nobody did that
    STANDS = "stands"  # it waits for what is recorded as not having come yet: an open run is where it stood
    EFFECT = "effect"  # outside of any step it reached for something that others can see, and was refused
    NO_HANDLER = "no_handler"  # nobody handles the event's type
    UNFINISHED = "unfinished"  # it ended its process, or had to be ended


class Asked(msgspec.Struct, frozen=True):
    """A step that the code asked for and that is not recorded.

    `kind` is one of StepKind, or `restart`; `arguments` is JSON: those of the function, the payload of a child event or
    of a restart, or nothing. `known_as` is the kind under which the journal has the name, where it has it.
    """

    kind: str
    step: str
    arguments: str = ""
    known_as: str | None = None


class NamedStep(msgspec.Struct, frozen=True):
    """A step that is recorded."""

    kind: str
    step: str


class ChangedArguments(msgspec.Struct, frozen=True):
    """A recorded step that the code asked for with other arguments, or with another payload; both are JSON."""

    kind: str
    step: str
    before: str
    after: str


class OutsideEffect(msgspec.Struct, frozen=True):
    """What the code reached for outside of its steps, and where: file:line."""

    what: str
    place: str


class ReplayedRun(msgspec.Struct, frozen=True, kw_only=True):
    """How code fared with one recorded run. No function of a step was called, and nothing was written anywhere.

    `end` says where it came to. `result` is the JSON that it returned, None for nothing; `error` what it raised in
    words, with its trace, by `signature` errors of its kind are known, `failed_steps` are those whose recorded failures
    the error carries. `asks` are the steps that it would begin, where
    it BEGINS; more than one where its tasks came to several at once. `stands` are the waits, and steps that are to be
    tried again or are in doubt, that it came to. `unreached` are recorded steps that it has not come to: where it
    BEGINS, RAISED or was refused an EFFECT, what comes later is among them; where it BEGINS, those are `unnamed` whose
    names are nowhere in the code. `changed` are those that it came to with other arguments. A step that is recorded
    answers whatever its arguments are.
    """

    id: str
    end: End
    result: bytes | None = None
    error: str | None = None
    signature: str | None = None
    failed_steps: tuple[NamedStep, ...] = ()
    asks: tuple[Asked, ...] = ()
    stands: tuple[NamedStep, ...] = ()
    effect: OutsideEffect | None = None
    unreached: tuple[NamedStep, ...] = ()
    unnamed: tuple[NamedStep, ...] = ()
    changed: tuple[ChangedArguments, ...] = ()


class World(msgspec.Struct, frozen=True):
    """What a process takes for granted that nobody should: how far its clock is ahead, and what chance depends on.

    Each run is given the time at which it was recorded, so much later. `hash_seed` decides in which order sets are.
    """

    ahead_seconds: int = 0
    random_seed: int = 0
    hash_seed: int = 0


AS_RECORDED = World()


class Job(msgspec.Struct, frozen=True):
    """What a child process is to do: load these modules or files, and replay runs with what they register.

    `signals` are event types that the configuration declares as awaited. A run whose handler says nothing else may
    take `timeout_seconds`, most of which pass in no time.
    """

    handlers: tuple[str, ...]
    world: World = AS_RECORDED
    signals: tuple[str, ...] = ()
    timeout_seconds: float = 30.0


class TrialReady(msgspec.Struct, frozen=True, tag="loaded"):
    """The child is ready, and has the network for itself alone, where its kernel lets it."""

    isolated: bool


class NotLoaded(msgspec.Struct, frozen=True, tag="not_loaded"):
    """The handlers cannot be loaded, and why; with an `effect` that importing them has."""

    reason: str
    effect: OutsideEffect | None = None


class TrialEnded(msgspec.Struct, frozen=True, tag="ended"):
    """A run was replayed."""

    replayed: ReplayedRun


Told = TrialReady | NotLoaded | TrialEnded

encode = msgspec.msgpack.encode
decode_run = msgspec.msgpack.Decoder(RecordedRun).decode
decode_job = msgspec.msgpack.Decoder(Job).decode
decode_told: msgspec.msgpack.Decoder[Told] = msgspec.msgpack.Decoder(Told)
