"""ReplayForge: crash recovery for asynchronous workflows, in one process."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from replayforge.domain.event import Event
    from replayforge.domain.retry import Permanent, Retry
    from replayforge.engine.handlers.registry import Context, Handlers

__all__ = ["Context", "Event", "Handlers", "Permanent", "Retry"]

# What users write is found when it is asked for, so that a command which needs none of it starts at once.
PLACES = {
    "Context": "replayforge.engine.handlers.registry",
    "Event": "replayforge.domain.event",
    "Handlers": "replayforge.engine.handlers.registry",
    "Permanent": "replayforge.domain.retry",
    "Retry": "replayforge.domain.retry",
}


def __getattr__(name: str) -> Any:
    """Return one of the public names."""
    if name not in PLACES:
        raise AttributeError(f"module 'replayforge' has no attribute {name!r}")
    value = getattr(importlib.import_module(PLACES[name]), name)
    globals()[name] = value
    return value
