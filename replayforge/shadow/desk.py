"""Comparisons that people ask a daemon for: one at a time, beside everything else, and kept for a while to be read."""

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from replayforge.domain.errors import Conflict, NotFound, Rejected
from replayforge.domain.identity import new_request_id
from replayforge.domain.recorded_run import RecordedRun
from replayforge.shadow.comparing import Question, compare
from replayforge.shadow.replayed import Job
from replayforge.shadow.replaying import HandlersNotLoaded
from replayforge.shadow.report import report_of
from replayforge.threads import in_thread

KEPT_MAX = 8


@dataclass(frozen=True, slots=True)
class KeptReport:
    """A report that can be read again: of which handlers, and the ids of the dead letters that these cure."""

    id: str
    handlers: str
    report: dict[str, Any]
    cured: list[str]


class ShadowDesk:
    """Compares recorded runs with the code of a file; `job` says how the daemon's own handlers are run."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.kept: OrderedDict[str, KeptReport] = OrderedDict()
        self.is_busy = False

    async def compare(self, handlers: str, runs: Sequence[RecordedRun]) -> KeptReport:
        """Return the report on the handlers of a module or file, which is kept.

        Raises Rejected where they cannot be loaded, Conflict while another comparison is under way. It has a loop and a
        thread of its own: thousands of documents are compared, and nobody may wait for that.
        """
        if self.is_busy:
            raise Conflict("Another comparison is under way; try again when it has ended.")
        question = Question(msgspec.structs.replace(self.job, handlers=(handlers,)))
        self.is_busy = True
        try:
            comparison = await in_thread(lambda: asyncio.run(compare(question, runs)))
        except HandlersNotLoaded as error:
            raise Rejected(str(error)) from error
        finally:
            self.is_busy = False
        kept = KeptReport(new_request_id(), handlers, report_of(comparison), comparison.cured)
        self.kept[kept.id] = kept
        if len(self.kept) > KEPT_MAX:
            self.kept.popitem(last=False)
        return kept

    def find(self, report_id: str) -> KeptReport:
        """Return a report; raises NotFound for one that is kept no longer."""
        if report_id not in self.kept:
            raise NotFound("This report is kept no longer; ask for another one.")
        return self.kept[report_id]
