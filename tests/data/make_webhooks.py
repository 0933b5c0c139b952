"""Writes webhooks.ndjson: made-up webhooks of the shape of real ones, the same bytes each time it is run."""

import json
import random
from pathlib import Path
from typing import Any

KINDS = ("push", "issues.opened", "pull_request.closed", "release.published", "star.created", "workflow_run.completed")
WORDS = (
    "fix",
    "naïve",
    "größe",
    "日本語",
    "emoji 😀🚀",
    "\u2028line",
    'tab\tquote"',
    "</script>",
    "a\\b",
    "Ελλάδα",
    "",
)


def actor(rng: random.Random) -> dict[str, Any]:
    number = rng.randrange(10**8)
    return {
        "login": f"octo-{number}",
        "id": number,
        "node_id": f"MDQ6{rng.getrandbits(96):024x}",
        "avatar_url": f"https://avatars.example.com/u/{number}?v=4",
        "gravatar_id": "",
        "site_admin": rng.random() < 0.1,
        "name": rng.choice((None, *WORDS)),
    }


def payload(rng: random.Random, depth: int = 0) -> dict[str, Any]:
    content: dict[str, Any] = {
        "action": rng.choice(("created", "edited", None)),
        "delivery": rng.getrandbits(80),
        "score": rng.choice((0, -0.0, 1e-7, 1.5, 12345678901234567890123, -(2**63))),
        "sender": actor(rng),
        "labels": [rng.choice(WORDS) for _ in range(rng.randrange(6))],
        "commits": [{"id": f"{rng.getrandbits(160):040x}", "author": actor(rng)} for _ in range(rng.randrange(8))],
        "empty": rng.choice(({}, [], "", None)),
    }
    if depth < rng.randrange(5):
        content["parent"] = payload(rng, depth + 1)
    return content


def lines() -> list[str]:
    rng = random.Random(2026)
    made = []
    for number in range(60):
        kind = rng.choice(KINDS)
        event = {
            "application_name": "webhooks",
            "workflow_id": f"octo-org/repository-{number % 7}",
            "event_type": f"webhook.{kind}",
            "service_name": kind.partition(".")[0],
            "idempotency_key": f"{rng.getrandbits(128):032x}",
            "payload": payload(rng),
        }
        spaced = (", ", ": ") if number % 3 == 0 else (",", ":")
        made.append(json.dumps(event, ensure_ascii=number % 2 == 0, separators=spaced))
    return made


if __name__ == "__main__":
    Path(__file__).with_name("webhooks.ndjson").write_text("".join(f"{line}\n" for line in lines()), encoding="utf-8")
