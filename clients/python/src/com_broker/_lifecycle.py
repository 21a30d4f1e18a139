"""The state of a client from `connect` to `close`: the keeper writes it, all parts read it."""

from __future__ import annotations

import asyncio
import math
from typing import Optional

from ._link import Link
from ._model import Session
from ._waiting import finite, in_words
from .errors import AnswerTimeout, BrokerError, Closed, NotConnected


class Lifecycle:
    """The state of a client, and the connection that it has now."""

    def __init__(self, label: str) -> None:
        self.label = label
        self.state = "new"
        """`new`, `connecting`, `connected`, `away` or `closed`."""
        self.session: Optional[Session] = None
        self.connections = 0
        """How many connections were logged in so far."""
        self.live: Optional[Link] = None
        """The connection that is logged in, even while subscriptions are restored on it."""
        self.link: Optional[Link] = None
        """The same once they are restored: either `live` or None."""
        self._final_error: Optional[BrokerError] = None
        self._waiters: list[asyncio.Future[None]] = []

    def __repr__(self) -> str:
        return f"<{self.label}: {self.state}>"

    @property
    def is_closed(self) -> bool:
        """Whether the client is closed, by the program or for good by the broker."""
        return self.state == "closed"

    def set_state(self, state: str) -> None:
        """Enters a state, and wakes those in `wait_connected`."""
        self.state = state
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._waiters.clear()

    def note_final_error(self, error: Optional[BrokerError]) -> None:
        """Keeps why the client is closed for good; None if the program closed it."""
        self._final_error = error

    def note_end(self, link: Link) -> None:
        """From here on what is sent waits for the next connection."""
        if self.live is link:
            self.live = self.link = None

    async def wait_connected(self, timeout: Optional[float]) -> Session:
        """Waits until the connection is there, subscriptions restored."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + (math.inf if timeout is None else timeout)
        while self.link is None:
            self.check_usable()
            if loop.time() >= deadline:
                raise AnswerTimeout(f"the connection is not back within {in_words(timeout or 0)}")
            waiter = loop.create_future()
            self._waiters.append(waiter)
            try:
                await asyncio.wait({waiter}, timeout=finite(deadline - loop.time()))
            finally:
                if waiter in self._waiters:
                    self._waiters.remove(waiter)
        return self.link.session

    def known_session(self) -> Session:
        """Who we are, as the broker last said."""
        if self.session is None:
            raise NotConnected("the client is not connected: call connect")
        return self.session

    def closed(self) -> Closed:
        """The exception for a call on a closed client."""
        error = self._final_error
        closed = Closed(f"the client is closed: {error}" if error else "the client is closed")
        closed.__cause__ = error
        return closed

    def check_usable(self) -> None:
        """Raises unless the client is connected, or will be again."""
        if self.is_closed:
            raise self.closed()
        self.check_started()

    def check_started(self) -> None:
        """Raises unless the client was connected once."""
        if self.state in ("new", "connecting"):
            raise NotConnected("the client is not connected: call connect")
