"""A sink takes lines at once, whatever becomes of them, and counts what nobody will see."""

import contextlib
import errno
import fcntl
import os
import threading
from collections.abc import Iterator

import pytest

from replayforge.line_sink import LineSink, SinkStream
from tests.support.daemon_process import until

PIPE_BYTES = 65_536


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    yield reading, writing
    for descriptor in (reading, writing):
        with contextlib.suppress(OSError):  # the test has closed it
            os.close(descriptor)


def read_all(descriptor: int) -> bytes:
    os.set_blocking(descriptor, False)
    found = b""
    while True:
        try:
            piece = os.read(descriptor, PIPE_BYTES)
        except BlockingIOError:
            return found
        if not piece:
            return found
        found += piece


def test_lines_come_out_whole_and_in_order(pipe: tuple[int, int]) -> None:
    """What many threads write comes out line by line, each thread's in its order."""
    sink = LineSink("stderr", pipe[1])

    def write(name: bytes) -> None:
        for number in range(100):
            sink.write(b"%s %d\n" % (name, number))

    threads = [threading.Thread(target=write, args=(name,)) for name in (b"a", b"b", b"c")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sink.flush(10)
    lines = read_all(pipe[0]).split(b"\n")
    for name in (b"a", b"b", b"c"):
        assert [line for line in lines if line.startswith(name)] == [b"%s %d" % (name, n) for n in range(100)]


@pytest.mark.parametrize("blocking", [True, False])
def test_a_pipe_that_nobody_reads(pipe: tuple[int, int], blocking: bool) -> None:
    """Writing to it returns at once; what finds no room is counted, and said as soon as somebody reads."""
    os.set_blocking(pipe[1], blocking)
    sink = LineSink("stderr", pipe[1], lines_bytes_max=100_000)
    for _ in range(1000):
        sink.write(b"x" * 999 + b"\n")
    assert not sink.flush(0.01)
    assert sink.dropped > 500
    dropped, found = sink.dropped, bytearray()

    def drained() -> bool:
        found.extend(read_all(pipe[0]))
        return sink.flush(0)

    until(drained)
    sink.write(b"back\n")
    assert until(drained)
    found.extend(read_all(pipe[0]))
    lines = bytes(found).splitlines()
    assert lines[-1] == b"back"
    assert sum(int(line.split()[0]) for line in lines if line.endswith(b"dropped")) == dropped
    assert lines.count(b"x" * 999) == 1000 - dropped


def test_a_full_disk() -> None:
    """A device without room costs every line, and each is counted; the reason is told."""
    descriptor = os.open("/dev/full", os.O_WRONLY)
    try:
        sink = LineSink("stderr", descriptor)
        for _ in range(50):
            sink.write(b"x\n")
        assert sink.flush(10)
        assert sink.dropped == 50
        assert sink.trouble() == os.strerror(errno.ENOSPC)
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("what", ["closed", "reader gone"])
def test_a_descriptor_that_is_gone(pipe: tuple[int, int], what: str) -> None:
    """A closed descriptor, or a pipe whose reader has ended, costs lines and nothing else."""
    os.close(pipe[1] if what == "closed" else pipe[0])
    sink = LineSink("stderr", pipe[1])
    sink.write(b"x\n")
    assert sink.flush(10)
    assert sink.dropped == 1
    assert sink.trouble()


def test_a_line_that_broke_off_is_ended_before_the_next(pipe: tuple[int, int]) -> None:
    """After an error inside a line the output goes on with a new line, and says how many are missing."""
    sink = LineSink("stderr", pipe[1])
    sink.torn, sink.unsaid, sink.dropped = True, 3, 3
    os.write(pipe[1], b"half of a li")
    sink.write(b"next\n")
    assert sink.flush(10)
    assert read_all(pipe[0]) == b"half of a li\n3 lines were dropped\nnext\n"
    assert (sink.dropped, sink.trouble()) == (3, "")


def test_a_small_pipe_takes_a_long_line_in_parts(pipe: tuple[int, int]) -> None:
    """A line longer than the pipe comes out whole, however many writes it takes."""
    fcntl.fcntl(pipe[1], fcntl.F_SETPIPE_SZ, 4096)
    os.set_blocking(pipe[1], False)
    sink, found = LineSink("stderr", pipe[1]), bytearray()
    sink.write(b"y" * 50_000 + b"\n")

    def drained() -> bool:
        found.extend(read_all(pipe[0]))
        return sink.flush(0)

    until(drained)
    found.extend(read_all(pipe[0]))
    assert found == b"y" * 50_000 + b"\n"


def test_a_writer_that_is_interrupted_by_itself(pipe: tuple[int, int]) -> None:
    """A destructor or a signal handler may write while its own thread is writing."""
    sink = LineSink("stderr", pipe[1])
    with sink.changed:
        sink.write(b"inner\n")
    assert sink.flush(10)
    assert read_all(pipe[0]) == b"inner\n"


def test_a_forked_child_writes_by_itself(pipe: tuple[int, int]) -> None:
    """A child has no writing thread; what it writes comes out, what its parent had waiting does not come out twice."""
    sink = LineSink("stderr", pipe[1])
    sink.write(b"parent\n")
    assert sink.flush(10)
    child = os.fork()
    if child == 0:
        sink.write(b"child\n")
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    sink.write(b"parent again\n")
    assert sink.flush(10)
    assert read_all(pipe[0]) == b"parent\nchild\nparent again\n"


def test_print_hands_on_whole_lines(pipe: tuple[int, int]) -> None:
    """A stream on a sink keeps the beginning of a line until its end comes."""
    sink = LineSink("stdout", pipe[1])
    stream = SinkStream(sink, 1)
    for piece in (b"be", b"gun\nnext", b" one\n"):
        assert stream.write(piece) == len(piece)
    stream.close()
    assert sink.flush(10)
    assert read_all(pipe[0]) == b"begun\nnext one\n"
