"""The rules of bulk replays: their states, what a job does next, which members are left alone, how the others stand."""

import re
from dataclasses import replace
from importlib import resources

import pytest

from replayforge.domain.bulk_replay import (
    AT_WORK,
    JOB_TRANSITIONS,
    JobState,
    Member,
    MemberOutcome,
    Move,
    ReplayJob,
    Step,
    Take,
    Wait,
    next_step,
    outcome_now,
    why_skipped,
)
from replayforge.domain.lifecycle import State

JOB = ReplayJob(
    seq=7,
    state=JobState.RUNNING,
    resumes_as=JobState.RUNNING,
    note="",
    reason="mended",
    selection={},
    members_max=100,
    canary=0,
    rate_per_second=None,
    request_key=None,
    digest="",
    matched=10,
    total=10,
    replayed=0,
    skipped=0,
    succeeded=0,
    dead_lettered=0,
    superseded=0,
    through_seq=0,
    created_at_us=0,
    updated_at_us=0,
)
CANARY = replace(JOB, state=JobState.CANARY, canary=3)
MEMBER = Member(1, "event", 2, State.DEAD_LETTERED)


@pytest.mark.parametrize("dialect", ["sqlite", "postgres"])
def test_states_stand_in_sql_as_they_stand_here(dialect: str) -> None:
    """The CHECKs of each dialect hold exactly the transitions of jobs and the outcomes of members."""
    folder = resources.files("replayforge.stores").joinpath("sql", dialect)
    text = folder.joinpath("0001_initial.sql").read_text(encoding="utf-8")
    check = text[text.index("CONSTRAINT job_lifecycle") :]
    written = set(re.findall(r"(\w+)>(\w+)", check[: check.index("previous_state")]))
    ways = {(source, target) for source, targets in JOB_TRANSITIONS.items() for target in targets}
    assert written == ways | {("new", JobState.PENDING)}
    outcomes = text[text.index("CHECK (outcome IN (", text.index("CREATE TABLE replay_members")) :]
    assert re.findall(r"'(\w+)'", outcomes[: outcomes.index("))")]) == list(MemberOutcome)


def test_every_job_can_come_to_an_end() -> None:
    """Every state is in the table; from each but the ends some way leads to done, and cancelled is one step away."""
    assert set(JOB_TRANSITIONS) == set(JobState)
    ends = {state for state, targets in JOB_TRANSITIONS.items() if not targets}
    assert ends == {JobState.DONE, JobState.CANCELLED}
    reaching = {JobState.DONE}
    while more := {state for state in JobState if JOB_TRANSITIONS[state] & reaching} - reaching:
        reaching |= more
    assert reaching == set(JobState) - {JobState.CANCELLED}
    assert all(JobState.CANCELLED in JOB_TRANSITIONS[state] for state in set(JobState) - ends)


def test_figures_add_up() -> None:
    """What waits and what is open follow from the figures that are counted."""
    job = replace(JOB, replayed=6, skipped=1, succeeded=2, dead_lettered=1, superseded=1)
    assert (job.waiting, job.open, job.id) == (3, 2, "rpl_7")


STEPS: dict[str, tuple[ReplayJob, Step]] = {
    "new": (replace(JOB, state=JobState.PENDING), Move(JobState.RUNNING)),
    "new with a canary": (replace(CANARY, state=JobState.PENDING), Move(JobState.CANARY)),
    "running": (replace(JOB, replayed=4, skipped=1), Take(5)),
    "all taken": (replace(JOB, replayed=9, skipped=1), Move(JobState.DONE)),
    "all skipped": (replace(JOB, skipped=10), Move(JobState.DONE)),
    "paused": (replace(JOB, state=JobState.PAUSED), Wait()),
    "done": (replace(JOB, state=JobState.DONE, replayed=10), Wait()),
    "cancelled": (replace(JOB, state=JobState.CANCELLED), Wait()),
    "canary": (CANARY, Take(3)),
    "canary with a skipped one": (replace(CANARY, replayed=1, skipped=1), Take(2)),
    "canary larger than the rest": (replace(CANARY, replayed=1, skipped=8), Take(1)),
    "canary under way": (replace(CANARY, replayed=3, succeeded=2), Wait()),
    "canary under way with a dead one": (replace(CANARY, replayed=3, dead_lettered=2), Wait()),
    "canary well": (replace(CANARY, replayed=3, succeeded=2, superseded=1), Move(JobState.RUNNING)),
    "canary skipped altogether": (replace(CANARY, skipped=10), Move(JobState.RUNNING)),
}


@pytest.mark.parametrize(("job", "step"), STEPS.values(), ids=STEPS.keys())
def test_what_a_job_does_next(job: ReplayJob, step: Step) -> None:
    """A job's row alone says what is to be done next."""
    assert next_step(job) == step


def test_a_canary_that_fails_pauses_with_the_reason() -> None:
    """A dead letter among the first pauses the job and says how many, and what can be done."""
    step = next_step(replace(CANARY, replayed=3, succeeded=2, dead_lettered=1))
    assert isinstance(step, Move)
    assert step.target is JobState.PAUSED
    assert step.note == (
        "1 of the first 3 became dead letters again; the other 7 wait. Resume it to replay them all the same, or"
        " cancel it."
    )


def test_every_step_is_a_way_of_the_table() -> None:
    """No step leads to a state that the table does not allow, and only states at work take a step."""
    for job, _ in STEPS.values():
        step = next_step(job)
        assert not isinstance(step, Move) or step.target in JOB_TRANSITIONS[job.state]
        assert (step == Wait()) or job.state in AT_WORK


SKIPS = {
    "as it was": (("event", 2, State.DEAD_LETTERED), ""),
    "gone": (None, "Retention has removed it."),
    "another event in its place": (("another", 2, State.DEAD_LETTERED), "Retention has removed it."),
    "replayed": (("event", 3, State.DEAD_LETTERED), "It was replayed by somebody else meanwhile."),
    "discarded": (("event", 2, State.DISCARDED), "It was dead_lettered and is discarded now."),
}


@pytest.mark.parametrize(("now", "reason"), SKIPS.values(), ids=SKIPS.keys())
def test_which_members_are_left_alone(now: tuple[str, int, State] | None, reason: str) -> None:
    """Only a member that stands as it was seen is replayed; of any other it is said why not."""
    assert why_skipped(MEMBER, now) == reason


ENDS = {
    "queued": (("event", 3, State.QUEUED), MemberOutcome.REPLAYED),
    "retrying": (("event", 3, State.RETRYING), MemberOutcome.REPLAYED),
    "held": (("event", 3, State.HELD), MemberOutcome.REPLAYED),
    "succeeded": (("event", 3, State.SUCCEEDED), MemberOutcome.SUCCEEDED),
    "dead": (("event", 3, State.DEAD_LETTERED), MemberOutcome.DEAD_LETTERED),
    "dead and discarded": (("event", 3, State.DISCARDED), MemberOutcome.DEAD_LETTERED),
    "cancelled": (("event", 3, State.CANCELLED), MemberOutcome.SUPERSEDED),
    "replayed again": (("event", 4, State.SUCCEEDED), MemberOutcome.SUPERSEDED),
    "gone": (None, MemberOutcome.SUPERSEDED),
}


@pytest.mark.parametrize(("now", "outcome"), ENDS.values(), ids=ENDS.keys())
def test_how_replayed_members_stand(now: tuple[str, int, State] | None, outcome: MemberOutcome) -> None:
    """A replayed member stands where the run that the job gave it stands."""
    assert outcome_now(MEMBER, now) is outcome
