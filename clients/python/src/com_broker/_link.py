"""One connection that is logged in, until it ends: requests, answers, heart-beats; by asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Optional

from ._conversation import Conversation
from ._dialect import Answered, Connected, Delivered, Denied, Dialect, Event
from ._inbox import Arrivals
from ._model import Receipt
from ._reconnect import retry_of_close_code
from ._transport import Transport
from ._waiting import end, in_words
from .errors import BrokerError, ConnectionLost, ProtocolFault, Unconfirmed

Encode = Callable[[str], bytes]
"""Writes a request under the id that it is given."""


@dataclass
class Request:
    """A request that the broker will answer."""

    id: str
    encode: Encode
    data: bytes = field(repr=False)
    future: asyncio.Future[Receipt]
    is_issued: bool = False
    """Whether it was given to a connection, so that the broker may have done it."""


@dataclass(frozen=True)
class Ending:
    """Why a connection ended."""

    error: BrokerError
    retry: Optional[str]
    """The retry advice of the broker: `never`, `later`, `now` or None."""


class Link:
    """A connection that is logged in."""

    def __init__(
        self,
        transport: Transport,
        conversation: Conversation,
        dialect: Dialect,
        arrivals: Arrivals,
        connected: Connected,
        backlog: list[Event],
        *,
        beat: float,
        numbers: Iterator[int],
        on_end: Callable[[Link], None],
    ) -> None:
        self.transport = transport
        self.session = connected.session
        self.number = conversation.number
        loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[None] = loop.create_future()
        """Done when the connection has ended, and every request has its answer or an exception."""
        self._conversation = conversation
        self._dialect = dialect
        self._arrivals = arrivals
        self._backlog = backlog
        self._numbers = numbers
        self._on_end = on_end
        self._futures: dict[str, asyncio.Future[Receipt]] = {}
        self._fault: Optional[BrokerError] = None
        self._now = loop.time
        self._heard_at = self._said_at = loop.time()
        if dialect.beat_is_answered:
            self._say_every = self._hear_every = beat
        else:
            self._say_every = connected.beat_ms / 1000
            self._hear_every = connected.beat_expected_ms / 1000

    def issue(self, request: Request) -> None:
        """Sends a request; its future gets the answer, or the end of the connection."""
        if request.future.done():
            return
        if self.ended.done():
            _fail(request.future, _unconfirmed(None))
            return
        request.is_issued = True
        self._futures[request.id] = request.future
        self._conversation.note_request(request.id)
        self._write(request.data)

    def fail(self, fault: BrokerError) -> None:
        """Gives the connection up."""
        self._fault = self._fault or fault
        self.transport.abort()

    async def run(self) -> Ending:
        """Takes what arrives until the connection ends; says why it did."""
        beating = asyncio.ensure_future(self._beat())
        ending: Optional[Ending] = None
        try:
            ending = await self._take_all()
        except ProtocolFault as fault:
            ending = Ending(fault, "later")
        finally:
            self._note_end(ending.error if ending else None)
            await end(beating)
        return ending

    async def close(self) -> None:
        """Ends the connection, if the other side has not; also where `run` never began."""
        self._note_end(None)
        await self.transport.close()

    def _note_end(self, error: Optional[BrokerError]) -> None:
        if self.ended.done():
            return
        self._on_end(self)
        futures, self._futures = self._futures, {}
        for future in futures.values():
            _fail(future, _unconfirmed(error))
        self.ended.set_result(None)

    async def _take_all(self) -> Ending:
        events, self._backlog = self._backlog, []
        while True:
            for event in events:
                ending = self._handle(event)
                if ending is not None:
                    return ending
            await self._arrivals.room()
            data = await self.transport.read()
            self._heard_at = self._now()
            if not data:
                fault = self._fault or ConnectionLost(
                    "the connection to the broker was lost"
                    + (f": {self.transport.end_reason}" if self.transport.end_reason else "")
                )
                return Ending(fault, retry_of_close_code(self.transport.close_code))
            events = self._conversation.feed(data)

    def _handle(self, event: Event) -> Optional[Ending]:
        if isinstance(event, Delivered):
            self._arrivals.deliver(event.message)
        elif isinstance(event, Answered):
            future = self._futures.pop(event.request, None)
            if future is not None and not future.done():
                future.set_result(event.receipt)
        elif isinstance(event, Denied):
            future = self._futures.pop(event.request, None) if event.request else None
            _fail(future, event.error)
            if event.error.closes:
                return Ending(event.error, event.error.retry)
        else:
            raise ProtocolFault("the broker answered a login that was not asked for")
        return None

    async def _beat(self) -> None:
        """Sends heart-beats, and gives the connection up when none arrive."""
        intervals = [one for one in (self._say_every, self._hear_every) if one > 0]
        if not intervals:
            return
        while True:
            await asyncio.sleep(min(intervals) / 4)
            now = self._now()
            if self._arrivals.is_full:
                # Nothing is read while the inbox is full, so that silence proves nothing.
                self._heard_at = now
            patience = 2 * self._hear_every
            if patience and now - self._heard_at > patience:
                silence = in_words(patience)
                self.fail(ConnectionLost(f"nothing was heard of the broker for {silence}"))
                return
            last = self._said_at
            if self._dialect.beat_is_answered:
                # Every frame is answered, so that having heard something counts as having sent.
                last = max(last, self._heard_at)
            # 30 % early: the timer ticks each quarter, and the frame needs time on its way.
            if self._say_every and now - last >= 0.7 * self._say_every:
                self._send_beat()

    def _send_beat(self) -> None:
        number = str(next(self._numbers))
        if self._dialect.beat_is_answered:
            self._conversation.note_request(number)
        self._write(self._dialect.beat(number))

    def _write(self, data: bytes) -> None:
        self._said_at = self._now()
        self.transport.write(data)


def _unconfirmed(cause: Optional[BrokerError]) -> Unconfirmed:
    unconfirmed = Unconfirmed(
        "the connection ended before the broker answered, and what was asked may be done"
        + (f": {cause}" if cause else "")
    )
    unconfirmed.__cause__ = cause
    return unconfirmed


def _fail(future: Optional[asyncio.Future[Receipt]], error: BrokerError) -> None:
    if future is not None and not future.done():
        future.set_exception(error)
        # Marks the exception as seen: asyncio logs it otherwise, if the caller has left.
        future.exception()
