"""ReplayForge: crash recovery for asynchronous workflows, in one process."""

from replayforge.domain.event import Event
from replayforge.domain.retry import Permanent, Retry
from replayforge.engine.handlers import Context, Handlers

__all__ = ["Context", "Event", "Handlers", "Permanent", "Retry"]
