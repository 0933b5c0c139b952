"""What keeps a queued event from a worker, in words: rules only, of an endpoint that fails and a handler that hangs."""

from replayforge.domain.breaker import Breaker
from replayforge.domain.clock import format_time
from replayforge.engine.dispatch.handler_limits import HandlerLimit
from replayforge.engine.handlers.registry import Handler
from replayforge.engine.report.why import Cause, Queue, why_not_taken

NOW_US = 1_800_000_000_000_000


async def nothing(*_: object) -> None:
    """A handler."""


def queue(limit: HandlerLimit) -> Queue:
    return Queue(limit, pauses=[], workers=[], now_us=NOW_US, monotonic=100.0)


def test_an_endpoint_that_is_left_alone() -> None:
    """Until when is said, and once that is over that one event tries it."""
    limit = HandlerLimit(Handler("mail.*", nothing, breaker=True), lingering_max=4)
    limit.breaker = Breaker(failures=5, openings=1, open_until=105.0)
    why = why_not_taken(queue(limit))
    assert (why.cause, why.handler, why.until_us) == (Cause.BREAKER, "mail.*", NOW_US + 5_000_000)
    failed = "The endpoint of its handler mail.* has failed 5 times in a row"
    assert why.sentence == f"{failed} and is left alone until {format_time(NOW_US + 5_000_000)}."
    limit.breaker = Breaker(failures=5, openings=1, open_until=99.0)
    assert why_not_taken(queue(limit)).sentence == f"{failed}; one event tries it now."


def test_a_handler_whose_attempts_do_not_end() -> None:
    limit = HandlerLimit(Handler("mail.*", nothing), lingering_max=4)
    limit.lingering = 4
    why = why_not_taken(queue(limit))
    assert (why.cause, why.handler) == (Cause.STUCK_HANDLER, "mail.*")
    assert why.sentence.startswith("4 attempts of its handler mail.* do not end")


def test_nothing_is_in_its_way() -> None:
    limit = HandlerLimit(Handler("mail.*", nothing), lingering_max=4)
    assert why_not_taken(queue(limit)).cause is Cause.NEXT
