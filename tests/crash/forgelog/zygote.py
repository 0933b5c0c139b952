"""A process that has imported everything and forks a child (see child.py) for each line it reads."""

import asyncio
import os
import sys
from pathlib import Path

from tests.crash.forgelog.child import main


def fork(line: str) -> int:
    directory, *numbers, output = line.split()
    pipe = os.open(output, os.O_WRONLY)
    pid = os.fork()
    if pid == 0:
        os.dup2(pipe, 1)
        os._exit(asyncio.run(main(Path(directory), *map(int, numbers))))
    os.close(pipe)
    return pid


while line := sys.stdin.readline().strip():
    pid = fork(line)
    sys.stdout.write(f"{pid}\n")
    sys.stdout.flush()
    sys.stdin.readline()  # the parent has killed it
    os.waitpid(pid, 0)
    sys.stdout.write("reaped\n")
    sys.stdout.flush()
