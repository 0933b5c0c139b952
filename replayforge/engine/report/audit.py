"""The offline check: holds every record of the log against the store, event by event, and names what is wrong."""

from collections.abc import Callable
from dataclasses import dataclass, field

from replayforge.domain.event import EVENT_RECORD_TYPE, EventRecord, Lease, same_event
from replayforge.domain.identity import event_id_for_reuse
from replayforge.domain.lifecycle import State
from replayforge.domain.reports import Ledger
from replayforge.engine.dispatch.dispatcher import decoded
from replayforge.engine.report.convergence import compute_ledger
from replayforge.forgelog.errors import GapError
from replayforge.forgelog.log import ForgeLog
from replayforge.stores.store import Store
from replayforge.stores.tallies import deferred_of

RECORDS_PER_STEP = 1000


@dataclass(slots=True)
class Findings:
    """What the check found. `missing` are (event id, offset) of records that should have a row and have none.

    `unreadable` are the offsets of records that were to be events, and `gaps` the (first, last) offsets that are gone
    from within the log: whether their events have rows cannot be told from it. `inconsistent` are the (what is wrong,
    row number, journal, step) of workflows that remember or wait for what is not so, `lanes` the (what is wrong, lane).
    """

    ledger: Ledger
    checked: int = 0
    keys_remembered: int = 0
    missing: list[tuple[str, int]] = field(default_factory=list)
    doubled: list[tuple[str, int, int]] = field(default_factory=list)
    orphans: list[Lease] = field(default_factory=list)
    inconsistent: list[tuple[str, int, int, str]] = field(default_factory=list)
    lanes: list[tuple[str, str]] = field(default_factory=list)
    miscounted: list[str] = field(default_factory=list)
    unreadable: list[int] = field(default_factory=list)
    gaps: list[tuple[int, int]] = field(default_factory=list)

    @property
    def lost(self) -> list[tuple[str, int]]:
        """The records whose events are lost. Rows that retention removed are missing too; the newest are named."""
        forgotten = self.ledger.retired - self.keys_remembered  # without a row and without a key that is known
        count = min(len(self.missing), max(self.ledger.lost, len(self.missing) - max(0, forgotten)))
        return self.missing[len(self.missing) - count :]

    @property
    def clean(self) -> bool:
        """Whether log and store agree."""
        wrong = self.lost or self.doubled or self.orphans or self.inconsistent or self.miscounted or self.unreadable
        return self.ledger.lost == 0 and not wrong and not self.lanes


async def audit(log: ForgeLog, store: Store, progress: Callable[[int], None]) -> Findings:
    """Compare the whole log with the store; `progress` is told the offset reached. Changes nothing."""
    cursors, tallies = await store.ledger_snapshot()
    wrong = await store.discrepancies()
    totals = compute_ledger(
        log.log_id,
        log.durable_offset,
        cursors,
        {**tallies, **{state.value: count for state, count in wrong.states.items()}},
    )
    remembered = await store.count_retired_keys()
    findings = Findings(totals, keys_remembered=remembered, doubled=wrong.doubled, orphans=wrong.orphans)
    findings.inconsistent, findings.lanes = wrong.inconsistent, wrong.lanes
    findings.miscounted = [
        f"{state.value}: {wrong.states.get(state, 0):,} rows, {tallies.get(state, 0):,} on the ledger"
        for state in State
        if wrong.states.get(state, 0) != tallies.get(state, 0)
    ]
    deferred = deferred_of(tallies)
    findings.miscounted += [
        f"waiting for {pattern!r}: {wrong.deferred.get(pattern, 0):,} rows, {deferred.get(pattern, 0):,} on the ledger"
        for pattern in sorted(wrong.deferred.keys() | deferred.keys())
        if wrong.deferred.get(pattern, 0) != deferred.get(pattern, 0)
    ]
    after, cursor = log.first_offset - 1, log.durable_offset - totals.unprojected
    while after < cursor:
        try:
            records = log.read(after, records_max=RECORDS_PER_STEP)
        except GapError as gap:
            findings.gaps.append((gap.first, gap.last))
            after = gap.last
            continue
        events = [(record.offset, decoded(record)) for record in records if record.offset <= cursor]
        to_be_events = {record.offset for record in records if record.type == EVENT_RECORD_TYPE}
        findings.unreadable += [offset for offset, event in events if event is None and offset in to_be_events]
        await compare(log.log_id, store, [(offset, event) for offset, event in events if event], findings)
        after = records[-1].offset
        progress(after)
    return findings


async def compare(log_id: str, store: Store, events: list[tuple[int, EventRecord]], findings: Findings) -> None:
    """Look for the rows of some records."""
    rows = await store.origins([event.id for _, event in events])
    keys = await store.retired_keys([event.id for _, event in events if event.id not in rows])
    reused: list[tuple[str, int]] = []
    for offset, event in events:
        findings.checked += 1
        row, key = rows.get(event.id), keys.get(event.id)
        if event.origin is not None and (row is not None or key is not None):
            continue  # its handler may have sent it again, and the first stands
        if row is None and key is not None and same_event(key.digest, event.meaning):
            continue
        if row is None and key is None:
            findings.missing.append((event.id, offset))
        elif row is None or (row[:2] != (log_id, offset) and not same_event(row[2], event.meaning)):
            reused.append((event_id_for_reuse(event.id, log_id, offset), offset))
    own_ids = [event_id for event_id, _ in reused]
    found = {*await store.origins(own_ids), *await store.retired_keys(own_ids)}
    findings.missing += [(event_id, offset) for event_id, offset in reused if event_id not in found]
