"""Open files that only a number names: whether it still leads to what was opened under it.

Any code of the process may close a descriptor that is not its own, and whatever is opened next gets its number.
"""

import errno
from collections.abc import Iterable
from os import close, fstat
from pathlib import Path

from replayforge.forks import link_of, open_descriptors

NOWHERE = (-1, -1)


class Descriptors:
    """Descriptors, each with the identity of its file."""

    def __init__(self) -> None:
        self.known: dict[int, tuple[int, int]] = {}

    def note(self, descriptor: int) -> int:
        """Remember what a descriptor leads to that was opened just now, and return it.

        Raises OSError when it has the number of another one of ours, which somebody must have closed: from then on the
        number leads nowhere for either.
        """
        found = fstat(descriptor)
        if descriptor in self.known:
            self.known[descriptor] = NOWHERE
            close(descriptor)
            self.check(descriptor)
        self.known[descriptor] = (found.st_dev, found.st_ino)
        return descriptor

    def check(self, descriptor: int) -> None:
        """Raise OSError unless it leads to the same file still."""
        if descriptor in self.known and not self.is_ours(descriptor):
            words = "was closed by other code of this process, and may be somebody else's by now"
            raise OSError(errno.EBADF, f"descriptor {descriptor} {words}")

    def check_all(self) -> None:
        """Raise OSError unless each of them does."""
        for descriptor in self.known:
            self.check(descriptor)

    def close(self, descriptor: int) -> None:
        """Close a descriptor, unless it is somebody else's by now."""
        if self.is_ours(descriptor):
            close(descriptor)
        self.known.pop(descriptor, None)

    def is_ours(self, descriptor: int) -> bool:
        """Tell whether a descriptor leads to the file that it was opened for."""
        try:
            found = fstat(descriptor)
        except OSError:
            return False
        return self.known.get(descriptor) == (found.st_dev, found.st_ino)


def leading_to(paths: Iterable[Path]) -> Descriptors:
    """Return the descriptors that lead to these files; none where the system does not tell."""
    wanted, found = {str(path) for path in paths}, Descriptors()
    for descriptor in open_descriptors():
        try:
            if link_of(descriptor) in wanted:
                found.note(descriptor)
        except OSError:  # another thread has closed it
            continue
    return found
