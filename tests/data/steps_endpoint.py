"""An endpoint with steps in plain Python, without an SDK: an order is reserved, charged, awaited, billed and mailed."""

import json
import sys
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

NEXT = "application/vnd.replayforge.next+json"
EFFECTS = Path(sys.argv[1])  # the world outside: a line for everything that was done to it


def effect(asked: dict[str, Any], name: str) -> str:
    """Do something outside, under a key that is the same however often it is tried."""
    with EFFECTS.open("a") as file:
        file.write(f"{name} {asked['journal_key']}/{name}\n")
    return f"{name} done"


def checkpoint(asked: dict[str, Any], step: str, value: Any) -> int:
    """Have one step recorded while this goes on."""
    body = {"lease_token": asked["lease_token"], "did": [{"step": step, "ok": value}]}
    request = urllib.request.Request(asked["checkpoint_url"], json.dumps(body).encode())
    request.add_header("Content-Type", "application/json")
    with urllib.request.urlopen(request) as answer:
        return int(answer.status)


def order(asked: dict[str, Any]) -> tuple[str, Any]:
    """Take the steps that the journal does not hold, and say what is next."""
    journal, did = asked["journal"], []
    if "reserve" not in journal:
        checkpoint(asked, "reserve", effect(asked, "reserve"))
    if "charge" not in journal:
        done = effect(asked, "charge")
        if EFFECTS.read_text().count("charge ") == 1:  # the bank says no at first
            error = {"type": "BankDown", "message": "try again"}
            return NEXT, {"did": [{"step": "charge", "error": error}], "next": {"again": {}}}
        did = [{"step": "charge", "ok": done}]
    if "grace" not in journal:
        return NEXT, {"did": did, "next": {"sleep": {"step": "grace", "seconds": 0.05}}}
    if "parcel" not in journal:
        return NEXT, {"did": did, "next": {"wait_for": {"step": "parcel", "event_type": "parcel.scanned"}}}
    if "bill" not in journal:
        call = {"step": "bill", "event_type": "invoice.make", "payload": {"order": asked["event"]["id"]}}
        return NEXT, {"did": did, "next": {"call": call}}
    if "mail" not in journal:
        return NEXT, {"did": did, "next": {"send": {"step": "mail", "event_type": "email.wanted"}}}
    results = {name: journal[name]["ok"] for name in ("reserve", "charge", "bill")}
    return "application/json", {**results, "parcel": journal["parcel"]["ok"]["payload"]["number"]}


class Endpoint(BaseHTTPRequestHandler):
    """Answers what the daemon POSTs."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        kind, answer = order(asked) if asked["event"]["event_type"] == "order.placed" else ("application/json", "made")
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


server = ThreadingHTTPServer(("127.0.0.1", 0), Endpoint)
sys.stdout.write(f"{server.server_port}\n")
sys.stdout.flush()
server.serve_forever()
