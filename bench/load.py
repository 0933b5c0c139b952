"""Load from a process of its own: wrk where it is installed, and a plain Python client."""

import asyncio
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import aiohttp

EVENT = {"workflow_id": "bench", "event_type": "bench.nothing", "payload": {"text": "x" * 150}}
OVERLOADED = 429  # the daemon's word for "in a moment"; nothing was accepted
SCRIPT = """wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.body = '%s'
"""
# Every request with another value of a header; wrk has one thread here.
KEYED = """local count = 0
request = function()
  count = count + 1
  wrk.headers["%s"] = "%s" .. count
  return wrk.format()
end
"""


@dataclass(frozen=True, slots=True)
class Sent:
    """What a client has sent. `started` is when its first request went out, by the clock that all processes share.

    The time that the client itself took to start is none of the server's.
    """

    started: float
    seconds: float
    requests: float

    @property
    def rate(self) -> float:
        """Requests a second."""
        return self.requests / self.seconds


def has_wrk() -> bool:
    """Tell whether wrk is installed."""
    return shutil.which("wrk") is not None


def wrk(
    url: str,
    seconds: int,
    body: bytes,
    path: str = "/api/events",
    *,
    headers: Mapping[str, str] | None = None,
    key_header: str = "",
) -> Sent:
    """Return what wrk drives through with 64 connections; raises RuntimeError where it is not installed.

    The header `key_header` has another value in each request.
    """
    if not has_wrk():
        raise RuntimeError("There is no wrk; apt-get install wrk.")
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder, "post.lua")
        given = [f'wrk.headers["{name}"] = "{value}"\n' for name, value in (headers or {}).items()]
        keyed = KEYED % (key_header, f"{time.time_ns()}-") if key_header else ""
        script.write_text(SCRIPT % body.decode() + "".join(given) + keyed)
        command = ["wrk", "-t1", "-c64", f"-d{seconds}", "-s", str(script), url + path]
        started = time.monotonic()
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    if found := re.search(r"Non-2xx or 3xx responses: (\d+)", output):
        raise RuntimeError(f"wrk had {found[1]} bad answers")
    found = re.search(r"Requests/sec:\s+([\d.]+)", output)
    assert found is not None
    return Sent(started, seconds, float(found[1]) * seconds)


def python_client(url: str, requests: int, per_request: int, connections: int = 64) -> Sent:
    """Send requests from another Python process."""
    command = [sys.executable, "-m", "bench.load", url, str(requests), str(per_request), str(connections)]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    started, seconds = map(float, output.split())
    return Sent(started, seconds, requests)


async def send_all(url: str, requests: int, per_request: int, connections: int) -> tuple[float, float]:
    """Send `requests` requests of `per_request` events, so many at a time; returns when it began, and the seconds."""
    bulk = per_request > 1
    body = json.dumps([EVENT] * per_request if bulk else EVENT).encode()
    path = url + ("/api/events/bulk" if bulk else "/api/events")
    left = iter(range(requests))
    connector = aiohttp.TCPConnector(limit=connections)
    async with aiohttp.ClientSession(connector=connector, headers={"Content-Type": "application/json"}) as session:

        async def send() -> None:
            for _ in left:
                while await post() == OVERLOADED:  # noqa: ASYNC110  # room comes from another process
                    await asyncio.sleep(1)

        async def post() -> int:
            async with session.post(path, data=body) as answer:
                if answer.status != OVERLOADED:
                    answer.raise_for_status()
                await answer.read()
                return answer.status

        started = time.monotonic()
        await asyncio.gather(*(send() for _ in range(connections)))
        return started, time.monotonic() - started


if __name__ == "__main__":
    url, requests, per_request, connections = sys.argv[1:]
    print(*asyncio.run(send_all(url, int(requests), int(per_request), int(connections))))
