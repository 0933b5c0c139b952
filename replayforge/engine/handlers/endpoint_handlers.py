"""Makes handlers of the HTTP endpoints that the configuration names; refuses those that cannot be used."""

import base64
from collections.abc import Iterable
from urllib.parse import urlsplit

from yarl import URL

from replayforge.config.settings import HttpEndpoint
from replayforge.domain.errors import Refused
from replayforge.engine.handlers.addresses import objection, written_address
from replayforge.engine.handlers.callbacks import Callbacks
from replayforge.engine.handlers.conversation import Conversation
from replayforge.engine.handlers.endpoints import Endpoint, WebhookClient
from replayforge.engine.handlers.registry import Handler, Handlers

KEY_PREFIX = "whsec_"


def with_endpoints(
    handlers: Handlers, endpoints: Iterable[HttpEndpoint], webhook_client: WebhookClient, callbacks: Callbacks
) -> Handlers:
    """Return a registry of the handlers and the endpoints; the most specific pattern wins, whichever it belongs to.

    Raises Refused when a pattern is taken or an endpoint is wrong.
    """
    collected = Handlers()
    collected.include(handlers)
    for settings in endpoints:
        collected.add(handler_for(settings, webhook_client, callbacks))
    return collected


def handler_for(settings: HttpEndpoint, webhook_client: WebhookClient, callbacks: Callbacks) -> Handler:
    """Return the handler that POSTs to an endpoint; raises Refused with one sentence when it is wrong."""
    endpoint = endpoint_for(settings, webhook_client)
    if settings.on_cancel == "run" and not settings.steps:
        raise Refused(f"The HTTP endpoint for {settings.match!r} cannot be used: without steps it hears of no cancel.")
    conversation = Conversation(endpoint, callbacks, settings.timeout_seconds)
    return Handler(
        settings.match,
        conversation.deliver if settings.steps else endpoint.deliver,
        timeout_seconds=settings.timeout_seconds,
        concurrency_max=settings.concurrency_max,
        endpoint=endpoint.place,
        breaker=settings.breaker,
        deadline_seconds=settings.deadline_seconds,
        on_cancel=settings.on_cancel,
        subscriber=settings.name or None,
    )


def endpoint_for(settings: HttpEndpoint, webhook_client: WebhookClient) -> Endpoint:
    """Return an endpoint; raises Refused with one sentence when it is wrong."""
    try:
        url, key = checked_url(settings.url, allow_private=settings.allow_private), signing_key(settings.secret)
    except ValueError as error:
        raise Refused(f"The HTTP endpoint for {settings.match!r} cannot be used: {error}.") from None
    return Endpoint(url, key, settings.allow_private, webhook_client)


def checked_url(text: str, *, allow_private: bool) -> URL:
    """Return the URL; raises ValueError for one that is not plain http or whose written address may not be had."""
    try:
        url, user = URL(text), "@" in urlsplit(text).netloc
    except ValueError:
        raise ValueError("its url is not a URL") from None
    if url.scheme not in ("http", "https") or not url.host:
        raise ValueError("its url must begin with http:// or https:// and a host")
    if user:
        raise ValueError("its url must not hold a user or a password")
    try:
        address = written_address(url.host)
    except ValueError:
        raise ValueError(f"{url.host} is not a host; write an address as four numbers from 0 to 255") from None
    if address and (reason := objection(address, allow_private=allow_private)):
        raise ValueError(f"its address {url.host} {reason}")
    return url


def signing_key(secret: str) -> bytes:
    """Return the key of a secret, `whsec_` and base64 or any text; raises ValueError that does not show the secret."""
    if not secret.startswith(KEY_PREFIX):
        return secret.encode("utf-8", "surrogateescape")
    try:
        key = base64.b64decode(secret.removeprefix(KEY_PREFIX), validate=True)
    except ValueError:
        key = b""
    if not key:
        raise ValueError("its secret begins with whsec_, but no base64 follows")
    return key
