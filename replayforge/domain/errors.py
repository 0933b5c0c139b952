"""Errors named by what the caller can do about them; a class docstring is its default message."""


class ReplayForgeError(Exception):
    """ReplayForge could not do what was asked."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (type(self).__doc__ or "").strip())


class Unavailable(ReplayForgeError):
    """A part we depend on does not answer now; wait and try again."""

    retry_after_seconds: float = 1.0


class TooSlow(Unavailable):
    """The answer took too long and was given up, so that it holds up nobody else: ask for less, or more narrowly."""

    retry_after_seconds = 5.0


class Rejected(ReplayForgeError):
    """The request cannot be carried out as it stands; change it before sending it again."""


class NotFound(Rejected):
    """There is nothing of this name."""


class Conflict(Rejected):
    """The state has changed meanwhile; look at it again before deciding."""


class Unstorable(Rejected):
    """The store can never take this, however often it is tried: it has to change, or to be left out."""


class Corrupt(ReplayForgeError):
    """What is stored is not what was written; stop, and let a person look."""


class Refused(ReplayForgeError):
    """Start-up is refused: going on could lose or repeat acknowledged work."""

    exit_code: int = 78


class Fatal(ReplayForgeError):
    """The daemon cannot go on safely and ends itself."""

    exit_code: int = 70


class Overloaded(Unavailable):
    """Too much is waiting already; nothing was accepted, so slow down and send it again."""


class Full(Unavailable):
    """The disk is full; nothing was accepted, and accepting resumes by itself once there is space."""

    retry_after_seconds = 10.0


class OutcomeUnknown(Unavailable):
    """The outcome is unknown: the event may or may not be durable; send it again with the same key.

    `event_id` names the event where it is known.
    """

    def __init__(self, message: str | None = None, event_id: str | None = None) -> None:
        super().__init__(message or "The outcome is unknown: send it again with the same key.")
        self.event_id = event_id
