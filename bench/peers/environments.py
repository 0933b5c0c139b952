"""Environments of the peers, one each, with every version pinned; made once by plain pip, outside of the tree."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

INSTALL_SECONDS_MAX = 300
PINNED = {
    "dramatiq": (
        "dramatiq==2.2.1",
        "redis==8.1.0",
    ),
    "arq": (
        "arq==0.28.0",
        "click==8.5.1",
        "hiredis==3.5.0",
        "PyJWT==2.15.1",
        "redis==5.3.1",
    ),
    "taskiq": (
        "aiohappyeyeballs==2.7.1",
        "aiohttp==3.14.5",
        "aiosignal==1.4.0",
        "annotated-types==0.8.0",
        "anyio==4.16.0",
        "attrs==26.1.0",
        "frozenlist==1.8.0",
        "idna==3.20",
        "multidict==7.2.1",
        "propcache==0.5.4",
        "pycron==3.3.0",
        "pydantic==2.14.4",
        "pydantic_core==2.50.5",
        "redis==8.1.0",
        "taskiq==0.13.0",
        "taskiq-dependencies==1.5.7",
        "taskiq-redis==1.2.4",
        "typing-inspection==0.4.5",
        "typing_extensions==4.16.0",
        "yarl==1.25.1",
    ),
    "procrastinate": (
        "asgiref==3.13.0",
        "attrs==26.1.0",
        "croniter==7.0.0",
        "packaging==26.4",
        "procrastinate==3.10.0",
        "psycopg==3.3.9",
        "psycopg-binary==3.3.9",
        "psycopg-pool==3.3.3",
        "python-dateutil==4.0.0",
        "typing_extensions==4.16.0",
        "tzdata==2026.6",
    ),
    "dbos": (
        "click==8.5.1",
        "croniter==7.0.0",
        "dbos==3.4.0",
        "greenlet==3.5.6",
        "psycopg==3.3.9",
        "psycopg-binary==3.3.9",
        "python-dateutil==4.0.0",
        "PyYAML==6.0.4",
        "SQLAlchemy==2.1.9",
        "typing_extensions==4.16.0",
        "tzdata==2026.6",
    ),
}


class NotInstalled(Exception):
    """A peer could not be installed; says why."""


def environment(name: str) -> Path:
    """Return the Python of a peer's environment, made if it is not there; raises NotInstalled."""
    digest = hashlib.sha256("\n".join((sys.version, *PINNED[name])).encode()).hexdigest()[:12]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "replayforge-bench")
    place = cache / f"{name}-{digest}"
    python = place / "bin" / "python"
    if not python.exists():
        made = place.with_suffix(".made")  # whole or not at all
        shutil.rmtree(made, ignore_errors=True)
        cache.mkdir(parents=True, exist_ok=True)
        do(sys.executable, "-m", "venv", str(made))
        do(str(made / "bin" / "python"), "-m", "pip", "install", "--quiet", "--no-deps", *PINNED[name])
        made.rename(place)
    return python


def do(*command: str) -> None:
    """Run a command; raises NotInstalled with the last that it said."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=INSTALL_SECONDS_MAX)
    except subprocess.TimeoutExpired:
        raise NotInstalled(f"pip took longer than {INSTALL_SECONDS_MAX} s") from None
    if done.returncode != 0:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
        raise NotInstalled(errors[-1] if errors else f"exit code {done.returncode}")
