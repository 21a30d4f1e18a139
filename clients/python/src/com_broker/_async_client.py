"""`AsyncClient`: the client for asyncio programs."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Optional, TypeVar, Union

from ._arguments import check_flag, check_text, check_timeout, wrong_type
from ._inbox import Arrivals, Inbox
from ._keeper import Keeper
from ._lifecycle import Lifecycle
from ._model import Body, Message, PresenceEvent, Receipt, Session, Subscription
from ._options import MIB, Options
from ._reconnect import Reconnect
from ._requests import Requests
from ._sending import Sending
from ._subscriptions import Subscriptions
from .errors import Closed

if TYPE_CHECKING:
    import os

T = TypeVar("T")


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
    sent twice: what was on its way when the connection ended raises `Unconfirmed`, since nobody
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
        ValueError: an argument makes no sense; the text shows no keys.
        TypeError: an argument has the wrong type.
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
        options = Options.of(
            url,
            login,
            application_key,
            profile_key,
            dialect,
            ca,
            server_hostname,
            ssl_context,
            heart_beat,
            connect_timeout,
            answer_timeout,
            reconnect,
            outgoing_bytes_max,
            incoming_bytes_max,
            frame_bytes_max,
            proxy,
        )
        self._lifecycle = Lifecycle(f"{type(self).__name__} {login!r} at {options.url}")
        self._arrivals = Arrivals(incoming_bytes_max)
        self._requests = Requests(
            self._lifecycle, answer_timeout=answer_timeout, outgoing_bytes_max=outgoing_bytes_max
        )
        self._sending = Sending(self._lifecycle, self._requests, options.dialect, self._arrivals)
        self._subscriptions = Subscriptions(self._lifecycle, self._requests, options.dialect)
        self._keeper = Keeper(
            options, self._lifecycle, self._requests, self._subscriptions, self._arrivals
        )

    def __repr__(self) -> str:
        return repr(self._lifecycle)

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
            ConnectFailed: no connection can be made.
            LoginRefused: the broker does not let us in; `retry` tells whether trying again helps.
            Closed: the client was closed before; make a new one.
        """
        return await self._keeper.connect()

    async def close(self) -> None:
        """Logs out and closes the connection. Calling it again does no harm.

        What still waits to be sent is dropped, and its `send` raises `Closed`. Messages that
        arrived can still be taken.
        """
        await self._keeper.close()

    async def wait_connected(self, timeout: Optional[float] = None) -> Session:
        """Waits until the connection is there, subscriptions restored.

        Raises:
            AnswerTimeout: the connection is not there after `timeout` seconds.
            Closed: the client is closed.
        """
        check_timeout(timeout)
        return await self._lifecycle.wait_connected(timeout)

    @property
    def session(self) -> Session:
        """Our session, as the broker last confirmed it.

        Raises:
            NotConnected: we never were logged in.
        """
        return self._lifecycle.known_session()

    @property
    def is_connected(self) -> bool:
        """Whether the connection is there now."""
        return self._lifecycle.link is not None and self._lifecycle.state == "connected"

    @property
    def state(self) -> str:
        """`new`, `connecting`, `connected`, `away` (it comes back by itself) or `closed`."""
        return self._lifecycle.state

    @property
    def connections(self) -> int:
        """How many connections were logged in so far: 1 after `connect`, one more each return."""
        return self._lifecycle.connections

    @property
    def subscriptions(self) -> tuple[Subscription, ...]:
        """What is subscribed, and restored when the client comes back."""
        return self._subscriptions.all

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
            Refused: the broker did not pass it on; `code` is `NO_SUCH_DESTINATION` where
                nobody is at the address.
            Unconfirmed: the connection ended before the answer. The message may have arrived.
            AnswerTimeout: no answer came in time. What waited for the connection is not sent.
            BufferFull: the connection is away, and too much waits for it already.
            Closed: the client is closed.
            ValueError: a header is the broker's, or the dialect cannot carry it.
            TypeError: the body is neither text nor bytes, or a header is not a `str`.
        """
        return await self._sending.send(destination, body, content_type, headers, timeout)

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
        return await self._sending.request(destination, body, content_type, headers, timeout)

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
            ValueError: the `reply-to` of the message makes no sense; or as `send` does. A service
                that answers anybody must catch it and go on.
        """
        return await self._sending.reply(message, body, content_type, headers, timeout)

    # -- receiving -----------------------------------------------------------------------------

    async def receive(self, timeout: Optional[float] = None) -> Message:
        """The next message.

        Raises:
            AnswerTimeout: none came within `timeout` seconds.
            Closed: the client is closed, and all that had arrived is taken.
        """
        check_timeout(timeout)
        self._lifecycle.check_started()
        return await self._arrivals.messages.take(timeout)

    async def messages(self) -> AsyncIterator[Message]:
        """Messages in the order of their arrival: direct ones, copies, from topics and queues.

        It ends when the client is closed. Several iterators share: each message goes to one.

        Raises:
            BrokerError: the broker closed the client for good; for example `TakenOver`.
        """
        async for message in self._iterate(self._arrivals.messages):
            yield message

    async def presence_events(self) -> AsyncIterator[PresenceEvent]:
        """Who comes and goes, after `subscribe_presence`; ends as `messages` does."""
        async for event in self._iterate(self._arrivals.presence):
            yield event

    async def receive_presence(self, timeout: Optional[float] = None) -> PresenceEvent:
        """The next presence event; raises as `receive` does."""
        check_timeout(timeout)
        self._lifecycle.check_started()
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
        subscription = self._subscriptions.new(destination, regex, ack, prefetch)
        return await self._subscriptions.subscribe(subscription, timeout)

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
            Refused: we are not a service (`PROF_NO_RIGHTS`), or the pattern does not compile
                (`INVALID_REGEX`).
            BrokerError: as `send` does.
        """
        check_text("the pattern", pattern)
        check_flag("snapshot", snapshot)
        subscription = self._subscriptions.new_presence(pattern, snapshot)
        return await self._subscriptions.subscribe(subscription, timeout)

    async def unsubscribe(
        self, subscription: Optional[Subscription] = None, *, timeout: Optional[float] = None
    ) -> None:
        """Ends a subscription, or all of them.

        Raises:
            ValueError: there is no such subscription.
            BrokerError: as `send` does.
        """
        self._lifecycle.check_usable()
        if subscription is None:
            for one in self.subscriptions:
                await self.unsubscribe(one, timeout=timeout)
            return
        if not isinstance(subscription, Subscription):
            raise wrong_type("what to unsubscribe", "a Subscription", subscription)
        await self._subscriptions.unsubscribe(subscription, timeout)

    async def ack(self, message: Message, *, timeout: Optional[float] = None) -> None:
        """Acknowledges a message of a queue; with `ack="client"`, all before it, too.

        Raises:
            ConnectionLost: the connection that brought it has ended: the queue delivers it again.
            ValueError: it needs no acknowledgement.
            BrokerError: as `send` does.
        """
        await self._sending.settle(message, True, timeout)

    async def nack(self, message: Message, *, timeout: Optional[float] = None) -> None:
        """Gives a message back to its queue, for another delivery; raises as `ack` does."""
        await self._sending.settle(message, False, timeout)

    async def _iterate(self, inbox: Inbox[T]) -> AsyncIterator[T]:
        self._lifecycle.check_started()
        while True:
            try:
                item = await inbox.take()
            except Closed as closed:
                if closed.__cause__ is not None:
                    raise closed.__cause__ from None
                return
            yield item
