"""An order in ten steps behind Flask, without an SDK; the journal that comes with each request says what is done."""

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.request import Request, urlopen

from flask import Flask, Response, jsonify, request
from werkzeug.serving import make_server

from tests.data.steps_endpoints.outside import act, decline, shaky

app = Flask(__name__)


class StepFailed(Exception):
    """A step has failed for good."""


class Next(Exception):
    """This request goes no further: what it did, and what is to happen before the next one."""


class Flow:
    """One way through a workflow, past all that the journal holds."""

    def __init__(self, asked: dict[str, Any]) -> None:
        self.asked, self.journal, self.payload = asked, asked["journal"], asked["event"]["payload"]

    def steps(self, do: Any, *names: str) -> list[Any]:
        """Do, side by side, what is not done; it is recorded when this returns."""
        if missing := [name for name in names if name not in self.journal]:
            with ThreadPoolExecutor() as pool:
                did = list(pool.map(lambda name: self.tried(do, name), missing))
            if any("error" in one for one in did):
                raise Next(did, {"again": {}})
            body = json.dumps({"lease_token": self.asked["lease_token"], "did": did}).encode()
            urlopen(Request(self.asked["checkpoint_url"], body, {"Content-Type": "application/json"}), timeout=10)
            self.journal |= {one["step"]: one for one in did}
        return [self.answer(name) for name in names]

    def tried(self, do: Any, name: str) -> dict[str, Any]:
        try:
            return {"step": name, "ok": do(self.asked, name)}
        except Exception as error:
            permanent = isinstance(error, ValueError)
            return {
                "step": name,
                "error": {"type": type(error).__name__, "message": str(error), "permanent": permanent},
            }

    def wait(self, what: str, name: str, **fields: Any) -> Any:
        """Sleep, wait_for, send or call: nothing is held open meanwhile."""
        if name not in self.journal:
            raise Next([], {what: {"step": name, **fields}})
        return self.answer(name)

    def answer(self, name: str) -> Any:
        if "error" in self.journal[name]:
            raise StepFailed(self.journal[name]["error"]["message"])
        return self.journal[name]["ok"]


def order(flow: Flow) -> list[Any]:
    did = flow.steps(act, "reserve") + flow.steps(act, "label-1", "label-2", "label-3")
    try:
        flow.steps(decline, "charge")
    except StepFailed as error:
        did += [str(error), *flow.steps(act, "refund")]
    flow.wait("sleep", "grace", seconds=flow.payload["seconds"])
    did += flow.steps(act, "pack")
    confirmed = flow.wait("wait_for", "confirmed", event_type="confirmed", timeout_seconds=86_400)
    did += [confirmed["payload"], *flow.steps(act, "ship"), *flow.steps(shaky, "archive")]
    flow.wait("send", "thanks", event_type="mail", payload={"template": "thanks"})
    return [*did, flow.wait("call", "invoice", event_type="bill", payload=flow.payload), *flow.steps(act, "close")]


def bill(flow: Flow) -> list[Any]:
    flow.wait("sleep", "paper", seconds=flow.payload["seconds"])
    return flow.steps(act, "print")


def mail(flow: Flow) -> list[Any]:
    return flow.steps(act, "deliver")


@app.post("/hook")
def hook() -> Response:
    asked = request.get_json()
    return jsonify({"order": order, "bill": bill, "mail": mail}[asked["event"]["event_type"]](Flow(asked)))


@app.errorhandler(Next)
def say_what_is_next(chosen: Next) -> Response:
    body = json.dumps({"did": chosen.args[0], "next": chosen.args[1]})
    return Response(body, content_type="application/vnd.replayforge.next+json")


make_server("127.0.0.1", int(sys.argv[1]), app, threaded=True).serve_forever()
