"""Sessions of pages in the store: those that were signed out, each until it would have ended."""

from replayforge.stores.batches import EndedSession
from replayforge.stores.driver import Batch, Fetch, Steps


def end(value: str, ends_at_us: int, now_us: int) -> Steps[None]:
    """Note that a session was signed out, and forget those that are over by themselves."""
    yield Batch("insert_ended_session", [EndedSession(value=value, ends_at_us=ends_at_us)])
    yield Fetch("forget_ended_sessions", {"now_us": now_us})


def ended() -> Steps[dict[str, int]]:
    """Fetch value -> time of end of those that were signed out."""
    rows = yield Fetch("ended_sessions")
    return {value: int(ends_at_us) for value, ends_at_us in rows}
