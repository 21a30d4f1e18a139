"""What programs get from the broker, as values: sessions, messages, receipts, presence."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Any, Optional, Union

Body = Union[str, bytes, bytearray, memoryview]
"""What can be sent: text goes as UTF-8."""


@dataclass(frozen=True)
class Session:
    """Who we are, as the broker sees it."""

    session_id: str = field(repr=False)
    """Names the session. A secret of ours; it changes when the broker restarts."""
    login: str
    """The login id."""
    profile: str
    """`agent`, `super agent`, `service` or `admin`."""
    profile_code: int
    """1 to 4, in the same order."""
    destination: str
    """Our address: others send here to reach us."""
    connection_id: Optional[str] = None
    """Names the connection in the broker's log. Classic dialect only."""


@dataclass(frozen=True)
class Message:
    """A message: to us, to one whom we watch, to a topic or from a queue."""

    body: bytes
    """The body as it was sent; `text` decodes it."""
    origin: str
    """The sender's login id, vouched for by the broker."""
    origin_destination: str
    """The sender's address, vouched for by the broker: send there to answer."""
    content_type: Optional[str] = None
    """What the body is, if the sender says so."""
    headers: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """The sender's further headers, which the broker passes through."""
    destination: Optional[str] = None
    """Where it was sent to. The classic dialect does not say: there it is None, but for a copy of
    which it is known whose session it is to."""
    subscription: Optional[str] = None
    """The `id` of the `Subscription` that brought it. None for a direct message, and always in the
    classic dialect."""
    message_id: Optional[str] = None
    """What the broker names it by. Standard dialect only."""
    transaction: Optional[str] = None
    """The sender's number for it. Classic dialect only."""
    redelivered: bool = False
    """Whether it was delivered before, to somebody who did not acknowledge it. Queues only."""
    is_copy: bool = False
    """Whether it is to another client, whom we watch; `destination` says to whom, where known."""
    ack_id: Optional[str] = field(default=None, repr=False)
    """What `ack` and `nack` name it by. None where nothing is to be acknowledged."""
    connection: int = field(default=0, repr=False, compare=False)
    """Which of the client's connections brought it, counted from 1: an acknowledgement is good on
    that one only."""
    receiver_session: Optional[str] = field(default=None, repr=False, compare=False)
    """The session that it was delivered to: ours, or one that we watch. Classic dialect only."""

    @property
    def text(self) -> str:
        """The body as text.

        Raises:
            UnicodeDecodeError: it is not UTF-8.
        """
        return self.body.decode()

    def json(self) -> Any:
        """The body, read as JSON.

        Raises:
            ValueError: the body is not JSON.
        """
        return json.loads(self.body)

    @property
    def correlation_id(self) -> Optional[str]:
        """What ties a reply to its request."""
        return self.headers.get("correlation-id")


@dataclass(frozen=True)
class ListedClient:
    """A client that a subscription selects, as the answer to it lists it."""

    login: str
    """Its login id."""
    destination: str
    """Its address."""
    session_id: Optional[str] = field(default=None, repr=False, compare=False)
    """Names its session, in the copies that we get of its messages."""


@dataclass(frozen=True)
class Receipt:
    """The broker did what was asked."""

    delivered: Optional[int] = None
    """Of a SEND, to how many sessions it was queued. None in the classic dialect."""
    clients: tuple[ListedClient, ...] = ()
    """Of a SUBSCRIBE or UNSUBSCRIBE, the clients that it is about. Classic dialect only."""


@dataclass(frozen=True)
class Subscription:
    """What was subscribed; give it to `unsubscribe` to end it."""

    id: str
    """Names it among those of this client; `Message.subscription` is the same."""
    destination: str
    """An address, a regular expression on addresses, a topic or a queue."""
    regex: bool = False
    """Whether the destination is a regular expression."""
    ack: str = "auto"
    """`auto`, `client` (cumulative) or `client-individual`."""
    prefetch: Optional[int] = None
    """How many messages of a queue may be unacknowledged. None leaves it to the broker."""
    snapshot: bool = False
    """Of presence: whether it begins with those who are there."""
    clients: tuple[ListedClient, ...] = field(default=(), compare=False)
    """The clients that it selected when it was made. Classic dialect only."""

    @property
    def is_presence(self) -> bool:
        """Whether it brings presence events; then `destination` is the pattern on addresses."""
        return self.id.startswith(PRESENCE_ID_PREFIX)


PRESENCE_ID_PREFIX = "presence-"
"""What the ids of subscriptions to presence begin with."""


@dataclass(frozen=True)
class PresenceEvent:
    """A client came or went."""

    event: str
    """`logged` (a login id came), `disconnected` (a connection of it ended) or `logout` (it is
    gone)."""
    login: str
    """The login id."""
    profile: str
    """`agent` or `super agent`."""
    destination: str
    """Its address."""
    connection_id: Optional[int]
    """Names its connection in the broker's log."""
    reason: str
    """`login`, `takeover` or `snapshot` of `logged`; otherwise `logout`, `closed`, `lost`,
    `timed-out`, `taken-over`, `slow-consumer`, `draining` or `refused`."""
    at: Optional[datetime]
    """When, by the broker's clock."""
    snapshot: bool = False
    """Whether it only tells what was so before we asked."""

    @classmethod
    def of(cls, message: Message) -> PresenceEvent:
        """Reads the broker's own message.

        Raises:
            ValueError: it makes no sense.
        """
        try:
            told = message.json()
        except RecursionError:
            raise ValueError("it is nested too deeply") from None
        if not isinstance(told, dict):
            raise ValueError("it is no object")
        at, connection_id = told.get("at"), told.get("connection-id")
        return cls(
            event=str(told.get("event", "")),
            login=str(told.get("login", "")),
            profile=str(told.get("profile", "")),
            destination=str(told.get("destination", "")),
            connection_id=connection_id if isinstance(connection_id, int) else None,
            reason=str(told.get("reason", "")),
            # Python 3.9 does not know what a Z at the end means.
            at=datetime.fromisoformat(str(at).replace("Z", "+00:00")) if at else None,
            snapshot=message.headers.get("snapshot") == "true",
        )
