"""CloudEvents 1.0 over HTTP, sent as the `cloudevents` SDK writes them: what they become, and what is refused."""

import json
from typing import Any

import pytest
from cloudevents.core.bindings.http import to_binary_event, to_structured_event
from cloudevents.core.v1.event import CloudEvent

from tests.integration.conftest import shares_a_house
from tests.support.house import House

BATCH = {"Content-Type": "application/cloudevents-batch+json"}
STRUCTURED = {"Content-Type": "application/cloudevents+json"}
PLAIN = {"specversion": "1.0", "id": "1", "source": "/shop", "type": "order.placed"}


def attributes(event_id: str, **more: Any) -> dict[str, Any]:
    return {"id": event_id, "source": "https://shop.example/orders", "type": "com.example.order.placed", **more}


async def send(house: House, message: Any, path: str = "/api/events") -> tuple[int, dict[str, Any]]:
    """Send what the SDK has made of an event."""
    async with house.http.post(path, data=message.body, headers=message.headers) as response:
        return response.status, json.loads(await response.read())


@shares_a_house
@pytest.mark.parametrize("write", [to_structured_event, to_binary_event], ids=["structured", "binary"])
async def test_a_cloud_event_of_the_sdk(shared_house: House, write: Any) -> None:
    """Its type, subject, data and attributes are there, extensions are headers; sent again it is the same event."""
    given = attributes(write.__name__, subject="order 17 é", dataschema="https://shop.example/schema", traceid="a b")
    message = write(CloudEvent(given | {"datacontenttype": "application/json"}, {"total": 12}))
    status, event = await send(shared_house, message)
    assert (status, event["event_type"], event["workflow_id"]) == (201, given["type"], "order 17 é")
    assert (event["payload"], event["metadata"]["headers"]) == ({"total": 12}, {"traceid": "a b"})
    kept = event["metadata"]["cloudevent"]
    assert kept.pop("time", None) is None or "time" not in given
    assert kept == {"specversion": "1.0", "datacontenttype": "application/json"} | {
        name: given[name] for name in ("id", "source", "type", "subject", "dataschema")
    }
    assert event["idempotency_key"] == f"{given['source']} {given['id']}"
    status, again = await send(shared_house, message)
    assert (status, again["duplicate"], again["id"]) == (200, True, event["id"])


@shares_a_house
async def test_both_modes_are_one_event(shared_house: House) -> None:
    """What comes in binary mode after it came structured is known, and the same id of another source is not."""
    given = attributes("both", datacontenttype="application/json")
    assert (await send(shared_house, to_structured_event(CloudEvent(given, {"a": 1}))))[0] == 201
    assert (await send(shared_house, to_binary_event(CloudEvent(given, {"a": 1}))))[0] == 200
    assert (await send(shared_house, to_binary_event(CloudEvent(given | {"source": "/b"}, {"a": 1}))))[0] == 201
    status, problem = await send(shared_house, to_binary_event(CloudEvent(given, {"a": 2})))
    assert (status, problem["type"]) == (422, "urn:replayforge:idempotency-key-reused")


@shares_a_house
@pytest.mark.parametrize(
    ("kind", "data", "payload"),
    [("text/plain", "grüße", "grüße"), ("application/octet-stream", b"\x00\xff", "AP8="), ("text/xml", "<a/>", "<a/>")],
)
async def test_data_that_is_no_json(shared_house: House, kind: str, data: Any, payload: str) -> None:
    """Text is text in both modes, other bytes are base64, and without a subject the id is the workflow."""
    for write in (to_structured_event, to_binary_event):
        given = attributes(f"{kind} {write.__name__}", datacontenttype=kind)
        status, event = await send(shared_house, write(CloudEvent(given, data)))
        assert (status, event["payload"], event["workflow_id"]) == (201, payload, given["id"])
        assert event["metadata"]["cloudevent"].get("data_base64", False) is isinstance(data, bytes)


