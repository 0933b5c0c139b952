"""What stores keep of alerts: one row for each subject, which one daemon at a time can move."""

import asyncio

from msgspec.structs import replace

from replayforge.domain.alerts import Alert, Said
from replayforge.stores.store import Store

BEGUN = Alert("dead", "", 0, "first", "node-1", "words", 10, None, Said.NOTHING, 0, 0, None)


async def test_of_two_daemons_one_writes_an_alert_down(store: Store, other: Store) -> None:
    """At its beginning, and at every later change."""
    written = await asyncio.gather(store.write_alert(BEGUN), other.write_alert(replace(BEGUN, id="second")))
    (begun,) = [one for one in written if one is not None]
    assert await other.alerts() == [begun]
    assert begun.version == 1
    said = [replace(begun, said=Said.BEGAN, failures=2, last_error="away", due_at_us=number) for number in (1, 2)]
    written = await asyncio.gather(store.write_alert(said[0]), other.write_alert(said[1]))
    (moved,) = [one for one in written if one is not None]
    assert (moved.version, moved.said, moved.last_error) == (2, Said.BEGAN, "away")
    assert await store.alerts() == [moved]
    assert type((await store.alerts())[0].said) is Said


async def test_what_was_said_long_ago_is_let_go(store: Store) -> None:
    """Never an alert that stands, or whose end nobody was told."""
    await store.write_alert(BEGUN)
    await store.write_alert(replace(BEGUN, subject="unsaid", ended_at_us=20))
    await store.write_alert(replace(BEGUN, subject="late", ended_at_us=40, said=Said.ENDED))
    await store.write_alert(replace(BEGUN, subject="early", ended_at_us=20, said=Said.ENDED))
    assert await store.forget_alerts(30) == 1
    assert [one.subject for one in await store.alerts()] == ["", "late", "unsaid"]
