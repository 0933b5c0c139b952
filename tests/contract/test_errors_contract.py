"""Which errors of dead letters are new: told by the first dead letter of each, however many there are of others."""

import pytest

from replayforge.domain.lifecycle import State
from replayforge.domain.reports import NewError
from replayforge.stores import lookups
from replayforge.stores.store import Store
from tests.contract.store_backends import stored
from tests.contract.test_replay_contract import dead
from tests.support.builders import now_us


async def test_an_error_is_new_by_its_first_dead_letter(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """However rare it is beside others; one that was there before is not, though it comes again."""
    for number, word in enumerate("abcdef"):
        *_, last = await dead(store, 2, word, after=2 * number)
    before_us = (await stored(store, last)).updated_at_us
    rare = await stored(store, (await dead(store, 1, "c, but rare", after=12))[0])
    await dead(store, 3, "a", after=13)
    assert await store.new_errors(before_us, 20) == [NewError("c, but rare", 1, rare.updated_at_us)]
    assert await store.new_errors(rare.updated_at_us, 20) == []
    first = await store.new_errors(0, 3)
    assert [(one.name, one.count) for one in first] == [("a", 5), ("b", 2), ("c", 2)]
    assert [one.first_at_us for one in first] == sorted(one.first_at_us for one in first)
    monkeypatch.setattr(lookups, "SCAN_MAX", 3)
    monkeypatch.setattr(lookups, "NEW_LETTERS_MAX", 4)
    assert [(one.name, one.count) for one in await store.new_errors(0, 20)] == [("a", 4), ("b", 2), ("c", 2)]
    monkeypatch.undo()
    assert await store.move(rare, State.DISCARDED, "discarded", "enough", now_us()) == []
    assert await store.new_errors(before_us, 20) == []


async def test_without_dead_letters_no_error_is_new(store: Store) -> None:
    assert await store.new_errors(0, 20) == []
