"""S7: an error of the operating system at every call, once or for good; what was acknowledged survives each of them."""

import errno
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from replayforge.domain.errors import Corrupt, Refused, Unavailable
from replayforge.forgelog.errors import LogFull, LogPoisoned, LogRefused
from replayforge.forgelog.log import ForgeLog, NewRecord
from tests.crash.forgelog.conftest import Tally
from tests.support.clock import FakeClock
from tests.support.files.around import SYNCS, FaultFiles
from tests.support.files.logs import DIRECTORY, TINY, open_storage, read_all
from tests.support.files.one_thread import take_turn, without_threads
from tests.support.files.sim import Image, SimFiles
from tests.support.slow import the_rest_slow

CALLS_IN_ONE_LIFE, WRITES_IN_ONE_LIFE = 380, 50  # times four errors, times once and for good: 3,000 runs and more
FAULTS = {"EIO": errno.EIO, "ENOSPC": errno.ENOSPC, "EINTR": errno.EINTR, "EMFILE": errno.EMFILE}


@dataclass
class Run:
    """One life of a log on a faulty disk; keeps its own account of what was acknowledged."""

    files: FaultFiles
    log: ForgeLog | None = None
    submitted: dict[bytes, bool] = field(default_factory=dict)  # payload -> acknowledged
    acked: dict[int, bytes] = field(default_factory=dict)
    committed: int = 0

    async def attempt(self, act: Callable[[], Awaitable[Any]]) -> None:
        """Carry out a step; only errors that are named by remedy may come out, and no success after a poison."""
        poisoned = self.log is not None and self.log.poisoned is not None
        try:
            await act()
        except (Unavailable, Refused, Corrupt):
            return
        assert not poisoned or act == self.read, "acknowledged after a failed sync"

    async def append(self, number: int, size: int) -> None:
        assert self.log is not None
        payload = (b"%06d" % number).ljust(size, b".")
        self.submitted[payload] = False
        appended = self.log.append([NewRecord(payload)])
        take_turn(self.log)
        offset = await appended
        self.submitted[payload] = True
        self.acked[offset] = payload

    async def commit(self) -> None:
        assert self.log is not None
        offset = self.log.durable_offset
        await self.log.commit("reader", offset)
        self.committed = offset

    async def bind(self) -> None:
        assert self.log is not None
        self.log.bind_store("store", self.log.durable_offset)

    async def retain(self) -> None:
        assert self.log is not None
        self.log.retain(self.log.durable_offset)

    async def read(self) -> None:
        assert self.log is not None
        for record in self.log.read(0, records_max=3):
            assert self.acked.get(record.offset, record.payload) == record.payload

    async def open(self) -> None:
        floor = max(self.acked, default=0)
        self.log = ForgeLog.open(DIRECTORY, options=TINY, files=self.files.files, clock=FakeClock(), floor=floor)

    async def live(self) -> None:
        """Open, append over a few segments with everything else in between, close, open again, append, close."""
        await self.attempt(self.open)
        for number in range(30):
            if self.log is None:
                await self.attempt(self.open)
                continue
            await self.attempt(lambda number=number: self.append(number, 700 + 30 * number))  # type: ignore[misc]
            if number in (4, 9, 20):
                for act in (self.bind, self.commit, self.read, self.retain):
                    await self.attempt(act)
            if number in (11, 23):
                await self.close()
        await self.close()

    async def close(self) -> None:
        if self.log is not None:
            await self.log.close()
            self.log = None

    def judge(self, disk: SimFiles) -> None:
        """On a sound disk again, also after the harshest power cut: all that was acknowledged is there, no more."""
        harshest, image = disk.harshest(), disk.image()
        self.judge_image(harshest)
        if image != harshest:
            self.judge_image(image)

    def judge_image(self, image: Image) -> None:
        """Every acknowledged record is at its offset, and nothing is there that was not sent."""
        storage = open_storage(SimFiles(image), floor=max(self.acked, default=0))
        assert not storage.report.warnings
        found = dict(enumerate(read_all(storage), start=storage.first_offset))
        assert set(found.values()) <= set(self.submitted)
        assert len(set(found.values())) == len(found), "a record appeared twice"
        for offset, payload in self.acked.items():
            assert found.get(offset, payload if offset < storage.first_offset else None) == payload
        assert storage.consumers.get("reader", 0) >= self.committed


async def run_once(tally: Tally, **fault: Any) -> FaultFiles:
    disk = SimFiles()
    faulty = FaultFiles(disk, **fault)
    run = Run(faulty)
    await run.live()
    run.judge(disk)
    tally.add("runs")
    if faulty.failed:
        tally.add("sync faults" if faulty.failed[0] in SYNCS else "other faults")
    return faulty


