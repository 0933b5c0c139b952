"""S13: the log against a model of a few lines, through random histories with crashes in them."""

import random
from dataclasses import dataclass, field

import pytest

from replayforge.forgelog.consumers import save_consumers
from replayforge.forgelog.errors import GapError
from replayforge.forgelog.record import NewRecord
from replayforge.forgelog.retention import RetentionRule, deletable
from replayforge.forgelog.storage import Storage
from tests.crash.forgelog.conftest import Tally
from tests.support.files.logs import DIRECTORY, open_storage
from tests.support.files.sim import SimFiles
from tests.support.slow import the_rest_slow


@dataclass
class Model:
    """What a log is, said in the shortest way: a list that loses its head to retention and never its tail."""

    records: list[tuple[bytes, bytes, int]] = field(default_factory=list)
    first: int = 1
    consumers: dict[str, int] = field(default_factory=dict)
    projected: int = 0

    def append(self, records: list[NewRecord]) -> int:
        self.records += [(record.payload, record.key, record.type) for record in records]
        return len(self.records) - len(records) + 1

    def read(self, after: int, count: int) -> list[tuple[bytes, bytes, int]] | tuple[int, int]:
        """The records after an offset, or the gap that stands there."""
        if after + 1 < self.first and after < len(self.records):
            return after + 1, self.first - 1
        return self.records[after : after + count]

    def commit(self, name: str, offset: int) -> None:
        self.consumers[name] = max(offset, self.consumers.get(name, 0))

    def slowest(self) -> int | None:
        return min(self.consumers.values(), default=None)


class Machine:
    """Does the same to a log and to the model, and compares them after each step."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.files = SimFiles()
        self.log: Storage = open_storage(self.files)
        self.model = Model()

    def append(self) -> None:
        records = [
            NewRecord(self.rng.randbytes(self.rng.randint(0, 600)), self.rng.randbytes(self.rng.randint(0, 9)), number)
            for number in range(self.rng.randint(1, 3))
        ]
        assert self.log.writer.commit(records) == self.model.append(records)

    def read(self) -> None:
        after, count = self.rng.randint(0, len(self.model.records) + 2), self.rng.randint(1, 5)
        last = self.log.writer.next_offset - 1
        expected = self.model.read(after, count)
        try:
            records = self.log.reader.read(after, last, records_max=count, bytes_max=1 << 20)
        except GapError as gap:
            found: object = (gap.first, gap.last)
        else:
            found = [(record.payload, record.key, record.type) for record in records]
            assert [record.offset for record in records] == list(range(after + 1, after + 1 + len(records)))
        assert found == expected

    def commit(self) -> None:
        self.model.commit(self.rng.choice("ab"), self.rng.randint(0, len(self.model.records)))
        save_consumers(self.log.disk, DIRECTORY, self.model.consumers)

    def project(self) -> None:
        self.model.projected = self.rng.randint(self.model.projected, len(self.model.records))
        self.log.bind_store("store", self.model.projected)

    def mark(self) -> None:
        self.log.writer.mark()

    def roll(self) -> None:
        self.log.writer.roll()

    def retain(self) -> None:
        limit = self.rng.choice([None, 1, 20_000])
        gone = deletable(
            self.log.segments,
            RetentionRule(self.rng.choice([None, 0.0]), limit),
            projected_offset=self.model.projected,
            slowest_consumer=self.model.slowest(),
            now_ns=1 << 62,
        )
        for segment in gone:
            assert segment.last_offset <= self.model.projected
            assert limit is not None or segment.last_offset <= (self.model.slowest() or 1 << 53)
        self.log.delete_segments(gone)
        self.model.first = self.log.first_offset

    def crash(self) -> None:
        self.files = SimFiles(self.files.harshest())
        self.log = open_storage(self.files, floor=len(self.model.records))

    def close(self) -> None:
        self.log.finish()
        self.log = open_storage(self.files)
        assert self.log.report.clean

    def compare(self) -> None:
        assert self.log.writer.next_offset - 1 == len(self.model.records)
        assert self.log.first_offset == self.model.first
        assert self.log.manifest.projected_offset == self.model.projected

    def step(self) -> str:
        names = ["append"] * 6 + ["read"] * 6 + ["commit", "project", "mark", "roll", "retain", "crash", "close"]
        name = self.rng.choice(names)
        getattr(self, name)()
        self.compare()
        return name


def walk_histories(tally: Tally, histories: int, steps: int) -> None:
    for _ in range(histories):
        machine = Machine(random.Random(tally.rng.getrandbits(64)))
        for _ in range(steps):
            tally.add(machine.step())
        tally.add("histories")
        tally.add("steps", steps)


@pytest.mark.parametrize("part", the_rest_slow(range(8)))
def test_s13_the_log_is_its_model(tally: Tally, part: int) -> None:
    """After every step of 2,000 random histories the log holds what the model holds."""
    walk_histories(tally, 250, 50)


@pytest.mark.soak
def test_s13_the_log_is_its_model_soak(tally: Tally) -> None:
    """The same, for 50,000 histories."""
    for _ in range(25):
        walk_histories(tally, 2_000, 100)
        tally.progress()
