"""Many who send at once: so many of their events are on their way into the log, the others are queued, and all end."""

import asyncio
from pathlib import Path

import pytest

from replayforge.domain.errors import Overloaded, Unavailable
from replayforge.domain.event import Envelope
from replayforge.engine.accept.ingest_limiter import CALLERS_AT_ONCE, EVENTS_AT_ONCE
from tests.integration.conftest import echo_handlers
from tests.support.house import open_house

SENDERS = 2 * CALLERS_AT_ONCE


@pytest.mark.parametrize("keyed", [False, True], ids=["without keys", "with keys"])
async def test_of_many_senders_so_many_are_admitted_at_once(tmp_path: Path, keyed: bool) -> None:
    """Never are more callers in flight than may be, and the limiter is empty once all are durable."""
    async with open_house(tmp_path, echo_handlers()) as house:
        intake = house.daemon.intake
        in_flight_at_append: list[int] = []
        hand_over = intake.append

        def append(records: list) -> None:  # type: ignore[type-arg]
            in_flight_at_append.append(intake.limiter.in_flight)
            hand_over(records)

        intake.append = append  # type: ignore[method-assign]
        envelopes = [
            Envelope(workflow_id="many", event_type="test", idempotency_key=f"key-{number}" if keyed else None)
            for number in range(SENDERS)
        ]
        receipts = await asyncio.gather(*(intake.accept(envelope) for envelope in envelopes))
        assert len({receipt.log_offset for receipt in receipts}) == SENDERS
        assert max(in_flight_at_append) == CALLERS_AT_ONCE
        assert (intake.limiter.in_flight, intake.limiter.queued_events) == (0, 0)
        ledger = await house.converges()
        assert (ledger["accepted"], ledger["succeeded"]) == (SENDERS, SENDERS)


async def test_a_sender_who_goes_away_while_queued_leaves_nothing_behind(tmp_path: Path) -> None:
    """Its event is not accepted, its key names nothing, and who stood behind it comes in."""
    async with open_house(tmp_path, echo_handlers()) as house:
        intake = house.daemon.intake
        intake.limiter.callers_max = 1
        intake.limiter.admit_first(EVENTS_AT_ONCE)
        envelope = Envelope(workflow_id="gone", event_type="test", idempotency_key="key")
        gone = asyncio.create_task(intake.accept(envelope))
        while not intake.limiter.queued_events:  # noqa: ASYNC110  # the turns of the loop are what passes
            await asyncio.sleep(0)
        async with house.http.get("/metrics") as response:
            assert "\nreplayforge_ingest_queued_events 1.0\n" in await response.text()
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        assert len(intake.window) == 0
        behind = asyncio.create_task(intake.accept(envelope))
        intake.limiter.release(EVENTS_AT_ONCE)
        assert not (await behind).duplicate


@pytest.mark.parametrize("gone", [0, 1, 2])
async def test_a_sender_who_goes_away_takes_nobody_along(tmp_path: Path, gone: int) -> None:
    """What it has handed in is accepted all the same, and those whose events went into the log with it hear of it."""
    async with open_house(tmp_path, echo_handlers()) as house:
        intake = house.daemon.intake
        envelope = Envelope(workflow_id="three", event_type="test")
        senders = [asyncio.create_task(intake.accept(envelope)) for _ in range(3)]
        while intake.limiter.in_flight < len(senders):  # noqa: ASYNC110  # the turns of the loop are what passes
            await asyncio.sleep(0)
        senders[gone].cancel()
        async with asyncio.timeout(20):
            others = await asyncio.gather(*senders, return_exceptions=True)
        assert isinstance(others.pop(gone), asyncio.CancelledError)
        assert not any(isinstance(receipt, BaseException) for receipt in others)
        ledger = await house.converges()
        assert (ledger["accepted"], ledger["succeeded"]) == (3, 3)


async def test_a_line_that_is_too_long_is_told_to_come_again(tmp_path: Path) -> None:
    """An event that finds the line at its end is refused, and nothing of it is kept."""
    async with open_house(tmp_path, echo_handlers()) as house:
        intake = house.daemon.intake
        intake.limiter.callers_max = 1
        intake.limiter.admit_first(EVENTS_AT_ONCE)
        intake.limiter.queued_max = 0
        with pytest.raises(Overloaded):
            await intake.accept(Envelope(workflow_id="late", event_type="test"))
        assert len(intake.window) == 0
        intake.limiter.release(EVENTS_AT_ONCE)


async def test_what_the_log_refuses_leaves_the_entrance(tmp_path: Path) -> None:
    """Events that did not become durable hold nobody up."""
    async with open_house(tmp_path, echo_handlers()) as house:
        intake = house.daemon.intake
        await house.daemon.log.close()
        with pytest.raises(Unavailable):
            await intake.accept(Envelope(workflow_id="late", event_type="test"))
        assert intake.limiter.in_flight == 0
