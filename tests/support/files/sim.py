"""A file system in memory that knows what a crash would leave behind.

Data becomes durable with fdatasync or fsync of its file, names with a sync of their directory; until then each sector
and each change of a name may or may not be there after a crash. A sector is written whole: one that a sync has covered
holds after a crash what it held then or what was written since, and only one that none has covered may hold garbage.

Which images a crash leaves follows from the operations so far and the random numbers handed in, from nothing else.
"""

import errno
import os
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

SECTOR = 512
Image = dict[str, bytes]


@dataclass(eq=False, slots=True)
class SimFile:
    """Files and images share their bytes until somebody writes: an image of a log costs next to nothing."""

    data: bytes | bytearray = b""
    durable: bytes = b""
    touched: set[int] = field(default_factory=set)  # sectors written since the last sync
    synced: set[int] = field(default_factory=set)  # sectors a sync has covered, whatever they hold: zeros, too
    found: int = 0  # how long the file was in the image that the disk began with
    locked: bool = False
    directory: bool = False

    def changeable(self) -> bytearray:
        if not isinstance(self.data, bytearray):
            self.data = bytearray(self.data)
        return self.data

    def settle(self) -> None:
        self.data = self.durable = bytes(self.data)
        self.synced |= self.touched
        self.touched.clear()

    def may_hold_garbage(self, sector: int) -> bool:
        """Tell whether nobody knows what an unfinished write leaves here."""
        return sector not in self.synced and sector * SECTOR >= self.found


@dataclass(frozen=True, slots=True)
class NameChange:
    """A rename, creation (source None) or removal (target None) that no directory sync has covered yet."""

    parent: str
    source: str | None
    target: str | None
    file: SimFile


