"""How much is claimed ahead: what workers begin in a tenth of a second, whatever they wait for between two claims."""

import asyncio

from replayforge.engine.dispatch.claim_buffer import ClaimBuffer
from replayforge.engine.dispatch.prefetch import PREFETCH_MAX, WINDOW_SECONDS_MAX, Prefetch
from tests.support.builders import claimed_event
from tests.support.clock import FakeClock

WORKERS = 16


def measured(prefetch: Prefetch, seconds: float, ended: int, *, busy_share: float = 1.0) -> int:
    """Let time pass in which so many events end, while workers have events for so much of it; returns the count."""
    now = prefetch.started + seconds
    prefetch.ended += ended
    prefetch.idle_seconds += seconds * (1 - busy_share) * prefetch.workers
    prefetch.measure(now, [])
    return prefetch.count


def test_busy_workers_get_what_they_end_in_a_tenth_of_a_second() -> None:
    """While nobody waits for events it is the plain rate."""
    prefetch = Prefetch(WORKERS)
    assert [measured(prefetch, 0.25, 100) for _ in range(3)] == [40, 40, 40]


def test_slow_claims_do_not_make_claims_small() -> None:
    """Workers that are through with a claim in a tenth of the time that it takes get ever more, up to the limit."""
    prefetch, counts = Prefetch(WORKERS), list[int]()
    for _ in range(5):
        counts.append(measured(prefetch, 0.2, WORKERS + prefetch.count, busy_share=0.05))
    assert counts == [32, 128, PREFETCH_MAX, PREFETCH_MAX, PREFETCH_MAX]


def test_handlers_that_sleep_have_next_to_nothing_claimed_ahead() -> None:
    """A handler that waits keeps its worker: sixteen that take a second each begin one or two in a tenth of one."""
    prefetch = Prefetch(WORKERS)
    assert [measured(prefetch, 1.0, 16) for _ in range(3)] == [1, 1, 1]


def test_few_events_tell_little() -> None:
    """Five quick events a window, workers idle in between, are no reason to claim hundreds."""
    prefetch = Prefetch(WORKERS)
    assert [measured(prefetch, 0.1, 5, busy_share=0.001) for _ in range(3)] == [10, 20, 20]


def test_a_window_that_begins_amid_a_claim_changes_little() -> None:
    """The first events of a claim end one window and the others the next; both are looked at."""
    prefetch = Prefetch(WORKERS)
    for _ in range(3):
        measured(prefetch, 0.1, 256, busy_share=0.1)
    assert [measured(prefetch, 0.1, ended, busy_share=0.1) for ended in (1, 271, 1)] == [PREFETCH_MAX] * 3


def test_what_has_ended_nothing_for_a_second_has_nothing_claimed_ahead() -> None:
    """A window without an end goes on, and at last tells that the old count means nothing any more."""
    prefetch = Prefetch(WORKERS)
    for _ in range(2):
        measured(prefetch, 0.1, 200)
    prefetch.measure(prefetch.started + WINDOW_SECONDS_MAX / 2, [])
    assert prefetch.count == 200
    for _ in range(2):
        prefetch.measure(prefetch.started + WINDOW_SECONDS_MAX, [])
    assert prefetch.count == 0


async def test_the_buffer_tells_how_long_workers_wait() -> None:
    """Waits that are over count, and those that last; of both only what lies in this window."""
    clock = FakeClock()
    buffer = ClaimBuffer(clock, workers=2)
    buffer.prefetch.started = clock.monotonic()
    first, second = (asyncio.create_task(buffer.take(name)) for name in ("first", "second"))
    await asyncio.sleep(0)
    clock.advance(0.15)
    buffer.put([claimed_event(1)])
    await first
    clock.advance(0.05)
    buffer.detach("first")
    buffer.room()  # the window: 0.2 s, of which one worker has waited for 0.15 and the other for all of it
    assert buffer.prefetch.before[0] == 1
    assert abs(buffer.prefetch.before[1] - (0.2 - 0.35 / 2)) < 1e-9
    clock.advance(0.1)
    buffer.put([claimed_event(2)])
    await second
    assert abs(buffer.prefetch.idle_seconds - 0.1) < 1e-9, "what was told already is not told again"
