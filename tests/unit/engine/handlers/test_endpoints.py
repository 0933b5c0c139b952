"""What an endpoint may be, how its requests are signed and how its answers are read, without any network."""

import base64
import json
import socket
import threading
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from replayforge.config.settings import HttpEndpoint
from replayforge.domain.errors import Refused
from replayforge.domain.event import Event
from replayforge.domain.retry import Permanent, Retry
from replayforge.engine.handlers.addresses import CheckedResolver, Denied, look_up, written_address
from replayforge.engine.handlers.callbacks import Callbacks
from replayforge.engine.handlers.context import Context
from replayforge.engine.handlers.endpoint_handlers import handler_for, signing_key, with_endpoints
from replayforge.engine.handlers.endpoints import (
    WebhookClient,
    beginning,
    failure,
    printable,
    result,
    retry_after_seconds,
    signature,
)
from replayforge.engine.handlers.registry import Handlers
from tests.support.clock import FakeClock

NOW_US = 1_763_800_000_000_000  # Sat, 22 Nov 2025 08:26:40 GMT


def webhook_client() -> WebhookClient:
    return WebhookClient(FakeClock(NOW_US))


def shared() -> tuple[WebhookClient, Callbacks]:
    """Return what all endpoints of a daemon share."""
    return webhook_client(), Callbacks()


def registered(url: str, **settings: Any) -> Any:
    """Return the endpoint that a daemon would have for a URL."""
    function: Any = handler_for(HttpEndpoint("x", url, **settings), *shared()).function
    return function.__self__


def headers_of(endpoint: Any, event: Event, context: Context) -> dict[str, str]:
    """Return the headers with which an event is delivered."""
    headers: dict[str, str] = endpoint.headers(event, context, event.id, event.payload_bytes)
    return headers


# The URL

PUBLIC = [
    "http://8.8.8.8/",
    "https://example.com/hook?token=a",
    "http://[2606:4700::1111]:8080/",
    "http://[::ffff:8.8.8.8]/",
    "http://[64:ff9b::808:808]/",
    "http://1.example.com/",
    "http://0x1.example.com/",
    "https://bücher.example/",
]
PRIVATE = [
    "http://127.0.0.1/",
    "http://127.255.255.254/",
    "http://10.0.0.1/",
    "http://172.31.255.255/",
    "http://192.168.0.1/",
    "http://100.64.0.1/",
    "http://[::1]/",
    "http://[fd12::1]/",
    "http://[::ffff:10.0.0.1]/",
    "http://[::ffff:7f00:1]/",
    "http://[64:ff9b::10.0.0.1]/",
    "http://①②⑦.0.0.1/",
    "http://127。0。0。1/",
    "http://localhost/",
    "http://LOCALHOST./",
    "http://a.localhost/",
]
NEVER = [
    "http://169.254.169.254/latest/meta-data/",
    "http://[::ffff:169.254.169.254]/",
    "http://[64:ff9b::169.254.169.254]/",
    "http://100.100.100.200/",
    "http://[fd00:ec2::254]/",
    "http://192.0.0.192/",
    "http://[fe80::1]/",
    "http://[fe80::1%25eth0]/",
    "http://0.0.0.0/",
    "http://[::]/",
    "http://[::127.0.0.1]/",
    "http://[::ffff:0:127.0.0.1]/",
    "http://[2002:7f00:1::]/",
    "http://192.88.99.1/",
    "http://[2001::1]/",
    "http://224.0.0.1/",
    "http://[ff0e::1]/",
    "http://255.255.255.255/",
    "http://240.0.0.1/",
]
OLD_FORMS = [
    "http://127.1/",
    "http://2130706433/",
    "http://017700000001/",
    "http://0177.0.0.1/",
    "http://0x7f000001/",
    "http://0x7F.1/",
    "http://127.0.0.1./",
    "http://%31%32%37.0.0.1/",
    "http://256.1.1.1/",
]
NO_ENDPOINTS = [
    "gopher://8.8.8.8/",
    "file:///etc/passwd",
    "ws://example.com/",
    "unix:///var/run/docker.sock",
    "//example.com/",
    "http:///hook",
    "http://user@example.com/",
    "http://user:word@example.com/",
    "http://:@example.com/",
    "http://@example.com/",
    "http://8.8.8.8@127.0.0.1/",
    "http://example.com:99999/",
    "http://a\\@example.com/",
    "",
]


@pytest.mark.parametrize("url", PUBLIC)
def test_names_and_public_addresses_are_taken(url: str) -> None:
    """A name, or the address of a machine on the internet, needs no permission."""
    assert registered(url).url.host


