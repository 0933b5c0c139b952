"""A process that has imported everything and forks a child (see child.py) for each line it reads."""

import asyncio
import os
import sys
from pathlib import Path

from tests.crash.forgelog.child import main


def fork(line: str) -> int:
    directory, *numbers, output, fail_sync_at = line.split()
    pipe = os.open(output, os.O_WRONLY)
    pid = os.fork()
    if pid == 0:
        os.environ["FAIL_SYNC_AT"] = fail_sync_at  # for a library that was loaded in front of libc
        for handle in (1, 2):
            os.dup2(pipe, handle)
        os._exit(asyncio.run(main(Path(directory), *map(int, numbers))))
    os.close(pipe)
    return pid


while line := sys.stdin.readline().strip():
    pid = fork(line)
    sys.stdout.write(f"{pid}\n")
    sys.stdout.flush()
    sys.stdin.readline()  # the parent has killed it, or heard all that it said
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    sys.stdout.write(f"{code}\n")
    sys.stdout.flush()
