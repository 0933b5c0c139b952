"""Load at a constant rate, from a process of its own: it never waits for an answer before it sends the next event.

Every event is a line of the output: when it was due (by the clock that all processes share), the seconds from then
until its answer had come, the status (0 for none), whether it had an idempotency key, as every second one has if asked,
its id (- where there was no answer), and when its request went out, which is later than it was due by what the client's
own timers and code take. With `workflows` every eighth event begins another workflow, with
`slow` one of a hundred is of a type whose handler is slow.
"""

import asyncio
import json
import sys
import time
import uuid
from collections.abc import Mapping
from types import SimpleNamespace

import aiohttp

from bench.load import EVENT

SECONDS_MAX = 60.0
SLOW_ONE_IN = 100
SLOW = EVENT | {"event_type": "slow.one"}


async def send_on(url: str, per_second: float, *, keys: bool, workflows: bool, slow: bool) -> None:
    """Send until the process is ended; what is sent late counts as late, as it would for whoever waits."""
    limit = aiohttp.ClientTimeout(total=SECONDS_MAX)
    connector = aiohttp.TCPConnector(limit=0)
    trace = aiohttp.TraceConfig()
    trace.on_request_headers_sent.append(note_sent)
    async with (
        aiohttp.ClientSession(url, connector=connector, timeout=limit, trace_configs=[trace]) as session,
        asyncio.TaskGroup() as group,
    ):
        started = time.monotonic()
        number = 0
        while True:
            due = started + number / per_second
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            event = EVENT | {"workflow_id": f"bench-{number // 8}"} if workflows else EVENT
            if slow and number % SLOW_ONE_IN == 0:
                event = SLOW
            group.create_task(send(session, event, due, keyed=keys and bool(number % 2)))
            number += 1


async def note_sent(_: aiohttp.ClientSession, request: SimpleNamespace, __: object) -> None:
    """Note when a request goes out."""
    request.trace_request_ctx.append(time.monotonic())


async def send(session: aiohttp.ClientSession, event: Mapping[str, object], due: float, *, keyed: bool) -> None:
    """Send one event and write down how it went."""
    event = {**event, "idempotency_key": uuid.uuid4().hex} if keyed else event
    headers = {"Content-Type": "application/json"}
    sent: list[float] = []
    try:
        async with session.post(
            "/api/events", data=json.dumps(event), headers=headers, trace_request_ctx=sent
        ) as answer:
            place = answer.headers.get("Location", "-")
            await answer.read()
            status = answer.status
    except (OSError, TimeoutError, aiohttp.ClientError):
        status, place = 0, "-"
    took, event_id, went_out = time.monotonic() - due, place.rpartition("/")[2], sent[0] if sent else due
    sys.stdout.write(f"{due:.6f} {took:.6f} {status} {keyed:d} {event_id} {went_out:.6f}\n")


if __name__ == "__main__":
    options = {name: name in sys.argv for name in ("keys", "workflows", "slow")}
    asyncio.run(send_on(sys.argv[1], float(sys.argv[2]), **options))
