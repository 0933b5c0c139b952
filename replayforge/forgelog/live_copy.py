"""A copy of a log that a daemon may be writing: its files are held from the first look on, then copied in order."""

from contextlib import suppress
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from replayforge.domain.clock import SystemClock
from replayforge.forgelog.check import CheckReport, verify
from replayforge.forgelog.consumers import CONSUMERS_NAME, load_consumers, save_consumers
from replayforge.forgelog.disk import Disk
from replayforge.forgelog.errors import LogRefused
from replayforge.forgelog.files import Files
from replayforge.forgelog.findings import LogVerdict
from replayforge.forgelog.header import segment_name
from replayforge.forgelog.log_recovery import segment_ids
from replayforge.forgelog.manifest import Manifest, load_manifest, save_manifest
from replayforge.forgelog.transfer import copy_open_file

LOOKS_MAX = 5


class HeldLog:
    """The segments of a log, held open: retention may remove their names, but not what they hold.

    Call `look` often enough to see each segment before retention removes it; the first call holds all there are.
    """

    def __init__(self, files: Files, source: Path) -> None:
        self.files = files
        self.source = source
        self.handles: dict[int, int] = {}
        self.first: Manifest | None = None
        self.latest = Manifest("")

    def look(self) -> None:
        """Hold what is new; raises LogRefused when a segment went before it could be held."""
        for _ in range(LOOKS_MAX):
            self.latest = load_manifest(self.files, self.source)
            self.first = self.first or self.latest
            least = max([self.latest.first_segment - 1, *self.handles])
            ids = [number for number in segment_ids(self.files.list_directory(self.source)) if number > least]
            with suppress(FileNotFoundError):  # retention came between; the manifest says so by now
                for number in ids:
                    self.handles[number] = self.files.open(self.source / segment_name(number))
                return
        raise LogRefused("E_MISSING", f"retention removes segments of {self.source} faster than they can be held.")

    def copy(self, target: Path, **changes: Any) -> CheckReport:
        """Copy what is held into an empty or new directory, durably, and verify every record of the copy.

        `changes` are those to the manifest, which comes last. Raises LogRefused when the copy is not sound.
        """
        assert self.first is not None
        disk = Disk(self.files, SystemClock())
        self.files.make_directory(target)
        for number in sorted(self.handles):
            copy_open_file(disk, self.handles[number], target / segment_name(number))
        if CONSUMERS_NAME in self.files.list_directory(self.source):
            save_consumers(disk, target, load_consumers(self.files, self.source))
        held = {"first_segment": min(self.handles), "last_segment": max(self.handles), "gaps": self.first.gaps}
        save_manifest(disk, target, replace(self.latest, **held, **changes))
        report = verify(self.files, target, deep=True)
        if report.verdict not in (LogVerdict.CLEAN, LogVerdict.TORN):
            raise LogRefused("E_CORRUPT", f"the copy of {self.source} is not sound: {report.findings[0].in_words()}")
        return report

    def close(self) -> None:
        """Let go of the segments."""
        for handle in self.handles.values():
            self.files.close(handle)
        self.handles = {}