@pytest.mark.parametrize("url", PRIVATE)
def test_private_addresses_need_permission(url: str) -> None:
    """A loopback or private address is refused with a sentence that names the key, and taken with the key."""
    with pytest.raises(Refused, match=r"is private; set allow_private = true in its table"):
        registered(url)
    assert registered(url, allow_private=True).allow_private


@pytest.mark.parametrize("url", [*NEVER, *OLD_FORMS, *NO_ENDPOINTS])
@pytest.mark.parametrize("allow_private", [False, True])
def test_what_is_refused_whatever_is_allowed(url: str, allow_private: bool) -> None:
    """Metadata services, addresses of nobody, old forms of writing, users and other schemes are always refused."""
    with pytest.raises(Refused, match=r"^The HTTP endpoint for 'x' cannot be used: .+\.$") as refused:
        registered(url, allow_private=allow_private)
    assert "set allow_private" not in str(refused.value)


def test_a_refusal_is_one_sentence() -> None:
    """The refusal of a private address names the pattern, the address and the key, and nothing of the path."""
    with pytest.raises(Refused) as refused:
        registered("http://127.0.0.1:9/secret-path?token=abc")
    assert str(refused.value) == (
        "The HTTP endpoint for 'x' cannot be used: its address 127.0.0.1 is private; "
        "set allow_private = true in its table of the configuration if that is meant."
    )


def test_an_endpoint_that_hears_of_no_cancel_cannot_be_told_of_one() -> None:
    """Only one with steps is asked again, so only there `on_cancel` means something."""
    with pytest.raises(Refused, match="without steps it hears of no cancel"):
        registered("http://example.com/", on_cancel="run")
    settings = HttpEndpoint("x", "http://example.com/", on_cancel="run", steps=True)
    assert with_endpoints(Handlers(), [settings], *shared()).compensates("x")


# Names


def resolver(*texts: str, allow_private: bool = False) -> CheckedResolver:
    async def answer(host: str) -> Sequence[str]:
        return texts

    return CheckedResolver(answer, allow_private=allow_private)


async def test_checked_addresses_are_handed_on() -> None:
    """Every address of a public name comes back in its own family and with the port that was asked for."""
    found = await resolver("8.8.8.8", "2606:4700::1111").resolve("hook.example", 443)
    assert [(one["host"], one["port"], one["family"]) for one in found] == [
        ("8.8.8.8", 443, socket.AF_INET),
        ("2606:4700::1111", 443, socket.AF_INET6),
    ]


@pytest.mark.parametrize(
    "texts",
    [
        ["127.0.0.1"],
        ["8.8.8.8", "10.0.0.1"],
        ["10.0.0.1", "8.8.8.8"],
        ["8.8.8.8", "::ffff:192.168.0.1"],
        ["2606:4700::1111", "fe80::1%2"],
        ["8.8.8.8", "169.254.169.254"],
        ["0.0.0.0"],
    ],
)
async def test_one_bad_address_denies_the_name(texts: list[str]) -> None:
    """A name is denied for good as soon as one of its addresses may not be had, wherever that one stands."""
    with pytest.raises(Denied, match=r"^hook\.example stands for "):
        await resolver(*texts).resolve("hook.example", 80)
    assert issubclass(Denied, Permanent)


async def test_permission_opens_private_networks_only() -> None:
    """With allow_private a name may stand for a private address, but never for a metadata service."""
    assert (await resolver("10.0.0.1", allow_private=True).resolve("hook.example", 80))[0]["host"] == "10.0.0.1"
    with pytest.raises(Denied, match="one that no endpoint may have"):
        await resolver("10.0.0.1", "169.254.169.254", allow_private=True).resolve("hook.example", 80)


async def test_a_name_without_addresses_is_a_network_error() -> None:
    """An empty answer is an OSError, which is tried again, and never a connection."""
    with pytest.raises(OSError, match=r"hook\.example has no address"):
        await resolver().resolve("hook.example", 80)


