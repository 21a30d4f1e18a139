"""`AsyncClient`: the client for asyncio programs."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import logging
import math
import re
import secrets
import ssl
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Optional, Union

from ._arguments import (
    body_bytes,
    check_content_type,
    check_count,
    check_destination,
    check_flag,
    check_headers,
    check_seconds,
    check_text,
    check_timeout,
    wrong_type,
)
from ._conversation import Conversation
from ._dialect import (
    ClassicDialect,
    Connected,
    Denied,
    Dialect,
    Keys,
    StandardDialect,
    is_address,
    is_for_replies,
    trim,
)
from ._inbox import Arrivals
from ._link import Encode, Ending, Link, Request
from ._model import PRESENCE_ID_PREFIX, Body, Message, PresenceEvent, Receipt, Session, Subscription
from ._reconnect import Reconnect, Schedule
from ._transport import Trust, open_transport
from ._url import BrokerUrl, Proxy
from ._waiting import end, finite, in_words
from .errors import (
    AnswerTimeout,
    BrokerError,
    BufferFull,
    Closed,
    ConnectFailed,
    ConnectionLost,
    LoginRefused,
    NotConnected,
    ProtocolFault,
    Refused,
    Unsupported,
)

if TYPE_CHECKING:
    import os

logger = logging.getLogger("com_broker")

MIB = 1024 * 1024
GOODBYE_SECONDS_MAX = 5.0
"""How long the broker may take to confirm that we leave."""


class AsyncClient:
    """A client of the broker, for asyncio.

    ```
    async with AsyncClient(
        "tcp://127.0.0.1:6662",
        login="ana",
        application_key="my_app_secret_key",
        profile_key="my_agent_secret_key",
    ) as client:
        await client.send("/agent/bob", "hello")
        async for message in client.messages():
            print(message.origin, message.text)
    ```

    When the connection ends, the client comes back by itself, as `reconnect` says, and restores its
    subscriptions. Meanwhile what is sent waits, at most `outgoing_bytes_max` of it. Nothing is ever
    sent twice: what was on its way when the connection ended raises `ConnectionLost`, since nobody
    knows whether it arrived.

    Use it in one event loop, from as many tasks as you like; `Client` is for threads.

    Args:
        url: `tcp://`, `tls://`, `ws://` or `wss://`, a host, and a port (6662 unless given; 80 for
            ws, 443 for wss). WebSocket needs the package `websockets`.
        login: the login id. With the profile it makes the address: `ana` becomes `/agent/ana`.
        application_key: the key of the application.
        profile_key: the key of the profile to log in with.
        dialect: `"classic"`: a refused request raises, and the connection stays; `"standard"`
            (STOMP 1.2): queues, acknowledgements, how many got a message; every refusal ends the
            connection, as STOMP demands, and with `retry:never` the client.
        ca: a PEM file with the authorities, or the very certificate, to trust, and no others;
            without one, the system's are trusted. Certificate and host name are verified.
        server_hostname: the name that the certificate must be made for; the host in the URL unless
            given.
        ssl_context: used in place of `ca`, for whatever else TLS needs.
        heart_beat: seconds of silence after which each side says that it is there, and after twice
            as many of which the connection counts as lost; 0 turns this off. The broker agrees to
            no less than its `heart_beat_ms_min`, 1 s unless configured, in the standard dialect.
        connect_timeout: seconds that connecting and logging in may take.
        answer_timeout: seconds that the broker may take for an answer; each call can say otherwise.
        reconnect: when to come back; None: never.
        outgoing_bytes_max: what may wait to be sent: while the connection is away, `send` raises
            `BufferFull` above it; while the broker does not take what we write, `send` waits its
            turn.
        incoming_bytes_max: what may wait to be taken, before no more is read: answers, too, wait
            then, and the broker cuts off a client that does not read for long (`SLOW_CONSUMER`).
        frame_bytes_max: the largest frame that is taken from the broker.
        proxy: the URL of a proxy for ws:// and wss://, such as `http://proxy.example:3128`; none is
            used unless given here, whatever the environment says. `socks5://` wants the package
            `python-socks`.

    Raises:
        ValueError: an argument makes no sense; keys are not repeated.
        TypeError: it is of another type.
    """

    def __init__(
        self,
        url: str,
        *,
        login: str,
        application_key: str,
        profile_key: str,
        dialect: str = "classic",
        ca: Optional[Union[str, os.PathLike[str]]] = None,
        server_hostname: Optional[str] = None,
        ssl_context: Optional[ssl.SSLContext] = None,
        heart_beat: float = 10.0,
        connect_timeout: float = 10.0,
        answer_timeout: float = 10.0,
        reconnect: Optional[Reconnect] = Reconnect(),  # noqa: B008  It cannot be changed.
        outgoing_bytes_max: int = MIB,
        incoming_bytes_max: int = 8 * MIB,
        frame_bytes_max: int = 16 * MIB,
        proxy: Optional[str] = None,
    ) -> None:
        check_text("url", url)
        self._url = BrokerUrl.parse(url)
        if dialect not in ("classic", "standard"):
            raise ValueError('dialect must be "classic" or "standard"')
        check_seconds("heart_beat", heart_beat, endless=False)
        check_seconds("connect_timeout", connect_timeout)
        check_seconds("answer_timeout", answer_timeout)
        check_count("outgoing_bytes_max", outgoing_bytes_max, 0)
        check_count("incoming_bytes_max", incoming_bytes_max, 0)
        check_count("frame_bytes_max", frame_bytes_max, 1)
        if reconnect is not None and not isinstance(reconnect, Reconnect):
            raise wrong_type("reconnect", "Reconnect or None", reconnect)
        self._proxy: Optional[Proxy] = None
        if proxy is not None:
            check_text("proxy", proxy)
            if not self._url.is_websocket:
                raise ValueError("only ws:// and wss:// can go by way of a proxy")
            self._proxy = Proxy.parse(proxy)
        self._dialect: Dialect = (
            StandardDialect()
            if dialect == "standard"
            else ClassicDialect(enveloped=not self._url.is_websocket)
        )
        self._login = login
        self._keys = Keys(application_key, profile_key)
        self._trust = Trust(ca, server_hostname, ssl_context)
        self._heart_beat = heart_beat
        self._connect_timeout = connect_timeout
        self._answer_timeout = answer_timeout
        self._rules = reconnect
        self._schedule = Schedule(reconnect) if reconnect else None
        self._outgoing_bytes_max = outgoing_bytes_max
        self._frame_bytes_max = frame_bytes_max
        self._connections = 0
        # Faults in login and keys are known before anything is opened.
        self._greeting()

        self._state = "new"
        self._session: Optional[Session] = None
        self._final_error: Optional[BrokerError] = None
        # The connection that there is, and the same once subscriptions are restored on it.
        self._live: Optional[Link] = None
        self._link: Optional[Link] = None
        self._opening: Optional[asyncio.Task[Link]] = None
        self._supervisor: Optional[asyncio.Task[None]] = None
        self._closing: Optional[asyncio.Future[None]] = None
        self._changed: list[asyncio.Future[None]] = []
        self._numbers = itertools.count(1)
        self._held: dict[str, _Held] = {}
        self._waiting: dict[str, Request] = {}
        self._waiting_bytes = 0
        # What the broker may have, and nobody wants any more: unsubscribed while away, as the
        # connection ended, or without an answer.
        self._orphans: dict[str, Subscription] = {}
        self._arrivals = Arrivals(incoming_bytes_max)
        # How far `connect` came.
        self._progress = ""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._login!r} at {self._url}: {self._state}>"

    async def __aenter__(self) -> AsyncClient:
        await self.connect()
        return self

    async def __aexit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        await self.close()

    # -- the connection ------------------------------------------------------------------------

    async def connect(self) -> Session:
        """Connects and logs in, once: only later ends of the connection are survived.

        Raises:
            ConnectFailed: there is no connection to be had.
            LoginRefused: the broker does not let us in; `retry` tells whether trying again helps.
            Closed: the client was closed before; make a new one.
        """
        if self._state == "closed":
            raise self._closed()
        if self._state != "new":
            raise RuntimeError("connect is called once; the client comes back by itself")
        self._state = "connecting"
        try:
            link = await self._open()
        except BaseException:
            if self._state == "connecting":
                self._state = "new"
            raise
        # In one turn of the loop, so that nobody finds a connection that nobody serves.
        self._live = self._link = link
        self._set_state("connected")
        self._supervisor = asyncio.ensure_future(self._supervise(link))
        self._supervisor.add_done_callback(self._note_unsupervised)
        return link.session

    async def close(self) -> None:
        """Logs out and closes the connection. Calling it again does no harm.

        What still waits to be sent is dropped, and its `send` raises `Closed`. Messages that
        arrived can still be taken.
        """
        if self._closing is None:
            self._closing = asyncio.get_running_loop().create_future()
            try:
                await self._end_all()
            finally:
                self._closing.set_result(None)
        elif not self._closing.done():
            # Another task is at it.
            await asyncio.wait({self._closing})

    async def _end_all(self) -> None:
        try:
            if self._state != "closed":
                self._set_state("closed")
                if self._opening is not None:
                    self._opening.cancel()
                try:
                    if self._live is not None:
                        await self._say_goodbye(self._live)
                finally:
                    self._finish(None)
        finally:
            try:
                if self._supervisor is not None:
                    await end(self._supervisor)
            finally:
                if self._live is not None:
                    # Its supervisor ended before it had begun.
                    await self._live.close()

    async def wait_connected(self, timeout: Optional[float] = None) -> Session:
        """Waits until the connection is there, subscriptions restored.

        Raises:
            AnswerTimeout: it is not, after `timeout` seconds.
            Closed: it will not be any more.
        """
        check_timeout(timeout)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + (math.inf if timeout is None else timeout)
        while self._link is None:
            self._check_usable()
            if loop.time() >= deadline:
                raise AnswerTimeout(f"the connection is not back within {in_words(timeout or 0)}")
            waiter = loop.create_future()
            self._changed.append(waiter)
            try:
                await asyncio.wait({waiter}, timeout=finite(deadline - loop.time()))
            finally:
                if waiter in self._changed:
                    self._changed.remove(waiter)
        return self._link.session

    @property
    def session(self) -> Session:
        """Who we are, as the broker last said.

        Raises:
            NotConnected: we never were logged in.
        """
        if self._session is None:
            raise NotConnected("the client is not connected: call connect")
        return self._session

    @property
    def is_connected(self) -> bool:
        """Whether the connection is there now."""
        return self._link is not None and self._state == "connected"

    @property
    def state(self) -> str:
        """`new`, `connecting`, `connected`, `away` (it comes back by itself) or `closed`."""
        return self._state

    @property
    def connections(self) -> int:
        """How many connections were logged in so far: 1 after `connect`, one more each return."""
        return self._connections

    @property
    def subscriptions(self) -> tuple[Subscription, ...]:
        """What is subscribed, and restored when the client comes back."""
        # Through a list, for `Client` asks from another thread.
        return tuple(held.subscription for held in list(self._held.values()))

    # -- sending -------------------------------------------------------------------------------

    async def send(
        self,
        destination: str,
        body: Body,
        *,
        content_type: Optional[str] = None,
        headers: Optional[Mapping[str, str]] = None,
        timeout: Optional[float] = None,
    ) -> Receipt:
        """Sends a message, and waits until the broker has passed it on.

        Args:
            destination: an address, a topic (`/topic/…`) or a queue (`/queue/…`).
            body: text goes as UTF-8.
            content_type: `text/plain` for text and `application/octet-stream` for anything else,
                unless given.
            headers: further headers, which the receiver gets as they are.
            timeout: seconds, `answer_timeout` unless given. Waiting for the connection counts.

        Raises:
            Refused: the broker did not; `code` is `NO_SUCH_DESTINATION` where nobody is at the
                address.
            ConnectionLost: the connection ended before the answer. The message may have arrived.
            AnswerTimeout: so did the time. What waited for the connection is not sent any more.
            BufferFull: the connection is away, and too much waits for it already.
            Closed: the client is closed.
            ValueError: a header is the broker's, or the dialect cannot carry it.
            TypeError: the body is neither text nor bytes, or a header no `str`.
        """
        receipt = await self._send(destination, body, content_type, headers, timeout)
        if receipt.delivered == 0 and is_address(destination):
            raise _nobody_at(destination)
        return receipt

    async def request(
        self,
        destination: str,
        body: Body,
        *,
        content_type: Optional[str] = None,
        headers: Optional[Mapping[str, str]] = None,
        timeout: float = 10.0,
    ) -> Message:
        """Sends a request, and waits for the reply to it.

        The request carries the headers `correlation-id` and `reply-to`, our address. What comes
        back to us with the same `correlation-id` is the reply, and `messages` does not show it; if
        the destination is an address, only what comes from there is.

        Args:
            destination: as of `send`.
            body: as of `send`.
            content_type: as of `send`.
            headers: as of `send`.
            timeout: seconds until the reply must be here. The connection may end and come back in
                the meantime.

        Raises:
            AnswerTimeout: no reply came in time.
            BrokerError, ValueError, TypeError: as `send` does.
        """
        check_destination(destination)
        check_seconds("timeout", timeout)
        given = _without(headers, "correlation-id", "reply-to")
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        correlation_id = secrets.token_hex(16)
        self._check_usable()
        tied = {
            **given,
            "correlation-id": correlation_id,
            "reply-to": self.session.destination,
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
        *,
        content_type: Optional[str] = None,
        headers: Optional[Mapping[str, str]] = None,
        timeout: Optional[float] = None,
    ) -> Receipt:
        """Answers a message: to its `reply-to`, or to its sender, with its `correlation-id`.

        Raises:
            BrokerError: as `send` does.
            ValueError: what the message says of its reply makes no sense; or as `send` does.
                Whoever answers everybody goes on after it.
        """
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
        return await self.send(
            destination, body, content_type=content_type, headers=tied, timeout=timeout
        )

    # -- receiving -----------------------------------------------------------------------------

    async def receive(self, timeout: Optional[float] = None) -> Message:
        """The next message.

        Raises:
            AnswerTimeout: none came within `timeout` seconds.
            Closed: the client is closed, and all that had arrived is taken.
        """
        check_timeout(timeout)
        self._check_started()
        return await self._arrivals.messages.take(timeout)

    async def messages(self) -> AsyncIterator[Message]:
        """Messages in the order of their arrival: direct ones, copies, from topics and queues.

        It ends when the client is closed. Several iterators share: each message goes to one.

        Raises:
            BrokerError: the broker closed the client for good; for example `TakenOver`.
        """
        self._check_started()
        while True:
            try:
                message = await self._arrivals.messages.take()
            except Closed as closed:
                if closed.__cause__ is not None:
                    raise closed.__cause__ from None
                return
            yield message

    async def presence_events(self) -> AsyncIterator[PresenceEvent]:
        """Who comes and goes, after `subscribe_presence`; ends as `messages` does."""
        self._check_started()
        while True:
            try:
                event = await self._arrivals.presence.take()
            except Closed as closed:
                if closed.__cause__ is not None:
                    raise closed.__cause__ from None
                return
            yield event

    async def receive_presence(self, timeout: Optional[float] = None) -> PresenceEvent:
        """The next presence event; raises as `receive` does."""
        check_timeout(timeout)
        self._check_started()
        return await self._arrivals.presence.take(timeout)

    # -- subscribing ---------------------------------------------------------------------------

    async def subscribe(
        self,
        destination: str,
        *,
        regex: bool = False,
        ack: str = "auto",
        prefetch: Optional[int] = None,
        timeout: Optional[float] = None,
    ) -> Subscription:
        """Subscribes to a topic or a queue, or watches a client: gets a copy of what it gets.

        Args:
            destination: `/topic/a/b` (`*` stands for one level, `>` at the end for all that
                follow), `/queue/a`, or an address such as `/agent/ana`, whose client must be logged
                in now.
            regex: takes the destination for a regular expression, in the syntax of Rust's crate
                `regex`, which must match addresses as a whole. Clients that log in later are
                watched, too.
            ack: `auto`, `client` or `client-individual`; of a queue, in the standard dialect.
            prefetch: how many messages of the queue may be unacknowledged; the broker's
                `prefetch_max` unless given.
            timeout: seconds, `answer_timeout` unless given.

        When the client comes back, a client that was watched by address is watched by a regular
        expression for just that address, for it may not be back itself.

        Raises:
            Refused: the broker does not allow it.
            Unsupported: the classic dialect has no queues.
            BrokerError: as `send` does.
        """
        check_destination(destination)
        check_flag("regex", regex)
        if ack not in ("auto", "client", "client-individual"):
            raise ValueError('ack must be "auto", "client" or "client-individual"')
        if prefetch is not None:
            check_count("prefetch", prefetch, 1)
        if self._dialect.name == "classic" and (
            ack != "auto" or prefetch is not None or destination.startswith("/queue/")
        ):
            raise Unsupported('queues are for dialect="standard", which can acknowledge')
        subscription = Subscription(
            id=str(next(self._numbers)),
            destination=destination,
            regex=regex,
            ack=ack,
            prefetch=prefetch,
        )
        return await self._subscribe(subscription, timeout)

    async def subscribe_presence(
        self, pattern: str = ".*", *, snapshot: bool = False, timeout: Optional[float] = None
    ) -> Subscription:
        """Subscribes to who comes and goes; `presence_events` has it. For services only.

        Args:
            pattern: a regular expression that must match addresses as a whole.
            snapshot: whether to begin with a `logged` event for each client that is there, and
                again when the client comes back.
            timeout: seconds, `answer_timeout` unless given.

        Raises:
            Refused: we are no service (`PROF_NO_RIGHTS`), or the pattern is none (`INVALID_REGEX`).
            BrokerError: as `send` does.
        """
        check_text("the pattern", pattern)
        check_flag("snapshot", snapshot)
        subscription = Subscription(
            id=f"{PRESENCE_ID_PREFIX}{next(self._numbers)}",
            destination=pattern,
            snapshot=snapshot,
        )
        return await self._subscribe(subscription, timeout)

    async def unsubscribe(
        self, subscription: Optional[Subscription] = None, *, timeout: Optional[float] = None
    ) -> None:
        """Ends a subscription, or all of them.

        Raises:
            ValueError: there is no such subscription.
            BrokerError: as `send` does.
        """
        self._check_usable()
        if subscription is None:
            for one in self.subscriptions:
                await self.unsubscribe(one, timeout=timeout)
            return
        if not isinstance(subscription, Subscription):
            raise wrong_type("what to unsubscribe", "a Subscription", subscription)
        check_timeout(timeout)
        held = self._held.pop(subscription.id, None)
        if held is None:
            raise ValueError(f"there is no subscription {subscription.id} to end")
        if self._is_shared(held.wire):
            return
        # Until the broker has said that it is gone.
        self._orphans[held.wire.id] = held.wire
        link = self._link
        if link is None:
            return
        request = self._new_request(self._unsubscribing(held.wire))
        try:
            await self._ask(request, timeout, link)
        except ConnectionLost:
            return
        except BaseException:
            if not request.is_issued and not link.ended.done():
                # Nobody heard of it, so that it still stands.
                self._orphans.pop(held.wire.id, None)
                self._held[subscription.id] = held
            raise
        self._orphans.pop(held.wire.id, None)

    async def ack(self, message: Message, *, timeout: Optional[float] = None) -> None:
        """Acknowledges a message of a queue; with `ack="client"`, all before it, too.

        Raises:
            ConnectionLost: the connection that brought it has ended: the queue delivers it again.
            ValueError: it needs no acknowledgement.
            BrokerError: as `send` does.
        """
        await self._settle(message, True, timeout)

    async def nack(self, message: Message, *, timeout: Optional[float] = None) -> None:
        """Gives a message back to its queue, for another delivery; raises as `ack` does."""
        await self._settle(message, False, timeout)

    # -- requests ------------------------------------------------------------------------------

    async def _send(
        self,
        destination: str,
        body: Body,
        content_type: Optional[str],
        headers: Optional[Mapping[str, str]],
        timeout: Optional[float],
    ) -> Receipt:
        check_destination(destination)
        octets = body_bytes(body)
        check_content_type(content_type)
        checked = check_headers(headers)
        check_timeout(timeout)
        self._check_usable()
        if content_type is None:
            is_text = isinstance(body, str)
            content_type = "text/plain" if is_text else "application/octet-stream"
        given = content_type
        request = self._new_request(
            lambda number: self._dialect.send(number, destination, octets, given, checked)
        )
        return await self._ask(request, timeout)

    async def _subscribe(
        self, subscription: Subscription, timeout: Optional[float]
    ) -> Subscription:
        check_timeout(timeout)
        self._check_usable()
        request = self._new_request(self._subscribing(subscription))
        try:
            receipt = await self._ask(request, timeout)
        except Refused:
            raise
        except BaseException:
            if request.is_issued:
                # Nobody holds it, and yet the broker may.
                self._disown(subscription)
            raise
        made = dataclasses.replace(subscription, clients=receipt.clients)
        self._held[made.id] = _Held(made, made)
        return made

    def _disown(self, wire: Subscription) -> None:
        """Ends a subscription of which it is not known whether it was made."""
        link = self._link
        if self._is_shared(wire):
            return
        if link is not None and not link.ended.done():
            # Behind the SUBSCRIBE, so that there is something to end.
            self._issue(link, self._unsubscribing(wire))
        else:
            self._orphans[wire.id] = wire

    def _is_shared(self, wire: Subscription) -> bool:
        """Whether a subscription is the same to the broker as one that stays."""
        # Only in the standard dialect they have ids.
        return self._dialect.name == "classic" and any(
            (one.wire.destination, one.wire.is_presence) == (wire.destination, wire.is_presence)
            for one in self._held.values()
        )

    async def _settle(self, message: Message, consumed: bool, timeout: Optional[float]) -> None:
        check_message(message)
        check_timeout(timeout)
        ack_id = message.ack_id
        if ack_id is None:
            raise ValueError(
                "the message needs no acknowledgement: only those of queues do, subscribed with "
                'ack="client" or ack="client-individual"'
            )
        self._check_usable()
        # A message can be here before the other subscriptions are restored.
        link = self._live
        if link is None or link.number != message.connection:
            raise ConnectionLost(
                "the connection that brought the message has ended: the queue delivers it again"
            )
        request = self._new_request(lambda number: self._dialect.settle(number, ack_id, consumed))
        await self._ask(request, timeout, link)

    async def _ask(
        self, request: Request, timeout: Optional[float], only: Optional[Link] = None
    ) -> Receipt:
        """Sends a request now, or when the connection is back, and waits for the answer.

        With `only` it goes on that connection, or not at all.
        """
        seconds = self._answer_timeout if timeout is None else timeout
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        try:
            link = only or self._link
            if link is not None and not await self._wait_for_room(link, request, deadline):
                raise AnswerTimeout(
                    f"the broker did not take what was sent before within {in_words(seconds)}: "
                    "nothing was sent"
                )
            self._check_usable()
            link = only or self._link
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

    @staticmethod
    async def _wait_for_room(link: Link, request: Request, deadline: float) -> bool:
        size = len(request.octets)
        if link.transport.has_room(size):
            return True
        # Any number may wait in line; none of them holds its frame meanwhile.
        request.octets = b""
        now = asyncio.get_running_loop().time()
        has_room = await link.transport.room(size, finite(deadline - now))
        request.octets = request.encode(request.id)
        return has_room

    def _new_request(self, encode: Encode) -> Request:
        number = str(next(self._numbers))
        future: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
        return Request(number, encode, encode(number), future)

    def _hold_back(self, request: Request) -> None:
        if self._waiting_bytes + len(request.octets) > self._outgoing_bytes_max:
            raise BufferFull(
                f"the connection is away, and more than {self._outgoing_bytes_max} bytes "
                "(outgoing_bytes_max) would wait for it: try again when it is back"
            )
        self._waiting[request.id] = request
        self._waiting_bytes += len(request.octets)

    def _withdraw(self, request: Request) -> None:
        """Nobody waits for it any more: unless it is on its way already, it is not sent."""
        if self._waiting.pop(request.id, None) is not None:
            self._waiting_bytes -= len(request.octets)
        if not request.future.cancel() and not request.future.cancelled():
            # Otherwise asyncio complains that nobody looked, where whoever asked is cancelled.
            request.future.exception()

    def _release_held_back(self, link: Link) -> None:
        waiting, self._waiting, self._waiting_bytes = self._waiting, {}, 0
        for request in waiting.values():
            link.issue(request)

    # -- coming and going ----------------------------------------------------------------------

    async def _supervise(self, link: Link) -> None:
        """Serves one connection after the other, until the client is closed."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                began = loop.time()
                ending = await self._serve(link)
                if self._state == "closed":
                    return
                self._set_state("away")
                following = await self._come_back(ending, loop.time() - began)
                if following is None:
                    return
                link = following
        except Exception as error:
            # A fault of ours must not leave everybody waiting.
            logger.exception("%r: closed by a fault of the client", self)
            self._set_state("closed")
            fault = BrokerError("the client has a fault; the log says more")
            fault.__cause__ = error
            self._finish(fault)

    def _note_unsupervised(self, _: asyncio.Task[None]) -> None:
        if self._state != "closed":
            # Whoever cancels all tasks cancels ours, too; maybe before it began.
            self._set_state("closed")
            self._finish(BrokerError("the client's task was cancelled"))
            if self._live is not None:
                self._live.transport.abort()

    def _note_end(self, link: Link) -> None:
        """From here on what is sent waits for the next connection."""
        if self._live is link:
            self._live = self._link = None

    async def _serve(self, link: Link) -> Ending:
        self._live = link
        running = asyncio.ensure_future(link.run())
        try:
            if self._link is None:
                await self._restore(link)
            if self._state == "away" and not link.ended.done():
                self._release_held_back(link)
                self._link = link
                self._set_state("connected")
            await asyncio.wait({running})
            return running.result()
        finally:
            try:
                await end(running)
            finally:
                await link.close()
                self._live = self._link = None

    async def _restore(self, link: Link) -> None:
        """Subscribes again to everything, before anything else is sent.

        The broker may have kept our session, and in it what was unsubscribed meanwhile.
        """
        dialect = self._dialect
        ended = set(self._orphans)
        requests = []
        if isinstance(dialect, ClassicDialect):
            requests.append(self._issue(link, dialect.unsubscribe_all))
        else:
            for wire in list(self._orphans.values()):
                requests += self._end_orphan(link, wire)
        restored = {}
        for held in list(self._held.values()):
            held.wire = _standing(held.subscription, link.session)
            request = self._issue(link, self._subscribing(held.wire))
            restored[held.wire.id] = request
            requests.append(request)
        await self._wait_for_all(link, requests)
        for name, request in restored.items():
            if not request.future.cancelled() and isinstance(request.future.exception(), Refused):
                logger.warning(
                    "%r: subscription %s was not restored: %s",
                    self,
                    name,
                    request.future.exception(),
                )
        # More of them can come while we wait.
        while not link.ended.done():
            late = [wire for wire in self._orphans.values() if wire.id not in ended]
            if not late:
                break
            requests = []
            for wire in late:
                ended.add(wire.id)
                if wire.id in restored:
                    requests.append(self._issue(link, self._unsubscribing(wire)))
                elif not isinstance(dialect, ClassicDialect):
                    requests += self._end_orphan(link, wire)
            await self._wait_for_all(link, requests)
        if not link.ended.done():
            for name in ended:
                self._orphans.pop(name, None)

    def _end_orphan(self, link: Link, wire: Subscription) -> list[Request]:
        """Ends what the broker may have kept."""
        # Only what is there can be ended, so that it is made anew, was it or not.
        standing = _standing(wire, link.session)
        return [
            self._issue(link, self._subscribing(standing)),
            self._issue(link, self._unsubscribing(standing)),
        ]

    def _subscribing(self, wire: Subscription) -> Encode:
        return lambda request: self._dialect.subscribe(request, wire)

    def _unsubscribing(self, wire: Subscription) -> Encode:
        return lambda request: self._dialect.unsubscribe(request, wire)

    def _issue(self, link: Link, encode: Encode) -> Request:
        request = self._new_request(encode)
        link.issue(request)
        return request

    async def _wait_for_all(self, link: Link, requests: list[Request]) -> None:
        if requests:
            futures = {request.future for request in requests}
            _, late = await asyncio.wait(futures, timeout=finite(self._answer_timeout))
            if late:
                link.fail(ConnectionLost("the broker did not restore the subscriptions in time"))
            for future in late:
                future.cancel()

    async def _come_back(self, ending: Ending, lasted: float) -> Optional[Link]:
        error, retry = ending.error, ending.retry
        if self._schedule is not None:
            self._schedule.note_session(lasted)
        while self._state != "closed":
            wait = self._schedule.next_wait(retry) if self._schedule else None
            if wait is None:
                logger.warning("%r: closed for good: %s", self, error)
                self._set_state("closed")
                self._finish(error)
                return None
            logger.info("%r: %s; trying again in %.1f s", self, error, wait)
            await asyncio.sleep(wait)
            try:
                return await self._open()
            except LoginRefused as refused:
                error, retry = refused, refused.retry
            except BrokerError as failed:
                error, retry = failed, None
        return None

    async def _open(self) -> Link:
        """Connects and logs in.

        Between the login and whoever gets the link the loop has no turn, so that nobody can close
        the client without finding it.
        """
        number = self._connections + 1
        opening = self._opening = asyncio.ensure_future(self._open_and_log_in(number))
        try:
            await asyncio.wait({opening}, timeout=finite(self._connect_timeout))
            if self._state == "closed":
                raise self._closed()
            if not opening.done():
                raise ConnectFailed(
                    f"no login at {self._url.address} within {in_words(self._connect_timeout)}: "
                    f"{self._progress}"
                )
            link = opening.result()
        except BaseException:
            # It may have come just now.
            await end(opening)
            if not opening.cancelled() and opening.exception() is None:
                await opening.result().close()
            raise
        finally:
            self._opening = None
        self._connections = number
        self._session = link.session
        return link

    def _greeting(self) -> bytes:
        return self._dialect.connect(
            self._login,
            self._keys,
            self._url.host,
            round(self._heart_beat * 1000),
            # What another program subscribed under our login id is not ours.
            resume=self._connections > 0,
        )

    async def _open_and_log_in(self, number: int) -> Link:
        kind = "TLS" if self._url.is_tls else "WebSocket" if self._url.is_websocket else ""
        self._progress = "is the address right" + (
            f", and does the port speak {kind}?" if kind else "?"
        )
        transport = await open_transport(
            self._url,
            self._dialect.name,
            self._trust,
            proxy=self._proxy,
            frame_bytes_max=self._frame_bytes_max,
            queued_bytes_max=self._outgoing_bytes_max,
        )
        self._progress = (
            "the connection is there, but nobody answers: is it the broker, and does the port want "
            "TLS?"
        )
        try:
            conversation = Conversation(self._dialect, self._frame_bytes_max, number)
            transport.write(self._greeting())
            while True:
                octets = await transport.read()
                if not octets:
                    why = f" ({transport.end_reason})" if transport.end_reason else ""
                    raise ConnectFailed(
                        f"{self._url.address} closed the connection before the login was answered"
                        f"{why}: does this port want TLS, or not speak this dialect?"
                    )
                events = conversation.feed(octets)
                if events:
                    break
            first, *others = events
            if isinstance(first, Denied):
                error = first.error
                raise LoginRefused(error.description, error.code, error.retry or "later")
            if not isinstance(first, Connected):
                raise ProtocolFault("the broker did not answer the login")
            return Link(
                transport,
                conversation,
                self._dialect,
                self._arrivals,
                first,
                others,
                beat=self._heart_beat,
                numbers=self._numbers,
                on_end=self._note_end,
            )
        except BaseException:
            transport.abort()
            await transport.close()
            raise

    def _finish(self, error: Optional[BrokerError]) -> None:
        """Nothing more comes, for the program or for good."""
        self._final_error = error
        for request in self._waiting.values():
            if not request.future.done():
                request.future.set_exception(self._closed())
        self._waiting, self._waiting_bytes = {}, 0
        self._arrivals.close(error)

    async def _say_goodbye(self, link: Link) -> None:
        # Nobody may take messages any more, and the answer is behind them.
        self._arrivals.close(None)
        request = self._new_request(self._dialect.disconnect)
        link.issue(request)
        # The end of the connection ends the request as well.
        seconds = min(self._answer_timeout, GOODBYE_SECONDS_MAX)
        await asyncio.wait({request.future}, timeout=seconds)
        request.future.cancel()

    def _set_state(self, state: str) -> None:
        self._state = state
        for waiter in self._changed:
            if not waiter.done():
                waiter.set_result(None)
        self._changed.clear()

    def _closed(self) -> Closed:
        error = self._final_error
        closed = Closed(f"the client is closed: {error}" if error else "the client is closed")
        closed.__cause__ = error
        return closed

    def _check_usable(self) -> None:
        if self._state == "closed":
            raise self._closed()
        self._check_started()

    def _check_started(self) -> None:
        if self._state in ("new", "connecting"):
            raise NotConnected("the client is not connected: call connect")


