"""Single keys from a terminal, without Enter; where there is no terminal, no keys."""

import os
import select
import sys
import termios
import time
import tty
from types import TracebackType
from typing import Any


class Keyboard:
    """Reads keys while it is entered, and leaves the terminal as it was, whatever ends the block."""

    def __init__(self) -> None:
        self.descriptor = -1
        self.before: list[Any] | None = None

    @property
    def present(self) -> bool:
        """Whether somebody can press keys."""
        return self.before is not None

    def __enter__(self) -> "Keyboard":
        if sys.stdin is not None and sys.stdin.isatty():
            self.descriptor = sys.stdin.fileno()
            self.before = termios.tcgetattr(self.descriptor)
            tty.setcbreak(self.descriptor)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.before is not None:
            termios.tcsetattr(self.descriptor, termios.TCSADRAIN, self.before)
            self.before = None

    def wait(self, seconds: float) -> str:
        """Wait for a key, and return it in lower case; empty when none came in time."""
        if not self.present:
            time.sleep(seconds)
            return ""
        ready, _, _ = select.select([self.descriptor], [], [], seconds)
        if not ready:
            return ""
        typed = os.read(self.descriptor, 1)
        return typed.decode("ascii", "replace").lower() if typed else "q"  # the terminal went away
