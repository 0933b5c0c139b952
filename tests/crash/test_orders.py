"""Orders of a shop, killed again and again: none is charged twice, shipped unpaid, or left without its money back."""

import http.server
import random
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon_process import DaemonProcess, until
from tests.support.sink import QUICK

ORDER_HANDLERS = Path(__file__).parents[1] / "data" / "order_handlers.py"
DECLINED_SHARE, BUSY_SHARE, UNCONFIRMED_SHARE = 0.1, 0.2, 0.15


class Bank:
    """Counts what was asked of it, outside of the daemon: by order and deed, each idempotency key once."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.lock = threading.Lock()
        self.requests: Counter[tuple[str, str]] = Counter()
        self.keys: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
        self.declined: set[str] = set()

    def answer(self, what: str, order: str, key: str) -> int:
        """Do what is asked, once for each key, or be busy, or decline."""
        with self.lock:
            self.requests[order, what] += 1
            if self.rng.random() < BUSY_SHARE:
                return HTTPStatus.SERVICE_UNAVAILABLE
            if what == "charge" and random.Random(order).random() < DECLINED_SHARE:
                self.declined.add(order)
                return HTTPStatus.PAYMENT_REQUIRED
            self.keys[order, what].add(key)
            return HTTPStatus.OK

    def did(self, order: str, what: str) -> int:
        """How many different deeds of a kind were done for an order."""
        return len(self.keys[order, what])

    @contextmanager
    def open(self) -> Iterator[str]:
        """Serve on a free port; yields its URL."""
        bank = self

        class Desk(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                _, what, order = self.path.split("/")
                status = bank.answer(what, order, self.headers["Idempotency-Key"])
                self.send_response(status)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Desk)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            server.server_close()


def persist(daemon: DaemonProcess, event: dict[str, Any]) -> None:
    """Send an event until it is acknowledged, to a daemon that may be dead just now."""
    while True:
        try:
            if daemon.client().post("/api/events", event).status in (200, 201):
                return
        except Exception:  # whatever a connection says of a daemon that was killed
            time.sleep(0.05)


STORMS = [(20, 6), pytest.param(40, 12, marks=pytest.mark.slow), pytest.param(500, 200, marks=pytest.mark.soak)]


@pytest.mark.parametrize(("orders", "kills"), STORMS, ids=["20", "40", "500"])
def test_no_order_is_charged_twice_shipped_unpaid_or_left_unrefunded(tmp_path: Path, orders: int, kills: int) -> None:
    rng, bank = random.Random(orders), Bank(orders)
    with bank.open() as url:
        settings = QUICK | {"workers.count": 8}
        with DaemonProcess(tmp_path, ORDER_HANDLERS, settings=settings, variables={"BANK": url}) as daemon:
            daemon.start()
            confirmed = [f"order-{n}" for n in range(orders) if rng.random() >= UNCONFIRMED_SHARE]

            def place() -> None:
                for n in range(orders):
                    order = f"order-{n}"
                    patience = 600 if order in confirmed else 3
                    placed = {"order": order, "patience_seconds": patience}
                    persist(daemon, event(order, "order.placed", placed))
                for order in confirmed:
                    persist(daemon, event(order, "order.confirmed", {}))

            shop = threading.Thread(target=place)
            shop.start()
            for _ in range(kills):
                time.sleep(rng.uniform(0.1, 0.6))
                daemon.kill()
                daemon.start()
            shop.join()
            until(lambda: ended(daemon, orders), 120, "the end of every order")
            assert daemon.http.get("/api/convergence")["ledger"]["lost"] == 0
    for n in range(orders):
        order = f"order-{n}"
        charged, refunded, shipped = (bank.did(order, what) for what in ("charge", "refund", "ship"))
        assert charged == (order not in bank.declined), order
        assert shipped == (order in confirmed and order not in bank.declined), order
        assert refunded == charged - shipped, order
        assert bank.did(order, "release") == 1 - shipped, order


def event(order: str, event_type: str, payload: Any) -> dict[str, Any]:
    """Return an event of an order, which is sent under one key however often."""
    key = f"{order}:{event_type}"
    return {"workflow_id": order, "event_type": event_type, "payload": payload, "idempotency_key": key}


def ended(daemon: DaemonProcess, orders: int) -> bool:
    """Tell whether every order has ended; a confirmation that came too late is kept."""
    report = daemon.http.get("/api/convergence")
    return bool(report["converged"] and report["waiting"] == 0 and report["ledger"]["succeeded"] >= orders)
