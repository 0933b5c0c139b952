"""The daemon as somebody's child: it dies with its parent, whatever ended that, so that no demo leaves an orphan."""

import os
import runpy
import signal
import sys
import threading


def die_with_parent() -> None:
    """Kill this process when standard input, which the parent holds open, comes to its end."""
    while os.read(sys.stdin.fileno(), 4096):
        pass
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    threading.Thread(target=die_with_parent, name="die with parent", daemon=True).start()
    runpy.run_module("replayforge", run_name="__main__")
