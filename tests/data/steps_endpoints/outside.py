"""The world outside of an endpoint: a line for everything that was done to it. Arguments: port, file, seconds."""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any


def act(asked: dict[str, Any], name: str) -> str:
    """Have an effect, which takes its time."""
    note(asked, name)
    time.sleep(float(sys.argv[3]))
    return f"{name} done"


def decline(asked: dict[str, Any], name: str) -> None:
    act(asked, name)
    raise ValueError(f"{name} is declined")


def shaky(asked: dict[str, Any], name: str) -> str:
    if note(asked, name) == 0:
        raise ConnectionError("it fails at first")
    return f"{name} done at last"


def note(asked: dict[str, Any], name: str) -> int:
    """Note an effect with one write, and return how often it had happened before."""
    key, path = f"{asked['journal_key']}/{name}", Path(sys.argv[2])
    earlier = path.read_text().count(key) if path.exists() else 0
    line = {
        "event": asked["event"]["id"], "step": name, "key": key,
        "token": asked["lease_token"], "url": asked["checkpoint_url"],
    }  # fmt: skip
    sink = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(sink, json.dumps(line).encode() + b"\n")
    os.close(sink)
    return earlier
