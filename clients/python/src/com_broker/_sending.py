"""What a program sends: messages, requests for a reply, replies, acknowledgements."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping
from typing import Optional

from ._arguments import (
    body_bytes,
    check_content_type,
    check_destination,
    check_headers,
    check_message,
    check_seconds,
    check_timeout,
)
from ._dialect import Dialect, is_address, is_for_replies, trim
from ._inbox import Arrivals
from ._lifecycle import Lifecycle
from ._model import Body, Message, Receipt
from ._requests import Requests
from ._waiting import finite, in_words
from .errors import AnswerTimeout, ConnectionLost, Refused


class Sending:
    """The messages of one client, and what ties one to another."""

    def __init__(
        self, lifecycle: Lifecycle, requests: Requests, dialect: Dialect, arrivals: Arrivals
    ) -> None:
        self._lifecycle = lifecycle
        self._requests = requests
        self._dialect = dialect
        self._arrivals = arrivals

    async def send(
        self,
        destination: str,
        body: Body,
        content_type: Optional[str],
        headers: Optional[Mapping[str, str]],
        timeout: Optional[float],
    ) -> Receipt:
        """Sends a message; nobody at an address is an error."""
        receipt = await self._send(destination, body, content_type, headers, timeout)
        if receipt.delivered == 0 and is_address(destination):
            raise _nobody_at(destination)
        return receipt

    async def request(
        self,
        destination: str,
        body: Body,
        content_type: Optional[str],
        headers: Optional[Mapping[str, str]],
        timeout: float,
    ) -> Message:
        """Sends a request, and waits for the reply to it."""
        check_destination(destination)
        check_seconds("timeout", timeout)
        given = _without(headers, "correlation-id", "reply-to")
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        correlation_id = secrets.token_hex(16)
        self._lifecycle.check_usable()
        tied = {
            **given,
            "correlation-id": correlation_id,
            "reply-to": self._lifecycle.known_session().destination,
        }
        replier = destination if is_address(destination) else None
        reply = self._arrivals.expect_reply(correlation_id, replier)
        try:
            receipt = await self._send(destination, body, content_type, tied, timeout)
            if receipt.delivered == 0 and not destination.startswith("/queue/"):
                raise _nobody_at(destination)
            await asyncio.wait({reply}, timeout=finite(deadline - loop.time()))
            if not reply.done():
                raise AnswerTimeout(f"no reply from {destination} within {in_words(timeout)}")
            return reply.result()
        finally:
            self._arrivals.forget_reply(correlation_id)

    async def reply(
        self,
        message: Message,
        body: Body,
        content_type: Optional[str],
        headers: Optional[Mapping[str, str]],
        timeout: Optional[float],
    ) -> Receipt:
        """Answers a message where it wants its answer."""
        check_message(message)
        tied = dict(check_headers(headers))
        if message.correlation_id is not None:
            tied = _without(headers, "correlation-id", "reply-to")
            tied["correlation-id"] = message.correlation_id
        destination = message.headers.get("reply-to") or message.origin_destination
        if not is_for_replies(destination):
            raise ValueError(
                f"the message wants its reply at {destination[:200]!r}, which cannot be sent to"
            )
        return await self.send(destination, body, content_type, tied, timeout)

    async def settle(self, message: Message, consumed: bool, timeout: Optional[float]) -> None:
        """Acknowledges a message, or gives it back, on the connection that brought it."""
        check_message(message)
        check_timeout(timeout)
        ack_id = message.ack_id
        if ack_id is None:
            raise ValueError(
                "the message needs no acknowledgement: only those of queues do, subscribed with "
                'ack="client" or ack="client-individual"'
            )
        self._lifecycle.check_usable()
        # A message can be here before the other subscriptions are restored.
        link = self._lifecycle.live
        if link is None or link.number != message.connection:
            raise ConnectionLost(
                "the connection that brought the message has ended: the queue delivers it again"
            )
        request = self._requests.new(lambda number: self._dialect.settle(number, ack_id, consumed))
        await self._requests.ask(request, timeout, link)

    async def _send(
        self,
        destination: str,
        body: Body,
        content_type: Optional[str],
        headers: Optional[Mapping[str, str]],
        timeout: Optional[float],
    ) -> Receipt:
        check_destination(destination)
        data = body_bytes(body)
        check_content_type(content_type)
        checked = check_headers(headers)
        check_timeout(timeout)
        self._lifecycle.check_usable()
        if content_type is None:
            is_text = isinstance(body, str)
            content_type = "text/plain" if is_text else "application/octet-stream"
        given = content_type
        request = self._requests.new(
            lambda number: self._dialect.send(number, destination, data, given, checked)
        )
        return await self._requests.ask(request, timeout)


def _nobody_at(destination: str) -> Refused:
    return Refused(f"nobody takes messages at the destination {destination}", "NO_SUCH_DESTINATION")


def _without(headers: Optional[Mapping[str, str]], *owned: str) -> dict[str, str]:
    """Headers that may be given along with those that we set."""
    for name in check_headers(headers):
        if trim(name) in owned:
            raise ValueError(f"the header {name!r} is set by the client")
    return dict(headers or {})
