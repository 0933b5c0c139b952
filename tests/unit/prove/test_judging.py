"""What a trial with a death proves, held against one without."""

import msgspec
import pytest

from replayforge.prove.judging import CrashMark, doubts_about, judged
from replayforge.prove.proxy import Call
from replayforge.prove.trial import CrashTrial, EndedEvent
from replayforge.prove.whereabouts import Site

HANDLER = Site("/app/handlers.py", 12, "pay", "/app/bank.py:7")
STEP = Site("/app/bank.py", 5, "charge", "", "charge")
DONE = EndedEvent("order.paid", "succeeded", "", 1, "")
HELD = EndedEvent("order.paid", "held", "in_doubt", 2, "", (), ("charge",))


def called(method: str = "POST", site: Site | None = HANDLER, key: str = "", path: str = "/charges") -> Call:
    return Call(method, f"https://bank.example{path}", key, () if site is None else (site,))


def usual(*calls: Call) -> CrashTrial:
    """A trial without a death."""
    return CrashTrial(events=(DONE,), calls=calls)


def after_death(*calls: Call, **more: object) -> CrashTrial:
    """A trial with one, after which the handler ran again."""
    again = msgspec.structs.replace(DONE, starts=2)
    return msgspec.structs.replace(CrashTrial(died=True, events=(again,), calls=calls), **more)


def test_a_call_that_is_made_again_is_doubled_and_its_line_named() -> None:
    cell = judged("attempt.finished", 1, "", after_death(called(), called()), usual(called()))
    assert (cell.mark, cell.extra_starts) == (CrashMark.DOUBLED, 1)
    (doubled,) = cell.doubled
    assert (doubled.call, doubled.times) == ("POST https://bank.example/charges", 1)
    assert (doubled.place, doubled.innermost) == ("/app/handlers.py:12", "/app/bank.py:7")
    assert doubled.remedy == "wrap it in ctx.step(...)"


def test_a_call_in_a_step_wants_the_key_of_the_step() -> None:
    twice = after_death(called(site=STEP), called(site=STEP), steps=("charge", "charge"))
    cell = judged("step.returned", 1, "charge", twice, usual(called(site=STEP)))
    assert cell.mark is CrashMark.DOUBLED
    assert cell.steps_again == ("charge", "charge")
    assert "ctx.step_key" in cell.doubled[0].remedy


@pytest.mark.parametrize(
    "repeated",
    [
        [called(key="17"), called(key="17")],
        [called("PUT"), called("PUT")],
        [called("GET"), called("GET")],
    ],
)
def test_what_its_receiver_can_tell_is_no_second_effect(repeated: list[Call]) -> None:
    assert judged("attempt.finished", 1, "", after_death(*repeated), usual(repeated[0])).mark is CrashMark.CONVERGED


def test_other_keys_are_other_effects() -> None:
    calls = called(key="17"), called(key="18")
    assert judged("attempt.finished", 1, "", after_death(*calls), usual(calls[0])).mark is CrashMark.DOUBLED


def test_addresses_may_differ_and_a_loop_may_call_often() -> None:
    """A line that calls three addresses calls three after a death as well, whatever these are."""
    once = [called(path=f"/{number}") for number in range(3)]
    again = [called(path=f"/{number}") for number in range(7, 10)]
    assert judged("attempt.started", 1, "", after_death(*again), usual(*once)).mark is CrashMark.CONVERGED
    assert judged("attempt.started", 1, "", after_death(*again, again[0]), usual(*once)).doubled[0].times == 1


def test_a_call_whose_line_was_not_seen_is_counted_all_the_same() -> None:
    """By whom it reaches; the line that is named is one that called too often, or any that is known."""
    calls = called(site=None), called()
    assert judged("attempt.started", 1, "", after_death(*calls), usual(called(), called())).mark is CrashMark.CONVERGED
    (doubled,) = judged("attempt.finished", 1, "", after_death(*calls), usual(called(site=None))).doubled
    assert doubled.place == "/app/handlers.py:12"
    other = msgspec.structs.replace(HANDLER, line=20, innermost="/app/bank.py:9")
    twice = after_death(called(), called(site=other), called(site=other))
    assert judged("x", 1, "", twice, usual(called(), called(site=other))).doubled[0].place == "/app/handlers.py:20"


def test_an_event_that_is_held_is_neither_doubled_nor_lost() -> None:
    cell = judged("step.returned", 1, "charge", after_death(called(), events=(HELD,)), usual(called()))
    assert (cell.mark, cell.held) == (CrashMark.HELD, ("order.paid is held, in doubt: step charge",))


def test_another_end_is_red() -> None:
    dead = EndedEvent("order.paid", "dead_lettered", "poison", 3, "")
    cell = judged("attempt.started", 1, "", after_death(events=(dead,)), usual())
    assert cell.mark is CrashMark.FAILED
    assert cell.objections == ("order.paid is dead lettered (poison)", "no order.paid is succeeded")
    assert judged("attempt.started", 1, "", after_death(objections=("lost",)), usual()).mark is CrashMark.FAILED


def test_who_did_not_die_proves_nothing() -> None:
    assert judged("claim.acked", 1, "", usual(), usual()).mark is CrashMark.NOT_REACHED


def test_doubts() -> None:
    """Whoever does not succeed without a death, passes the proxy, or calls now this and now that, cannot be judged."""
    assert doubts_about(usual(called()), usual(called())) == []
    waiting = EndedEvent("order.paid", "waiting", "", 1, "", ("wait_for parcel.scanned",))
    (doubt,) = doubts_about(msgspec.structs.replace(usual(), events=(waiting,)), usual())
    assert doubt == "order.paid waits (wait_for parcel.scanned): what comes after is not proved"
    passed = msgspec.structs.replace(usual(), refused=(("10.0.0.5:5432", HANDLER),))
    (doubt,) = doubts_about(passed, usual())
    assert doubt == "10.0.0.5:5432 was called past the proxy, at /app/handlers.py:12: see --forward"
    (doubt,) = doubts_about(usual(called()), usual(called(), called()))
    assert doubt.startswith("what it calls differs from run to run")
