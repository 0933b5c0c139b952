"""The job that every peer runs, and how its producer sends it; only what Python itself brings is imported here.

The payload is that of ReplayForge's own events here (bench.load.EVENT), with the job's number beside it.
"""

import asyncio
import os
import queue
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

SERVER = os.environ["BENCH_SERVER"]
SECONDS = float(os.environ.get("BENCH_SECONDS", "0"))
STARTS = os.environ.get("BENCH_STARTS", "")
WORKERS = 16
AT_ONCE = 64

starts = os.open(STARTS, os.O_WRONLY | os.O_APPEND | os.O_CREAT) if STARTS else None


def payload(number: int) -> dict[str, Any]:
    """Return what one job carries."""
    return {"text": "x" * 150, "number": number}


def note_start(job: dict[str, Any]) -> None:
    """Write down that a job was started, where that is asked for."""
    if starts is not None:
        os.write(starts, f"{job['number']} {time.monotonic()}\n".encode())


async def run(job: dict[str, Any]) -> None:
    """Do nothing, at once or after BENCH_SECONDS."""
    note_start(job)
    if SECONDS:
        await asyncio.sleep(SECONDS)


def run_in_thread(job: dict[str, Any]) -> None:
    """Do nothing, at once or after BENCH_SECONDS, and hold a thread meanwhile."""
    note_start(job)
    if SECONDS:
        time.sleep(SECONDS)


async def send_all(count: int, send: Callable[[int], Awaitable[object]]) -> None:
    """Send so many jobs, AT_ONCE at a time, and say when that began and how many seconds it took."""
    left = iter(range(count))

    async def sender() -> None:
        for number in left:
            await send(number)

    started = time.monotonic()
    await asyncio.gather(*(sender() for _ in range(AT_ONCE)))
    sys.stdout.write(f"{started} {time.monotonic() - started}\n")


def send_all_from_threads(count: int, send: Callable[[int], object], threads: int) -> None:
    """The same for a library that waits."""
    left: queue.SimpleQueue[int] = queue.SimpleQueue()
    for number in range(count):
        left.put(number)

    def sender() -> None:
        while True:
            try:
                number = left.get_nowait()
            except queue.Empty:
                return
            send(number)

    started = time.monotonic()
    senders = [threading.Thread(target=sender) for _ in range(threads)]
    for one in senders:
        one.start()
    for one in senders:
        one.join()
    sys.stdout.write(f"{started} {time.monotonic() - started}\n")
