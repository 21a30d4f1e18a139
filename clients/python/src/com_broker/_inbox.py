"""What arrived and waits for the program: messages, presence events, replies; for asyncio."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from dataclasses import dataclass
from typing import Generic, Optional, TypeVar

from ._dialect import BROKER
from ._model import Message, PresenceEvent
from ._waiting import finite, in_words
from .errors import AnswerTimeout, BrokerError, Closed, ProtocolFault

T = TypeVar("T")

ITEM_BYTES = 512
"""The memory counted for an item besides its body and the sender's headers."""
HEADER_BYTES = 160
"""The memory counted for a header besides its characters."""


class Arrivals:
    """The messages, presence events and replies that arrived."""

    def __init__(self, bytes_max: int) -> None:
        self.messages: Inbox[Message] = Inbox(bytes_max)
        self.presence: Inbox[PresenceEvent] = Inbox(bytes_max)
        self._replies: dict[str, _Awaited] = {}

    def expect_reply(self, correlation_id: str, replier: Optional[str]) -> asyncio.Future[Message]:
        """A future for the message with `correlation_id` from the address `replier`.

        Without one, anybody may reply.
        """
        reply: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._replies[correlation_id] = _Awaited(reply, replier)
        return reply

    def forget_reply(self, correlation_id: str) -> None:
        """Ends the wait for a reply."""
        self._replies.pop(correlation_id).reply.cancel()

    def deliver(self, message: Message) -> None:
        """Files a message: as a presence event, as a reply, or as a message.

        Raises:
            ProtocolFault: it comes from the broker, and makes no sense.
        """
        size = len(message.body) + ITEM_BYTES
        for key, value in message.headers.items():
            size += len(key) + len(value) + HEADER_BYTES
        # The origin alone proves nothing: a login id can be anything, an address cannot.
        if message.origin_destination == BROKER and "event" in message.headers:
            try:
                self.presence.put(PresenceEvent.of(message), size)
            except ValueError:
                raise ProtocolFault("a presence event arrived that makes no sense") from None
            return
        awaited = self._replies.get(message.correlation_id or "")
        # A copy of our own request is not the reply to it.
        is_reply = "reply-to" not in message.headers and not message.is_copy
        if awaited is not None and is_reply and awaited.takes(message):
            awaited.reply.set_result(message)
            return
        self.messages.put(message, size)

    async def room(self) -> None:
        """Waits until there is room for more."""
        await self.messages.room()
        await self.presence.room()

    @property
    def is_full(self) -> bool:
        """Whether `room` would wait."""
        return self.messages.is_full or self.presence.is_full

    def close(self, reason: Optional[BrokerError]) -> None:
        """Ends both inboxes, and every wait for a reply."""
        for awaited in self._replies.values():
            reply = awaited.reply
            if not reply.done():
                closed = Closed("the client was closed before the reply came")
                closed.__cause__ = reason
                reply.set_exception(closed)
                # Marks the exception as seen: asyncio logs it otherwise, if the caller has left.
                reply.exception()
        self.messages.close(reason)
        self.presence.close(reason)


@dataclass(frozen=True)
class _Awaited:
    """A reply that somebody waits for."""

    reply: asyncio.Future[Message]
    replier: Optional[str]

    def takes(self, message: Message) -> bool:
        """Whether a message is this reply; another sender could have used its correlation id."""
        return not self.reply.done() and self.replier in (None, message.origin_destination)


class Inbox(Generic[T]):
    """Items not taken yet. Any number of tasks may take; each item goes to one."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._items: deque[tuple[T, int]] = deque()
        self._bytes = 0
        self._takers: deque[asyncio.Future[None]] = deque()
        self._filler: Optional[asyncio.Future[None]] = None
        self._is_closed = False
        self._reason: Optional[BrokerError] = None

    def put(self, item: T, size: int) -> None:
        """Adds an item, even beyond the bound: wait for `room` before the next ones are read."""
        self._items.append((item, size))
        self._bytes += size
        _wake_one(self._takers)

    async def room(self) -> None:
        """Waits until less is held than the bound."""
        while self.is_full and not self._is_closed:
            self._filler = asyncio.get_running_loop().create_future()
            await self._filler

    @property
    def is_full(self) -> bool:
        """Whether `room` would wait."""
        return self._bytes > self._bytes_max

    async def take(self, timeout: Optional[float] = None) -> T:
        """The next item.

        Raises:
            AnswerTimeout: none came within `timeout` seconds.
            Closed: the client is closed, and the inbox is empty.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + (math.inf if timeout is None else timeout)
        while not self._items:
            if self._is_closed:
                why = f": {self._reason}" if self._reason else ""
                raise Closed(f"the client is closed{why}") from self._reason
            remaining = deadline - loop.time()
            if remaining <= 0:
                raise AnswerTimeout(f"nothing came within {in_words(timeout or 0)}")
            waiter = loop.create_future()
            self._takers.append(waiter)
            try:
                await asyncio.wait({waiter}, timeout=finite(remaining))
            finally:
                if waiter in self._takers:
                    self._takers.remove(waiter)
                elif self._items:
                    # This task was woken; if it is cancelled, too, the item goes to another.
                    _wake_one(self._takers)
        item, size = self._items.popleft()
        self._bytes -= size
        if self._filler is not None and not self._filler.done() and not self.is_full:
            self._filler.set_result(None)
        return item

    def close(self, reason: Optional[BrokerError]) -> None:
        """Ends the inbox; items that are in it can still be taken."""
        self._is_closed, self._reason = True, reason
        while self._takers:
            _wake_one(self._takers)
        if self._filler is not None and not self._filler.done():
            self._filler.set_result(None)


def _wake_one(waiters: deque[asyncio.Future[None]]) -> None:
    if waiters:
        waiter = waiters.popleft()
        if not waiter.done():
            waiter.set_result(None)
