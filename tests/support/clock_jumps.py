"""Daemons and databases whose clocks a test can set while they run, by a small library in front of libc."""

import mmap
import shutil
import struct
import subprocess
import time
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Self

import pytest

from tests.support.daemon_process import DaemonProcess
from tests.support.postgres_server import PostgresServer

# Two shifts in nanoseconds lie in a file that the test shares with the process: by how much the wall clock was set, and
# how long the machine has slept, which the clock that goes on meanwhile shows too. The monotonic one stays untouched.
LIBRARY = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>

static volatile int64_t *shifts;
static int (*real_gettime)(clockid_t, struct timespec *);

__attribute__((constructor)) static void prepare(void)
{
    const char *path = getenv("CLOCK_SHIFTS");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    real_gettime = dlsym(RTLD_NEXT, "clock_gettime");
    if (file < 0) abort();
    shifts = mmap(NULL, 16, PROT_READ, MAP_SHARED, file, 0);
    if (shifts == MAP_FAILED) abort();
}

int clock_gettime(clockid_t id, struct timespec *at)
{
    if (!real_gettime) prepare();
    int failed = real_gettime(id, at);
    int64_t shift = 0;
    if (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE) shift = shifts[0] + shifts[1];
    if (id == CLOCK_BOOTTIME) shift = shifts[1];
    if (failed || !shift) return failed;
    int64_t moved = at->tv_sec * INT64_C(1000000000) + at->tv_nsec + shift;
    at->tv_sec = moved / 1000000000;
    at->tv_nsec = moved % 1000000000;
    return 0;
}

int gettimeofday(struct timeval *at, void *zone)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    at->tv_sec = now.tv_sec;
    at->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *at)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (at) *at = now.tv_sec;
    return now.tv_sec;
}
"""


@cache
def library() -> Path:
    """Return the compiled library; skips the test, loudly, where there is no compiler."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler: a daemon whose clock jumps was NOT tested")
    path = Path(mkdtemp(prefix="rf-clock-")) / "clock.so"
    path.parent.chmod(0o755)  # a server that runs as somebody else loads it, too
    command = [compiler, "-shared", "-fPIC", "-O1", "-xc", "-", "-o", str(path), "-ldl"]
    subprocess.run(command, input=LIBRARY.encode(), check=True)
    return path


class Shifts:
    """The file by which a test moves the clocks of a process."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb+") as file:
            file.write(bytes(16))
            file.flush()
            self.shared = mmap.mmap(file.fileno(), 16)
        path.chmod(0o644)

    def move(self, index: int, seconds: float) -> None:
        self.shared[8 * index : 8 * index + 8] = struct.pack("=q", round(seconds * 1e9))

    def environment(self) -> dict[str, str]:
        return {"LD_PRELOAD": str(library()), "CLOCK_SHIFTS": str(self.path)}


class JumpingPostgres(PostgresServer):
    """A PostgreSQL whose wall clock jumps; its timers go on as they do."""

    def __init__(self) -> None:
        super().__init__()
        self.directory.chmod(0o755)
        self.clock = Shifts(self.directory / "clock_shifts")

    def set_clock(self, by_seconds: float) -> None:
        """Set the wall clock so far from the truth, at once."""
        self.clock.move(0, by_seconds)
        (row,) = self.query("SELECT extract(epoch FROM clock_timestamp())::float8 AS now")
        assert abs(row["now"] - time.time() - by_seconds) < 60, "the server does not follow"

    def environment(self) -> dict[str, str]:
        return super().environment() | self.clock.environment()


@dataclass
class JumpingDaemon(DaemonProcess):
    """A daemon that reads its time through the library. `zone` is its TZ."""

    zone: str = "UTC"
    slept_seconds: float = 0.0
    clock: Shifts = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.clock = Shifts(self.directory / "clock_shifts")

    def __enter__(self) -> Self:
        return self

    def environment(self) -> dict[str, str]:
        return super().environment() | self.clock.environment() | {"TZ": self.zone}

    def set_clock(self, by_seconds: float) -> None:
        """Set the wall clock so far from the truth, at once."""
        self.clock.move(0, by_seconds)

    def sleep(self, seconds: float) -> None:
        """Let the machine have slept so much longer."""
        self.slept_seconds += seconds
        self.clock.move(1, self.slept_seconds)
