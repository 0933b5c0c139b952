"""The launcher of daemons, with something small in the daemon's place."""

import subprocess
import sys

import pytest

from replayforge.serve_process import EndedTooEarly, ServeProcess

ORDERLY = """
import signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
print("X listens on u", flush=True)
signal.sigwait([signal.SIGTERM])
sys.stdout.buffer.write(b"last \\xff\\n")
sys.exit(7)
"""


def started(command: list[str], said: list[str], errors: list[str]) -> ServeProcess:
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    return ServeProcess(process, said.append, errors.append)


def test_its_address_is_the_one_that_it_says_first() -> None:
    """The address is known once the line with it was heard; lines that only hold the words are no such line."""
    said: list[str] = []
    script = "echo nobody here listens on it; echo X listens on http://first; echo X listens on http://second; read end"
    process = started(["sh", "-c", script], said, [])
    assert process.wait_listening(10) == "http://first"
    assert said[:2] == ["nobody here listens on it", "X listens on http://first"]
    assert process.exit_code is None
    assert process.kill() == -9


def test_one_that_ends_before_it_listens_is_named() -> None:
    """Nobody waits for the address of a process that has ended, and what it said is known."""
    said: list[str] = []
    errors: list[str] = []
    process = started(["sh", "-c", "echo out; echo err >&2; exit 3"], said, errors)
    with pytest.raises(EndedTooEarly):
        process.wait_listening()
    assert process.wait() == 3
    assert (said, errors) == (["out"], ["err"])


def test_all_it_said_is_heard_before_its_end_is_told() -> None:
    """An ordered end returns the exit code after the last line, whatever bytes are in it."""
    said: list[str] = []
    process = started([sys.executable, "-S", "-c", ORDERLY], said, [])
    process.wait_listening(10)
    assert process.terminate(10) == 7
    assert said[-1] == "last \\xff"
    assert process.terminate(10) == 7  # once more is harmless
