"""Connections to endpoints: the head of an answer is kept whatever follows it, and no endpoint can make it endless."""

import asyncio
import re
from asyncio import get_running_loop
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver
from aiohttp.client_proto import ResponseHandler

from replayforge.aiohttp_internals import read_answers_with

INTERIM_ANSWERS_MAX = 16
KEEP_ALIVE_SECONDS = 4.0  # servers commonly close an idle connection after five, and a POST on it would be in doubt
END_OF_HEAD = re.compile(rb"\n\r?\n")


class AnswerProtocol(ResponseHandler):
    """Reads one answer after another.

    A parser that meets garbage forgets the head that it has read from the same bytes, and the endpoint's word that it
    has done its work would be lost. So what comes is cut behind each head, and the parser sees the garbage later.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self.begin()

    def begin(self) -> None:
        """Expect the head of an answer."""
        self.head_is_whole = False
        self.interim_answers = 0
        self.last_bytes = b""  # in which the end of a head may have begun

    def set_response_params(self, **options: Any) -> None:
        """Expect the answer to a request."""
        self.begin()
        super().set_response_params(**options)

    def data_received(self, data: bytes) -> None:
        """Hand bytes to the parser, those behind a head for themselves."""
        start, before = 0, len(self.last_bytes)
        if not self.head_is_whole:
            for end in END_OF_HEAD.finditer(self.last_bytes + data):
                cut = end.end() - before
                super().data_received(data[start:cut])
                start = cut
                if self.head_is_whole or self.exception() is not None:
                    break
            self.last_bytes = data[-2:]
        if start < len(data) and self.exception() is None:
            super().data_received(data[start:])

    def feed_data(self, data: Any, size: int = 0) -> None:
        """Take in an answer's head; one that only promises another is counted, and too many end the connection."""
        interim = 100 <= data[0].code < 200 and data[0].code != 101
        self.head_is_whole = not interim
        self.interim_answers += interim
        super().feed_data(data, size)
        if self.interim_answers > INTERIM_ANSWERS_MAX:
            self.set_exception(aiohttp.ClientError(f"more than {INTERIM_ANSWERS_MAX} interim answers"))
            if self.transport is not None:
                self.transport.abort()


def connector(resolver: AbstractResolver) -> aiohttp.TCPConnector:
    """Return a connector without a limit of its own that dials what the resolver says."""
    made = aiohttp.TCPConnector(resolver=resolver, use_dns_cache=False, keepalive_timeout=KEEP_ALIVE_SECONDS, limit=0)
    read_answers_with(made, AnswerProtocol, get_running_loop())
    return made
