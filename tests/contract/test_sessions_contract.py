"""What stores keep of sessions of pages: which were signed out, until they would have ended."""

from replayforge.stores.store import Store


async def test_a_session_that_was_signed_out_is_known_to_all(store: Store, other: Store) -> None:
    """Signed out twice, on whichever daemon, it is one; the end that was known first stands."""
    await store.end_session("one", 100, now_us=10)
    await other.end_session("one", 200, now_us=10)
    await other.end_session("two", 300, now_us=20)
    assert await store.ended_sessions() == await other.ended_sessions() == {"one": 100, "two": 300}


async def test_a_session_that_is_over_by_itself_is_forgotten(store: Store) -> None:
    await store.end_session("one", 100, now_us=10)
    await store.end_session("two", 300, now_us=99)
    assert (await store.ended_sessions()).keys() == {"one", "two"}
    await store.end_session("three", 400, now_us=100)
    assert (await store.ended_sessions()).keys() == {"two", "three"}
