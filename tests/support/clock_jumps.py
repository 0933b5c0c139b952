"""A daemon whose clocks a test can set while it runs, by a small library in front of libc."""

import mmap
import shutil
import struct
import subprocess
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Self

import pytest

from tests.support.daemon_process import DaemonProcess

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
    command = [compiler, "-shared", "-fPIC", "-O1", "-xc", "-", "-o", str(path), "-ldl"]
    subprocess.run(command, input=LIBRARY.encode(), check=True)
    return path


@dataclass
class JumpingDaemon(DaemonProcess):
    """A daemon that reads its time through the library. `zone` is its TZ."""

    zone: str = "UTC"
    slept_seconds: float = 0.0
    shared: mmap.mmap | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        with self.shifts.open("wb+") as file:
            file.write(bytes(16))
            file.flush()
            self.shared = mmap.mmap(file.fileno(), 16)

    def __enter__(self) -> Self:
        return self

    @property
    def shifts(self) -> Path:
        return self.directory / "clock_shifts"

    def environment(self) -> dict[str, str]:
        chosen = {"LD_PRELOAD": str(library()), "CLOCK_SHIFTS": str(self.shifts), "TZ": self.zone}
        return super().environment() | chosen

    def set_clock(self, by_seconds: float) -> None:
        """Set the wall clock so far from the truth, at once."""
        self.move(0, by_seconds)

    def sleep(self, seconds: float) -> None:
        """Let the machine have slept so much longer."""
        self.slept_seconds += seconds
        self.move(1, self.slept_seconds)

    def move(self, index: int, seconds: float) -> None:
        assert self.shared is not None
        self.shared[8 * index : 8 * index + 8] = struct.pack("=q", round(seconds * 1e9))
