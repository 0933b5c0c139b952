"""Handlers that fork, each in its own way; every child writes its pid to children.txt and then sleeps."""

import asyncio
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from replayforge import Context, Event, Handlers

handlers = Handlers()
CHILDREN = Path("children.txt").absolute()
FORK = multiprocessing.get_context("fork")
kept: list[object] = []


def live() -> None:
    nowhere = os.open(os.devnull, os.O_RDWR)  # whoever listens to the daemon must not wait for its children
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    with CHILDREN.open("a") as file:
        file.write(f"{os.getpid()}\n")
    while True:
        time.sleep(60)


@handlers.on("fork.pool")
async def pool(event: Event, ctx: Context) -> None:
    executor = ProcessPoolExecutor(1, mp_context=FORK)
    kept.append((executor, executor.submit(live)))


@handlers.on("fork.process")
async def process(event: Event, ctx: Context) -> None:
    child = FORK.Process(target=live)
    child.start()
    kept.append(child)


@handlers.on("fork.os")
async def os_fork(event: Event, ctx: Context) -> None:
    if not os.fork():
        live()


@handlers.on("fork.thread")
def in_thread(event: Event, ctx: Context) -> None:
    if not os.fork():
        live()


@handlers.on("fork.preexec")
async def preexec(event: Event, ctx: Context) -> None:
    code = f"import os, time; open({str(CHILDREN)!r}, 'a').write(f'{{os.getpid()}}\\n'); time.sleep(3600)"
    command = [sys.executable, "-c", code]
    kept.append(subprocess.Popen(command, stdout=-3, stderr=-3, preexec_fn=lambda: time.sleep(0.2)))  # noqa: ASYNC220


@handlers.on("fork.returns")
async def returns(event: Event, ctx: Context) -> str:
    return "child" if not os.fork() else "parent"


@handlers.on("fork.exits")
async def exits(event: Event, ctx: Context) -> str:
    if not os.fork():
        sys.exit(3)
    return "parent"


@handlers.on("plain")
async def plain(event: Event, ctx: Context) -> None:
    return


@handlers.on("leave.thread")
async def leave_thread(event: Event, ctx: Context) -> None:
    threading.Thread(target=time.sleep, args=(3600,), daemon=False).start()


@handlers.on("leave.to_thread")
async def leave_to_thread(event: Event, ctx: Context) -> None:
    kept.append(asyncio.ensure_future(asyncio.to_thread(time.sleep, 3600)))


@handlers.on("leave.executor")
async def leave_executor(event: Event, ctx: Context) -> None:
    from concurrent.futures import ThreadPoolExecutor

    executor = ThreadPoolExecutor(1)
    kept.append((executor, executor.submit(time.sleep, 3600)))


@handlers.on("leave.atexit")
async def leave_atexit(event: Event, ctx: Context) -> None:
    import atexit

    atexit.register(time.sleep, 3600)


@handlers.on("leave.subprocess")
async def leave_subprocess(event: Event, ctx: Context) -> None:
    kept.append(await asyncio.create_subprocess_exec("sleep", "3600"))


@handlers.on("block.sleep")
async def block_sleep(event: Event, ctx: Context) -> None:
    time.sleep(3600)  # noqa: ASYNC251 - that is the point


@handlers.on("block.spin")
async def block_spin(event: Event, ctx: Context) -> None:
    while True:
        pass


@handlers.on("slow")
async def slow(event: Event, ctx: Context) -> None:
    while not Path("enough.txt").exists():  # noqa: ASYNC110, ASYNC240 - another process says when
        await asyncio.sleep(0.05)
