"""The one seam to the file system: everything the log does to a disk goes through these few methods."""

import errno
import fcntl
import os
import stat
import struct
from contextlib import suppress
from os import fstat, fsync, pwrite
from pathlib import Path
from typing import Protocol

from replayforge.descriptors import Descriptors

# Bound here, as those above are: handlers can replace what is looked up in a module each time.
fdatasync = getattr(os, "fdatasync", fsync)
# struct flock with 64-bit offsets: type, whence, start, length, pid (always 0 for a lock of the open file).
FLOCK = struct.Struct("hhqqi4x")
NOT_SUPPORTED = (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)
NETWORK_KINDS = ("nfs", "cifs", "smb", "fuse", "9p", "ceph", "afs", "glusterfs", "lustre")


class Files(Protocol):
    """A file system. Handles are small integers; every method raises OSError when the system does."""

    def open(self, path: Path, *, write: bool = False, create: bool = False) -> int:
        """Open a regular file, never through a symbolic link; `create` makes it when missing (and implies write)."""
        ...

    def close(self, handle: int) -> None:
        """Give the handle back."""
        ...

    def pread(self, handle: int, size: int, position: int) -> bytes:
        """Return up to `size` bytes at `position`; fewer only at the end of the file."""
        ...

    def pwrite(self, handle: int, data: bytes, position: int) -> int:
        """Write at `position` and return how many bytes were taken, which may be fewer than given."""
        ...

    def size(self, handle: int) -> int:
        """Return the size of the file in bytes."""
        ...

    def allocate(self, handle: int, size: int) -> None:
        """Make the file at least `size` bytes long with its space reserved; a no-op where that is not supported."""
        ...

    def truncate(self, handle: int, size: int) -> None:
        """Cut the file to `size` bytes."""
        ...

    def fdatasync(self, handle: int) -> None:
        """Make the data of the file durable."""
        ...

    def fsync(self, handle: int) -> None:
        """Make the data and the attributes of the file durable."""
        ...

    def hold(self, path: Path) -> None:
        """Keep a directory open: all in it is reached through this handle now, whatever becomes of its name."""
        ...

    def release(self, path: Path) -> None:
        """Let go of a directory that `hold` keeps open, if it does."""
        ...

    def is_in_place(self, path: Path) -> bool:
        """Tell whether the name of a held directory still leads to it."""
        ...

    def leads_to(self, path: Path, handle: int) -> bool:
        """Tell whether a name leads to this open file."""
        ...

    def open_directory(self, path: Path) -> int:
        """Open a directory, for `sync_directory`."""
        ...

    def sync_directory(self, path: Path, handle: int) -> None:
        """Make the names in a directory durable, through a handle from `open_directory`."""
        ...

    def rename(self, source: Path, target: Path) -> None:
        """Give a file a new name, replacing what had it."""
        ...

    def unlink(self, path: Path) -> None:
        """Remove a name."""
        ...

    def make_directory(self, path: Path) -> None:
        """Make a directory and those above it for this user alone; one that is there is left as it is."""
        ...

    def list_directory(self, path: Path) -> list[str]:
        """Return the names in a directory."""
        ...

    def is_regular(self, path: Path) -> bool:
        """Tell whether the name is a regular file and no symbolic link."""
        ...

    def lock(self, handle: int) -> bool:
        """Take the exclusive lock of an open file; False when anyone else, also this process, holds it."""
        ...

    def is_locked(self, handle: int) -> bool:
        """Tell whether anyone holds the lock of an open file, without taking it."""
        ...

    def drop_cache(self, handle: int) -> None:
        """Forget cached pages, so that the next read asks the disk."""
        ...

    def owner(self, path: Path) -> int:
        """Return the user id that owns the path."""
        ...

    def kind(self, path: Path) -> str:
        """Return the kind of file system the path is on, such as "ext4"."""
        ...


