"""The guard around code that is only tried: what others could see is refused, and said with its line.

A guard, and no wall: an audit hook sees what Python does, not what a driver in C does by itself. Where the kernel lets
us the process has no network either.
"""

import contextlib
import ctypes
import inspect
import os
import signal
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from replayforge.shadow.replayed import Job, OutsideEffect

CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000
PR_SET_PDEATHSIG = 1
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
PACKAGE = str(Path(__file__).parents[1])
FOREIGN = tuple({PACKAGE, *(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib"))})
HARMLESS_CTYPES = frozenset({"ctypes.get_errno", "ctypes.set_errno", "ctypes.get_last_error", "ctypes.set_last_error"})
REFUSED = {
    "socket.connect": "a connection",
    "socket.bind": "a socket bound",
    "socket.sendto": "a datagram",
    "socket.sendmsg": "a message sent",
    "socket.getaddrinfo": "a name looked up",
    "socket.gethostbyname": "a name looked up",
    "socket.gethostbyaddr": "a name looked up",
    "socket.getnameinfo": "a name looked up",
    "socket.sethostname": "the name of the machine set",
    "subprocess.Popen": "a process started",
    "pty.spawn": "a process started",
    "sqlite3.connect": "a database opened",
    **dict.fromkeys(
        ("os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty"), "a process started"
    ),
    **dict.fromkeys(("os.kill", "os.killpg", "signal.pthread_kill"), "a signal sent"),
    **dict.fromkeys(("os.remove", "os.rmdir", "shutil.rmtree"), "a file removed"),
    **dict.fromkeys(("os.rename", "os.link", "os.symlink", "os.mkdir", "os.mkfifo", "os.mknod"), "a file made"),
    **dict.fromkeys(
        (
            "os.truncate", "os.chmod", "os.chown", "os.lchown", "os.chflags", "os.utime", "os.setxattr",
            "os.removexattr",
        ),
        "a file changed",
    ),
}  # fmt: skip


class EffectRefused(BaseException):
    """The code reached for something outside of its steps while it was only tried.

    A BaseException, so that no `except Exception` of a handler goes on as if the effect had merely failed.
    """

    def __init__(self, effect: OutsideEffect) -> None:
        super().__init__(f"{effect.what} at {effect.place}")
        self.effect = effect


class EffectGuard:
    """Refuses effects from `stand` on, for good: no audit hook can be taken away.

    `report` hears of each; the user's own code lies below the `roots`.
    """

    def __init__(self, report: Callable[[OutsideEffect], None], roots: tuple[str, ...]) -> None:
        self.report = report
        self.roots = roots

    def stand(self) -> None:
        """Refuse effects from now on."""
        sys.addaudithook(self.hook)

    def hook(self, name: str, arguments: tuple[Any, ...]) -> None:
        """Let an action of this process pass, or raise EffectRefused."""
        if name == "open":
            what = self.opened(*arguments)
        elif name in REFUSED:
            what = f"{REFUSED[name]} ({shown(arguments)})"
        elif name.startswith("ctypes.") and name not in HARMLESS_CTYPES:
            what = f"a function called by ctypes ({name})"
        else:
            return
        if what:
            effect = OutsideEffect(what, self.place(inspect.currentframe()))
            self.report(effect)
            raise EffectRefused(effect)

    def opened(self, path: Any, mode: Any, flags: Any) -> str:
        """Say what is wrong with the opening of a file, or nothing: those that are open already are nobody's news."""
        if not isinstance(flags, int) or not flags & WRITING or isinstance(path, int) or path == os.devnull:
            return ""
        return f"a file opened for writing ({path!r:.200})"

    def place(self, frame: FrameType | None) -> str:
        """Return where in the user's own code this is, as near to the effect as can be known."""
        elsewhere = ""
        while frame is not None:
            name = frame.f_code.co_filename
            if name.startswith(self.roots) and not name.startswith(FOREIGN):
                return f"{name}:{frame.f_lineno}"
            if not elsewhere and not name.startswith((*FOREIGN, "<")):
                elsewhere = f"{name}:{frame.f_lineno}"
            frame = frame.f_back
        return elsewhere or "an unknown line"


def shown(arguments: tuple[Any, ...]) -> str:
    """Return what an action was asked with, as far as it says anything."""
    words = [repr(one)[:80] for one in arguments if isinstance(one, (str, bytes, int, tuple, list))]
    return ", ".join(words)[:200]


def die_with_parent() -> None:
    """Have the kernel end this process when whoever started it ends: code that is tried may never end by itself."""
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def roots_of(job: Job) -> tuple[str, ...]:
    """Return below which directories the code lies that is tried."""
    return (*(str(Path(name).resolve().parent) for name in job.handlers if name.endswith(".py")), str(Path.cwd()))


def leave_network() -> bool:
    """Take this process, which has one thread, into a network of its own in which there is nothing; tells whether that
    could be done."""
    try:
        unshare = ctypes.CDLL(None, use_errno=True).unshare
    except (AttributeError, OSError):
        return False
    if unshare(CLONE_NEWNET) == 0:
        return True
    user, group = os.getuid(), os.getgid()
    if unshare(CLONE_NEWUSER | CLONE_NEWNET) != 0:
        return False
    for name, line in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
        with contextlib.suppress(OSError):
            Path(f"/proc/self/{name}").write_text(line)
    return True
