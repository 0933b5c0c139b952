"""S11: files that never were a log, or not this one, are refused by name, quickly, and without a traceback."""

import os
import random
import shutil
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from replayforge.cli.log_commands import log as log_group
from replayforge.domain.errors import ReplayForgeError
from replayforge.forgelog.batch import decode_head, encode_batch
from replayforge.forgelog.checksum import EXTENDS
from replayforge.forgelog.header import decode_header
from replayforge.forgelog.log import ForgeLog, LogOptions, NewRecord
from tests.crash.forgelog.conftest import Tally
from tests.support.files.logs import DIRECTORY, Opened, open_storage, outcome, write_log
from tests.support.files.sim import Image, SimFiles
from tests.support.slow import the_rest_slow

Mutation = Callable[[random.Random, Image, "Pair"], Image]


class Pair:
    """A log and another one."""

    def __init__(self, rng: random.Random) -> None:
        self.log = write_log(rng, segments=3, payload_bytes=900, last_segment_batches=4)
        self.other = write_log(rng, segments=3, payload_bytes=900, last_segment_batches=4)
        self.image = self.log.image
        self.other_image = self.other.image


def segments(image: Image) -> list[str]:
    return sorted(name for name in image if name.endswith(".flog"))


def garbage(rng: random.Random, image: Image, pair: Pair) -> Image:
    """Noise of any length at any place."""
    name = rng.choice(segments(image))
    begin, length = rng.randrange(len(image[name])), rng.choice([1, 8, 48, 512, 5000])
    data = image[name]
    return {**image, name: (data[:begin] + rng.randbytes(length) + data[begin + length :])[: len(data)]}


def splice(rng: random.Random, image: Image, pair: Pair) -> Image:
    """A piece of one segment in another, at the same place or elsewhere."""
    source, target = rng.choice(segments(pair.other_image)), rng.choice(segments(image))
    donor = rng.choice([pair.other_image, image])
    length = rng.choice([48, 512, 4096])
    begin, place = rng.randrange(0, 8192, 8), rng.randrange(0, 8192, 8)
    data = image[target]
    return {
        **image,
        target: (data[:place] + donor[source][begin : begin + length] + data[place + length :])[: len(data)],
    }


def whole_batch_elsewhere(rng: random.Random, image: Image, pair: Pair) -> Image:
    """A whole valid batch repeated, dropped or moved within its own segment."""
    name, begin, end, _ = rng.choice(pair.log.batches)
    path = f"{DIRECTORY}/{name}"
    data, batch = image[path], image[path][begin:end]
    _, place, _, _ = rng.choice([one for one in pair.log.batches if one[0] == name])
    if rng.random() < 0.3:
        return {**image, path: (data[:begin] + data[end:]).ljust(len(data), b"\0")}
    return {**image, path: (data[:place] + batch + data[place + len(batch) :])[: len(data)]}


def whole_file(rng: random.Random, image: Image, pair: Pair) -> Image:
    """Segments duplicated, swapped, foreign, empty, noise, or gone."""
    one, two = rng.sample(segments(image), 2)
    return rng.choice(
        [
            {**image, one: image[two]},
            {**image, one: image[two], two: image[one]},
            {**image, one: pair.other_image[one]},
            {**image, one: b""},
            {**image, one: rng.randbytes(rng.randrange(20_000))},
            {name: data for name, data in image.items() if name != one},
            {**image, f"{DIRECTORY}/{rng.randrange(4, 9):020d}.flog": image[one]},
        ]
    )


def small_file(rng: random.Random, image: Image, pair: Pair) -> Image:
    """The manifest damaged, foreign, empty or gone; or consumers.json full of noise."""
    path = f"{DIRECTORY}/MANIFEST"
    return rng.choice(
        [
            {**image, path: rng.randbytes(rng.randrange(300))},
            {**image, path: pair.other_image[path]},
            {**image, path: b""},
            {name: data for name, data in image.items() if name != path},
            {**image, f"{DIRECTORY}/consumers.json": rng.randbytes(50)},
        ]
    )


MUTATIONS: list[Mutation] = [garbage, splice, whole_batch_elsewhere, whole_file, small_file]


def fuzz(tally: Tally, count: int, pair: Pair) -> None:
    """Judge so many inputs; files that are the same as before, byte for byte, are judged once."""
    image, payloads = pair.image, pair.log.payloads
    opened = Opened(image, floor=len(payloads))
    known: dict[int, str | list[bytes]] = {}
    for number in range(count):
        mutation = MUTATIONS[number % len(MUTATIONS)]
        mutated = mutation(tally.rng, image, pair)
        key = hash(frozenset(mutated.items()))
        if key not in known:
            known[key] = opened.outcome(mutated)
            tally.add("different inputs")
        found = known[key]
        assert isinstance(found, str) or found == payloads, (mutation.__name__, number)
        tally.add("inputs")
        tally.add("refused" if isinstance(found, str) else "harmless")


