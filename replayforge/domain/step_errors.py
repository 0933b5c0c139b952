"""What a handler hears of its journal as an exception: a failed step, a wait that was too long, a cancel, a park."""


class StepFailed(Exception):
    """A step of this journal has failed for good: now, and in the same way on every later pass.

    `step` names it; `type`, `message` and `trace` are what is kept of the exception.
    """

    def __init__(self, step: str, error_type: str, message: str, trace: str = "") -> None:
        super().__init__(f"The step {step!r} failed: {error_type}{': ' if message else ''}{message}")
        self.step = step
        self.type = error_type
        self.message = message
        self.trace = trace


class WaitTimedOut(StepFailed):
    """No event came that a step was waiting for while it had time."""


class Cancelled(Exception):
    """Somebody has cancelled the event, whose handler says `on_cancel="run"`: undo what has to be undone, and end."""


class Parking(BaseException):
    """The event is being parked: this code ends here and goes on from its journal later. Never catch it for good.

    A BaseException, so that no `except Exception` takes it for a failure.
    """
