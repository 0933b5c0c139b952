"""What stores keep of sources: pauses that hold for every daemon, and the newest deliveries that were refused."""

from replayforge.domain.admission import Pause
from replayforge.stores.batches import RefusedDelivery
from replayforge.stores.store import Store


def refused(source: str, number: int, reason: str = "stale") -> RefusedDelivery:
    body = b"\x00{}"
    return RefusedDelivery(
        source=source, at_us=number, reason=reason, url="/in/a?é", headers='{"a":"é"}', body=body, size_bytes=len(body)
    )


async def test_only_the_newest_refusals_of_a_source_are_kept(store: Store) -> None:
    """Each source has so many, whatever the others have; they come back as they were, oldest first."""
    await store.keep_refusal(refused("other", 0), 3)
    for number in range(5):
        await store.keep_refusal(refused("shop", number), 3)
    kept = await store.refusals("shop")
    assert [one.at_us for one in kept] == [2, 3, 4]
    assert (kept[0].headers, bytes(kept[0].body), kept[0].url, kept[0].is_whole) == (
        '{"a":"é"}',
        b"\x00{}",
        "/in/a?é",
        True,
    )
    assert await store.refusal_counts() == {"other": 1, "shop": 3}
    await store.remove_refusals([one.seq for one in kept[:2]])
    assert [one.at_us for one in await store.refusals("shop")] == [4]
    assert await store.refusals("nobody") == []


async def test_a_flood_of_one_reason_pushes_out_no_other(store: Store) -> None:
    """Each reason has its share of what is kept, and what others leave of theirs."""
    for number, reason in enumerate(["wrong_signature"] * 6 + ["no_signature"] * 50 + ["stale"]):
        await store.keep_refusal(refused("shop", number, reason), 6)
    kept = [(one.reason, one.at_us) for one in await store.refusals("shop")]
    assert kept == [
        ("wrong_signature", 4),
        ("wrong_signature", 5),
        *(("no_signature", at) for at in (53, 54, 55)),
        ("stale", 56),
    ]


async def test_a_pause_holds_for_every_daemon(store: Store) -> None:
    """The first pause of a source stands until it is resumed."""
    pause = Pause("shop", "moving", "me", 7)
    await store.pause_source(pause)
    await store.pause_source(Pause("shop", "again", "you", 8))
    assert await store.source_pauses() == [pause]
    assert await store.resume_source("shop")
    assert not await store.resume_source("shop")
    assert await store.source_pauses() == []