@pytest.mark.parametrize("part", the_rest_slow(range(8)))
def test_s11_garbage_and_spliced_files(tally: Tally, part: int) -> None:
    """Whatever the files are made into, the log is refused or answers with exactly what was written."""
    for _ in range(5):
        fuzz(tally, 2_500, Pair(tally.rng))


@pytest.mark.soak
def test_s11_garbage_soak(tally: Tally) -> None:
    """The same, five million times."""
    for _ in range(500):
        fuzz(tally, 10_000, Pair(tally.rng))
        tally.progress()


def test_s11_a_log_that_went_another_way(tally: Tally) -> None:
    """Batches of a clone that diverged fit in salt and offset; the chain tells them from the log's own."""
    for _ in range(50):
        pair = Pair(tally.rng)
        name = f"{DIRECTORY}/{pair.log.batches[-1][0]}"
        clone = other_history(tally.rng, pair)
        _, begin, end, _ = pair.log.batches[-1]
        mixed = clone[name][:begin] + pair.image[name][begin:end]
        found = outcome({**pair.image, name: mixed.ljust(len(clone[name]), b"\0")})
        assert found == "E_ORDER"
        tally.add("diverged logs")


def other_history(rng: random.Random, pair: Pair) -> Image:
    """The log with its last batch but one replaced by another of the same size and offsets, rightly chained."""
    image = dict(pair.image)
    name, begin, end, _ = pair.log.batches[-2]
    path = f"{DIRECTORY}/{name}"
    header = decode_header(image[path])
    extend = EXTENDS[header.algorithm]
    head = decode_head(image[path], begin, header.salt, extend)
    assert head is not None
    body = image[path][begin + 48 : end]
    data, _ = encode_batch(
        salt=header.salt, base_offset=head.base_offset, count=head.count, body=body, time_ns=head.time_ns + 1,
        previous_chain=head.previous_chain, flags=0, extend=extend,
    )  # fmt: skip
    image[path] = image[path][:begin] + data + image[path][end:]
    return image


async def make_files(directory: Path) -> None:
    log = ForgeLog.open(directory, options=LogOptions(segment_bytes=16_384))
    for _ in range(40):
        await log.append([NewRecord(os.urandom(1000))])
    await log.close()


def linked(path: Path) -> None:
    path.rename(path.with_suffix(".away"))
    path.symlink_to(path.with_suffix(".away"))


def made_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def made_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


HARMS: dict[str, Callable[[Path], object]] = {
    "an empty file": lambda path: path.write_bytes(b""),
    "a missing file": Path.unlink,
    "a symbolic link": linked,
    "a directory": made_directory,
    "a pipe": made_pipe,
    "noise": lambda path: path.write_bytes(os.urandom(20_000)),
}


@pytest.mark.parametrize("name", ["MANIFEST", f"{2:020d}.flog", f"{3:020d}.flog", "consumers.json"])
async def test_s11_things_in_place_of_files(tally: Tally, tmp_path: Path, name: str) -> None:
    """Links, directories, pipes and noise in place of a file are refused in under a second; no traceback escapes."""
    await make_files(tmp_path / "sound")
    for harm, act in HARMS.items():
        data = tmp_path / harm
        shutil.copytree(tmp_path / "sound", data / "log")
        target = data / "log" / name
        if not target.exists():
            target.write_bytes(b"x")
            if harm == "a missing file":
                continue
        act(target)
        started = time.process_time()  # others may keep the processor busy
        with pytest.raises(ReplayForgeError):
            ForgeLog.open(data / "log")
        result = CliRunner().invoke(log_group, ["verify", "--deep", "--data-dir", str(data)])
        assert result.exit_code in (2, 5), (harm, result.output)
        assert isinstance(result.exception, SystemExit), (harm, result.exception)
        assert time.process_time() - started < 1
        tally.add("things refused")


def test_s11_memory_is_bounded_by_the_file(tally: Tally) -> None:
    """A large segment of noise, or one that claims huge batches, costs less than twice its size in memory."""
    written = write_log(tally.rng, segments=1, last_segment_batches=3)
    name = segments(written.image)[0]
    end = written.batches[-1][2]
    for content in (tally.rng.randbytes(16 << 20), bytes(16 << 20), b"FRGB" * (4 << 20)):
        image = {**written.image, name: written.image[name][:end] + content}
        files = SimFiles(image)
        tracemalloc.start()
        try:
            open_storage(files)
        except ReplayForgeError:
            tally.add("refused")
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 2 * len(image[name])
        tally.add("large segments")