@dataclass
class _Held:
    """A subscription, and how it was asked for on the connection that there is."""

    subscription: Subscription
    wire: Subscription


def _standing(subscription: Subscription, session: Session) -> Subscription:
    """How a subscription is restored.

    A client that was watched by address may come back after us; a regular expression waits for it.
    """
    destination = subscription.destination
    if (
        subscription.regex
        or subscription.is_presence
        or not is_address(destination)
        or destination == session.destination
    ):
        return subscription
    # The syntax is Rust's, which has no escapes for letters, blanks and "<" ">" "/".
    pattern = re.sub(r"[\\.+*?()|\[\]{}^$#&~-]", lambda found: "\\" + found[0], destination)
    return dataclasses.replace(subscription, destination=pattern, regex=True)


def _nobody_at(destination: str) -> Refused:
    return Refused(f"nobody takes messages at the destination {destination}", "NO_SUCH_DESTINATION")


def check_message(message: Message) -> None:
    """Raises a TypeError unless it is a message."""
    if not isinstance(message, Message):
        raise wrong_type("the message", "a Message", message)


def _without(headers: Optional[Mapping[str, str]], *owned: str) -> dict[str, str]:
    """Headers that may be given along with those that we set."""
    for name in check_headers(headers):
        if trim(name) in owned:
            raise ValueError(f"the header {name!r} is set by the client")
    return dict(headers or {})
