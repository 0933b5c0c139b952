"""Everything that can happen to several daemons, their Redis and their PostgreSQL, as faults that heal themselves."""

import asyncio
import random
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import redis as redis_client

from replayforge.chaos.proxy_thread import ProxyThread
from replayforge.chaos.tcp_proxy import TcpProxy
from tests.support.daemon_process import DaemonProcess
from tests.support.fleet import LEASE_SECONDS, Fleet
from tests.support.postgres_server import PostgresServer, in_own_thread
from tests.support.redis_server import RedisServer

HARMS = ("blackhole", "swallow_answers", "half_open", "reset")
BREATH = threading.Event()  # never set: waiting for it is letting time pass, which is what a fault lasts


@dataclass
class Scene:
    """Daemons, each with a network of its own to the one PostgreSQL and the one Redis."""

    fleet: Fleet
    postgres: PostgresServer
    redis: RedisServer
    network: ProxyThread
    rng: random.Random
    # Threads that stay: a server dies with the thread that started it.
    hands: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(2))
    ways: dict[str, tuple[TcpProxy, TcpProxy]] = field(default_factory=dict)

    def add(self, name: str, ack: str) -> DaemonProcess:
        """Start a daemon behind proxies of its own."""
        to_store, to_stream = self.network.open(self.postgres.port), self.network.open(self.redis.port)
        self.ways[name] = (to_store, to_stream)
        store_url = self.fleet.store_url.replace(f":{self.postgres.port}/", f":{to_store.port}/")
        settings: dict[str, Any] = {
            "store.url": f"{store_url}&call_seconds=3",
            "redis.url": to_stream.url,
            "ingest.ack": ack,
        }
        return self.fleet.start(name, **settings)

    def last(self, seconds_min: float, seconds_max: float) -> None:
        """Let a fault last for a while."""
        BREATH.wait(self.rng.uniform(seconds_min, seconds_max))


Fault = Callable[[Scene, str], None]  # what happens, and to which daemon if it happens to one


def kill_postgres(scene: Scene, name: str) -> None:
    scene.postgres.kill()
    scene.last(0, 4)
    scene.postgres.start()


def restart_postgres(scene: Scene, name: str) -> None:
    scene.postgres.stop()
    scene.last(0, 1)
    scene.postgres.start()


def terminate_sessions(scene: Scene, name: str) -> None:
    with suppress(OSError, asyncio.TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
        in_own_thread(scene.postgres.terminate_sessions)


def kill_redis(scene: Scene, name: str) -> None:
    scene.redis.kill()
    scene.last(0, 3)
    scene.redis.start()


def flush_redis(scene: Scene, name: str) -> None:
    with suppress(redis_client.ConnectionError):
        scene.redis.admin.flushall()


def stop_daemon(scene: Scene, name: str) -> None:
    scene.fleet.daemons[name].signal(signal.SIGSTOP)
    scene.last(LEASE_SECONDS * 1.2, LEASE_SECONDS * 2.5)
    scene.fleet.daemons[name].signal(signal.SIGCONT)


def kill_daemon(scene: Scene, name: str) -> None:
    scene.fleet.daemons[name].kill()
    scene.last(0, LEASE_SECONDS * 2)
    scene.fleet.start(name)


def cut_off_from_postgres(scene: Scene, name: str) -> None:
    cut_off(scene, scene.ways[name][0])


def cut_off_from_redis(scene: Scene, name: str) -> None:
    cut_off(scene, scene.ways[name][1])


def cut_off(scene: Scene, way: TcpProxy) -> None:
    scene.network.do(way, scene.rng.choice(HARMS))
    scene.last(0.2, LEASE_SECONDS * 2)
    scene.network.do(way, "heal")


FAULTS: list[Fault] = [
    kill_postgres,
    restart_postgres,
    terminate_sessions,
    kill_redis,
    flush_redis,
    stop_daemon,
    kill_daemon,
    cut_off_from_postgres,
    cut_off_from_redis,
]
OF_POSTGRES = {kill_postgres, restart_postgres}  # these two stop the same process, so they never meet
PAIR_SHARE = 0.3


def strike(scene: Scene) -> list[str]:
    """Do one thing, or two different things at once to two daemons; returns what, once all is healed."""
    faults = scene.rng.sample(FAULTS, 2 if scene.rng.random() < PAIR_SHARE else 1)
    if OF_POSTGRES.issuperset(faults):
        faults = faults[:1]
    names = scene.rng.sample(sorted(scene.fleet.daemons), len(faults))
    pairs = zip(faults, names, strict=True)
    for under_way in [scene.hands.submit(fault, scene, name) for fault, name in pairs]:
        under_way.result()
    return [fault.__name__ for fault in faults]


def ended_by_itself(scene: Scene) -> list[str]:
    """Return what daemons said that have ended although nobody told them to."""
    return [
        f"{daemon.directory.name} ended with {daemon.served.exit_code}: {tail(daemon.stderr)}"
        for daemon in scene.fleet.daemons.values()
        if daemon.served is not None and not daemon.running
    ]


def tail(path: Path) -> str:
    """Return the end of a file."""
    return path.read_text()[-3000:]