@pytest.mark.parametrize("host", ["nothing.invalid", "a" * 64 + ".example", "..", "a b"])
async def test_what_cannot_be_looked_up_is_a_network_error(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that the system does not know, or cannot even ask for, is an OSError."""
    real = socket.getaddrinfo

    def offline(name: str, *rest: Any, **options: Any) -> Any:
        name.encode("idna")  # what the real one does first
        return real("nothing.invalid", None, flags=socket.AI_NUMERICHOST)

    monkeypatch.setattr(socket, "getaddrinfo", offline)
    with pytest.raises(OSError):
        await look_up(host)


async def test_the_system_is_asked() -> None:
    """The look-up of a machine's own name for itself finds loopback."""
    assert {"127.0.0.1", "::1"} & set(await look_up("localhost"))


async def test_a_look_up_never_holds_up_the_exit(monkeypatch: pytest.MonkeyPatch) -> None:
    """The system is asked in a daemon thread, for it may take half a minute to say nothing."""
    asked_by: list[threading.Thread] = []

    def answer(*_: Any, **__: Any) -> list[Any]:
        asked_by.append(threading.current_thread())
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("8.8.8.8", 0))]

    monkeypatch.setattr(socket, "getaddrinfo", answer)
    assert await look_up("hook.example") == ["8.8.8.8"]
    assert [thread.daemon for thread in asked_by] == [True]
    assert asked_by[0] is not threading.main_thread()


@pytest.mark.parametrize("host", ["::1::", "1:2", "127.1", "0x7f.0x1", "1.", "example.0"])
def test_what_is_neither_name_nor_address(host: str) -> None:
    """A host that another program might read as an address is not a name."""
    with pytest.raises(ValueError, match="does not appear to be"):
        written_address(host)


# The signature


def test_signature_of_the_reference() -> None:
    """The example that Standard Webhooks publishes for its libraries comes out."""
    key = signing_key("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    signed = signature(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", b'{"test": 2432232314}')
    assert signed == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_keys() -> None:
    """A secret after whsec_ is base64, any other is its own bytes, and an empty one is not a key."""
    assert signing_key("whsec_" + base64.b64encode(b"\x00\xff key").decode()) == b"\x00\xff key"
    assert signing_key("plain wörd") == "plain wörd".encode()
    assert signing_key("") == b""


@pytest.mark.parametrize("secret", ["whsec_", "whsec_a", "whsec_not base64!", "whsec_abcd!", "whsec_é"])
def test_a_secret_that_is_none_is_refused_unseen(secret: str) -> None:
    """A whsec_ secret that is not base64 is refused with a sentence that does not repeat it."""
    with pytest.raises(Refused, match="no base64 follows") as refused:
        registered("https://example.com", secret=secret)
    assert secret not in str(refused.value).replace("whsec_, but", "")


def test_an_endpoint_shows_no_secret() -> None:
    """What a handler of an endpoint looks like in a message tells neither the key nor the URL's path."""
    handler = handler_for(HttpEndpoint("x", "https://example.com/path-4711", "secret-4711"), *shared())
    assert "4711" not in repr(handler)


# Which handler


def event(event_type: str = "x") -> Event:
    return Event("id", "app", "w", event_type, "", None, b"{}", b"{}", 0, 1, 1)


async def test_specific_patterns_win() -> None:
    """An endpoint and a Python handler compete by the length of their patterns alone."""
    handlers = Handlers()

    @handlers.on("email.*")
    async def general(event: Event, context: Context) -> None: ...

    @handlers.on("email.letter.sent")
    async def exact(event: Event, context: Context) -> None: ...

    both = with_endpoints(handlers, [HttpEndpoint("email.letter.*", "https://example.com")], *shared())
    patterns = [both.find(name) for name in ("email.x", "email.letter.x", "email.letter.sent", "sms")]
    assert [one and one.pattern for one in patterns] == ["email.*", "email.letter.*", "email.letter.sent", None]


def test_a_pattern_is_given_once() -> None:
    """A pattern that a Python handler or an endpoint has is refused, and the registry handed in stays as it was."""
    handlers = Handlers()
    handlers.on("a.*")(lambda event, context: None)
    with pytest.raises(Refused, match=r"'a\.\*'"):
        with_endpoints(handlers, [HttpEndpoint("a.*", "https://example.com")], *shared())
    with pytest.raises(Refused, match=r"'b'"):
        with_endpoints(handlers, [HttpEndpoint("b", "https://one.example")] * 2, *shared())
    assert [one.pattern for one in handlers.registered] == ["a.*"]


def test_the_time_limit_is_the_endpoints_own() -> None:
    """timeout_seconds of the endpoint is the time limit of each attempt."""
    assert handler_for(HttpEndpoint("x", "https://example.com", timeout_seconds=7), *shared()).timeout_seconds == 7


async def test_nothing_is_open_before_the_first_event() -> None:
    """A webhook client without events opens no session, and closing it twice is harmless."""
    idle = webhook_client()
    assert idle.sessions == {}
    await idle.close()
    idle.session(allow_private=False)
    await idle.close()
    await idle.close()
    assert idle.sessions[False].closed


