"""Commits outcomes in batches; what a handler finished is kept until the store has taken it."""

import asyncio
import os
from collections.abc import Callable

from msgspec.structs import replace

from replayforge import crashpoints, forks
from replayforge.batching import BatchQueue
from replayforge.domain.errors import Unavailable, Unstorable
from replayforge.domain.lifecycle import Outcome, Reason, State
from replayforge.domain.verdict import error_signature
from replayforge.engine.dispatch.claim_buffer import ClaimBuffer
from replayforge.engine.dispatch.publisher import Publisher
from replayforge.engine.run.pace import Pace
from replayforge.engine.run.recorded_steps import tell_recorded
from replayforge.engine.service_loop import Outage
from replayforge.stores.burial import ERROR_CHARACTERS_MAX, storable_text
from replayforge.stores.store import Store
from replayforge.stores.transactions import Settlement
from replayforge.telemetry import Telemetry

UNSETTLED_MAX = 1000


class Settler:
    """Joins the outcomes of all workers into few commits, and tries again for as long as the store is away."""

    def __init__(self, store: Store, buffer: ClaimBuffer, publisher: Publisher, telemetry: Telemetry) -> None:
        self.store = store
        self.publisher = publisher
        self.buffer = buffer
        self.telemetry = telemetry
        self.pace = Pace(buffer.clock)
        telemetry.listen(self.pace.note_replay, ["event.replayed"])
        self.queue = BatchQueue(self.settle, self.forsake)
        self.has_room = asyncio.Event()
        self.outage = Outage(telemetry)
        self.giving_up = asyncio.Event()

    async def hand_in(self, settlement: Settlement) -> None:
        """Take over an outcome; returns at once, or when there is room again while the store is away.

        A child that a handler forked, and that came back out of it, ends here: it is not the daemon.
        """
        if forks.is_child():
            os._exit(0)
        while len(self.queue.pending) >= UNSETTLED_MAX:
            self.has_room.clear()
            await self.has_room.wait()
        self.queue.hand_in(settlement)

    def give_up(self) -> None:
        """Try no commit again from now on: the daemon ends, and what is not committed runs again."""
        self.giving_up.set()

    async def finish(self) -> None:
        """Return when every outcome that was handed in is committed, or given up because the daemon ends."""
        await self.queue.drain()

    async def settle(self, batch: list[Settlement]) -> None:
        """Commit one batch, and forget its events once that is done."""
        try:
            await self.commit(batch)
        except Exception as error:
            self.forsake(batch, error)
        except BaseException as error:
            self.forsake(batch, error)
            raise
        else:
            self.forget(batch)

    def forsake(self, batch: list[Settlement], error: BaseException) -> None:
        """Forget events whose outcomes are not committed and never will be: the sweep will have them run again."""
        if not isinstance(error, (Unavailable, asyncio.CancelledError)):
            for settlement in batch:
                self.telemetry.emit("attempt.unsettled", event_id=settlement.event.id, error=repr(error))
        self.forget(batch)

    def forget(self, batch: list[Settlement]) -> None:
        """Note that nothing of these is in the hands of this process any more."""
        self.buffer.release(*[settlement.event.lease for settlement in batch])
        self.has_room.set()

    async def commit(self, settlements: list[Settlement]) -> None:
        """Commit one batch; an outcome that the store cannot take does not keep the others from being committed."""
        try:
            await self.commit_patiently(settlements)
        except Unavailable:
            raise
        except Exception:
            for settlement in settlements:
                await self.commit_alone(settlement)

    async def commit_alone(self, settlement: Settlement) -> None:
        """Commit one outcome of a batch that failed, and report it if it is the one that cannot be committed.

        What the store can never take is tried with a text that it can, and in the end the event is buried: running it
        again would come to the same.
        """
        why = ""
        forms: tuple[Callable[[], Settlement], ...] = (
            lambda: settlement,
            lambda: with_plain_error(settlement),
            lambda: buried(settlement, why),
        )
        for form in forms:
            try:
                await self.commit_patiently([form()])
            except Unavailable:
                raise
            except Unstorable as error:
                why = str(error)
            except Exception as error:  # whatever the store says of it, the others go on
                why = repr(error)
                break
            else:
                return
        self.telemetry.emit("attempt.unsettled", event_id=settlement.event.id, error=why)

    async def commit_patiently(self, settlements: list[Settlement]) -> None:
        """Commit, however long the store takes to answer; only a daemon that ends gives up."""
        settled = await self.outage.outlast(lambda: self.store.settle(settlements), self.giving_up)
        crashpoints.reach("settle.committed")
        if crashpoints.armed and any(settlement.parked for settlement in settlements):
            crashpoints.reach("park.committed")
        if settled.woken:
            crashpoints.reach("wake.committed", len(settled.woken))
            self.publisher.offer(settled.woken)
        lost = set(map(id, settled.fenced))
        self.report([settlement for settlement in settlements if id(settlement) not in lost], settled.fenced)

    def report(self, committed: list[Settlement], fenced: list[Settlement]) -> None:
        """Tell what was committed and what was dropped."""
        ended = [settlement for settlement in committed if not settlement.parked]
        self.pace.note(ended)
        self.telemetry.emit("attempt.settled", len(ended), settlements=ended)
        if len(ended) < len(committed):
            self.telemetry.emit("event.parked", len(committed) - len(ended))
        tell_recorded(self.telemetry, [record for one in committed for record in one.records])
        for settlement in fenced:
            event_id, token = settlement.event.id, settlement.event.lease_token
            self.telemetry.emit("attempt.fenced", event_id=event_id, token=token)
            if settlement.outcome is Outcome.SUCCEEDED:
                self.telemetry.emit("attempt.duplicated", event_id=event_id, token=token)
        for settlement in committed:
            if settlement.verdict.state is State.DEAD_LETTERED:
                event, reason = settlement.event, settlement.verdict.reason
                self.telemetry.emit(
                    "event.dead_lettered", event_id=event.id, event_type=event.event_type, reason=reason
                )


def with_plain_error(settlement: Settlement) -> Settlement:
    """Return the same outcome with an error that any store can keep."""
    if settlement.error is None:
        return settlement
    plain = storable_text(settlement.error, len(settlement.error))
    return replace(settlement, error=plain, error_signature=error_signature(plain))


def buried(settlement: Settlement, why: str) -> Settlement:
    """Return the outcome of an attempt that came to something which the store can never take."""
    error = storable_text(f"The store cannot take what this attempt came to: {why}", ERROR_CHARACTERS_MAX)
    verdict = replace(
        settlement.verdict,
        state=State.DEAD_LETTERED,
        attempt_count=settlement.event.attempt_count + 1,
        due_at_us=None,
        reason=Reason.BAD_PAYLOAD,
    )
    return replace(
        settlement,
        outcome=Outcome.FAILED,
        verdict=verdict,
        error=error,
        error_signature=Reason.BAD_PAYLOAD,
        result=None,
    )
