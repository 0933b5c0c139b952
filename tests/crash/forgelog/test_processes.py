"""S8, S9, S10 and S12: real processes on a real disk, killed, starved and lied to; the oracle reads their pipe."""

import asyncio
import os
import resource
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from replayforge.forgelog.check import verify
from replayforge.forgelog.errors import LogClosed, LogLocked
from replayforge.forgelog.files import OsFiles
from replayforge.forgelog.log import ForgeLog, LogOptions, NewRecord
from replayforge.forgelog.options import LogOptions as Options
from replayforge.forgelog.storage import Storage
from tests.crash.forgelog.child import payload_of
from tests.crash.forgelog.conftest import Tally
from tests.support.clock import FakeClock
from tests.support.files.logs import read_all
from tests.support.slow import the_rest_slow

ROOT = Path(__file__).parents[3]
CHILD = [sys.executable, "-m", "tests.crash.forgelog.child"]
SEGMENT_BYTES = 65_536
FOREVER = 10_000_000


@dataclass
class Oracle:
    """What the child said, kept outside of it: number by offset of all that was acknowledged."""

    directory: Path
    acked: dict[int, int] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)

    def hear(self, output: bytes) -> None:
        for line in output.decode().split("\n")[:-1]:  # the last line may be torn
            self.lines.append(line)
            if line.startswith("ack "):
                _, offset, number = line.split()
                assert int(offset) not in self.acked, "an offset was given out twice"
                self.acked[int(offset)] = int(number)

    def judge(self) -> int:
        """Open what is left: every acknowledged record is at its offset, and every record is one that was sent."""
        storage = Storage.open(
            self.directory, Options(segment_bytes=SEGMENT_BYTES), floor=max(self.acked, default=0), files=OsFiles(),
            clock=FakeClock(int(time.time() * 1e6)),
        )  # fmt: skip
        last = storage.writer.next_offset - 1
        records = storage.reader.read(0, last, records_max=last + 1, bytes_max=1 << 30)
        storage.abandon()
        assert [record.offset for record in records] == list(range(1, last + 1))
        numbers = [int(record.key) for record in records]
        assert len(set(numbers)) == len(numbers)
        assert all(record.payload == payload_of(int(record.key)) for record in records)
        assert {offset: numbers[offset - 1] for offset in self.acked} == self.acked
        return last


def child(directory: Path, *, first: int = 0, count: int = FOREVER, writers: int = 8, prefix: list[str] | None = None,
          **named: object) -> subprocess.Popen[bytes]:  # fmt: skip
    arguments = [str(directory), str(first), str(count), str(writers), str(SEGMENT_BYTES)]
    return subprocess.Popen(  # type: ignore[call-overload, no-any-return]
        [*(prefix or []), *CHILD, *arguments], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **named
    )


def drain(process: "subprocess.Popen[bytes]", oracle: Oracle) -> int:
    output, errors = process.communicate(timeout=60)
    oracle.hear(output)
    assert b"Traceback" not in errors, errors.decode()
    return process.returncode


# S10


