"""ReplayForge: crash recovery for asynchronous workflows, in one process."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from replayforge.client.async_client import AsyncClient
    from replayforge.client.calls import NotSucceeded, Sent
    from replayforge.client.http import Problem, Unreachable
    from replayforge.client.sync_client import Client
    from replayforge.domain.event import Event
    from replayforge.domain.retry import BadPayload, Permanent, Retry
    from replayforge.domain.step_errors import Cancelled, Parking, StepFailed, WaitTimedOut
    from replayforge.engine.handlers.context import Context
    from replayforge.engine.handlers.registry import Handlers

__all__ = [
    "AsyncClient",
    "BadPayload",
    "Cancelled",
    "Client",
    "Context",
    "Event",
    "Handlers",
    "NotSucceeded",
    "Parking",
    "Permanent",
    "Problem",
    "Retry",
    "Sent",
    "StepFailed",
    "Unreachable",
    "WaitTimedOut",
]

# What users write is found when it is asked for, so that a command which needs none of it starts at once.
PLACES = {
    "AsyncClient": "replayforge.client.async_client",
    "BadPayload": "replayforge.domain.retry",
    "Client": "replayforge.client.sync_client",
    "NotSucceeded": "replayforge.client.calls",
    "Problem": "replayforge.client.http",
    "Sent": "replayforge.client.calls",
    "Unreachable": "replayforge.client.http",
    "Cancelled": "replayforge.domain.step_errors",
    "Context": "replayforge.engine.handlers.context",
    "Event": "replayforge.domain.event",
    "Handlers": "replayforge.engine.handlers.registry",
    "Parking": "replayforge.domain.step_errors",
    "Permanent": "replayforge.domain.retry",
    "Retry": "replayforge.domain.retry",
    "StepFailed": "replayforge.domain.step_errors",
    "WaitTimedOut": "replayforge.domain.step_errors",
}


def __getattr__(name: str) -> Any:
    """Return one of the public names."""
    if name not in PLACES:
        raise AttributeError(f"module 'replayforge' has no attribute {name!r}")
    value = getattr(importlib.import_module(PLACES[name]), name)
    globals()[name] = value
    return value
