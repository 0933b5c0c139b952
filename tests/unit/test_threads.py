"""Threads that outlive what handlers do to them."""

import ctypes
import threading
from concurrent.futures import wait

from replayforge.threads import DaemonThreads


def test_a_thread_that_somebody_ended_is_replaced() -> None:
    """An exception raised in it from outside, at whatever moment, costs no call its answer."""
    threads = DaemonThreads(1, "mortal")
    for _ in range(3):
        assert threads.submit(int, "3").result(30) == 3
        (mortal,) = (one for one in threading.enumerate() if one.name.startswith("mortal"))
        assert mortal.ident is not None
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(mortal.ident), ctypes.py_object(SystemExit))
        first = threads.submit(int, "4")  # wakes the thread, which ends
        mortal.join(30)
        assert not mortal.is_alive()
        wait([first], 30)
        assert first.result(0) == 4
