"""For tests of handlers: a whole daemon in the test's own process, whose clock the test moves and which it may kill."""

from replayforge.testing.forge import Forge
from replayforge.testing.life import Crashed, NotCrashed
from replayforge.testing.sent_event import NotEnded, SentEvent

__all__ = ["Crashed", "Forge", "NotCrashed", "NotEnded", "SentEvent"]