@shares_a_house
@pytest.mark.parametrize("path", ["/api/events", "/api/events/bulk"])
async def test_a_batch(shared_house: House, path: str) -> None:
    """Each event of a batch is answered for itself, wherever it is sent."""
    events = [PLAIN | {"id": path}, PLAIN | {"id": path}, {"id": "x"}, PLAIN | {"id": path, "source": "/other"}]
    async with shared_house.http.post(path, data=json.dumps(events), headers=BATCH) as response:
        answer = await response.json()
    assert [answer[name] for name in ("accepted", "duplicates", "rejected")] == [2, 1, 1]
    assert "specversion" in answer["items"][2]["problem"]["detail"]


TRACES = [f"00-{digit * 32}-{'b' * 16}-01" for digit in "123"]


@shares_a_house
async def test_the_trace_that_an_event_speaks_of(shared_house: House) -> None:
    """The extension traceparent is its trace, in every mode, of each in a batch its own; headers are nearer."""
    one = PLAIN | {"traceparent": TRACES[0]}
    sent: list[str] = []
    for event, headers in ((one, {}), (one, {"traceparent": TRACES[2]}), (PLAIN | {"traceparent": "none"}, {})):
        body = json.dumps(event | {"id": f"trace {len(sent)}"})
        async with shared_house.http.post("/api/events", data=body, headers=STRUCTURED | headers) as response:
            sent.append((await response.json())["id"])
    given = attributes("trace binary", traceparent=TRACES[1], datacontenttype="application/json")
    sent.append((await send(shared_house, to_binary_event(CloudEvent(given, {}))))[1]["id"])
    batch = [PLAIN | {"id": f"of a batch {trace}", "traceparent": trace} for trace in TRACES]
    async with shared_house.http.post("/api/events", data=json.dumps(batch), headers=BATCH) as response:
        sent += [item["id"] for item in (await response.json())["items"]]
    found = [(await shared_house.get(f"/api/events/{event_id}"))["trace_id"] for event_id in sent]
    traces = [trace.split("-")[1] for trace in TRACES]
    assert found == [traces[0], traces[2], None, traces[1], *traces]


WRONG: dict[str, Any] = {
    "specversion": "0.3", "id": "", "source": "a b", "type": 7.5, "time": "yesterday", "subject": "x" * 256,
    "datacontenttype": "json", "dataschema": "no uri", "data_base64": "%", "BadName": "x", "flag": [1],
    "number": 1 << 31,
}  # fmt: skip


@shares_a_house
@pytest.mark.parametrize(("name", "value"), [*WRONG.items(), ("type", None), ("source", False), ("id", "\x01")])
async def test_attributes_that_are_wrong_are_named(shared_house: House, name: str, value: Any) -> None:
    """An attribute that CloudEvents do not allow is 422 and named."""
    body = json.dumps(PLAIN | {name: value})
    async with shared_house.http.post("/api/events", data=body, headers=STRUCTURED) as response:
        problem = await response.json(content_type=None)
    assert (response.status, problem["errors"][0]["pointer"]) == (422, f"/{name}")
    assert name in problem["detail"]


@shares_a_house
@pytest.mark.parametrize(
    ("headers", "status", "word"),
    [
        ({"ce-type": ""}, 422, "type"),
        ({"ce-subject": "%ff"}, 422, "ce-subject"),
        ({"ce-bad-name": "x"}, 422, "bad-name"),
        ({"Content-Encoding": "gzip"}, 415, "encoding"),
        ({"Content-Type": "application/json"}, 400, "JSON"),
        ({"Idempotency-Key": "another"}, 400, "differ"),
    ],
)
async def test_wrong_binary_events(shared_house: House, headers: dict[str, str], status: int, word: str) -> None:
    """In binary mode too what is wrong is named."""
    sent = {f"ce-{name}": value for name, value in PLAIN.items()} | {"Content-Type": "text/plain"} | headers
    async with shared_house.http.post("/api/events", data=b"{no json", headers=sent) as response:
        assert (response.status, word in (await response.json(content_type=None))["detail"]) == (status, True)
