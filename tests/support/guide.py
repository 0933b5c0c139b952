"""Runs what a document of the guide shows: its files are written, its commands run by a shell beside a daemon.

A fenced block says after its language into which file it goes: "python handlers.py"; blocks for one file are joined.
All blocks of `sh` are one script, in which `replayforge` is this one; one that needs a program names it, "sh node". A
block of `text` behind one of them is what it prints, where "…" stands for anything and lines may be left out. The port
8787 is the daemon's, 3999 and 8080 are those of others beside it, whichever they are.
"""

import os
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from shutil import which

import replayforge
from tests.support.daemon_process import REPOSITORY, DaemonProcess

DOCS = Path(replayforge.__file__).parent / "docs"
FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PROGRAM = '#!/bin/sh\nexec "{python}" -m replayforge "$@"\n'
MARK = "=== block"


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: its language, the file it goes into, and what is in it."""

    language: str
    file: str
    text: str


def blocks(document: str) -> list[Block]:
    """Return the fenced blocks of a document, in order."""
    source = (DOCS / f"{document}.md").read_text(encoding="utf-8")
    found = []
    for info, text in FENCE.findall(source):
        language, _, file = info.partition(" ")
        found.append(Block(language, file, text))
    return found


def write_files(document: str, folder: Path, ports: Mapping[str, str]) -> list[str]:
    """Write the files that a document shows into a folder, and return their names."""
    contents: dict[str, list[str]] = defaultdict(list)
    for block in blocks(document):
        if block.file and block.language != "sh":
            contents[block.file].append(block.text)
    for name, texts in contents.items():
        (folder / name).write_text(with_ports("\n".join(texts), ports), encoding="utf-8")
    return list(contents)


def with_ports(text: str, ports: Mapping[str, str]) -> str:
    """Return what a document shows with the ports that are free here."""
    return re.sub("|".join(ports) or r"(?!)", lambda shown: ports[shown[0]], text)  # in one go: a port may hold another


def run_commands(
    document: str, daemon: DaemonProcess, ports: Mapping[str, str], timeout_seconds: float = 100
) -> list[str]:
    """Run the commands of a document in the daemon's directory; every one exits 0, and prints what is said.

    Returns the programs that some of them need and that are not here.
    """
    shown = blocks(document)
    missing = [one.file for one in shown if one.language == "sh" and one.file and not which(one.file)]
    run = {number: one for number, one in enumerate(shown) if one.language == "sh" and one.file not in missing}
    script = "set -eu\n" + "".join(f"echo '{MARK} {number}'\n{block.text}" for number, block in run.items())
    done = subprocess.run(
        ["bash", "-c", with_ports(script, ports)], cwd=daemon.directory, env=shell_environment(daemon, ports["8787"]),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=timeout_seconds, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:]
    printed = dict(re.findall(rf"^{MARK} (\d+)\n(.*?)(?=^{MARK}|\Z)", done.stdout, re.MULTILINE | re.DOTALL))
    for number in run:
        if number + 1 < len(shown) and shown[number + 1].language == "text":
            assert_printed(shown[number + 1].text, printed[str(number)])
    return missing


def shell_environment(daemon: DaemonProcess, port: str) -> dict[str, str]:
    """Return the environment of the shell, in which `replayforge` is this one and speaks with the daemon."""
    programs = daemon.directory / "bin"
    programs.mkdir(exist_ok=True)
    for name in ("replayforge", "python"):
        script = PROGRAM if name == "replayforge" else '#!/bin/sh\nexec "{python}" "$@"\n'
        (programs / name).write_text(script.format(python=sys.executable))
        (programs / name).chmod(0o755)
    return daemon.environment() | {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "PYTHONPATH": str(REPOSITORY),
        "REPLAYFORGE_URL": f"http://127.0.0.1:{port}",
        "REPLAYFORGE__SERVER__PORT": port,
        "PYTHONUNBUFFERED": "1",
    }


def assert_printed(expected: str, printed: str) -> None:
    """Check that lines were printed in their order; runs of white space are one space."""
    rest = [" ".join(line.split()) for line in printed.splitlines()]
    for line in (" ".join(line.split()) for line in expected.splitlines() if line.strip()):
        form = re.compile(".*".join(map(re.escape, line.split("…"))))
        place = next((number for number, one in enumerate(rest) if form.fullmatch(one)), None)
        assert place is not None, f"{line!r} was not printed by:\n{printed}"
        rest = rest[place + 1 :]
