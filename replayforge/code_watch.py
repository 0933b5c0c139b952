"""`serve --reload`: watches the files of handlers, and has the process begin anew when they have changed and load."""

import os
import subprocess
import sys
from asyncio import sleep
from pathlib import Path
from typing import NoReturn

from replayforge.daemon_log import FOREIGN_CODE, output
from replayforge.telemetry import Telemetry
from replayforge.threads import in_thread

LOOK_SECONDS = 1.0
CHECK_SECONDS = 60.0
PACKAGES = ("site-packages", "dist-packages")
CHECK_ONLY = "--check-only"  # the option of `serve` that says whether it would start

Stamps = dict[str, int]


class CommandLine:
    """How this process was started, to be started so again: taken before handlers can change any of it."""

    def __init__(self) -> None:
        self.arguments = [sys.executable, *sys.orig_argv[1:]]
        self.directory = str(Path.cwd())
        self.environment = dict(os.environ)

    def check(self) -> str:
        """Return why a process that was started so would not start with the code as it is now; nothing if it would."""
        # What a check left beside the code would look like a change.
        environment = {**self.environment, "PYTHONDONTWRITEBYTECODE": "1"}
        try:
            done = subprocess.run(  # noqa: S603 - our own command line
                [*self.arguments, CHECK_ONLY], cwd=self.directory, env=environment, stdin=subprocess.DEVNULL,
                capture_output=True, timeout=CHECK_SECONDS, check=False,
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired) as error:
            return str(error)
        said = done.stderr.decode(errors="backslashreplace").strip()
        return (said or f"it ended with {done.returncode}") if done.returncode else ""

    def begin_anew(self) -> NoReturn:
        """Become the same process once more; nothing of this one is left, no thread either."""
        output.flush()
        os.chdir(self.directory)
        os.execve(sys.executable, self.arguments, self.environment)  # noqa: S606 - no shell is meant


class CodeWatch:
    """Looks at the files of what is loaded that is neither ours nor a package's.

    After code that could not be loaded it looks at their directories too: what was missing may come as another file.
    """

    def __init__(self, command_line: CommandLine, telemetry: Telemetry) -> None:
        self.command_line = command_line
        self.telemetry = telemetry
        self.is_refused = False
        self.known = self.stamps()

    async def changed(self) -> None:
        """Return once files have changed and their code can be loaded; until then the old code goes on."""
        while True:
            await sleep(LOOK_SECONDS)
            if (files := self.look()) and await self.loads(files):
                return

    def look(self) -> str:
        """Return in words which files have changed since the last look; nothing if none has."""
        now = self.stamps()
        changed = [file for file, stamp in now.items() if self.known.get(file, stamp) != stamp]
        self.known |= now
        return ", ".join(sorted(os.path.relpath(file, self.command_line.directory) for file in changed))

    async def loads(self, files: str) -> bool:
        """Tell whether the daemon would start with the code as it is, and report what becomes of that."""
        self.is_refused = True  # from before the check on: whatever comes beside the files meanwhile is seen
        self.known = self.stamps() | self.known
        if error := await in_thread(self.command_line.check):
            self.telemetry.emit("code.refused", files=files, error=error)
            return False
        self.telemetry.emit("code.changed", files=files)
        return True

    def stamps(self) -> Stamps:
        """Return when each file was written last; one that is away at this moment is being written."""
        files = own_files()
        if self.is_refused:
            files |= {str(Path(file).parent) for file in files}
        stamps = {}
        for file in files:
            try:
                stamps[file] = Path(file).stat().st_mtime_ns
            except OSError:
                continue
        return stamps


def own_files() -> set[str]:
    """Return the files of the loaded modules that the user has written."""
    ours = str(Path(__file__).parent)
    files = {getattr(module, "__file__", None) for module in list(sys.modules.values())}
    return {file for file in files if type(file) is str and not is_foreign(file, ours)}


def is_foreign(file: str, ours: str) -> bool:
    """Tell whether a file belongs to us, to Python, or to a package that was installed."""
    return file.startswith((*FOREIGN_CODE, ours)) or any(part in PACKAGES for part in Path(file).parts)
