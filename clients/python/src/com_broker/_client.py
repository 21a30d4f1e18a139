"""`Client`: the client for programs with threads."""

from __future__ import annotations

import asyncio
import concurrent.futures
import ssl
import threading
from collections.abc import Coroutine, Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Optional, TypeVar, Union

from ._async_client import AsyncClient
from ._model import Body, Message, PresenceEvent, Receipt, Session, Subscription
from ._options import MIB
from ._reconnect import Reconnect
from .errors import Closed, NotConnected

if TYPE_CHECKING:
    import os

T = TypeVar("T")


class Client:
    """A client of the broker whose calls block; any number of threads may share one.

    ```
    with Client(
        "tcp://127.0.0.1:6662",
        login="ana",
        application_key="my_app_secret_key",
        profile_key="my_agent_secret_key",
    ) as client:
        client.send("/agent/bob", "hello")
        for message in client.messages():
            print(message.origin, message.text)
    ```

    It is an `AsyncClient` on a thread of its own, which `connect` starts and `close` ends:
    heart-beats, and coming back when the connection ends, need nobody to wait in a call. What holds
    for `AsyncClient` holds here, its arguments and exceptions included.
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
        self._client = AsyncClient(
            url,
            login=login,
            application_key=application_key,
            profile_key=profile_key,
            dialect=dialect,
            ca=ca,
            server_hostname=server_hostname,
            ssl_context=ssl_context,
            heart_beat=heart_beat,
            connect_timeout=connect_timeout,
            answer_timeout=answer_timeout,
            reconnect=reconnect,
            outgoing_bytes_max=outgoing_bytes_max,
            incoming_bytes_max=incoming_bytes_max,
            frame_bytes_max=frame_bytes_max,
            proxy=proxy,
        )
        # Held while work is handed to the loop, so that none is handed over once it stops.
        # Reentrant: a signal handler may close the client in the middle of a call.
        self._lock = threading.RLock()
        self._loop: Optional[_LoopThread] = None
        self._closer: Optional[threading.Thread] = None
        self._closed = threading.Event()

    def __repr__(self) -> str:
        return repr(self._client).replace("AsyncClient", type(self).__name__, 1)

    def __enter__(self) -> Client:
        self.connect()
        return self

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        self.close()

    # -- the connection ------------------------------------------------------------------------

    def connect(self) -> Session:
        """Connects and logs in, once: only later ends of the connection are survived.

        Raises:
            ConnectFailed: no connection can be made.
            LoginRefused: the broker does not let us in; `retry` tells whether trying again helps.
            Closed: the client was closed before; make a new one.
        """
        with self._lock:
            if self._closer is not None:
                raise Closed("the client is closed")
            if self._loop is not None:
                raise RuntimeError("connect is called once; the client comes back by itself")
            self._loop = _LoopThread()
        try:
            return self._call(self._client.connect())
        except BaseException:
            with self._lock:
                loop, self._loop = self._loop, None
            if loop is not None:
                loop.stop()
            raise

    def close(self) -> None:
        """Logs out, closes the connection, and ends the thread. Calling it again does no harm.

        What still waits to be sent is dropped, and its `send` raises `Closed`, as does every other
        call that still waits. Messages that were not taken are gone.
        """
        with self._lock:
            is_first, closer = self._closer is None, self._closer
            if is_first:
                self._closer = threading.current_thread()
            loop, self._loop = self._loop, None
        if not is_first:
            # Another thread closes it already; or this one does, and a signal handler calls again.
            if closer is not threading.current_thread():
                self._closed.wait()
            return
        try:
            if loop is not None:
                try:
                    loop.submit(self._client.close()).result()
                finally:
                    loop.stop()
        finally:
            self._closed.set()

    def wait_connected(self, timeout: Optional[float] = None) -> Session:
        """Waits until the connection is there, subscriptions restored.

        Raises:
            AnswerTimeout: the connection is not there after `timeout` seconds.
            Closed: the client is closed.
        """
        return self._call(self._client.wait_connected(timeout))

    @property
    def session(self) -> Session:
        """Our session, as the broker last confirmed it.

        Raises:
            NotConnected: we never were logged in.
        """
        return self._client.session

    @property
    def is_connected(self) -> bool:
        """Whether the connection is there now."""
        return self._client.is_connected

    @property
    def state(self) -> str:
        """`new`, `connecting`, `connected`, `away` (it comes back by itself) or `closed`."""
        return self._client.state

    @property
    def connections(self) -> int:
        """How many connections were logged in so far: 1 after `connect`, one more each return."""
        return self._client.connections

    @property
    def subscriptions(self) -> tuple[Subscription, ...]:
        """What is subscribed, and restored when the client comes back."""
        return self._client.subscriptions

    # -- sending -------------------------------------------------------------------------------

    def send(
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
        return self._call(
            self._client.send(
                destination, body, content_type=content_type, headers=headers, timeout=timeout
            )
        )

    def request(
        self,
        destination: str,
        body: Body,
        *,
        content_type: Optional[str] = None,
        headers: Optional[Mapping[str, str]] = None,
        timeout: float = 10.0,
    ) -> Message:
        """Sends a request, and waits `timeout` seconds for the reply; see `AsyncClient.request`.

        Raises:
            AnswerTimeout: no reply came in time.
            BrokerError: as `send` does.
        """
        return self._call(
            self._client.request(
                destination, body, content_type=content_type, headers=headers, timeout=timeout
            )
        )

    def reply(
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
        return self._call(
            self._client.reply(
                message, body, content_type=content_type, headers=headers, timeout=timeout
            )
        )

    # -- receiving -----------------------------------------------------------------------------

    def receive(self, timeout: Optional[float] = None) -> Message:
        """The next message.

        Raises:
            AnswerTimeout: none came within `timeout` seconds.
            Closed: the client is closed.
        """
        return self._call(self._client.receive(timeout))

    def messages(self) -> Iterator[Message]:
        """Messages in the order of their arrival: direct ones, copies, from topics and queues.

        It ends when the client is closed. Several iterators share: each message goes to one.

        Raises:
            BrokerError: the broker closed the client for good; for example `TakenOver`.
        """
        while True:
            try:
                message = self.receive()
            except Closed as closed:
                if closed.__cause__ is not None:
                    raise closed.__cause__ from None
                return
            yield message

    def presence_events(self) -> Iterator[PresenceEvent]:
        """Who comes and goes, after `subscribe_presence`; ends as `messages` does."""
        while True:
            try:
                event = self.receive_presence()
            except Closed as closed:
                if closed.__cause__ is not None:
                    raise closed.__cause__ from None
                return
            yield event

    def receive_presence(self, timeout: Optional[float] = None) -> PresenceEvent:
        """The next presence event; raises as `receive` does."""
        return self._call(self._client.receive_presence(timeout))

    # -- subscribing ---------------------------------------------------------------------------

    def subscribe(
        self,
        destination: str,
        *,
        regex: bool = False,
        ack: str = "auto",
        prefetch: Optional[int] = None,
        timeout: Optional[float] = None,
    ) -> Subscription:
        """Subscribes to a topic or a queue, or watches a client; see `AsyncClient.subscribe`.

        Raises:
            Refused: the broker does not allow it.
            Unsupported: the classic dialect has no queues.
            BrokerError: as `send` does.
        """
        return self._call(
            self._client.subscribe(
                destination, regex=regex, ack=ack, prefetch=prefetch, timeout=timeout
            )
        )

    def subscribe_presence(
        self, pattern: str = ".*", *, snapshot: bool = False, timeout: Optional[float] = None
    ) -> Subscription:
        """Subscribes to who comes and goes, for services; see `AsyncClient.subscribe_presence`.

        Raises:
            Refused: we are not a service (`PROF_NO_RIGHTS`), or the pattern does not compile
                (`INVALID_REGEX`).
            BrokerError: as `send` does.
        """
        return self._call(
            self._client.subscribe_presence(pattern, snapshot=snapshot, timeout=timeout)
        )

    def unsubscribe(
        self, subscription: Optional[Subscription] = None, *, timeout: Optional[float] = None
    ) -> None:
        """Ends a subscription, or all of them.

        Raises:
            ValueError: there is no such subscription.
            BrokerError: as `send` does.
        """
        self._call(self._client.unsubscribe(subscription, timeout=timeout))

    def ack(self, message: Message, *, timeout: Optional[float] = None) -> None:
        """Acknowledges a message of a queue; with `ack="client"`, all before it, too.

        Raises:
            ConnectionLost: the connection that brought it has ended: the queue delivers it again.
            ValueError: it needs no acknowledgement.
            BrokerError: as `send` does.
        """
        self._call(self._client.ack(message, timeout=timeout))

    def nack(self, message: Message, *, timeout: Optional[float] = None) -> None:
        """Gives a message back to its queue, for another delivery; raises as `ack` does."""
        self._call(self._client.nack(message, timeout=timeout))

    # -- the thread ----------------------------------------------------------------------------

    def _call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        with self._lock:
            loop = self._loop
            if loop is None:
                coroutine.close()
                if self._closer is not None:
                    raise Closed("the client is closed")
                raise NotConnected("the client is not connected: call connect")
            future = loop.submit(coroutine)
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            raise Closed("the client was closed in the meantime") from None
        except BaseException:
            # Ctrl-C while waiting: the call is cancelled on the other thread, too.
            future.cancel()
            raise


class _LoopThread:
    """An event loop on a thread of its own."""

    def __init__(self) -> None:
        self._started = threading.Event()
        # A daemon: a program that forgets to close the client can still end.
        self._thread = threading.Thread(target=self._run, name="com-broker-client", daemon=True)
        self._thread.start()
        self._started.wait()

    def submit(self, coroutine: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        """Runs a coroutine there."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def stop(self) -> None:
        """Gives what was submitted one last turn, cancels it, and ends the thread."""
        self._loop.call_soon_threadsafe(self._stopped.set_result, None)
        self._thread.join()

    def _run(self) -> None:
        # As `asyncio.run`, which would wait for a name that is looked up, however long that takes.
        loop = asyncio.new_event_loop()
        try:
            loop.run_until_complete(self._wait())
        finally:
            try:
                left = asyncio.all_tasks(loop)
                for task in left:
                    task.cancel()
                if left:
                    loop.run_until_complete(asyncio.wait(left))
                loop.run_until_complete(loop.shutdown_asyncgens())
            finally:
                loop.close()

    async def _wait(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopped: asyncio.Future[None] = self._loop.create_future()
        self._started.set()
        await self._stopped