class Zygote:
    """A process with everything imported that forks children on demand, so that a kill takes milliseconds."""

    def __init__(self, **variables: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.crash.forgelog.zygote"], cwd=ROOT, env={**os.environ, **variables},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip

    def say(self, line: str) -> int:
        """Tell it something, and return the number it answers."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{line}\n".encode())
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def fork(self, oracle: Oracle, first: int = 0, fail_sync_at: int = FOREVER) -> tuple[int, int]:
        """Start a child; return its id and a handle of what it says."""
        reader, writer = os.pipe()
        path = f"/proc/{os.getpid()}/fd/{writer}"
        pid = self.say(f"{oracle.directory} {first} {FOREVER} 8 {SEGMENT_BYTES} {path} {fail_sync_at}")
        os.close(writer)
        return pid, reader

    def reap(self) -> int:
        """Return the exit code of the child that has ended."""
        return self.say("")

    def kill_loop(self, oracle: Oracle, first: int, delay_seconds: float) -> bytes:
        """Start a child, kill it after a delay that begins with its first word, and return all it said."""
        pid, reader = self.fork(oracle, first)
        output = os.read(reader, 65_536)
        deadline = time.monotonic() + delay_seconds
        os.set_blocking(reader, False)
        while (left := deadline - time.monotonic()) > 0:
            select.select([reader], [], [], left)
            output += read_available(reader)
        os.kill(pid, signal.SIGKILL)
        assert self.reap() == -signal.SIGKILL
        while more := read_available(reader):
            output += more
        os.close(reader)
        return output

    def run(self, oracle: Oracle, fail_sync_at: int) -> int:
        """Let a child run to its end, and return its exit code."""
        _, reader = self.fork(oracle, fail_sync_at=fail_sync_at)
        with open(reader, "rb") as said:
            output = said.read()
        oracle.hear(output)
        assert b"Traceback" not in output, output.decode()
        return self.reap()

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


def read_available(handle: int) -> bytes:
    try:
        return os.read(handle, 1 << 20)
    except BlockingIOError:
        return b""


def kill_cycles(tally: Tally, directory: Path, cycles: int) -> None:
    zygote = Zygote()
    oracle = Oracle(directory / "0")
    try:
        for cycle in range(cycles):
            if cycle % 25 == 0:
                tally.add("acknowledged records", len(oracle.acked))
                shutil.rmtree(oracle.directory, ignore_errors=True)
                oracle = Oracle(directory / str(cycle))
            oracle.hear(zygote.kill_loop(oracle, cycle * 1_000_000, tally.rng.uniform(0, 0.06)))
            tally.add("kills")
            if cycle % 5 == 4:
                oracle.judge()
                tally.add("full readings")
        oracle.judge()
    finally:
        zygote.close()


@pytest.mark.parametrize("part", the_rest_slow(range(3)))
def test_s10_kill_9(tally: Tally, tmp_path: Path, part: int) -> None:
    """A process killed at random moments, again and again on one log, loses nothing it acknowledged."""
    kill_cycles(tally, tmp_path, 50)


@pytest.mark.soak
def test_s10_kill_9_soak(tally: Tally, tmp_path: Path) -> None:
    """The same, 3,000 times."""
    for round_number in range(20):
        kill_cycles(tally, tmp_path / str(round_number), 150)
        tally.progress()


# S8

SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>
static int calls = 0;
int fdatasync(int fd) {
    int at = atoi(getenv("FAIL_SYNC_AT"));
    if (++calls >= at) { errno = EIO; return -1; }
    int (*real)(int) = dlsym(RTLD_NEXT, "fdatasync");
    return real(fd);
}
"""


def poisoned_then_restarted(tally: Tally, directory: Path, run: Callable[[Oracle], int]) -> None:
    """A failed sync ends the process with 70, acknowledges nothing after, and a restart serves all that was."""
    oracle = Oracle(directory)
    assert run(oracle) == 70, oracle.lines[-3:]
    assert oracle.lines[-1] == "poisoned"
    oracle.judge()
    tally.add("processes ended by a failed sync")
    tally.add("acknowledged before", len(oracle.acked))


@pytest.mark.slow
def test_s8_strace_fails_a_sync(tally: Tally, tmp_path: Path) -> None:
    """A sync that is made to fail from outside ends the process with 70; a restart serves all that was acknowledged."""
    if shutil.which("strace") is None:
        pytest.skip("strace is missing: failing syncs from outside the process was NOT tested with it")
    probe = subprocess.run(["strace", "-o", "/dev/null", "true"], capture_output=True)
    if probe.returncode:
        pytest.skip(f"strace may not trace here ({probe.stderr.decode().strip()}): NOT tested with it")
    for at in range(2, 22):
        inject = ["strace", "-f", "-qq", "--seccomp-bpf", "-o", "/dev/null", "-e", "trace=fdatasync"]
        inject += ["-e", f"inject=fdatasync:error=EIO:when={at}+"]
        poisoned_then_restarted(
            tally, tmp_path / str(at),
            lambda oracle, inject=inject: drain(child(oracle.directory, prefix=inject), oracle),  # type: ignore[misc]
        )  # fmt: skip


def test_s8_preloaded_library_fails_a_sync(tally: Tally, tmp_path: Path) -> None:
    """The same with a library in front of libc."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler: failing syncs with a preloaded library was NOT tested")
    library = tmp_path / "shim.so"
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-xc", "-", "-o", str(library), "-ldl"], input=SHIM.encode(), check=True
    )
    zygote = Zygote(LD_PRELOAD=str(library), FAIL_SYNC_AT=str(FOREVER))
    try:
        for at in range(2, 22):
            poisoned_then_restarted(tally, tmp_path / str(at), lambda oracle, at=at: zygote.run(oracle, at))  # type: ignore[misc]
    finally:
        zygote.close()


# S9


def test_s9_file_size_limit(tally: Tally, tmp_path: Path) -> None:
    """A limit that cuts a write short is a full disk; raised while the process runs, it accepts again by itself."""
    for limit in (12_000, 20_000, 33_333, 45_000, 55_000):
        oracle = Oracle(tmp_path / str(limit))
        process = child(oracle.directory, writers=4)
        assert process.stdout is not None
        output = process.stdout.readline()
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        output += until(process, b"full")
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        output += until(process, b"ack", 20)
        process.kill()
        rest, _ = process.communicate()
        oracle.hear(output + rest)
        after_full = oracle.lines[len(oracle.lines) - oracle.lines[::-1].index("full") :]
        assert sum(line.startswith("ack") for line in after_full) >= 5, "it did not accept again"
        oracle.judge()
        tally.add("full disks without a restart")


def until(process: "subprocess.Popen[bytes]", start: bytes, count: int = 1) -> bytes:
    """Read the child's lines until so many begin with `start`."""
    assert process.stdout is not None
    output = b""
    while count:
        line = process.stdout.readline()
        assert line, "the child ended"
        output += line
        count -= line.startswith(start)
    return output


@contextmanager
def small_disk(path: Path, kibibytes: int) -> Iterator[None]:
    path.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={kibibytes}k", "tmpfs", str(path)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip(f"a tmpfs cannot be mounted here ({mounted.stderr.decode().strip()}): NOT tested on a small disk")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


def test_s9_small_disk(tally: Tally, tmp_path: Path) -> None:
    """On a disk of one mebibyte the log fills up, answers "full", and goes on when a file is removed."""
    with small_disk(tmp_path / "disk", 1024):
        for round_number in range(5):
            ballast, reserve = tmp_path / "disk" / "ballast", tmp_path / "disk" / "reserve"
            ballast.write_bytes(bytes(200_000))
            reserve.write_bytes(bytes(100_000))
            oracle = Oracle(tmp_path / "disk" / f"log{round_number}")
            process = child(oracle.directory, writers=4)
            output = until(process, b"full", 3)
            ballast.unlink()
            output += until(process, b"ack", 20)
            process.kill()
            rest, _ = process.communicate()
            oracle.hear(output + rest)
            reserve.unlink()  # before it was killed it may have filled the disk again, and the judge goes on writing
            oracle.judge()
            shutil.rmtree(oracle.directory)
            tally.add("full disks without a restart")


# S12


def test_s12_a_second_process_is_refused(tally: Tally, tmp_path: Path) -> None:
    """A second process on the same log exits with 75 and names the first one's pid."""
    first = child(tmp_path)
    assert first.stdout is not None
    until(first, b"ack")
    second = child(tmp_path)
    output, _ = second.communicate(timeout=30)
    assert second.returncode == 75
    assert f"pid {first.pid}".encode() in output
    first.kill()
    first.communicate()
    tally.add("locks")


def test_s12_verify_beside_a_writing_process(tally: Tally, tmp_path: Path) -> None:
    """While a process appends and rolls, a deep check finds nothing wrong, every time."""
    process = child(tmp_path, writers=4, stdin=subprocess.DEVNULL)
    until(process, b"ack", 50)
    for _ in range(6):
        report = verify(OsFiles(), tmp_path, deep=True)
        assert report.live
        assert report.findings == []
        until(process, b"ack", 300)
        tally.add("checks of a live log")
        tally.add("records checked", report.records_checked)
    process.kill()
    process.communicate()


async def test_s12_a_forked_child_cannot_append(tally: Tally, tmp_path: Path) -> None:
    """After a fork the child's append and close leave the parent's log alone."""
    log = ForgeLog.open(tmp_path)
    await log.append([NewRecord(b"parent")])
    pid = os.fork()
    if pid == 0:
        try:
            log.append([NewRecord(b"child")])
        except LogClosed:
            log.finish()
            os._exit(7)
        os._exit(1)
    _, status = await asyncio.to_thread(os.waitpid, pid, 0)
    assert os.waitstatus_to_exitcode(status) == 7
    assert await log.append([NewRecord(b"parent again")]) == 2
    with pytest.raises(LogLocked):
        ForgeLog.open(tmp_path)
    await log.close()
    tally.add("forks")


def test_s12_a_killed_holder_frees_the_lock(tally: Tally, tmp_path: Path) -> None:
    """The lock goes with its process, however that ends."""
    first = child(tmp_path)
    until(first, b"ack")
    first.kill()
    first.communicate()
    storage = Storage.open(tmp_path, LogOptions(), floor=0, files=OsFiles(), clock=FakeClock())
    assert read_all(storage)
    storage.abandon()
    tally.add("locks freed")
