"""The gate of a start: open runs are held against the code that the daemon has begun with, before they wake."""

import asyncio
from asyncio import ensure_future, get_running_loop, timeout, wait
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Literal

import msgspec

from replayforge.domain.clock import Clock, to_us
from replayforge.domain.code_change import BREAKING, CodeChange, Fate
from replayforge.domain.errors import Refused, Unavailable
from replayforge.domain.event import ClaimedEvent, Entry, StoredEvent
from replayforge.domain.reports import DeployFindings
from replayforge.engine.run.worker import MayGoOn
from replayforge.shadow.deploy_check import Code, check
from replayforge.shadow.fates import GRAVITY
from replayforge.stores.code_changes import OPEN_RUNS, ChangedRun, OpenRun
from replayforge.stores.store import Store
from replayforge.telemetry import Telemetry

SWEEP_SECONDS = 10.0
PAGE_RUNS = 500
AS_THEY_WOKE = "some were looked at only as they woke"
CONTINUED = "The code that the daemon runs now continues it."


class DeployGate:
    """Looks at every open run once, for at most ten seconds; what it did not come to is looked at when it wakes.

    With `holds` those are held that the code would break; without, they are only reported, and nobody waits: one that
    wakes goes on, and is looked at as it stood before. In either case what an earlier start has held is let go where
    this code continues it. `report` is told what was found, `offer` of what is queued, `ask_first` is given what is to
    be asked before an event that was claimed is run, and None once there is nothing to be asked any more.
    """

    name = "deploy_gate"

    def __init__(
        self,
        store: Store,
        code: Code,
        clock: Clock,
        telemetry: Telemetry,
        *,
        mode: Literal["report", "hold"],
        lease_seconds: float,
        report: Callable[[DeployFindings], None],
        offer: Callable[[Sequence[Entry]], None],
        ask_first: Callable[[MayGoOn | None], None],
    ) -> None:
        self.store = store
        self.code = code
        self.clock = clock
        self.telemetry = telemetry
        self.holds = mode == "hold"
        self.lease_us = to_us(lease_seconds)
        self.report = report
        self.offer = offer
        self.ask_first = ask_first
        self.counts: Counter[Fate] = Counter()
        self.is_complete = False
        self.passed: set[int] = set()
        self.asked: dict[StoredEvent, asyncio.Future[bool]] = {}
        self.woken: dict[int, OpenRun] = {}
        self.news = asyncio.Event()
        self.is_over = False
        ask_first(self.may_go_on)

    async def run(self, stopping: asyncio.Event) -> None:
        """Look at all runs, and then at those that somebody asks for, until told to stop; anew after a crash."""
        self.is_over = False
        self.counts.clear()
        self.passed.clear()
        try:
            await self.sweep(stopping)
            while not stopping.is_set():
                self.news.clear()
                await self.answer()
                await self.wait_for_news(stopping)
        finally:
            self.is_over = True
            self.answer_all(False)

    async def wait_for_news(self, stopping: asyncio.Event) -> None:
        """Return when somebody asks, or when it is time to stop."""
        waits = [ensure_future(one.wait()) for one in (self.news, stopping)]
        try:
            await wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in waits:
                one.cancel()

    async def sweep(self, stopping: asyncio.Event) -> None:
        """Look at all open runs, as far as the time allows, and report what was found."""
        error = ""
        try:
            async with timeout(SWEEP_SECONDS):
                await self.look_at_all(stopping)
            self.complete()
        except TimeoutError:
            error = f"not all could be looked at within {SWEEP_SECONDS:g} s"
        except Unavailable as unavailable:
            error = str(unavailable)
        except Refused as refused:  # code that cannot be tried at all says nothing of any run
            error = str(refused)
            self.complete()
        self.tell(error)

    def complete(self) -> None:
        """Take note that nothing is left to be looked at."""
        self.is_complete = True
        self.ask_first(None)

    async def look_at_all(self, stopping: asyncio.Event) -> None:
        """Look at the open runs page by page, those that are held first."""
        for state in OPEN_RUNS:
            after = 0
            while not stopping.is_set():
                page = await self.store.open_runs(state, after, PAGE_RUNS)
                if not page:
                    break
                if fresh := [run for run in page if run.event.seq not in self.passed]:
                    await self.look_at(fresh)
                await self.answer()
                after = page[-1].event.seq

    async def look_at(self, runs: Sequence[OpenRun]) -> None:
        """Decide about runs, and carry that out."""
        elsewhere = await self.labels_elsewhere()
        changes = await check(self.code, runs)
        now_us = self.clock.now_us()
        broken = [(run, change) for run, change in zip(runs, changes, strict=True) if change.fate in BREAKING]
        fresh = [(run, change) for run, change in broken if not run.is_held and run.change != change]
        again = [ChangedRun(run.event, change) for run, change in broken if run.is_held and run.change != change]
        mended = [run.event for run, change in zip(runs, changes, strict=True) if is_mended(run, change)]
        if again:
            await self.store.note_changes(again)
        if mended:
            self.offer(await self.store.release_changed(mended, CONTINUED, now_us))
        # What another daemon, which lives, goes on with by its own code is not this one's to hold.
        holding = [ChangedRun(run.event, change) for run, change in fresh if run.label not in elsewhere]
        held = await self.store.hold_changed(holding, now_us) if self.holds and holding else []
        left = {run.event.seq for run, _ in fresh if run.label in elsewhere}
        self.passed.update(run.event.seq for run in runs if run.event.seq not in left)
        self.count(runs, changes, held, len(mended))

    def count(self, runs: Sequence[OpenRun], changes: Sequence[CodeChange], held: Sequence[str], mended: int) -> None:
        """Count what was found, for people to see."""
        for run, change in zip(runs, changes, strict=True):
            let_pass = change.fate in BREAKING and not run.is_held and run.change == change
            self.counts[Fate.CONTINUES if let_pass else change.fate] += 1
        if held:
            self.telemetry.emit("deploy.held", len(held), first=held[0])
        if mended:
            self.telemetry.emit("deploy.released", mended)

    def tell(self, error: str) -> None:
        """Report what was found so far."""
        counts = {fate.value: self.counts[fate] for fate in GRAVITY if self.counts[fate]}
        findings = DeployFindings(
            runs=self.counts.total(),
            verdicts=counts,
            breaking=sum(self.counts[fate] for fate in BREAKING),
            complete=not error,
            error=error,
        )
        self.report(findings)
        if findings.runs or error:
            if findings.breaking or error:
                self.telemetry.emit("deploy.broke", findings.runs, **counts, error=error)
            else:
                self.telemetry.emit("deploy.checked", findings.runs, **counts)

    async def labels_elsewhere(self) -> frozenset[str]:
        """Return the labels of the code that other daemons run, as far as they live."""
        if not self.store.shared:
            return frozenset()
        nodes = await self.store.nodes(self.clock.now_us())
        others = [node for node in nodes if node.name != self.store.node and node.alive(self.lease_us)]
        return frozenset().union(*(msgspec.json.decode(node.labels, type=frozenset[str]) for node in others))

    # What wakes before it was looked at

    async def may_go_on(self, claimed: ClaimedEvent) -> bool:
        """Tell whether a claimed event may run; False for one that is held by now, or about which nothing is known.

        Only what was claimed before has a journal, and most of that was looked at when the daemon began.
        """
        event = claimed.event
        if self.is_complete or event.lease_token <= 1 or event.seq in self.passed:
            return True
        if not self.holds:
            await self.note(event)
            return True
        if self.is_over:
            return False
        future = get_running_loop().create_future()
        self.asked[event] = future
        self.news.set()
        return bool(await future)

    async def note(self, event: StoredEvent) -> None:
        """Keep what is recorded of an event that goes on now, to be looked at."""
        with suppress(Unavailable):
            run = await self.store.open_run(event)
            if run is not None:
                self.woken.setdefault(event.seq, run)
                self.news.set()

    async def answer(self) -> None:
        """Look at the runs that were asked for; about those nothing is known while the store is away."""
        woken, self.woken = self.woken, {}
        if fresh := [run for seq, run in woken.items() if seq not in self.passed]:
            self.count(fresh, await check(self.code, fresh), [], 0)
            self.passed.update(woken)
            self.tell(AS_THEY_WOKE)
        asked, self.asked = self.asked, {}
        refused = set(asked)
        try:
            refused = await self.refused(list(asked))
        except Unavailable:
            pass
        finally:
            for event, future in asked.items():
                if not future.done():
                    future.set_result(event not in refused)

    async def refused(self, events: Sequence[StoredEvent]) -> set[StoredEvent]:
        """Return those of claimed events that the code would break, which are held by then."""
        found = [(event, await self.store.open_run(event)) for event in events]
        runs = [(event, run) for event, run in found if run is not None]
        if not runs:
            return set()
        changes = await check(self.code, [run for _, run in runs])
        decided = list(zip(runs, changes, strict=True))
        broken = [
            ChangedRun(event, change)
            for (event, run), change in decided
            if change.fate in BREAKING and run.change != change
        ]
        held = await self.store.hold_changed(broken, self.clock.now_us()) if broken else []
        refused = {one.event for one in broken}
        self.passed.update(event.seq for event, _ in runs if event not in refused)
        self.count([run for _, run in runs], changes, held, 0)
        self.tell(AS_THEY_WOKE)
        return refused

    def answer_all(self, may: bool) -> None:
        """Let nobody wait any more."""
        for future in self.asked.values():
            if not future.done():
                future.set_result(may)


def is_mended(run: OpenRun, change: CodeChange) -> bool:
    """Tell whether a run that is held can go on with this code."""
    return run.is_held and change.fate in (Fate.CONTINUES, Fate.INSERTED)
