"""What surrounds a demo: the directory its data is in, and the signals that end it."""

import contextlib
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import FrameType


@contextlib.contextmanager
def data_directory(data_dir: Path | None) -> Iterator[Path]:
    """Return the data directory; one that nobody named is removed at the end, but for what a failed run left in it.

    A run that was told to end has not failed.
    """
    if data_dir is not None:
        yield data_dir
        return
    made = Path(tempfile.mkdtemp(prefix="replayforge-demo-"))
    try:
        yield made
    except KeyboardInterrupt:
        shutil.rmtree(made, ignore_errors=True)
        raise
    except BaseException:
        with contextlib.suppress(OSError):
            made.rmdir()  # only an empty one
        raise
    shutil.rmtree(made, ignore_errors=True)


@contextlib.contextmanager
def told_to_end() -> Iterator[None]:
    """Let SIGTERM and a closed terminal end the program as Ctrl-C does, so that everything is cleaned up."""

    def hear(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    former = {number: signal.signal(number, hear) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
