"""Everything that waits for an answer of the broker, on a connection or until there is one.

What waits here was never sent. What is given to a connection leaves the queue in the same step, and
ends with that connection, so that nothing is sent twice.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterable
from typing import Optional

from ._lifecycle import Lifecycle
from ._link import Encode, Link, Request
from ._model import Receipt
from ._waiting import finite, in_words
from .errors import AnswerTimeout, BufferFull, ConnectionLost


class Requests:
    """The requests of one client."""

    def __init__(
        self, lifecycle: Lifecycle, *, answer_timeout: float, outgoing_bytes_max: int
    ) -> None:
        self.numbers = itertools.count(1)
        """The ids of requests, subscriptions and heart-beats, none of which comes twice."""
        self._lifecycle = lifecycle
        self._answer_timeout = answer_timeout
        self._outgoing_bytes_max = outgoing_bytes_max
        self._waiting: dict[str, Request] = {}
        # The sum over what waits.
        self._waiting_bytes = 0

    def new(self, encode: Encode) -> Request:
        """A request under a number of its own, not sent yet."""
        number = str(next(self.numbers))
        future: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
        return Request(number, encode, encode(number), future)

    def issue(self, link: Link, encode: Encode) -> Request:
        """Sends a request on one connection, past what waits."""
        request = self.new(encode)
        link.issue(request)
        return request

    async def ask(
        self, request: Request, timeout: Optional[float], only: Optional[Link] = None
    ) -> Receipt:
        """Sends a request now, or when the connection is back, and waits for the answer.

        With `only` it goes on that connection, or not at all.
        """
        seconds = self._answer_timeout if timeout is None else timeout
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        try:
            link = only or self._lifecycle.link
            if link is not None and not await _wait_for_room(link, request, deadline):
                raise AnswerTimeout(
                    f"the broker did not take what was sent before within {in_words(seconds)}: "
                    "nothing was sent"
                )
            self._lifecycle.check_usable()
            # Another one, if the connection ended meanwhile.
            link = only or self._lifecycle.link
            if link is not None:
                link.issue(request)
            else:
                self._hold_back(request)
            await asyncio.wait({request.future}, timeout=finite(deadline - loop.time()))
            if request.future.done():
                return request.future.result()
            if request.id in self._waiting:
                raise AnswerTimeout(
                    f"the connection did not come back within {in_words(seconds)}: nothing was sent"
                )
            raise AnswerTimeout(f"the broker did not answer within {in_words(seconds)}")
        finally:
            self._withdraw(request)

    async def wait_for_all(self, link: Link, requests: Iterable[Request]) -> None:
        """Waits until each has its answer; gives the connection up if one is late."""
        futures = {request.future for request in requests}
        if not futures:
            return
        _, late = await asyncio.wait(futures, timeout=finite(self._answer_timeout))
        if late:
            link.fail(ConnectionLost("the broker did not restore the subscriptions in time"))
        for future in late:
            future.cancel()

    def release(self, link: Link) -> None:
        """Sends what waited, in order."""
        waiting, self._waiting, self._waiting_bytes = self._waiting, {}, 0
        for request in waiting.values():
            link.issue(request)

    def close(self) -> None:
        """Ends what waited, without having sent it; the client is closed."""
        for request in self._waiting.values():
            if not request.future.done():
                request.future.set_exception(self._lifecycle.closed())
        self._waiting, self._waiting_bytes = {}, 0

    def _hold_back(self, request: Request) -> None:
        if self._waiting_bytes + len(request.data) > self._outgoing_bytes_max:
            raise BufferFull(
                f"the connection is away, and more than {self._outgoing_bytes_max} bytes "
                "(outgoing_bytes_max) would wait for it: try again when it is back"
            )
        self._waiting[request.id] = request
        self._waiting_bytes += len(request.data)

    def _withdraw(self, request: Request) -> None:
        """Drops a request whose caller has left: if it was not sent yet, it never is."""
        if self._waiting.pop(request.id, None) is not None:
            self._waiting_bytes -= len(request.data)
        if not request.future.cancel() and not request.future.cancelled():
            # Marks the exception as seen; asyncio complains otherwise if the caller is cancelled.
            request.future.exception()


async def _wait_for_room(link: Link, request: Request, deadline: float) -> bool:
    size = len(request.data)
    if link.transport.has_room(size):
        return True
    # Any number may wait in line; none of them holds its frame meanwhile.
    request.data = b""
    now = asyncio.get_running_loop().time()
    has_room = await link.transport.room(size, finite(deadline - now))
    request.data = request.encode(request.id)
    return has_room
