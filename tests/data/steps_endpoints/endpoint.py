"""An order in ten steps behind Flask, without an SDK; the journal that comes with each request says what is done."""

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.request import Request, urlopen

from flask import Flask, Response, request

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
                raise Next({"did": did, "next": {"again": {}}})
            body = json.dumps({"lease_token": self.asked["lease_token"], "did": did}).encode()
            urlopen(Request(self.asked["checkpoint_url"], body, {"Content-Type": "application/json"}), timeout=10)
            self.journal |= {one["step"]: one for one in did}
        return [self.answer(name) for name in names]

    def tried(self, do: Any, name: str) -> dict[str, Any]:
        try:
            return {"step": name, "ok": do(self.asked, name)}
        except (OSError, ValueError) as error:
            told = {"type": type(error).__name__, "message": str(error), "permanent": isinstance(error, ValueError)}
            return {"step": name, "error": told}

    def wait(self, what: str, name: str, **fields: Any) -> Any:
        """Sleep, wait_for, send or call: nothing is held open meanwhile."""
        if name not in self.journal:
            raise Next({"next": {what: {"step": name, **fields}}})
        return self.answer(name)

    def answer(self, name: str) -> Any:
        if "error" in self.journal[name]:
            raise StepFailed(self.journal[name]["error"]["message"])
        return self.journal[name]["ok"]


@app.post("/hook")
def hook() -> Any:
    flow = Flow(request.get_json())
    try:
        return {"order": order, "bill": bill, "mail": mail}[flow.asked["event"]["event_type"]](flow)
    except Next as chosen:
        return Response(json.dumps(chosen.args[0]), content_type="application/vnd.replayforge.next+json")


def order(flow: Flow) -> list[Any]:
    did = flow.steps(act, "reserve") + flow.steps(act, "label-1", "label-2", "label-3")
    try:
        flow.steps(decline, "charge")
    except StepFailed as error:
        did += [str(error), *flow.steps(act, "refund")]
    flow.wait("sleep", "grace", seconds=flow.payload["seconds"])
    did += flow.steps(act, "pack")
    did += [flow.wait("wait_for", "confirmed", event_type="confirmed", timeout_seconds=86_400)["payload"]]
    did += flow.steps(act, "ship") + flow.steps(shaky, "archive")
    flow.wait("send", "thanks", event_type="mail", payload={"template": "thanks"})
    return [*did, flow.wait("call", "invoice", event_type="bill", payload=flow.payload), *flow.steps(act, "close")]


def bill(flow: Flow) -> list[Any]:
    flow.wait("sleep", "paper", seconds=flow.payload["seconds"])
    return flow.steps(act, "print")


def mail(flow: Flow) -> list[Any]:
    return flow.steps(act, "deliver")


app.run(port=int(sys.argv[1]))
