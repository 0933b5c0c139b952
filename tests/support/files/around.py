"""File systems around another one: TraceFiles notes what is asked for, FaultFiles lets it fail."""

import errno
from collections import Counter
from collections.abc import Callable
from typing import Any, cast

from replayforge.forgelog.files import Files

SYNCS = frozenset({"fdatasync", "fsync", "sync_directory"})

Method = Callable[..., Any]


class Around:
    """Hands every call to `around`, which may do something before it, after it, or instead of it."""

    def __init__(self, inner: Files) -> None:
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        method, around = getattr(self.inner, name), self.around

        def call(*arguments: Any, **named: Any) -> Any:
            return around(name, method, arguments, named)

        self.__dict__[name] = call
        return call

    def around(self, name: str, method: Method, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        raise NotImplementedError

    @property
    def files(self) -> Files:
        """The same, as the log sees it."""
        return cast("Files", self)


class TraceFiles(Around):
    """Notes each operation and its first argument."""

    def __init__(self, inner: Files) -> None:
        super().__init__(inner)
        self.trace: list[tuple[str, Any]] = []

    def around(self, name: str, method: Method, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        self.trace.append((name, arguments[0]))
        return method(*arguments, **named)

    def operations(self, *names: str) -> list[str]:
        return [name for name, _ in self.trace if name in names]


class FaultFiles(Around):
    """Fails the k-th call (from 1; 0 means never), once or from then on. `only` narrows the calls that are counted."""

    def __init__(
        self, inner: Files, *, at: int, code: int = errno.EIO, sticky: bool = False, only: frozenset[str] | None = None,
        short: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(inner)
        self.at = at
        self.code = code
        self.sticky = sticky
        self.only = only
        self.short = short
        self.calls = 0
        self.failed: list[str] = []
        self.counts: Counter[str] = Counter()
        self.syncs_after_failed_sync = 0

    def around(self, name: str, method: Method, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        self.counts[name] += 1
        if name in SYNCS and SYNCS.intersection(self.failed):
            self.syncs_after_failed_sync += 1
        if self.only is None or name in self.only:
            self.calls += 1
            if self.calls == self.at or (self.sticky and self.at and self.calls > self.at):
                return self.fail(name, method, arguments, named)
        return method(*arguments, **named)

    def fail(self, name: str, method: Method, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        if name in ("close", "release"):  # the handle is gone whatever close says
            return method(*arguments, **named)
        self.failed.append(name)
        if self.short:
            if name != "pwrite":
                return method(*arguments, **named)
            handle, data, position = arguments
            return method(handle, data[: max(len(data) // 2, 1)], position)
        raise OSError(self.code, f"injected into {name}")
