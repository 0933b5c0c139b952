"""Signals: heard from the first moment of the daemon to its last, whatever holds the event loop meanwhile.

Plain handlers are used, not the loop's: they run wherever the main thread is, and a forked child's signals cannot come
out of a loop that shares its wakeup descriptor with its parent.
"""

import asyncio
import contextlib
import os
import signal
import sys
import threading
import time
from asyncio import current_task
from collections.abc import Callable
from time import monotonic
from types import FrameType

from replayforge.daemon_log import leave, output
from replayforge.telemetry import Telemetry

ENDING = (signal.SIGTERM, signal.SIGINT)
RELOADING = signal.SIGHUP
IGNORED = (RELOADING, signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM)
END, RELOAD = b"x", b"r"  # what the thread is told through its pipe
SECOND_SIGNAL_EXIT_CODE = 130
FORCED_EXIT_CODE = 70
START_GRACE_SECONDS = 5.0
LOOK_SECONDS = 0.2
STILL_SECONDS = 2.0  # a loop that has not turned for so long is held by somebody
ORDERED_SECONDS_MAX = 45.0  # what an ordered end may take beyond the grace period


class Signals:
    """What the process is told from outside. `told` resolves at the first SIGTERM or SIGINT; a second one ends it here.

    A thread sees to it that the first one is heeded: when the event loop does not turn once the grace period is over,
    the process ends without it.
    """

    def __init__(self, telemetry: Telemetry) -> None:
        self.telemetry = telemetry
        self.pid = os.getpid()
        self.count = 0
        self.grace_seconds = START_GRACE_SECONDS
        self.loop: asyncio.AbstractEventLoop | None = None
        self.act: Callable[[], object] = lambda: None
        self.first: Callable[[], object] = lambda: None
        self.reload: Callable[[], object] | None = None
        self.turned_at = 0.0
        self.receiving, self.sending = os.pipe()
        threading.Thread(target=self.watch, name="signals", daemon=True).start()

    # In the main thread

    def install(self) -> None:
        """Hear signals from now on; again, after user code may have taken them. nohup's wish is respected."""
        for number in ENDING:
            signal.signal(number, self.hear)
        for number in IGNORED:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self.ignore)

    def watch_start(self, loop: asyncio.AbstractEventLoop) -> None:
        """From here until `watch_run` a signal cancels the task that starts the daemon."""
        starting = current_task(loop)
        assert starting is not None
        self.loop, self.act = loop, starting.cancel

    def watch_run(self, grace_seconds: float) -> "asyncio.Future[None]":
        """From now on a signal resolves the future that is returned."""
        assert self.loop is not None
        told: asyncio.Future[None] = self.loop.create_future()

        def tell() -> None:
            if not told.done():
                told.set_result(None)

        self.act, self.grace_seconds = tell, grace_seconds
        return told

    def at_first(self, call: Callable[[], object]) -> None:
        """Have a function called, on the thread that watches, as soon as the first signal comes."""
        self.first = call

    def at_reload(self, call: Callable[[], object]) -> None:
        """From now on have a function called, on the thread that watches, at each SIGHUP."""
        self.reload = call

    def hear(self, number: int, frame: FrameType | None) -> None:
        """Take in a signal that ends the daemon; between two instructions of whatever the main thread does."""
        if os.getpid() != self.pid:  # a child so young that its signals are not its own yet
            os._exit(128 + number)
        self.count += 1
        if self.count > 1:
            leave(SECOND_SIGNAL_EXIT_CODE)
        os.write(self.sending, END)

    def ignore(self, number: int, frame: FrameType | None) -> None:
        """Heed SIGHUP, if it is known how; say of a signal that would end other programs that it came, and go on."""
        if number == RELOADING and self.reload is not None and os.getpid() == self.pid:
            os.write(self.sending, RELOAD)
            return
        self.telemetry.emit("signal.ignored", signal=signal.Signals(number).name)

    # On the thread

    def watch(self) -> None:
        """Wait for the first signal that ends, pass it on to the loop, and see that the process ends."""
        while os.read(self.receiving, 1) == RELOAD:
            if self.reload is not None:
                self.reload()
        began = self.turned_at = monotonic()
        with contextlib.suppress(Exception):  # whatever cannot be noted, the end comes
            self.first()
        self.on_loop(self.act)
        while True:
            time.sleep(LOOK_SECONDS)
            self.on_loop(self.turn)
            now = monotonic()
            over = now - began - self.grace_seconds
            if over > 0 and now - self.turned_at > STILL_SECONDS:
                self.end(f"the event loop has not turned for {now - self.turned_at:.0f} s")
            if over > ORDERED_SECONDS_MAX:
                self.end(f"an ordered end took longer than {ORDERED_SECONDS_MAX:.0f} s beyond the grace period")

    def turn(self) -> None:
        """Note, on the loop, that it turns."""
        self.turned_at = monotonic()

    def on_loop(self, call: Callable[[], object]) -> None:
        """Have something called on the loop, if there is one that is open."""
        if self.loop is not None:
            with contextlib.suppress(RuntimeError):
                self.loop.call_soon_threadsafe(call)

    def end(self, reason: str) -> None:
        """End the process without the loop; what was acknowledged is on the disk, and what ran is taken back later."""
        output.err.write(f"ReplayForge ended at once after a signal: {reason}.\n".encode())
        leave(FORCED_EXIT_CODE)


def stop_children() -> None:
    """Tell the processes that handlers made with multiprocessing to end; nobody will ask for their results."""
    multiprocessing = sys.modules.get("multiprocessing")
    if multiprocessing is None:
        return
    for child in multiprocessing.active_children():
        with contextlib.suppress(Exception):
            child.terminate()
