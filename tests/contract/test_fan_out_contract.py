"""What one daemon may expect of its store where events have subscribers: the list is kept, and routes decide."""

from msgspec.structs import replace

from replayforge.domain.admission import Admission
from replayforge.domain.event import route
from replayforge.stores.projection import Projection
from replayforge.stores.store import Store
from tests.contract.store_backends import LOG
from tests.support.builders import now_us, record

LISTED = '["crm","mail"]'
PARENT, CRM, MAIL, OTHER = "parent", "for-crm", "for-mail", "other"


async def project(store: Store, admission: Admission, claims_max: int) -> list[str]:
    """Project an event with subscribers, two children of another one, and an event that nobody subscribes to."""
    await store.open_cursor(LOG, "incarnation", 0, now_us())
    records = [
        record(PARENT, event_type="push"),
        record(CRM, event_type="push", origin="somebody", subscriber="crm"),
        record(MAIL, event_type="push", origin="somebody", subscriber="mail"),
        record(OTHER, event_type="pull"),
    ]
    numbered = list(enumerate(records, start=1))
    stretch = Projection(LOG, "incarnation", 0, len(records), numbered, 0, now_us(), 0, claims_max, admission)
    lists = {"push": LISTED}
    done = await store.project(replace(stretch, subscribers=lists.get))
    return [one.event.id for one in done.claimed] + [entry.event_id for entry in done.queued]


def room(*shut: str) -> Admission:
    """Return an admission in which these routes have no room."""
    return Admission(dict.fromkeys(shut, 0), lambda taken: taken)


async def test_the_list_of_an_events_subscribers_is_kept_from_its_dispatch_on(store: Store) -> None:
    """However the event is fetched: claimed at once or later, looked at, left by a daemon that died."""
    await project(store, room(), claims_max=2)
    rows = await store.events_by_ids([PARENT, CRM, OTHER])
    kept = {name: (row.subscriber, row.subscribers) for name, (row, _) in rows.items()}
    assert kept == {PARENT: (None, LISTED), CRM: ("crm", None), OTHER: (None, None)}
    claimed = await store.claim([rows[OTHER][0].entry], now_us(), room())
    assert [one.event.route for one in claimed.taken] == ["pull"]
    left = await store.in_flight("")
    assert {one.event_id: one.route for one in left} == {
        PARENT: route("push", None, LISTED), CRM: route("push", "crm"), OTHER: "pull",
    }  # fmt: skip


async def test_admission_goes_by_routes(store: Store) -> None:
    """What is for a subscriber without room waits for it; its parent and the others go on."""
    shut = route("push", "crm")
    assert await project(store, room(shut), claims_max=10) == [PARENT, MAIL, OTHER]
    assert (await store.pauses_and_deferred())[1] == {shut: 1}
    recalled = await store.recall(shut, str, 10, now_us())
    assert [(one.event.id, one.event.route) for one in recalled.taken] == [(CRM, shut)]


async def test_what_is_queued_already_is_sorted_out_by_routes(store: Store) -> None:
    assert await project(store, room(), claims_max=0) == [PARENT, CRM, MAIL, OTHER]
    shut = [route("push", "mail"), route("push", None, LISTED)]
    assert (await store.sort_out(room(*shut), 0, 10)).deferred == dict.fromkeys(shut, 1)
    claimed = await store.claim(await store.queued_entries(10), now_us(), room(route("push", "crm")))
    assert ([one.event.id for one in claimed.taken], claimed.deferred) == ([OTHER], {route("push", "crm"): 1})
