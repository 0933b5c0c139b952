"""What one daemon may expect where counting stops: a number that is not the whole says so."""

import pytest

from replayforge.domain.reports import EventFilter
from replayforge.stores import lookups, replays
from replayforge.stores.store import Store
from tests.contract.test_replay_contract import DEAD, dead


@pytest.mark.parametrize(("count", "capped"), [(9, False), (10, False), (11, True)])
async def test_groups_say_when_older_events_were_not_counted(
    store: Store, monkeypatch: pytest.MonkeyPatch, count: int, capped: bool
) -> None:
    """Groups of dead letters, of failures and of a replay are made of so many events; whether more follow is told."""
    monkeypatch.setattr(lookups, "SCAN_MAX", 10)
    monkeypatch.setattr(replays, "SCAN_MAX", 10)
    await dead(store, count)
    for group_by in ("error", "type", "service", "reason"):
        (group,) = await store.dead_letter_groups(group_by)
        assert (group.count, group.capped) == (min(10, count), capped)
    (insight,) = await store.error_insights(0)
    assert (insight.count, insight.capped) == (min(10, count), capped)
    preview = await store.preview_replay(DEAD)
    assert (preview.groups, preview.groups_capped) == ([("Boom: N", min(10, count))], capped)
    assert (await store.preview_replay(EventFilter(workflow_id="nobody"))).groups_capped is False