async def test_permission_is_not_shared() -> None:
    """Endpoints with and without permission never share connections."""
    one = webhook_client()
    assert one.session(allow_private=True) is not one.session(allow_private=False)
    assert one.session(allow_private=True) is one.session(allow_private=True)
    await one.close()


# Answers


@pytest.mark.parametrize(
    ("body", "kept"),
    [
        (b"", None),
        (b"OK", None),
        (b"{", None),
        (b"\xff", None),
        (b"NaN", None),
        (b'"\\ud800"', None),
        (b"[" * 100_000, None),
        (b"[" * 65 + b"]" * 65, b"[" * 65 + b"]" * 65),
        (b' {"a": 1.10,\n "b": 123456789012345678901234567890} ', b'{"a":1.10,"b":123456789012345678901234567890}'),
        (b"null", b"null"),
        (b'"' + b"x" * (256 * 1024 - 2) + b'"', b'"' + b"x" * (256 * 1024 - 2) + b'"'),
        (b'"' + b"x" * (256 * 1024 - 1) + b'"', None),
    ],
)
def test_results(body: bytes, kept: bytes | None) -> None:
    """JSON of at most 256 KiB is kept digit for digit on one line; anything else is no result and no error."""
    found = result(body)
    assert (None if found is None else bytes(found)) == kept
    assert kept is None or msgspec.json.encode(found) == kept


@pytest.mark.parametrize("status", [401, 403, 404, 408, 425, 429, 500, 502, 503, 504, 599])
def test_statuses_that_are_tried_again(status: int) -> None:
    """These statuses ask for another attempt, at the time that Retry-After says."""
    raised = failure("https://a", status, {"Retry-After": "17"}, b"", NOW_US)
    assert isinstance(raised, Retry)
    assert raised.after == 17


@pytest.mark.parametrize("status", [300, 301, 302, 303, 304, 307, 308, 400, 402, 405, 409, 410, 422, 451, 499, 600])
def test_statuses_that_end_the_run(status: int) -> None:
    """Redirects and all other refusals are permanent."""
    assert isinstance(failure("https://a", status, {"Retry-After": "17"}, b"", NOW_US), Permanent)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("", None),
        ("0", None),
        ("1", 1),
        (" 120 ", 120),
        ("86401", 86_400),
        ("9" * 8000, 86_400),
        ("-5", None),
        ("+5", None),
        ("1e3", None),
        ("0x10", None),
        ("5, 7", None),
        ("5\x00", None),
        (",", None),
        ("(", None),
        (" ", None),
        ("Sat, 22 Nov 2025 08:27:40 +9999999", None),
        ("Sat, 22 Nov 99999 08:27:40 GMT", None),
        ("1.5", None),
        ("٣", None),
        ("soon", None),
        ("Sat, 22 Nov 2025 08:27:40 GMT", 60),
        ("Sat, 22 Nov 2025 09:27:40 +0100", 60),
        ("Sat, 22 Nov 2025 08:27:40 -0000", 60),
        ("Saturday, 22-Nov-25 08:27:40 GMT", 60),
        ("Sat, 22 Nov 2025 08:26:40 GMT", None),
        ("Sat, 22 Nov 2014 08:27:40 GMT", None),
        ("Sat, 22 Nov 9999 08:27:40 GMT", 86_400),
        ("Sat, 99 Nov 2025 08:27:40 GMT", None),
    ],
)
def test_retry_after(text: str, seconds: float | None) -> None:
    """Seconds and dates are honoured up to a day; what names no later time leaves the usual backoff."""
    assert retry_after_seconds(text, NOW_US) == seconds


def test_errors_say_what_was_answered() -> None:
    """The message has the status in words and at most 500 printable characters of the body, on one line."""
    body = b"\x1b[31mno\r\nsuch\x00 thing\xe2\x80\xae\xff " + b"x" * 100_000
    message = str(failure("https://a.example", 404, {}, body, NOW_US))
    assert message.startswith("https://a.example answered 404 Not Found: \ufffd[31mno such\ufffd thing\ufffd\ufffd x")
    assert message.isprintable()
    assert len(message) == len("https://a.example answered 404 Not Found: ") + 500


def test_redirects_do_not_say_where() -> None:
    """A redirect's message names the key to correct, and nothing that the answer said."""
    message = str(failure("https://a.example", 302, {"Location": "http://169.254.169.254/"}, b"<html>", NOW_US))
    assert message == (
        "https://a.example answered 302 Found; redirects are not followed, so correct its url in [[handlers.http]]."
    )


