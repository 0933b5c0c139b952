"""Webhooks that are verified beside plain events in the same run: is `/in` at least 0.8 times as fast?"""

import hashlib
import hmac
import json
import statistics
import sys
from dataclasses import dataclass, field

from bench.bench_end_to_end import Round, measure
from bench.load import EVENT, Sent, wrk
from bench.processes import Running, daemon, directory

ROUNDS = 3
SECONDS = 5
SECRET = "the secret of the bench"
BODY = json.dumps({"action": "opened", "repository": {"full_name": "a/b"}, **EVENT}).encode()
SIGNATURE = {
    "X-GitHub-Event": "issues",
    "X-Hub-Signature-256": "sha256=" + hmac.new(SECRET.encode(), BODY, hashlib.sha256).hexdigest(),
}


@dataclass(frozen=True, slots=True)
class Way:
    """One way in: a path with its body and headers, and the header that makes each request another one."""

    path: str
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)
    key_header: str = ""

    def __call__(self, url: str) -> Sent:
        """Drive load through it."""
        return wrk(url, SECONDS, self.body, self.path, headers=self.headers, key_header=self.key_header)


PAIRS = {
    "each new, without a key": (
        Way("/api/events", json.dumps(EVENT).encode()),
        Way("/in/github", BODY, SIGNATURE),
    ),
    "each new, with a key": (
        Way("/api/events", json.dumps(EVENT).encode(), key_header="Idempotency-Key"),
        Way("/in/github", BODY, SIGNATURE, "X-GitHub-Delivery"),
    ),
}


def median(rounds: list[Round]) -> tuple[float, float]:
    """Return accepted events a second and microseconds of processor time an event."""
    return statistics.median(one.accepted for one in rounds), statistics.median(one.cpu_us for one in rounds)


def line(name: str, running: Running, ways: tuple[Way, Way], count: int) -> str:
    """Measure some rounds, the two ways in turn; returns one line of the table."""
    rounds: tuple[list[Round], list[Round]] = ([], [])
    for _ in range(count):
        for way, measured in zip(ways, rounds, strict=True):
            measured.append(measure(running, way))
    (plain, plain_us), (verified, verified_us) = map(median, rounds)
    ratio = verified / plain
    return f"{name:26} {plain:13,.0f} {verified:11,.0f} {ratio:6.2f} {plain_us:12,.0f} {verified_us:8,.0f}"


def main() -> None:
    """Print one line for each pair; an argument says how many rounds."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    print(f"{'sources':26} {'/api/events/s':>13} {'/in/s':>11} {'ratio':>6} {'CPU us/event':>12} {'of /in':>8}")
    event_type = "bench.{header:x-github-event}.{body:action}"  # as the preset's own, but of a type that is handled
    chosen = {"sources": [{"name": "github", "preset": "github", "secrets": [SECRET], "event_type": event_type}]}
    with directory() as folder:
        for number, (name, ways) in enumerate(PAIRS.items()):
            with daemon(folder / str(number), settings=chosen) as running:
                print(line(name, running, ways, count), flush=True)


if __name__ == "__main__":
    main()
