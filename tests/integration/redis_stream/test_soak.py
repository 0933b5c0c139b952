"""Random faults, one upon another, against two nodes that share a stream; by hand, for as long as one likes."""

import asyncio
import os
import random
import time
from collections import Counter

import pytest

from replayforge.chaos.tcp_proxy import TcpProxy
from replayforge.domain.event import Entry
from tests.integration.redis_stream.conftest import IMPATIENCE_SECONDS, OpenStream
from tests.integration.redis_stream.test_mid_run import FAULTS, Road, stop_the_process
from tests.support.polling import back_off, persist
from tests.support.redis_server import RedisServer

SECONDS = "REPLAYFORGE_SOAK_SECONDS"


@pytest.mark.soak
@pytest.mark.skipif(SECONDS not in os.environ, reason=f"set {SECONDS} to soak the stream for so long")
async def test_random_faults(server: RedisServer, proxy: TcpProxy, open_stream: OpenStream) -> None:
    """Whatever is broken in whatever order, every entry is settled and nothing is left on the server or in memory."""
    seed = int(os.environ.get("REPLAYFORGE_SOAK_SEED", time.time()))
    rng = random.Random(seed)
    faults: Counter[str] = Counter()
    async with (
        open_stream(proxy.url, node="node-1", call_seconds=IMPATIENCE_SECONDS) as one,
        open_stream(proxy.url, node="node-2", call_seconds=IMPATIENCE_SECONDS) as two,
    ):
        road, second = Road(one), Road(two)
        second.open, second.starts = road.open, road.starts
        actors = (road.publish, road.read, road.sweep, second.read, second.sweep)
        tasks = [asyncio.create_task(actor()) for actor in actors]
        ends_at = time.monotonic() + float(os.environ[SECONDS])
        while time.monotonic() < ends_at:
            fault = rng.choice(FAULTS)
            faults[fault.__name__] += 1
            fault(server, proxy, one)
            await back_off(1.7 if fault is stop_the_process else rng.uniform(0.1, 1.7))
            road.open.update({Entry(f"event-{faults.total()}-{number}", 1): None for number in range(500)})
            one.wiped.set()
        await back_off(1.7)
        print(f"\nseed {seed}: {len(road.starts)} entries settled through {dict(faults)}")  # noqa: T201
        await persist(road.empty, timeout_seconds=30)
        assert server.admin.xpending(one.key, one.group.name)["pending"] == 0
        assert one.held == two.held == set()
        for task in tasks:
            task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes), outcomes