class OsFiles:
    """The operating system's own files.

    What lies in a held directory is named relative to its handle, so that neither a change of the working directory nor
    another directory under the same name makes anybody write elsewhere. Nor is anything written through the number of a
    handle that somebody has closed: by then it may lead to another file.
    """

    def __init__(self) -> None:
        self.held: dict[Path, int] = {}
        self.opened = Descriptors()

    def place(self, path: Path) -> tuple[str, int | None]:
        """Return the name of a file and the handle of the directory it is relative to, None where that is not held."""
        directory = self.held.get(path.parent)
        return (str(path), None) if directory is None else (path.name, directory)

    def open(self, path: Path, *, write: bool = False, create: bool = False) -> int:
        """Open a regular file, never through a symbolic link; `create` makes it when missing (and implies write)."""
        name, directory = self.place(path)
        flags = os.O_CLOEXEC | os.O_NOFOLLOW | (os.O_RDWR if write or create else os.O_RDONLY)
        if create:
            try:
                handle = os.open(name, flags | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=directory)
            except FileExistsError:
                pass
            else:
                os.fchmod(handle, 0o600)  # whatever the umask
                return self.opened.note(handle)
        return self.opened.note(os.open(name, flags, dir_fd=directory))

    def close(self, handle: int) -> None:
        """Give the handle back."""
        self.opened.close(handle)

    def pread(self, handle: int, size: int, position: int) -> bytes:
        """Return up to `size` bytes at `position`; fewer only at the end of the file."""
        data = os.pread(handle, size, position)
        while len(data) < size:
            more = os.pread(handle, size - len(data), position + len(data))
            if not more:
                break
            data += more
        return data

    def pwrite(self, handle: int, data: bytes, position: int) -> int:
        """Write at `position` and return how many bytes were taken, which may be fewer than given."""
        self.opened.check(handle)
        return pwrite(handle, data, position)

    def size(self, handle: int) -> int:
        """Return the size of the file in bytes."""
        return fstat(handle).st_size

    def allocate(self, handle: int, size: int) -> None:
        """Make the file at least `size` bytes long with its space reserved; a no-op where that is not supported."""
        if not hasattr(os, "posix_fallocate"):
            return
        self.opened.check(handle)
        try:
            os.posix_fallocate(handle, 0, size)
        except OSError as error:
            if error.errno not in NOT_SUPPORTED:
                raise

    def truncate(self, handle: int, size: int) -> None:
        """Cut the file to `size` bytes."""
        self.opened.check(handle)
        os.ftruncate(handle, size)

    def fdatasync(self, handle: int) -> None:
        """Make the data of the file durable."""
        self.opened.check(handle)
        if hasattr(fcntl, "F_FULLFSYNC"):  # macOS: only this reaches the disk
            fcntl.fcntl(handle, fcntl.F_FULLFSYNC)
        else:
            fdatasync(handle)

    def fsync(self, handle: int) -> None:
        """Make the data and the attributes of the file durable."""
        if hasattr(fcntl, "F_FULLFSYNC"):
            fcntl.fcntl(handle, fcntl.F_FULLFSYNC)
        else:
            fsync(handle)

    def hold(self, path: Path) -> None:
        """Keep a directory open: all in it is reached through this handle now, whatever becomes of its name."""
        self.held[path] = self.open_directory(path)

    def release(self, path: Path) -> None:
        """Let go of a directory that `hold` keeps open, if it does."""
        handle = self.held.pop(path, None)
        if handle is not None:
            self.opened.close(handle)

    def is_in_place(self, path: Path) -> bool:
        """Tell whether the name of a held directory still leads to it."""
        try:
            return os.path.samestat(path.stat(), fstat(self.held[path]))
        except (FileNotFoundError, NotADirectoryError):
            return False

    def leads_to(self, path: Path, handle: int) -> bool:
        """Tell whether a name leads to this open file."""
        name, directory = self.place(path)
        try:
            return os.path.samestat(os.stat(name, dir_fd=directory, follow_symlinks=False), fstat(handle))
        except (FileNotFoundError, NotADirectoryError):
            return False

    def open_directory(self, path: Path) -> int:
        """Open a directory, for `sync_directory`."""
        held = self.held.get(path)
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        return self.opened.note(os.open(path if held is None else ".", flags, dir_fd=held))

    def sync_directory(self, path: Path, handle: int) -> None:
        """Make the names in a directory durable, through a handle from `open_directory`."""
        fsync(handle)

    def rename(self, source: Path, target: Path) -> None:
        """Give a file a new name, replacing what had it."""
        (old, old_directory), (new, new_directory) = self.place(source), self.place(target)
        os.replace(old, new, src_dir_fd=old_directory, dst_dir_fd=new_directory)

    def unlink(self, path: Path) -> None:
        """Remove a name."""
        name, directory = self.place(path)
        os.unlink(name, dir_fd=directory)

    def make_directory(self, path: Path) -> None:
        """Make a directory and those above it for this user alone; one that is there is left as it is."""
        make_private_directory(path)

    def list_directory(self, path: Path) -> list[str]:
        """Return the names in a directory."""
        held = self.held.get(path)
        return [entry.name for entry in path.iterdir()] if held is None else os.listdir(held)  # noqa: PTH208

    def is_regular(self, path: Path) -> bool:
        """Tell whether the name is a regular file and no symbolic link."""
        name, directory = self.place(path)
        return stat.S_ISREG(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode)

    def lock(self, handle: int) -> bool:
        """Take the exclusive lock of an open file; False when anyone else, also this process, holds it."""
        try:
            if hasattr(fcntl, "F_OFD_SETLK"):
                fcntl.fcntl(handle, fcntl.F_OFD_SETLK, FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
            else:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                return False
            raise
        return True

    def is_locked(self, handle: int) -> bool:
        """Tell whether anyone holds the lock of an open file, without taking it; False where that cannot be asked."""
        if not hasattr(fcntl, "F_OFD_GETLK"):
            return False
        answer = fcntl.fcntl(handle, fcntl.F_OFD_GETLK, FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
        kind: int = FLOCK.unpack(answer)[0]
        return kind != fcntl.F_UNLCK

    def drop_cache(self, handle: int) -> None:
        """Forget cached pages, so that the next read asks the disk."""
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)

    def owner(self, path: Path) -> int:
        """Return the user id that owns the path."""
        return path.stat().st_uid

    def kind(self, path: Path) -> str:
        """Return the kind of file system the path is on, such as "ext4"."""
        mounts = Path("/proc/self/mountinfo")
        return kind_of_mount(mounts.read_text(), path.resolve()) if mounts.exists() else "unknown"


def make_private_directory(path: Path) -> None:
    """Make a directory and those above it for this user alone, whatever the umask; leave those that are there."""
    if path.is_dir():
        return
    make_private_directory(path.parent)
    with suppress(FileExistsError):
        path.mkdir(mode=0o700)
        path.chmod(0o700)
    if not path.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))


def kind_of_mount(mountinfo: str, path: Path) -> str:
    """Find in the text of /proc/self/mountinfo the kind of file system that `path` is on; the longest mount wins."""
    found, kind = "", "unknown"
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        mount = before.split()[4].replace("\\040", " ")
        if path.is_relative_to(mount) and len(mount) >= len(found):
            found, kind = mount, after.split()[0]
    return kind


def is_network(kind: str) -> bool:
    """Tell whether a kind of file system may break the promises of fsync or of locks."""
    return kind.startswith(NETWORK_KINDS)
