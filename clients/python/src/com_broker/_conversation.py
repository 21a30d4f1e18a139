"""One connection's conversation with the broker, from login to the last frame. No sockets, no time.

What arrives goes in, in any pieces; events come out. It remembers who we are and which requests
have no answer yet.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Optional

from ._dialect import Answered, Connected, Delivered, Dialect, Event
from ._frames import Frame
from ._model import ListedClient, Session

UNASKED_CODES = frozenset(
    ("DRAINING", "NEW_CONNECTION_LOGGED", "NOT_LOGGED_IN", "SLOW_CONSUMER", "TIMED_OUT")
)
"""Codes of errors that concern the connection and answer no request."""

WATCHED_MAX = 100_000
"""How many listed sessions are remembered, with the address of each."""


class Conversation:
    """The requests and answers of one connection."""

    def __init__(self, dialect: Dialect, frame_bytes_max: int, number: int) -> None:
        self._dialect = dialect
        self._reader = dialect.reader(frame_bytes_max)
        self.number = number
        # Requests without an answer, in the order of sending, which is the order of answers.
        self._unanswered: dict[str, None] = {}
        self.session: Optional[Session] = None
        # Addresses of clients that subscriptions listed, by session: who a copy was for.
        self._watched: dict[str, str] = {}

    def note_request(self, request: str) -> None:
        """Records that a request was sent."""
        self._unanswered[request] = None

    def feed(self, data: bytes) -> list[Event]:
        """The events in bytes that arrived.

        Raises:
            ProtocolFault: they make no sense; the connection is of no more use.
        """
        return [self._handle(frame) for frame in self._reader.feed(data)]

    def _handle(self, frame: Frame) -> Event:
        event = self._dialect.interpret(frame, self.session)
        if isinstance(event, Connected):
            self.session = event.session
            return event
        if isinstance(event, Delivered):
            message = dataclasses.replace(event.message, connection=self.number)
            if message.is_copy and message.destination is None:
                receiver = self._watched.get(message.receiver_session or "")
                message = dataclasses.replace(message, destination=receiver)
            return Delivered(message)
        if isinstance(event, Answered):
            self._unanswered.pop(event.request, None)
            self._note_listed(event.receipt.clients)
            return event
        request = event.request
        if request is None and event.error.code not in UNASKED_CODES:
            # A classic ERROR names no request, but the broker answers in order.
            request = next(iter(self._unanswered), None)
        if request is not None:
            self._unanswered.pop(request, None)
        return dataclasses.replace(event, request=request)

    def _note_listed(self, clients: Iterable[ListedClient]) -> None:
        for client in clients:
            if client.session_id:
                self._watched[client.session_id] = client.destination
        while len(self._watched) > WATCHED_MAX:
            del self._watched[next(iter(self._watched))]
