"""What is wrong with a request that cannot be answered as one, and what its sender is told: never what it was."""

from aiohttp.http import HttpVersion10, HttpVersion11, RawRequestMessage
from aiohttp.http_exceptions import BadStatusLine, InvalidURLError, LineTooLong

from replayforge.web.http.problems import FinalProblem

ADDRESS_BYTES_MAX = 8_192
HEADER_BYTES_MAX = 16_384  # all headers of a request together
HEADERS_MAX = 128
CONTINUE = "100-continue"
VERSIONS = (HttpVersion11, HttpVersion10)


def problem_of(error: BaseException) -> FinalProblem:
    """Return what to say about an error of the parser."""
    if isinstance(error, FinalProblem):
        return error
    if isinstance(error, LineTooLong):
        return address_too_long() if error.args[1] == ADDRESS_BYTES_MAX else headers_too_large()
    if "Too many headers" in str(error):
        return headers_too_large()
    first_line = isinstance(error, BadStatusLine | InvalidURLError)
    return malformed(
        f"Something is wrong in its {'first line' if first_line else 'headers or the bounds of its body'}."
    )


def flaw_of(message: RawRequestMessage, head_bytes_most: int) -> FinalProblem | None:
    """Return what is wrong with a request that the parser let pass; its head has at most `head_bytes_most`."""
    if message.version not in VERSIONS:
        return malformed("It names another version.")
    if message.chunked and not is_plainly_chunked(message):
        return malformed("Its Transfer-Encoding may only be chunked.")
    if message.headers.get("Expect", CONTINUE).lower() != CONTINUE:
        return unmet()
    if head_bytes_most > HEADER_BYTES_MAX and header_bytes(message) > HEADER_BYTES_MAX:
        return headers_too_large()
    return None


def is_plainly_chunked(message: RawRequestMessage) -> bool:
    """Tell whether chunks are all that was done to a body; HTTP/1.0 does not know them."""
    return message.version == HttpVersion11 and message.headers["Transfer-Encoding"].lower() == "chunked"


def header_bytes(message: RawRequestMessage) -> int:
    """Return the size of all headers."""
    return sum(len(name) + len(value) + len(": \r\n") for name, value in message.raw_headers)


def malformed(place: str) -> FinalProblem:
    """Return the problem of what is not HTTP."""
    detail = f"The request is not HTTP/1.1 as RFC 9112 has it. {place} The connection is closed."
    return FinalProblem("malformed-request", detail)


def unmet() -> FinalProblem:
    """Return the problem of a request that expects what nobody does."""
    detail = f"The only thing that a request may expect is {CONTINUE}; leave the header out."
    return FinalProblem("expectation-failed", detail)


def address_too_long() -> FinalProblem:
    """Return the problem of an address beyond its limit."""
    detail = f"An address has at most {ADDRESS_BYTES_MAX:,} bytes; shorten it."
    return FinalProblem("address-too-long", detail)


def headers_too_large() -> FinalProblem:
    """Return the problem of headers beyond their limits."""
    detail = f"A request has at most {HEADERS_MAX} headers, {HEADER_BYTES_MAX:,} bytes in all; leave some out."
    return FinalProblem("headers-too-large", detail)


def too_slow(part: str) -> FinalProblem:
    """Return the problem of a request that does not come to its end."""
    return FinalProblem("request-too-slow", f"Its {part} did not come in time; send it again.")