class SimFiles:
    def __init__(self, image: Image | None = None) -> None:
        self.names: dict[str, SimFile] = {}
        self.durable_names: dict[str, SimFile] = {}
        self.changes: list[NameChange] = []
        self.handles: dict[int, SimFile] = {}
        self.next_handle = 100
        self.space: int | None = None  # how many bytes more the disk takes; None: any number
        self.before: Callable[[str], None] = lambda operation: None
        for name, content in (image or {}).items():
            self.names[name] = self.durable_names[name] = SimFile(content, content, found=len(content))

    # What the log may ask for

    def open(self, path: Path, *, write: bool = False, create: bool = False) -> int:
        name = str(path)
        file = self.names.get(name)
        if file is None:
            if not create:
                raise FileNotFoundError(errno.ENOENT, "No such file", name)
            self.before("create")
            file = self.names[name] = SimFile()
            self.changes.append(NameChange(os.path.dirname(name), None, name, file))
        if file.directory:
            raise IsADirectoryError(errno.EISDIR, "Is a directory", name)
        self.next_handle += 1
        self.handles[self.next_handle] = file
        return self.next_handle

    def close(self, handle: int) -> None:
        file = self.handles.pop(handle)
        if file not in self.handles.values():
            file.locked = False

    def pread(self, handle: int, size: int, position: int) -> bytes:
        return bytes(self.handles[handle].data[position : position + size])

    def pwrite(self, handle: int, data: bytes, position: int) -> int:
        self.before("pwrite")
        data = self.taken(data)
        file = self.handles[handle]
        content, end = file.changeable(), position + len(data)
        if end > len(content):
            content.extend(bytes(end - len(content)))
        content[position:end] = data
        file.touched.update(range(position // SECTOR, (end + SECTOR - 1) // SECTOR))
        return len(data)

    def taken(self, data: bytes) -> bytes:
        """What the disk has space for, which is less than was asked only on a full one."""
        if self.space is None:
            return data
        if not self.space:
            raise OSError(errno.ENOSPC, "No space")
        data = data[: self.space]
        self.space -= len(data)
        return data

    def size(self, handle: int) -> int:
        return len(self.handles[handle].data)

    def allocate(self, handle: int, size: int) -> None:
        self.before("allocate")
        data = self.handles[handle].changeable()
        if size > len(data):
            data.extend(bytes(size - len(data)))

    def truncate(self, handle: int, size: int) -> None:
        self.before("truncate")
        data = self.handles[handle].changeable()
        if size < len(data):
            del data[size:]
        else:
            data.extend(bytes(size - len(data)))

    def fdatasync(self, handle: int) -> None:
        self.before("fdatasync")
        self.handles[handle].settle()

    def fsync(self, handle: int) -> None:
        file = self.handles[handle]
        if file.touched or len(file.data) != len(file.durable):
            self.before("fsync")
            file.settle()

    def hold(self, path: Path) -> None:
        return

    def release(self, path: Path) -> None:
        return

    def is_in_place(self, path: Path) -> bool:
        return True

    def leads_to(self, path: Path, handle: int) -> bool:
        return self.names.get(str(path)) is self.handles[handle]

    def open_directory(self, path: Path) -> int:
        self.next_handle += 1
        self.handles[self.next_handle] = SimFile(directory=True)
        return self.next_handle

    def sync_directory(self, path: Path, handle: int) -> None:
        assert self.handles[handle].directory
        if self.changes:
            self.before("sync_directory")
        parent = str(path)
        for change in [change for change in self.changes if change.parent == parent]:
            apply_change(self.durable_names, change)
            self.changes.remove(change)

    def rename(self, source: Path, target: Path) -> None:
        self.before("rename")
        file = self.names.pop(str(source))
        self.names[str(target)] = file
        self.changes.append(NameChange(str(target.parent), str(source), str(target), file))

    def unlink(self, path: Path) -> None:
        self.before("unlink")
        file = self.names.pop(str(path))
        self.changes.append(NameChange(str(path.parent), str(path), None, file))

    def make_directory(self, path: Path) -> None:
        return

    def list_directory(self, path: Path) -> list[str]:
        parent = str(path) + "/"
        return [name[len(parent) :] for name in self.names if name.startswith(parent)]

    def is_regular(self, path: Path) -> bool:
        if str(path) not in self.names:
            raise FileNotFoundError(errno.ENOENT, "No such file", str(path))
        return not self.names[str(path)].directory

    def lock(self, handle: int) -> bool:
        file = self.handles[handle]
        taken, file.locked = file.locked, True
        return not taken

    def is_locked(self, handle: int) -> bool:
        return self.handles[handle].locked

    def drop_cache(self, handle: int) -> None:
        return

    def owner(self, path: Path) -> int:
        return os.getuid()

    def kind(self, path: Path) -> str:
        return "sim"

    # What a test may ask for

    def image(self) -> Image:
        """What a reader of the running system sees."""
        return {name: bytes(file.data) for name, file in self.names.items()}

    def harshest(self) -> Image:
        """What is left when nothing that was not synced survives."""
        return {name: file.durable for name, file in self.durable_names.items()}

    def crash_images(self, rng: random.Random, randoms: int) -> Iterator[Image]:
        """Yield what a crash now could leave: subsets of unsynced sectors over zeros and garbage, times names.

        Each is another one: an image that two of the choices lead to comes once.
        """
        seen: set[frozenset[tuple[str, bytes]]] = set()
        for names in self.surviving_names(rng):
            for pick in self.sector_picks(list(dict.fromkeys(names.values())), rng, randoms):
                image = {name: self.surviving(file, pick, rng) for name, file in names.items()}
                known = len(seen)
                seen.add(frozenset(image.items()))
                if len(seen) > known:
                    yield image

    def surviving_names(self, rng: random.Random) -> Iterator[dict[str, SimFile]]:
        count = len(self.changes)
        picks = {(1 << count) - 1, 0} | {1 << bit for bit in range(count)} if count < 4 else {(1 << count) - 1, 0}
        picks |= {rng.getrandbits(count) for _ in range(2)} if count > 1 else set()
        for pick in sorted(picks):
            names = dict(self.durable_names)
            for bit, change in enumerate(self.changes):
                if pick >> bit & 1:
                    apply_change(names, change)
            yield names

    def sector_picks(self, files: list[SimFile], rng: random.Random, randoms: int) -> Iterator["Pick"]:
        dirty = [(file, sector) for file in files for sector in sorted(file.touched)]
        if not dirty:
            resized = any(len(file.data) != len(file.durable) for file in files)
            yield Pick(frozenset(), "old", grown=True)
            if resized:
                yield Pick(frozenset(), "old", grown=False)
            return
        counts = (0, 1, len(dirty) // 2, len(dirty) - 1, len(dirty))
        choices = [frozenset(dirty[:count]) for count in counts]
        choices += [frozenset(dirty) - {one} for one in rng.sample(dirty, min(4, len(dirty)))]
        choices += [frozenset(one for one in dirty if rng.random() < 0.5) for _ in range(randoms)]
        for choice in dict.fromkeys(choices):
            yield Pick(choice, "old", grown=rng.random() < 0.5)
            yield Pick(choice, "zeros", grown=True)
            yield Pick(choice, "garbage", grown=True)

    def surviving(self, file: SimFile, pick: "Pick", rng: random.Random) -> bytes:
        if not file.touched:
            return bytes(file.data) if pick.grown else file.durable
        size = len(file.data) if pick.grown else len(file.durable)
        content = bytearray(file.durable[:size].ljust(size, b"\0"))
        for sector in sorted(file.touched):
            begin, end = sector * SECTOR, min((sector + 1) * SECTOR, len(file.data))
            if (file, sector) in pick.kept:
                if len(content) < end:
                    content.extend(bytes(end - len(content)))
                content[begin:end] = file.data[begin:end]
            elif pick.rest != "old" and begin < len(content) and file.may_hold_garbage(sector):
                end = min(end, len(content))
                rest = bytes(SECTOR) if pick.rest == "zeros" else rng.randbytes(SECTOR)
                content[begin:end] = rest[: end - begin]
        return bytes(content)


@dataclass(frozen=True, slots=True)
class Pick:
    """Which unsynced sectors made it, what stands in the others, and whether the new size made it."""

    kept: frozenset[tuple[SimFile, int]]
    rest: str
    grown: bool


def apply_change(names: dict[str, SimFile], change: NameChange) -> None:
    if change.source is not None:
        names.pop(change.source, None)
    if change.target is not None:
        names[change.target] = change.file
