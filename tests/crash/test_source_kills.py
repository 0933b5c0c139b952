"""kill -9 under a provider that sends each delivery until it is answered 2xx, and under somebody who forges."""

import random
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.client import HTTPException
from pathlib import Path

import pytest

from tests.support.daemon_process import DaemonProcess, HttpClient, until
from tests.support.providers import headers_of, secrets_of
from tests.support.sink import QUICK, SINK_HANDLERS, ended, lines_of

SECRET, WRONG = secrets_of("github")
SOURCE = {"name": "github", "preset": "github", "secrets": [SECRET]}
SENDERS = 4
SIZES = [(40, 2), pytest.param(1_000, 20, marks=pytest.mark.soak)]


class Provider:
    """Sends deliveries as a provider does, each again under its id until a 2xx."""

    def __init__(self, daemon: DaemonProcess) -> None:
        self.daemon = daemon
        self.answered: set[int] = set()
        self.tries: Counter[int] = Counter()

    def send(self, numbers: range) -> None:
        for number in numbers:
            while number not in self.answered:
                self.tries[number] += 1
                try:
                    self.attempt(number)
                except (OSError, HTTPException):
                    time.sleep(0.02)  # the daemon is away, and is asked again

    def has_sent(self, count: int) -> bool:
        return len(self.answered) >= count

    def attempt(self, number: int) -> None:
        """Send one delivery once, and a forged one under the same id before it."""
        body = b'{"n": %d}' % number
        client = HttpClient(self.daemon.url, timeout_seconds=5)
        try:
            forged = client.request(
                "POST", "/in/github", body, headers_of("github", WRONG, body, 0, delivery=f"d{number}")
            )
            assert forged.status == 401, forged
            sent = client.request(
                "POST", "/in/github", body, headers_of("github", SECRET, body, 0, delivery=f"d{number}")
            )
            if sent.status == 200:
                self.answered.add(number)
        finally:
            client.close()


@pytest.mark.parametrize(("deliveries", "kills"), SIZES)
def test_what_a_provider_was_told_is_accepted_ends_once(deliveries: int, kills: int, tmp_path: Path) -> None:
    """A delivery that was sent several times, since its answer was lost, is one event; forged ones are none."""
    rng = random.Random(deliveries)
    with (
        DaemonProcess(tmp_path, SINK_HANDLERS, settings={**QUICK, "sources": [SOURCE]}) as daemon,
        ThreadPoolExecutor(SENDERS) as pool,
    ):
        daemon.start()
        provider = Provider(daemon)
        sending = [pool.submit(provider.send, range(first, deliveries, SENDERS)) for first in range(SENDERS)]
        for kill in range(1, kills + 1):
            enough = deliveries * kill // (kills + 1)
            until(partial(provider.has_sent, enough), 120, f"{enough} deliveries")
            time.sleep(rng.uniform(0.0, 0.05))
            daemon.kill()
            daemon.start()
        for one in sending:
            one.result(timeout=300)
        ledger = until(daemon.converged, 60 + deliveries / 20, "convergence")["ledger"]
        shown = daemon.http.get("/api/sources")["items"][0]
        ids = {line.event_id: line.payload for line in lines_of(tmp_path)}
        assert Counter(ids.values()) == {b'{"n": %d}' % number: 1 for number in range(deliveries)}
        assert ended(tmp_path).keys() == ids.keys()
        assert (ledger["succeeded"], ledger["lost"]) == (deliveries, 0)
        again = provider.tries.total() - deliveries
        sys.stderr.write(f"{deliveries} deliveries, {kills} kills, {again} sent again; {shown['duplicates']} known\n")
        assert daemon.terminate() == 0
        assert daemon.run_command("check", "--data-dir", str(daemon.data_dir)).code == 0
