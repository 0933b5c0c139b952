"""The types of problems that the API answers, `urn:replayforge:NAME`: each has one status, one title and a remedy."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ProblemType:
    """What every problem of one type has in common; `remedy` says what a client can do about it."""

    status: int
    title: str
    remedy: str


ALL_LIMITS = "The limit is named; send less."
PROBLEM_TYPES: dict[str, ProblemType] = {
    # What was sent
    "malformed": ProblemType(400, "The body is not valid JSON", "Send JSON; the place is named where it is known."),
    "malformed-form": ProblemType(400, "The body is not a form", "Send the form as browsers do."),
    "malformed-request": ProblemType(400, "The request is malformed", "Send HTTP/1.1 as RFC 9112 has it."),
    "doubled-header": ProblemType(400, "A header is given twice", "Send it once."),
    "doubled-parameter": ProblemType(400, "A parameter is given twice", "Send it once."),
    "bad-idempotency-key": ProblemType(400, "The idempotency key is wrong", "Send one key, of 1 to 255 characters."),
    "unknown-parameter": ProblemType(
        422, "A parameter is unknown", "Correct it or leave it out; the nearest and the known ones are named."
    ),
    "bad-parameter": ProblemType(422, "A parameter is wrong", "Give what is named as accepted."),
    "unacceptable": ProblemType(422, "The request cannot be accepted as it is", "Change the fields that are named."),
    "rejected": ProblemType(422, "The request cannot be carried out", "Change what is named."),
    "idempotency-key-reused": ProblemType(
        422, "The idempotency key was used for another event", "Choose another key; the first event is named."
    ),
    "nothing-selected": ProblemType(422, "Nothing is selected", "Choose at least one event."),
    "too-many-selected": ProblemType(422, "Too much is selected", ALL_LIMITS),
    "unsupported-media-type": ProblemType(415, "The media type is not supported", "Send the type that is named."),
    "unsupported-encoding": ProblemType(415, "The encoding is not supported", "Send the body without encoding."),
    "too-large": ProblemType(413, "The body is too large", ALL_LIMITS),
    "too-many-events": ProblemType(413, "The bulk request has too many events", "Send fewer at once, or NDJSON."),
    "address-too-long": ProblemType(414, "The address is too long", ALL_LIMITS),
    "headers-too-large": ProblemType(431, "The headers are too large", ALL_LIMITS),
    "expectation-failed": ProblemType(417, "The expectation is not met", "Leave the Expect header out."),
    "request-too-slow": ProblemType(408, "The request came too slowly", "Send it again."),
    # Who sent it, and where
    "unauthorized": ProblemType(401, "A key is needed", "Send one of the configured keys in X-API-Key."),
    "role-needed": ProblemType(403, "The key may not do that", "Use a key that includes the role that is named."),
    "signature-refused": ProblemType(
        401, "The delivery is not signed as it should be", "Send it as the source's provider does, with its secret."
    ),
    "cross-site": ProblemType(403, "Refused as a request of another site", "Send it from this site, or with a key."),
    "chaos-disabled": ProblemType(403, "Simulated crashes are off", "Start the daemon with --simulate-crashes."),
    "bad-signature": ProblemType(403, "The URL was not made here", "Use the URL as it was sent, without a change."),
    "wrong-host": ProblemType(421, "The host is not one of ours", "Add it to [server] allowed_hosts."),
    "not-found": ProblemType(404, "There is nothing of this name", "Look for its name in a list."),
    "method-not-allowed": ProblemType(
        405, "The method is not allowed here", "Use a method that the Allow header names."
    ),
    # What stands against it now
    "conflict": ProblemType(409, "The state has changed meanwhile", "Look at it again, then decide."),
    "gone": ProblemType(410, "The records are gone", "Go on behind them, at the offset that is named."),
    "overloaded": ProblemType(429, "Too much is waiting", "Send it again after Retry-After; nothing was accepted."),
    "unavailable": ProblemType(503, "Not available now", "Send it again after Retry-After; nothing was accepted."),
    "too-slow": ProblemType(503, "The answer took too long", "Ask for less, or more narrowly."),
    "outcome-unknown": ProblemType(
        503, "The outcome is unknown", "Send it again with the same key; the event is named where it is known."
    ),
    "disk-full": ProblemType(507, "The disk is full", "Make space; accepting goes on by itself. Nothing was accepted."),
    "internal-error": ProblemType(500, "Internal error", "The daemon's log has the details under the request id."),
}
