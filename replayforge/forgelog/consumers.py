"""Named consumers: how far each outside reader has committed, kept in one small file."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from replayforge.batching import Batcher
from replayforge.domain.errors import Rejected
from replayforge.forgelog.atomic import NotWhole, read_whole, replace_file, seal, unseal
from replayforge.forgelog.disk import Disk
from replayforge.forgelog.errors import NEWER, LogRefused
from replayforge.forgelog.files import Files
from replayforge.threads import in_thread

CONSUMERS_NAME = "consumers.json"
CONSUMERS_MAX = 1000
FORMAT = 1
NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")


@dataclass(frozen=True, slots=True)
class Commit:
    """One consumer's word that it is done up to an offset."""

    consumer: str
    offset: int


def load_consumers(files: Files, directory: Path) -> dict[str, int]:
    """Return the committed offsets; raises LogRefused when the file is damaged."""
    try:
        if CONSUMERS_NAME not in files.list_directory(directory):
            return {}
        if not files.is_regular(directory / CONSUMERS_NAME):
            raise LogRefused("E_NOT_A_FILE", "it is not a regular file.", segment=CONSUMERS_NAME)
        content = unseal(read_whole(files, directory / CONSUMERS_NAME))
    except NotWhole as error:
        raise LogRefused("E_CONSUMERS", str(error), segment=CONSUMERS_NAME) from None
    except OSError as error:
        raise LogRefused("E_IO", f"it cannot be read ({error}).", segment=CONSUMERS_NAME) from error
    if content["format"] != FORMAT:
        raise LogRefused("E_VERSION", "it was written by a later version.", segment=CONSUMERS_NAME, remedy=NEWER)
    offsets: dict[str, int] = content["consumers"]
    return offsets


def save_consumers(disk: Disk, directory: Path, offsets: dict[str, int]) -> None:
    """Replace the file of committed offsets; durable when it returns."""
    replace_file(disk, directory / CONSUMERS_NAME, seal({"format": FORMAT, "consumers": offsets}))


class Consumers:
    """Takes commits from many callers and makes all that wait durable with one write."""

    def __init__(self, offsets: dict[str, int], save: Callable[[dict[str, int]], None]) -> None:
        self.offsets = offsets
        self.save = save
        self.batcher: Batcher[Commit, None] = Batcher(self.flush)

    async def commit(self, consumer: str, offset: int, durable_offset: int) -> None:
        """Return when the commit is durable. An offset below the committed one changes nothing.

        Raises Rejected for a bad name, an offset that is not in the log, or one name too many.
        """
        if not NAME.fullmatch(consumer):
            raise Rejected("A consumer's name is 1 to 64 characters of A-Z, a-z, 0-9, dot, underscore and hyphen.")
        if not 0 <= offset <= durable_offset:
            raise Rejected(f"Offset {offset} is not in the log, which ends at {durable_offset}.")
        known = self.offsets.get(consumer)
        if known is None and len(self.offsets) >= CONSUMERS_MAX:
            raise Rejected(f"There are {CONSUMERS_MAX:,} consumers already.")
        if known is None or offset > known:
            await self.batcher.add(Commit(consumer, offset))

    async def flush(self, commits: list[Commit]) -> Sequence[None]:
        """Write all commits that waited, then let them be seen."""
        offsets = dict(self.offsets)
        for commit in commits:
            offsets[commit.consumer] = max(commit.offset, offsets.get(commit.consumer, 0))
        await in_thread(self.save, offsets)
        self.offsets = offsets
        return [None] * len(commits)
