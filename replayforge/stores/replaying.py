"""Replays in the store: ended events begin a new run with what is left of their journals, all at once or not at all."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import msgspec

from replayforge.domain.errors import Conflict
from replayforge.domain.event import Entry
from replayforge.domain.journal import StepKind, StepState
from replayforge.domain.lifecycle import REPLAYABLE_WITHOUT_FORCE, State
from replayforge.domain.replay_plan import FROM_FAILURE, PastJournal, PastStep, ReplayPlan, plan_replay
from replayforge.stores import wakes
from replayforge.stores.batches import NotedAction, RecordedStep, RenewedJournal, ReplayedEvent
from replayforge.stores.driver import Batch, Fetch, Steps
from replayforge.stores.rows import named_event
from replayforge.stores.tallies import moves, tally

Now = tuple[str, int, State]


@dataclass(frozen=True, slots=True)
class Wanted:
    """An event that is to be replayed, the run and state it was seen in, from where, and why."""

    seq: int
    event_id: str
    run: int
    state: State
    begins_from: str | None
    reason: str
    request_key: str | None = None
    acted_by: str = ""


@dataclass(frozen=True, slots=True)
class Planned:
    """What a replay would do, and to whom besides; `objection` says what stands in its way, if anything does.

    `has_journal` tells whether there is anything to be cleared at all.
    """

    wanted: Wanted
    plan: ReplayPlan
    objection: str = ""
    children: tuple["Planned", ...] = ()
    has_journal: bool = False

    @property
    def family(self) -> list["Planned"]:
        """The event itself and the child events that are replayed with it, however deep."""
        return [self, *(one for child in self.children for one in child.family)]


@dataclass(frozen=True, slots=True)
class GivenBack:
    """An event that a wait had taken."""

    seq: int
    id: str
    application_name: str
    workflow_id: str
    event_type: str
    run: int


@dataclass(frozen=True, slots=True)
class Replayed:
    """What a replay has done; `gone` are events that its waits had taken and that retention has removed since.

    `entries` are those of the event itself and of the child events that were replayed with it, `woken` those of parked
    events that a signal which was given back has woken.
    """

    plan: ReplayPlan
    entries: tuple[Entry, ...]
    given_back: tuple[str, ...]
    gone: tuple[str, ...]
    woken: tuple[Entry, ...] = ()


def planned(wanted: Sequence[Wanted]) -> Steps[list[Planned]]:
    """Fetch what the journals of events have left, and decide what replays of them would do."""
    journals = yield from past_journals([one.seq for one in wanted])
    plans = {one.seq: decided(one, journals.get(one.seq)) for one in wanted}
    called = {child: one for one in wanted for child in plans[one.seq][0].children}
    children: defaultdict[int, list[Planned]] = defaultdict(list)
    if called:
        for child in (yield from planned((yield from ended_children(called)))):
            children[called[child.wanted.event_id].seq].append(child)
    return [
        Planned(
            one,
            plan=plans[one.seq][0],
            objection=next((bad for bad in (plans[one.seq][1], *objections(children[one.seq])) if bad), ""),
            children=tuple(children[one.seq]),
            has_journal=one.seq in journals,
        )
        for one in wanted
    ]


def objections(children: Sequence[Planned]) -> list[str]:
    """Return what stands in the way of replaying child events."""
    return [f"Its child cannot be replayed with it: {child.objection}" for child in children if child.objection]


def decided(wanted: Wanted, journal: PastJournal | None) -> tuple[ReplayPlan, str]:
    """Return the plan of one replay, or what stands in its way."""
    try:
        return plan_replay(wanted.event_id, wanted.state, journal, wanted.begins_from), ""
    except Conflict as conflict:
        return ReplayPlan(begins_from=wanted.begins_from or FROM_FAILURE), str(conflict)


def past_journals(seqs: Sequence[int]) -> Steps[dict[int, PastJournal]]:
    """Fetch the journals of those events that have one, with their steps of the newest generations."""
    rows = yield Fetch("past_journals", {"seqs": list(seqs)})
    if not rows:
        return {}
    found = yield Fetch("past_steps", {"seqs": [row[0] for row in rows]})
    steps: defaultdict[int, dict[tuple[str, str], PastStep]] = defaultdict(dict)
    for seq, kind, step, generation, state, begun, recorded, error_type, other_id in found:
        steps[seq][kind, step] = PastStep(
            kind=StepKind(kind),
            step=step,
            generation=generation,
            state=StepState(state),
            begun=begun,
            recorded=recorded,
            error_type=error_type,
            other_id=other_id,
        )
    return {
        seq: PastJournal(
            number=number,
            ended_by=() if ended_by is None else msgspec.json.decode(ended_by, type=tuple[str, ...]),
            steps=tuple(steps[seq].values()),
        )
        for seq, number, ended_by in rows
    }


def ended_children(called: Mapping[str, Wanted]) -> Steps[list[Wanted]]:
    """Fetch those child events of failed calls that have ended without success; the others go on by themselves."""
    rows = yield Fetch("events_named", {"ids": sorted(called)})
    found = [one for one in map(named_event, rows) if one.state in REPLAYABLE_WITHOUT_FORCE]
    return [
        Wanted(
            one.seq, one.id, one.run, one.state, None, f"called by {called[one.id].event_id}: {called[one.id].reason}"
        )
        for one in found
    ]


def replay(node: str, wanted: Wanted, now_us: int) -> Steps[Replayed | None]:
    """Queue a finished event for a new run; None when it was replayed or moved meanwhile.

    Raises Conflict where its journal stands in the way; nothing is written then.
    """
    (one,) = yield from planned([wanted])
    signals = yield from taken_signals([one])
    now = yield from locked([one], signals)
    if now.get(wanted.seq) != (wanted.event_id, wanted.run, wanted.state):
        return None
    if one.objection:
        raise Conflict(one.objection)
    (replayed,), woken = yield from carry_out(node, [one], signals, now, now_us)
    return replace(replayed, woken=tuple(woken))


def look(wanted: Wanted) -> Steps[Planned]:
    """Fetch what a replay would do."""
    (one,) = yield from planned([wanted])
    return one


def taken_signals(plans: Iterable[Planned]) -> Steps[dict[str, GivenBack]]:
    """Fetch the signals that replays give back, by their ids; those that retention has removed are not among them."""
    ids = sorted({signal for one in plans for signal in one.plan.signals})
    rows = (yield Fetch("taken_signals", {"ids": ids})) if ids else []
    return {row[1]: GivenBack(*row) for row in rows}


def locked(plans: Iterable[Planned], signals: Mapping[str, GivenBack]) -> Steps[dict[int, Now]]:
    """Lock all that replays touch, so that nobody moves it before the transaction ends; returns how it stands."""
    yield from wakes.lock_workflows((one.application_name, one.workflow_id) for one in signals.values())
    seqs = {member.wanted.seq for one in plans for member in one.family} | {one.seq for one in signals.values()}
    rows = yield Fetch("lock_events", {"seqs": sorted(seqs)})
    return {row[0]: (row[1], row[2], State(row[3])) for row in rows}


def carry_out(
    node: str, plans: Sequence[Planned], signals: Mapping[str, GivenBack], now: Mapping[int, Now], now_us: int
) -> Steps[tuple[list[Replayed], list[Entry]]]:
    """Do what was planned, of events that are locked and stand as they were seen; returns whom that has woken, too.

    A child event that was replayed by somebody else meanwhile, or that is itself among those wanted, is left alone.
    """
    named = {top.wanted.seq for top in plans}
    families = [
        [top, *(one for one in top.family[1:] if stands(one, now) and one.wanted.seq not in named)] for top in plans
    ]
    everybody = [one for family in families for one in family]
    events = [replayed_event(one.wanted, now_us) for one in everybody]
    yield Batch("replay_event", events)
    notes = [replay_note(event, one.wanted) for event, one in zip(events, everybody, strict=True)]
    yield Batch("insert_actions", notes)
    yield from clear([one for one in everybody if one.has_journal], now_us)
    woken = yield from give_back(
        node, [(signals[name], one) for one in plans for name in one.plan.signals if name in signals], now_us
    )
    moved = Counter[State]({State.QUEUED: len(events)})
    moved.subtract(event.state for event in events)
    yield tally(node, moved)
    return [done(family, signals) for family in families], woken


def stands(one: Planned, now: Mapping[int, Now]) -> bool:
    """Tell whether an event still is as it was seen."""
    return now.get(one.wanted.seq) == (one.wanted.event_id, one.wanted.run, one.wanted.state)


def done(family: Sequence[Planned], signals: Mapping[str, GivenBack]) -> Replayed:
    """Return what a replay has done, given the events that were replayed with the first."""
    plan = family[0].plan
    return Replayed(
        plan,
        entries=tuple(Entry(one.wanted.event_id, one.wanted.run + 1) for one in family),
        given_back=tuple(name for name in plan.signals if name in signals),
        gone=tuple(name for name in plan.signals if name not in signals),
    )


def replayed_event(wanted: Wanted, now_us: int) -> ReplayedEvent:
    """Return the row that begins a new run."""
    return ReplayedEvent(seq=wanted.seq, run=wanted.run, state=wanted.state, at_us=now_us)


def replay_note(replayed: ReplayedEvent, wanted: Wanted) -> NotedAction:
    """Return the row that notes the run which a replay begins."""
    return NotedAction(
        event_seq=replayed.seq,
        at_us=replayed.at_us,
        run=replayed.run + 1,
        action="replayed",
        detail=wanted.reason,
        request_key=wanted.request_key,
        acted_by=wanted.acted_by,
    )


def clear(plans: Sequence[Planned], now_us: int) -> Steps[None]:
    """Have what was cleared done again, and let the events go on with their journals, or the next ones."""
    if not plans:
        return
    steps = [to_be_done(one.wanted, one.plan, step, now_us) for one in plans for step in one.plan.cleared]
    yield Batch("rewrite_steps", steps)
    yield Batch("renew_journals", [RenewedJournal(seq=one.wanted.seq, number=one.plan.number) for one in plans])


def to_be_done(wanted: Wanted, plan: ReplayPlan, cleared: PastStep, at_us: int) -> RecordedStep:
    """Return the row of a step that is to be done again: it waits, and has not begun."""
    return RecordedStep(
        event_seq=wanted.seq,
        journal=plan.number,
        kind=cleared.kind,
        step=cleared.step,
        generation=cleared.generation + plan.rises,
        state=StepState.PENDING,
        token=0,
        run=wanted.run + 1,
        begun=0,
        recorded=0,
        tries=0,
        started_at_us=at_us,
        ended_at_us=None,
        due_at_us=None,
        arguments="",
        result=None,
        error_type=None,
        error=None,
        trace=None,
        event_type=None,
        other_id=None,
        label="",
    )


def give_back(node: str, taken: Sequence[tuple[GivenBack, Planned]], now_us: int) -> Steps[list[Entry]]:
    """Keep signals again whose waits were cleared, or give them to whoever waits now; returns whom that has woken."""
    if not taken:
        return []
    yield Fetch("give_back_signals", {"seqs": [signal.seq for signal, _ in taken], "now_us": now_us})
    yield Batch(
        "insert_actions",
        [
            NotedAction(
                event_seq=signal.seq,
                at_us=now_us,
                run=signal.run,
                action="given_back",
                detail=f"Event {one.wanted.event_id} was replayed: {one.wanted.reason}",
                acted_by=one.wanted.acted_by,
            )
            for signal, one in taken
        ],
    )
    yield tally(node, moves(State.SUCCEEDED, [State.KEPT] * len(taken)))
    keys = [(signal.application_name, signal.workflow_id, signal.event_type) for signal, _ in taken]
    return (yield from wakes.match_signals(node, keys, len(taken), now_us))