async def fail_everywhere(tally: Tally, **fault: Any) -> int:
    """Let each call of a life fail in turn, once and from then on."""
    only = fault.get("only")
    calls = (await run_once(tally, at=0, only=only)).calls
    for at in range(1, calls + 1):
        await run_once(tally, at=at, **fault)
        await run_once(tally, at=at, sticky=True, **fault)
    return calls


@pytest.mark.parametrize("code", the_rest_slow(FAULTS))
async def test_s7_every_call_fails_once_or_for_good(tally: Tally, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """An errno or an interruption at every call of a log's life loses nothing that was acknowledged."""
    without_threads(monkeypatch)
    assert await fail_everywhere(tally, code=FAULTS[code]) >= CALLS_IN_ONE_LIFE


async def test_s7_every_write_is_short_once_or_always(tally: Tally, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that takes half of what it is given, at every write of a log's life, loses nothing either."""
    without_threads(monkeypatch)
    assert await fail_everywhere(tally, short=True, only=frozenset({"pwrite"})) >= WRITES_IN_ONE_LIFE


@pytest.mark.soak
@pytest.mark.parametrize("code", FAULTS)
async def test_s7_every_call_fails_beside_the_writing_thread(tally: Tally, code: str) -> None:
    """The same errors with the log's own threads."""
    await fail_everywhere(tally, code=FAULTS[code])


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC, errno.EDQUOT])
async def test_s7_no_sync_after_a_failed_sync(tally: Tally, code: int) -> None:
    """Whichever sync fails, none is tried again in that life of the log, and nothing is acknowledged after it."""
    total = (await run_once(tally, at=0, only=SYNCS)).calls
    for at in range(1, total + 1):
        disk = SimFiles()
        faulty = FaultFiles(disk, at=at, code=code, only=SYNCS)
        run = Run(faulty)
        await run.attempt(run.open)
        if run.log is None:
            assert faulty.syncs_after_failed_sync == 0
            tally.add("refused to open")
            continue
        for number in range(12):
            await run.attempt(lambda number=number, run=run: run.append(number, 1500))  # type: ignore[misc]
            if number in (3, 6):
                for act in (run.bind, run.commit, run.retain):
                    await run.attempt(act)
        log = run.log
        await run.close()
        if faulty.failed:
            assert log.poisoned is not None
            assert not log.writable
            tally.add("poisoned")
        assert faulty.syncs_after_failed_sync == 0
        run.judge(disk)
        tally.add("syncs failed", len(faulty.failed))


async def test_s7_full_disk_recovers(tally: Tally) -> None:
    """ENOSPC at any write is LogFull, nothing is poisoned, and once there is space the same log accepts again."""
    writes = frozenset({"pwrite", "allocate", "open", "rename"})
    total = (await run_once(tally, at=0, only=writes)).calls
    for at in range(6, total + 1):
        disk = SimFiles()
        faulty = FaultFiles(disk, at=at, code=errno.ENOSPC, sticky=True, only=writes)
        run = Run(faulty)
        await run.attempt(run.open)
        if run.log is None:
            continue
        refused = 0
        for number in range(12):
            try:
                await run.append(number, 1500)
            except LogFull:
                refused += 1
        faulty.at = 0
        assert run.log.poisoned is None
        await run.append(99, 1500)
        assert run.log.writable
        await run.close()
        run.judge(disk)
        tally.add("full disks", 1)
        tally.add("appends refused", refused)
    assert tally.counts["appends refused"] > 0


async def test_a_poisoned_log_is_verified_cold(tally: Tally) -> None:
    """After a poison the next start reads every live byte; damage in a sealed segment stops it, a sound log starts."""
    disk = SimFiles()
    faulty = FaultFiles(disk, at=0)
    run = Run(faulty)
    await run.open()
    for number in range(20):
        await run.append(number, 1500)
    faulty.at, faulty.only = faulty.calls + 1, frozenset({"fdatasync"})
    with pytest.raises(LogPoisoned):
        await run.append(20, 1500)
    await run.close()
    assert f"{DIRECTORY}/POISONED" in disk.names
    image = disk.image()
    damaged = bytearray(image[f"{DIRECTORY}/{1:020d}.flog"])
    damaged[6000] ^= 1
    with pytest.raises(LogRefused) as refusal:
        open_storage(SimFiles({**image, f"{DIRECTORY}/{1:020d}.flog": bytes(damaged)}))
    assert refusal.value.code == "E_CORRUPT"
    del image[f"{DIRECTORY}/POISONED"]
    open_storage(SimFiles({**image, f"{DIRECTORY}/{1:020d}.flog": bytes(damaged)}))
    run.judge(disk)
    verified = SimFiles(disk.image())
    open_storage(verified)
    assert f"{DIRECTORY}/POISONED" not in verified.names
    tally.add("poisoned logs", 3)
