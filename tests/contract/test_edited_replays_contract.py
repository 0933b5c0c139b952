"""Which events replay another one with another payload."""

from msgspec.structs import replace

from replayforge.stores import stories
from replayforge.stores.store import Store
from tests.contract.store_backends import put
from tests.support.builders import record


async def test_an_event_names_those_that_replay_it(store: Store) -> None:
    """In the order in which they came, the first ones of many."""
    edited = [replace(record(f"edited-{number:02}"), replay_of="first") for number in range(stories.EDITED_MAX + 2)]
    await put(store, [record("first"), *edited, record("another")])
    found = {name: await store.history(name) for name in ("first", "edited-00", "another")}
    named = {name: history.edited_replays for name, history in found.items() if history is not None}
    assert named == {"first": [one.id for one in edited[: stories.EDITED_MAX]], "edited-00": [], "another": []}
