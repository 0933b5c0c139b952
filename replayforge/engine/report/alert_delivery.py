"""Brings a message about an alert to whom the configuration names: by a POST to an address, or to a command."""

import contextlib
import io
import os
import signal
import subprocess
import tempfile
from asyncio import get_running_loop, timeout
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import aiohttp
from yarl import URL

from replayforge.config.alert_rules import rule_of
from replayforge.config.settings import AlertConfig
from replayforge.domain.alerts import AlertRule
from replayforge.domain.clock import MICROSECONDS_PER_SECOND
from replayforge.domain.errors import Refused
from replayforge.engine.handlers.addresses import Denied
from replayforge.engine.handlers.endpoint_handlers import checked_url, signing_key
from replayforge.engine.handlers.endpoints import WebhookClient, beginning, cause, phrase, printable, signature
from replayforge.threads import DaemonThreads

SAID_BYTES_MAX = 2000
# Commands have threads of their own: one that hangs must not keep the log or the store from one.
COMMAND_THREADS_MAX = 4


class Undelivered(Exception):
    """A message has not reached its receiver, or nothing tells that it has; the text says why."""


class Target(Protocol):
    """Where messages about an alert go."""

    @property
    def place(self) -> str:
        """What people may know of it."""

    async def deliver(self, message_id: str, body: bytes) -> None:
        """Deliver one message within its time; raises Undelivered."""


@dataclass(frozen=True, slots=True)
class UrlTarget:
    """An address that messages are POSTed to, signed as events for endpoints are."""

    url: URL = field(repr=False)
    key: bytes = field(repr=False)
    allow_private: bool
    timeout_seconds: float
    webhook_client: WebhookClient = field(repr=False)

    @property
    def place(self) -> str:
        """What people may know of its URL, whose path may be a secret."""
        return str(self.url.origin())

    async def deliver(self, message_id: str, body: bytes) -> None:
        """POST one message; any 2xx means that it was delivered."""
        try:
            async with timeout(self.timeout_seconds):
                await self.post(message_id, body)
        except TimeoutError:
            raise Undelivered(f"{self.place} gave no answer within {self.timeout_seconds:g} s.") from None
        except (aiohttp.ClientError, OSError, Denied) as error:
            raise Undelivered(f"{self.place} did not answer: {cause(error, self.url)}") from None

    async def post(self, message_id: str, body: bytes) -> None:
        """POST it and read the answer."""
        session = self.webhook_client.session(allow_private=self.allow_private)
        headers = self.headers(message_id, body)
        async with session.post(self.url, data=io.BytesIO(body), headers=headers, allow_redirects=False) as answer:
            if 200 <= answer.status < 300:
                return
            text = printable((await beginning(answer)).decode("utf-8", "replace"))
            raise Undelivered(f"{self.place} answered {answer.status}{phrase(answer.status)}: {text}".rstrip(": "))

    def headers(self, message_id: str, body: bytes) -> dict[str, str]:
        """Return what the receiver is told beside the body; a repeat has the same id."""
        seconds = str(self.webhook_client.clock.now_us() // MICROSECONDS_PER_SECOND)
        headers = {"Content-Type": "application/json", "webhook-id": message_id, "webhook-timestamp": seconds}
        if self.key:
            headers["webhook-signature"] = signature(self.key, message_id, seconds, body)
        return headers


@dataclass(frozen=True, slots=True)
class CommandTarget:
    """A program that is given each message on its standard input."""

    command: tuple[str, ...] = field(repr=False)
    timeout_seconds: float
    threads: DaemonThreads = field(repr=False)

    @property
    def place(self) -> str:
        """What people may know of it: its arguments may be secrets."""
        return self.command[0]

    async def deliver(self, message_id: str, body: bytes) -> None:
        """Run the program; exit code 0 means that it was delivered."""
        run = partial(run_command, self.command, body, self.timeout_seconds)
        await get_running_loop().run_in_executor(self.threads, run)


def run_command(command: tuple[str, ...], body: bytes, timeout_seconds: float) -> None:
    """Run a program to its end, and end it, with all that it has started, after its time; raises Undelivered."""
    with tempfile.TemporaryFile() as said:
        try:
            process = subprocess.Popen(  # noqa: S603 - the operator's own configuration names it
                command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=said, start_new_session=True
            )
        except (OSError, ValueError) as error:
            raise Undelivered(f"{command[0]} cannot be run: {error}") from None
        try:
            process.communicate(body, timeout_seconds)
        except subprocess.TimeoutExpired:
            raise Undelivered(f"{command[0]} had not ended after {timeout_seconds:g} s, and was killed.") from None
        finally:
            if process.poll() is None:
                with contextlib.suppress(OSError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        if process.returncode:
            said.seek(0)
            text = printable(said.read(SAID_BYTES_MAX).decode("utf-8", "replace"))
            raise Undelivered(f"{command[0]} ended with code {process.returncode}: {text}".rstrip(": "))


@dataclass(frozen=True, slots=True)
class ConfiguredAlert:
    """When an alert stands, and who is told."""

    rule: AlertRule
    target: Target


def load_alerts(configured: Sequence[AlertConfig], webhook_client: WebhookClient) -> list[ConfiguredAlert]:
    """Return the alerts that the configuration names; raises Refused with one sentence for one that is wrong."""
    threads = DaemonThreads(COMMAND_THREADS_MAX, "alerts")
    return [ConfiguredAlert(rule_of(one), target_of(one, webhook_client, threads)) for one in configured]


def target_of(alert: AlertConfig, webhook_client: WebhookClient, threads: DaemonThreads) -> Target:
    """Return whom an alert tells."""
    if alert.command:
        return CommandTarget(alert.command, alert.timeout_seconds, threads)
    try:
        url, key = checked_url(alert.url, allow_private=alert.allow_private), signing_key(alert.secret)
    except ValueError as error:
        raise Refused(f"The alert {alert.name!r} cannot be used: {error}.") from None
    return UrlTarget(url, key, alert.allow_private, alert.timeout_seconds, webhook_client)
