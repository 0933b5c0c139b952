"""Endpoints with steps in two languages, in processes of their own, and what they have done to the world outside."""

import json
import os
import shutil
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from replayforge.whole_lines import whole_lines
from tests.support.daemon_process import REPOSITORY, until
from tests.support.ports import free_port

PROGRAMS = Path(__file__).parents[1] / "data" / "steps_endpoints"
LANGUAGES = {"flask": [sys.executable, str(PROGRAMS / "endpoint.py")], "node": ["node", str(PROGRAMS / "endpoint.mjs")]}
SIGNALS = ["confirmed"]


@dataclass(frozen=True, slots=True)
class Effect:
    """An effect of a step outside: under which idempotency key, and the attempt in which it was had."""

    event: str
    step: str
    key: str
    token: int
    url: str


class EndpointProcess:
    """An endpoint on a port that it keeps when it is killed and started again; an effect takes some `seconds`."""

    def __init__(self, language: str, directory: Path, seconds: float = 0.0) -> None:
        command = LANGUAGES[language]
        assert shutil.which(command[0]), f"{command[0]} is not on PATH: this test needs it to run an endpoint."
        self.sink = directory / "effects.txt"
        self.port = free_port()
        self.command = [*command, str(self.port), str(self.sink), str(seconds)]
        self.errors = directory / "endpoint.txt"

    @property
    def settings(self) -> dict[str, Any]:
        """What a daemon is told to have it handle events."""
        url = f"http://127.0.0.1:{self.port}/hook"
        return {
            "handlers.http": [
                {"match": "*", "url": url, "allow_private": True, "steps": True, "breaker": False},
            ],
            "handlers.signals": SIGNALS,
        }

    def start(self) -> Self:
        """Start it and return once it listens."""
        with self.errors.open("a") as errors:
            self.process = subprocess.Popen(
                self.command, stderr=errors, env={**os.environ, "PYTHONPATH": str(REPOSITORY)}
            )
        until(self.is_listening, what="the endpoint to listen")
        return self

    def is_listening(self) -> bool:
        assert self.process.poll() is None, self.errors.read_text()[-4000:]
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", self.port)) == 0

    def kill(self) -> None:
        """kill -9."""
        self.process.kill()
        self.process.wait()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.kill()

    def effects(self) -> list[Effect]:
        """Return all effects in their order; only of a process that has ended is there none to come."""
        return [Effect(**json.loads(line)) for line in whole_lines(self.sink)]

    def forget(self) -> None:
        """Begin anew."""
        self.sink.unlink(missing_ok=True)
