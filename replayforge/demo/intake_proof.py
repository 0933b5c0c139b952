"""What comes in beside the demo's own events: signed webhooks and a schedule, and the proof that all came in order."""

import hashlib
import hmac
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from replayforge.client.http import ClientConnection, at
from replayforge.client.terminal import counted
from replayforge.demo.oracle import NAMED_MAX, Effects
from replayforge.demo.workload import COUNT, EMAIL, WEBHOOKS
from replayforge.domain.lifecycle import State

SOURCE = "github"
SECRET = "the secret of the demo"  # noqa: S105
SCHEDULE = "stock"
EVERY_SECONDS = 5
DELIVERIES = 3
# The receipts of a customer go out in order, and those of customers side by side; webhooks come in signed.
RECEIPTS = {"match": EMAIL.name, "key": "payload.customer", "order": "strict", "on_dead": "skip"}
SETTINGS: Mapping[str, Any] = {
    "lanes": [RECEIPTS],
    "sources": [{"name": SOURCE, "preset": "github", "secrets": [SECRET]}],
}
# Only where somebody watches, for how many events it makes is a matter of time.
SCHEDULED: Mapping[str, Any] = {
    "lanes": [RECEIPTS, {"match": COUNT, "key": "event_type", "rate": "15/min"}],  # one that is run by hand has to wait
    "schedules": [{"name": SCHEDULE, "every_seconds": EVERY_SECONDS, "event_type": COUNT, "workflow": SCHEDULE}],
}

Events = Sequence[Mapping[str, Any]]


def deliver(client: ClientConnection, batch: str) -> None:
    """Send webhooks as GitHub sends them, each twice."""
    for number in range(DELIVERIES):
        body = msgspec.json.encode(
            {"ref": f"refs/heads/feature-{number}", "repository": {"full_name": "shop/checkout"}}
        )
        headers = {
            "X-GitHub-Event": "push",
            "X-GitHub-Delivery": f"{batch}-{number}",
            "X-Hub-Signature-256": "sha256=" + hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest(),
        }
        for _ in range(2):
            client.request("POST", at("in", SOURCE), body, further_headers=headers)


@dataclass(frozen=True, slots=True)
class IntakeFound:
    """How many receipts of how many customers went out, how many webhooks came and how many children they had, how many
    events the schedule has made, and what does not add up."""

    receipts: int
    customers: int
    webhooks: int
    children: int
    scheduled: int
    objections: list[str]

    @property
    def made(self) -> int:
        """How many events there are that no sender of ours has sent."""
        return self.webhooks + self.children + self.scheduled

    def in_words(self) -> str:
        """Say it in one sentence."""
        receipts = (
            f"{counted(self.receipts, 'receipt')} of {counted(self.customers, 'customer')} went out in their order"
        )
        webhooks = f"{counted(self.webhooks, 'signed webhook')} reached each of their subscribers once"
        scheduled = f", a schedule made {counted(self.scheduled, 'event')}" if self.scheduled else ""
        return f"{receipts}, {webhooks}{scheduled}"


def look_at_intake(client: ClientConnection, effects: Effects) -> IntakeFound:
    """Ask the daemon for what came in, and hold it against what handlers did."""
    receipts = list(client.events({"event_type": EMAIL.name}))
    came = list(client.events({"event_type": WEBHOOKS}))
    children = [event for event in came if event["subscriber"] is not None]
    scheduled = list(client.events({"event_type": COUNT}))
    return IntakeFound(
        receipts=sum(event["status"] == State.SUCCEEDED for event in receipts),
        customers=len({event["lane"] for event in receipts}),
        webhooks=len(came) - len(children),
        children=len(children),
        scheduled=len(scheduled),
        objections=[*objections_to_order(receipts, effects), *objections_to_children(came)],
    )


def objections_to_order(newest_first: Events, effects: Effects) -> Iterator[str]:
    """Yield what was out of order in a strict lane: an earlier one had an effect after a later one."""
    place = {event["id"]: place for place, event in enumerate(reversed(newest_first))}
    lane = {event["id"]: event["lane"] for event in newest_first}
    reached: defaultdict[str, int] = defaultdict(int)
    wrong = []
    for effect in effects.had:
        if effect.event_id in place and effect.run == 1:  # a replay goes to the end
            name = lane[effect.event_id]
            if place[effect.event_id] < reached[name]:
                wrong.append(effect.event_id)
            reached[name] = max(reached[name], place[effect.event_id])
    if wrong:
        yield f"{counted(len(wrong), 'event')} out of order in their lanes: {', '.join(wrong[:NAMED_MAX])}"


def objections_to_children(came: Events) -> Iterator[str]:
    """Yield whom a webhook did not reach, or reached more than once."""
    wanted = Counter((event["id"], name) for event in came for name in event["subscribers"] or ())
    had = Counter((event["origin"], event["subscriber"]) for event in came if event["subscriber"] is not None)
    for what, pairs in (("without an event of their own", wanted - had), ("with one too many", had - wanted)):
        if pairs:
            named = ", ".join(f"{subscriber} of {event_id}" for event_id, subscriber in sorted(pairs)[:NAMED_MAX])
            yield f"{counted(sum(pairs.values()), 'subscriber')} {what}: {named}"
