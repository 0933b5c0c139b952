"""The daemon as somebody's child: it dies with its parent, whatever ended that, so that no demo leaves an orphan."""

import ctypes
import os
import runpy
import signal
import sys
import threading

PR_SET_PDEATHSIG = 1
# Looked up here, since little may be done between fork and exec.
libc = ctypes.CDLL(None)


def die_with_parent() -> None:
    """Have the kernel kill this process when the thread is gone that started it, even while it is stopped (Linux)."""
    if sys.platform == "linux":
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def end_with_input() -> None:
    """Kill this process when standard input, which the parent holds open, comes to its end."""
    while os.read(sys.stdin.fileno(), 4096):
        pass
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    die_with_parent()
    threading.Thread(target=end_with_input, name="end with input", daemon=True).start()
    runpy.run_module("replayforge", run_name="__main__")