def test_printable_is_bounded_work() -> None:
    """Any text becomes at most 500 printable characters, and an empty one stays empty."""
    assert printable("") == ""
    assert printable(" \n\t") == ""
    assert printable("a\u2028b\u0085c") == "a b c"
    assert len(printable("\x00" * 10_000_000)) == 500


class Pieces:
    """The content of an answer that has no end."""

    def __init__(self) -> None:
        self.read = 0

    async def iter_any(self) -> Any:
        while True:
            self.read += 65_536
            yield b"x" * 65_536


async def test_an_endless_answer_is_read_to_the_limit() -> None:
    """No more than one piece beyond 256 KiB is read, and one byte beyond it is kept to tell."""
    answer: Any = type("Answer", (), {"content": Pieces()})()
    assert len(await beginning(answer)) == 256 * 1024 + 1
    assert answer.content.read <= 256 * 1024 + 65_536


def test_headers_of_an_attempt() -> None:
    """Every attempt has the same webhook-id, and its own time, number and token."""
    endpoint = registered("https://example.com", secret="word")
    context = Context(event(), lease_token=42, deadline=0, details={})
    headers = headers_of(endpoint, event(), context)
    assert {name: value for name, value in headers.items() if name != "webhook-signature"} == {
        "Content-Type": "application/json",
        "webhook-id": "id",
        "webhook-timestamp": "1763800000",
        "replayforge-attempt": "1",
        "replayforge-run": "1",
        "replayforge-lease-token": "42",
        "replayforge-event-type": "x",
        "replayforge-workflow-id": "w",
        "replayforge-application": "app",
        "replayforge-metadata": "e30=",
    }
    assert headers["webhook-signature"] == signature(b"word", "id", "1763800000", b"{}")
    assert "webhook-signature" not in headers_of(registered("https://example.com"), event(), context)


NAMES = ["order.paid", "größe", "\U0001f600 \u2028\u0085", "a: b\tc", "50%", "\u202e", "x" * 255]


@pytest.mark.parametrize("name", NAMES)
def test_names_travel_as_they_are(name: str) -> None:
    """Type, workflow, application, service and key are headers of their own; the metadata is base64."""
    told = Event("id", name, name, name, name, name, b"{}", '{"a": "\u00e9\r\nX: y"}'.encode(), 0, 7, 3)
    headers = headers_of(registered("https://example.com"), told, Context(told, lease_token=42, deadline=0, details={}))
    named = ("event-type", "workflow-id", "application", "service", "idempotency-key")
    assert {headers[f"replayforge-{one}"] for one in named} == {name.replace("\t", "\ufffd")}
    assert (headers["replayforge-run"], headers["replayforge-attempt"]) == ("7", "3")
    assert base64.b64decode(headers["replayforge-metadata"]) == told.metadata_bytes


@pytest.mark.parametrize("text", ["a\r\nX-Evil: 1", "a\nb", "a\rb", "a\x00b", "\x7f"])
def test_no_name_begins_another_header(text: str) -> None:
    """Ingest lets no control character in; one that a log holds all the same is replaced."""
    told = Event("id", text, text, text, text, text, b"{}", b"{}", 0, 1, 1)
    headers = headers_of(registered("https://example.com"), told, Context(told, lease_token=42, deadline=0, details={}))
    assert not [value for value in headers.values() if any(ord(one) < 32 or one == "\x7f" for one in value)]


@pytest.mark.parametrize(("length", "told"), [(2, True), (6124, True), (6130, False), (1_000_000, False)])
def test_large_metadata_stays_behind(length: int, told: bool) -> None:
    """A header line has at most 8 KiB; metadata that needs more is left out, and the length is said instead."""
    metadata = json.dumps({"": "x" * (length - 8)}).encode() if length > 8 else b"{}"
    assert len(metadata) == length
    large = Event("id", "a", "w", "x", "", None, b"{}", metadata, 0, 1, 1)
    headers = headers_of(
        registered("https://example.com"), large, Context(large, lease_token=42, deadline=0, details={})
    )
    assert headers.get("replayforge-metadata-omitted") == (None if told else str(length))
    assert ("replayforge-metadata" in headers) == told
    assert all(len(f"{name}: {value}\r\n") <= 8192 for name, value in headers.items())


def test_results_stay_json() -> None:
    """A kept result reads back as what the endpoint meant."""
    found = result(b'{"text": "a  b", "list": [ 1 , 2 ]}')
    assert found is not None
    assert json.loads(bytes(found)) == {"text": "a  b", "list": [1, 2]}
