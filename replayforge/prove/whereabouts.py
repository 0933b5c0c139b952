"""Where in users' code a daemon waits for an answer from outside: the lines of its tasks and threads."""

import asyncio
import gc
import sys
import sysconfig
import threading
from collections.abc import Iterator
from pathlib import Path
from types import AsyncGeneratorType, CoroutineType, FrameType, GeneratorType
from typing import Any

import msgspec

import replayforge
from replayforge.event_loop import Contained

STEP = "StepRunner.tried"
STEP_THREAD = "handler step "
PACKAGE = str(Path(replayforge.__file__).resolve().parent)
LIBRARIES = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})
# What a task does that only waits for others, or for time.
WAITING_ROOMS = ("asyncio", "threading.py", "concurrent")


class Site(msgspec.Struct, frozen=True):
    """A call in users' code.

    `file` and `line` are the handler's, or those of the step's function where it is one; `innermost` is where the call
    itself stands, if that is elsewhere, and `step` the name of the step, if it is in one.
    """

    file: str
    line: int
    function: str
    innermost: str = ""
    step: str = ""

    @property
    def place(self) -> str:
        """The place as people write it."""
        return f"{self.file}:{self.line}"


Chain = list[tuple[FrameType, int]]


def sites_of(roots: tuple[str, ...], but: int) -> list[Site]:
    """Return the calls of code below some directories that wait now; one thread is left out.

    Those that are inside a library come alone, if there are any: the others only wait for them.
    """
    found = [one for chain in chains(but) if (one := site_in(*chain, roots)) is not None]
    calling = [site for site, inside in found if inside]
    return list(dict.fromkeys(calling or [site for site, _ in found]))


def chains(but: int) -> Iterator[tuple[Chain, str]]:
    """Yield what each thread and each waiting task stands in, from the outermost call to the innermost."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    for ident, frame in sys._current_frames().items():  # noqa: SLF001 - public, whatever it is called
        if ident != but:
            yield stack(frame), names.get(ident, "")
    for task in tasks():
        yield list(awaited(task.get_coro())), ""


def stack(frame: FrameType | None) -> Chain:
    """Return the calls that lead to a frame."""
    calls: Chain = []
    while frame is not None:
        calls.append((frame, frame.f_lineno))
        frame = frame.f_back
    return calls[::-1]


def tasks() -> set["asyncio.Task[Any]"]:
    """Return the tasks of every loop that runs in a thread, seen from another one."""
    calls = [call for frame in sys._current_frames().values() for call in stack(frame)]  # noqa: SLF001 - as above
    running = [frame.f_locals.get("self") for frame, _ in calls if frame.f_code.co_name == "run_forever"]
    loops = {one for one in running if isinstance(one, asyncio.AbstractEventLoop)}
    return {task for loop in loops for task in asyncio.all_tasks(loop)}


def awaited(waiting: Any) -> Iterator[tuple[FrameType, int]]:
    """Yield the frames of a coroutine that waits, and of what it waits for."""
    seen = set[int]()
    while waiting is not None and id(waiting) not in seen:
        seen.add(id(waiting))
        frame, inner = frame_and_inner(waiting)
        if frame is not None:
            yield frame, frame.f_lineno
        waiting = inner


def frame_and_inner(waiting: Any) -> tuple[FrameType | None, Any]:
    """Return the frame of something awaited, and what that awaits; what hides a coroutine has no frame of its own."""
    if isinstance(waiting, CoroutineType):
        return waiting.cr_frame, waiting.cr_await
    if isinstance(waiting, GeneratorType):
        return waiting.gi_frame, waiting.gi_yieldfrom
    if isinstance(waiting, AsyncGeneratorType):
        return waiting.ag_frame, waiting.ag_await
    if isinstance(waiting, Contained):
        return None, waiting.coroutine
    if isinstance(waiting, asyncio.Future):
        return None, None
    kinds = (CoroutineType, GeneratorType, AsyncGeneratorType)
    return None, next((one for one in gc.get_referents(waiting) if isinstance(one, kinds)), None)


def site_in(chain: Chain, thread: str, roots: tuple[str, ...]) -> tuple[Site, bool] | None:
    """Return the call of users' code that a chain stands in, and whether it is inside a library; None if it is in none.

    What waits for the daemon, as a handler does for its step, calls nobody outside.
    """
    step = thread.removeprefix(STEP_THREAD) if thread.startswith(STEP_THREAD) else ""
    own: list[tuple[FrameType, int]] = []
    inside = False
    for frame, line in chain:
        file = frame.f_code.co_filename
        if file.startswith(PACKAGE):
            own, inside = [], False
            step = frame.f_locals.get("step", "") if frame.f_code.co_qualname == STEP else step
        elif is_own(file, roots):
            own.append((frame, line))
            inside = False
        else:
            inside = inside or not any(room in file for room in WAITING_ROOMS)
    if not own:
        return None
    (frame, line), (last, last_line) = own[0], own[-1]
    innermost = "" if last is frame else f"{last.f_code.co_filename}:{last_line}"
    return Site(frame.f_code.co_filename, line, frame.f_code.co_name, innermost, step), inside


def is_own(file: str, roots: tuple[str, ...]) -> bool:
    """Whether a file is users' code, and not a library that lies below the same directory."""
    return file.startswith(roots) and not file.startswith(LIBRARIES) and "site-packages" not in file
