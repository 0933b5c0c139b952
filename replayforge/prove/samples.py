"""The events that handlers are tried with: bodies as POST /api/events takes them, from files or from history."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from replayforge.domain.errors import Refused

KEY = "prove"


class SampleEvent(msgspec.Struct, frozen=True):
    """An event to try handlers with, and where it comes from. It has a key, so that its id is always the same."""

    name: str
    body: Mapping[str, Any]

    @property
    def event_type(self) -> str:
        """Its type."""
        return str(self.body["event_type"])


def samples_in(path: Path) -> list[SampleEvent]:
    """Read a file that holds one event, or a list of them; raises Refused for what is none."""
    try:
        document = msgspec.json.decode(path.read_bytes())
    except OSError as error:
        raise Refused(f"The sample {path} cannot be read: {error.strerror}.") from None
    except (msgspec.DecodeError, ValueError) as error:
        raise Refused(f"The sample {path} is not JSON: {error}.") from None
    return [sample_of(f"{path.name}{number}", body) for number, body in numbered(document)]


def numbered(document: Any) -> Sequence[tuple[str, Any]]:
    """Return the events of a document with what tells them apart."""
    return (
        [(f"#{number}", body) for number, body in enumerate(document, 1)]
        if isinstance(document, list)
        else [("", document)]
    )


def sample_of(name: str, body: Any) -> SampleEvent:
    """Return a sample; raises Refused for what POST /api/events would not take."""
    if not isinstance(body, dict) or not isinstance(body.get("event_type"), str):
        raise Refused(f"The sample {name} is no event: it needs an event_type, as POST /api/events takes it.")
    return SampleEvent(
        name, {"workflow_id": KEY, "payload": {}, "idempotency_key": f"{KEY}:{body['event_type']}", **body}
    )


def with_signals(sample: SampleEvent, signals: Sequence[SampleEvent]) -> list[Mapping[str, Any]]:
    """Return what is sent to try a sample: itself, and the signals that its workflow may wait for."""
    workflow = {name: sample.body[name] for name in ("workflow_id", "application_name") if name in sample.body}
    return [sample.body, *({**signal.body, **workflow} for signal in signals)]
