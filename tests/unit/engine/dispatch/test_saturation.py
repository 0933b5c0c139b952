"""Saturation: a process that wants a processor all the time knows it, and how many events have ended meanwhile."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from replayforge.engine.dispatch import saturation

SHARED_SECONDS, SHARED_TIMES = 0.3, 10


@pytest.fixture
def wanted(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """How much processor time was used, and how much was waited for, in all."""
    wanted = SimpleNamespace(used=0.0, waited=0.0)
    monkeypatch.setattr(saturation, "process_time", lambda: wanted.used)
    monkeypatch.setattr(saturation, "waited_seconds", lambda: wanted.waited)
    return wanted


@pytest.mark.parametrize("kind", ["used", "waited"])
def test_it_is_measured_by_what_was_wanted_since_the_last_time(wanted: SimpleNamespace, kind: str) -> None:
    """Once a second; in between the last measurement holds. Whether others have the processor makes no difference."""
    measured = saturation.Saturation()
    seen = []
    for now, amount in ((1000.0, 100.0), (1000.9, 100.9), (1001.0, 100.95), (1001.5, 101.0), (1003.0, 101.4)):
        setattr(wanted, kind, amount)
        seen.append(measured.measure(now, 0, 0))
    assert seen == [False, False, True, True, False]


def test_what_comes_in_or_ends_is_measured_by_the_time_that_the_process_gets(wanted: SimpleNamespace) -> None:
    """So a process that others, or a quota, leave little time is not taken for one whose handlers compute."""
    measured = saturation.Saturation()
    measured.measure(100.0, 0, 0)
    wanted.used = 0.25
    measured.measure(102.0, 1_000, 100)
    assert (measured.ended_per_second, measured.events_per_processor_second) == (50, 4_000)
    wanted.used = 0.5
    measured.measure(104.0, 1_000, 2_100)
    assert (measured.ended_per_second, measured.events_per_processor_second) == (1_000, 8_000)


def test_rates_are_forgotten_in_time(wanted: SimpleNamespace) -> None:
    """Else a flood of what takes no time would say something of handlers that compute."""
    measured = saturation.Saturation()
    measured.measure(100.0, 0, 0)
    wanted.used = 1.0
    measured.measure(101.0, 10_000, 10_000)
    for second in range(2, 32):
        wanted.used += 1
        measured.measure(100.0 + second, 10_000, 10_000)
    forgotten = pytest.approx(10_000 * saturation.KEPT_PER_SECOND**30)
    assert measured.ended_per_second == forgotten
    assert measured.events_per_processor_second == forgotten


def test_where_nobody_says_nothing_was_waited_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As on other systems than Linux, or where the kernel does not count."""
    monkeypatch.setattr(saturation, "THREADS", tmp_path / "task")
    assert saturation.waited_seconds() == 0
    for thread, said in (("1", "0\n"), ("2", ""), ("3", None)):
        (tmp_path / "task" / thread).mkdir(parents=True)
        if said is not None:
            (tmp_path / "task" / thread / "schedstat").write_text(said)
    assert saturation.waited_seconds() == 0


def test_the_waits_of_all_threads_count(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The loop waits for others of them, which wait for a processor."""
    monkeypatch.setattr(saturation, "THREADS", tmp_path)
    for thread, said in (("1", "7000000000 250000000 9\n"), ("2", "0 500000000 1\n")):
        (tmp_path / thread).mkdir()
        (tmp_path / thread / "schedstat").write_text(said)
    assert saturation.waited_seconds() == 0.75


@pytest.mark.skipif(
    not Path("/proc/self/schedstat").exists(), reason="the system does not say who waits for a processor"
)
def test_who_shares_a_processor_with_a_busy_process_waits_for_it_and_wants_it_all() -> None:
    """Used alone it would look like one that is half idle. What a hypervisor takes away meanwhile is in neither, so one
    time without that is enough."""
    processor = min(os.sched_getaffinity(0))
    seen: list[tuple[float, float]] = []

    def work() -> None:
        os.sched_setaffinity(0, {processor})  # of this thread alone
        with subprocess.Popen([sys.executable, "-c", "print(flush=True)\nwhile True: pass"], stdout=-1) as rival:
            assert rival.stdout is not None
            rival.stdout.readline()
            for _ in range(SHARED_TIMES):
                began, used, waited = time.monotonic(), time.thread_time(), saturation.waited_seconds()
                while time.monotonic() - began < SHARED_SECONDS:
                    pass
                seconds, used = time.monotonic() - began, time.thread_time() - used
                seen.append((used / seconds, (used + saturation.waited_seconds() - waited) / seconds))
                if seen[-1][1] >= saturation.SATURATED:
                    break
            rival.kill()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    used_share, wanted_share = seen[-1]
    assert used_share < 0.8
    assert wanted_share >= saturation.SATURATED
