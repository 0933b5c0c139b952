"""How each injury is carried out: what it does is there while its context is entered, and heals as that is left."""

import contextlib
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager

import redis

from replayforge.chaos.injury import Injury, InjuryKind
from replayforge.chaos.scene import Scene

# How long a daemon may take to come to its crash point before it is killed instead.
POINT_SECONDS_MAX = 4.0
Carry = Callable[[Scene, Injury], AbstractContextManager[None]]


@contextmanager
def killed(scene: Scene, injury: Injury) -> Iterator[None]:
    """Kill the daemon, and start it again."""
    scene.kill()
    scene.start()
    yield


@contextmanager
def killed_starting(scene: Scene, injury: Injury) -> Iterator[None]:
    """Kill the daemon, start it, and kill it in the middle of that."""
    scene.kill()
    scene.start()
    scene.work(injury.lasts_seconds)
    scene.kill()
    scene.start()
    yield


@contextmanager
def dead_at_a_point(scene: Scene, injury: Injury) -> Iterator[None]:
    """Have the daemon die at a crash point; if it does not come there in time it is killed."""
    scene.tell("api", "chaos", "crash", document={"point": injury.detail, "times": injury.times})
    deadline = time.monotonic() + POINT_SECONDS_MAX
    while scene.daemon.alive and time.monotonic() < deadline:
        time.sleep(0.01)
    if scene.daemon.alive:
        scene.say(f"it did not come to {injury.detail}, and is killed")
    scene.kill()
    scene.start()
    yield


@contextmanager
def without_a_worker(scene: Scene, injury: Injury) -> Iterator[None]:
    """Crash a worker, one that holds an event if there is one."""
    workers = sorted(scene.busy()) or [f"worker-{number}" for number in range(1, scene.daemon.workers + 1)]
    scene.tell("api", "chaos", "workers", workers[int(injury.choice * len(workers))], "crash")
    yield


@contextmanager
def by_its_events(scene: Scene, injury: Injury) -> Iterator[None]:
    """Do no more: the events that were sent for it are the injury."""
    yield


@contextmanager
def paused(scene: Scene, injury: Injury) -> Iterator[None]:
    """Stop the daemon's process, and let it go on."""
    scene.daemon.signal(signal.SIGSTOP)
    try:
        yield
    finally:
        scene.daemon.signal(signal.SIGCONT)


@contextmanager
def redis_wiped(scene: Scene, injury: Injury) -> Iterator[None]:
    """Wipe Redis."""
    assert scene.servers.redis
    with contextlib.suppress(redis.ConnectionError):
        scene.servers.redis.wipe()
    yield


@contextmanager
def redis_killed(scene: Scene, injury: Injury) -> Iterator[None]:
    """Kill Redis, and start it again empty."""
    assert scene.servers.redis
    scene.servers.redis.kill()
    yield
    scene.servers.redis.start()


@contextmanager
def postgres_stopped(scene: Scene, injury: Injury) -> Iterator[None]:
    """Stop PostgreSQL at once, and start it again."""
    assert scene.servers.postgres
    scene.servers.postgres.stop_at_once()
    yield
    scene.servers.postgres.start()


@contextmanager
def line_cut(scene: Scene, injury: Injury) -> Iterator[None]:
    """Do something to a line, and heal it."""
    line = scene.servers.lines[injury.target]
    scene.servers.network.do(line, injury.detail)
    yield
    scene.servers.network.do(line, "heal")


CARRIED_OUT: Mapping[InjuryKind, Carry] = {
    InjuryKind.KILL: killed,
    InjuryKind.KILL_STARTING: killed_starting,
    InjuryKind.CRASH_POINT: dead_at_a_point,
    InjuryKind.WORKER_CRASH: without_a_worker,
    InjuryKind.HANDLER_HANG: by_its_events,
    InjuryKind.LOOP_HANG: by_its_events,
    InjuryKind.PAUSE: paused,
    InjuryKind.REDIS_WIPE: redis_wiped,
    InjuryKind.REDIS_KILL: redis_killed,
    InjuryKind.REDIS_LINE: line_cut,
    InjuryKind.POSTGRES_STOP: postgres_stopped,
    InjuryKind.POSTGRES_LINE: line_cut,
}
