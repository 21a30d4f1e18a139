"""`broker_client`: the interface of the original's Python client, for programs written for it."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import functools
import inspect
import itertools
import logging
import queue
import socket
import ssl
import threading
import time
from collections.abc import Callable
from typing import Optional, Union

from ._arguments import body_bytes, check_destination, check_text
from ._conversation import Conversation
from ._dialect import (
    Answered,
    ClassicDialect,
    Connected,
    Delivered,
    Denied,
    Event,
    Keys,
)
from ._model import Message, Session, Subscription
from ._transport import Transport, Trust, adopt_socket, explain, no_host
from ._url import BrokerUrl
from ._version import __version__
from ._waiting import in_words
from .errors import AnswerTimeout, NotConnected, ProtocolFault, Refused

logger = logging.getLogger("com_broker")

Callback = Optional[Callable[..., object]]

CONNECT_SECONDS_MAX = 10.0
"""How long connecting may take, TLS included."""
SEND_SECONDS_MAX = 30.0
"""How long `send` waits for a broker that does not read."""
GOODBYE_SECONDS_MAX = 5.0
"""How long the broker may take to confirm a `disconnect` before the connection is cut."""
GOODBYE = "DISCONNECTED"
"""The id of the receipt for DISCONNECT; no transaction is called so."""
OUTGOING_BYTES_MAX = 1024 * 1024
"""How many bytes may wait to be written before `send` waits."""
FRAME_BYTES_MAX = 64 * 1024 * 1024
"""The largest frame that is taken from the broker."""


class broker_client:
    """The client that programs of the original know: calls that return at once, and callbacks.

    ```
    client = broker_client("client-1", "my_app_secret_key")
    client.link_call_back_functions(on_connected, on_disconnected, on_error, on_message, on_ack)
    client.connect("localhost", "127.0.0.1", 6662, "ana", "my_agent_secret_key")
    client.send("/agent/bob", "hello")
    client.disconnect()
    ```

    Callbacks are called one after the other on a thread of the client. While one runs, nothing is
    read, but sending goes on; each method but `join` may be called in them. An exception in one is
    logged under the name `com_broker` and changes nothing; `sys.exit()` in one ends the connection.
    The threads end with the connection, and keep a program running until then: call `disconnect`.

    It does not connect again by itself, which `Client` does.

    Attributes:
        id: what the program calls this client.
        session_id: the session; `id` before the first login.
        login_id: the login id, as the broker took it.
        destination_id: our address.
    """

    def __init__(self, id: str, app_key: str) -> None:
        self.id = id
        self.app_key = app_key
        self.session_id = id
        self.login_id = ""
        self.destination_id = ""
        self.host = "localhost"
        self.port = 0
        self.callbacks = _Callbacks()
        self._trust: Optional[Trust] = None
        self._check_hostname = True
        self._lock = threading.Lock()
        self._line: Optional[_Line] = None
        self._transactions = itertools.count(1)

    def version(self) -> str:
        """The name and version of this interface, as text."""
        return f"Communication Broker API V{__version__}"

    def link_call_back_functions(
        self,
        on_connected: Callback,
        on_disconnected: Callback,
        on_error: Callback,
        on_message: Callback,
        on_ack: Callback,
    ) -> None:
        """Says what to call; None for nothing.

        Args:
            on_connected: `(session_id, destination_id, profile, connection_id)`, after login.
            on_disconnected: `(session_id)`, when the connection has ended, however it did.
            on_error: `(text, code)`, `(text)` or `()`, whichever it takes: an ERROR of the broker,
                or why the connection broke. `code` is a stable word such as `NO_SUCH_DESTINATION`,
                or empty.
            on_message: `(origin, destination, content_type, payload)`. `destination` is the
                sender's address, to answer to; `payload` is a `str` where it is UTF-8, and `bytes`
                otherwise.
            on_ack: `(transaction_id, error_desc)`; `error_desc` is exactly `OK` on success.
                `transaction_id` is what `send`, `subscribe` or `unsubscribe` returned.
        """
        self.callbacks = _Callbacks(on_connected, on_disconnected, on_error, on_message, on_ack)

    def set_app_key(self, app_key: str) -> None:
        """Changes the application key, for the next `connect`."""
        self.app_key = app_key

    def set_ssl_options(self, cert_path: Optional[str], check_hostname: bool = True) -> None:
        """Uses TLS from the next `connect` on; the certificate is verified.

        Args:
            cert_path: a PEM file with the authorities, or the very certificate, to trust; None
                trusts those of the system.
            check_hostname: whether the certificate must be made for the `server_hostname` given to
                `connect`, too. Turn it off only for a certificate that cannot be made anew.
        """
        self._trust = Trust(ca=cert_path)
        self._check_hostname = check_hostname

    def connect(
        self,
        server_hostname: str,
        host: str,
        port: Union[int, str],
        login_id: str,
        secret_key: str,
    ) -> bool:
        """Connects, and logs in with the key of a profile.

        An address that does not answer is given up after 10 seconds, and so is TLS.
        The answer to the login comes to `on_connected`, or to `on_error` and `on_disconnected`.

        Args:
            server_hostname: the name that the broker's certificate is made for; `host` if empty.
                Without TLS it means nothing.
            host: where the broker is.
            port: its port.
            login_id: the login id.
            secret_key: the key of the profile to log in with.

        Returns:
            True; False if the client is connected already, and then nothing happens.

        Raises:
            ConnectFailed: there is no connection to be had; it is an `OSError`.
            ValueError: login id or keys cannot be right.
        """
        with self._lock:
            if self._line is not None and self._line.is_open:
                return False
            check_text("host", host)
            self.host, self.port = host, int(port)
            if not 0 < self.port < 65536:
                raise ValueError("the port must be a number from 1 to 65535")
            dialect = ClassicDialect(enveloped=True)
            greeting = dialect.connect(login_id, Keys(self.app_key, secret_key), host, 0)
            context = None
            if self._trust is not None:
                context = self._trust.make_context()
                context.check_hostname = self._check_hostname
            address = BrokerUrl("tcp", self.host, self.port, "/").address
            try:
                connected = socket.create_connection((self.host, self.port), CONNECT_SECONDS_MAX)
            except OSError as error:
                raise explain(error, address, is_tls=context is not None) from error
            except UnicodeError:
                raise no_host(host) from None
            self._line = _Line(self, dialect, connected)
            try:
                self._line.open(context, server_hostname or host, greeting)
            except OSError as error:
                raise explain(error, address, is_tls=context is not None) from error
            except UnicodeError:
                raise no_host(server_hostname or host) from None
        return True

    def is_connected(self) -> bool:
        """Whether there is a connection; it need not be logged in yet."""
        return self._line is not None and self._line.is_open

    def send(
        self, destination: str, message: Union[str, bytes], content_type: str = "text/plain"
    ) -> str:
        """Sends a message; the answer comes to `on_ack`, or to `on_error` where nobody is there.

        Args:
            destination: an address, such as `/agent/ana`, or a topic or queue.
            message: text goes as UTF-8.
            content_type: what the message is.

        Returns:
            What `on_ack` will get as `transaction_id`.

        Raises:
            NotConnected: there is no connection; it is an `OSError`.
            AnswerTimeout: the broker does not read what we send; it is a `TimeoutError`.
            TypeError: the message is neither text nor bytes.
        """
        check_destination(destination)
        data = body_bytes(message)
        check_text("content_type", content_type)
        line = self._open_line()
        transaction = self._next_transaction()
        line.write(
            line.dialect.send(transaction, destination, data, content_type, {}, line.session)
        )
        return transaction

    def subscribe(self, destination: str, use_regex: Union[bool, int] = False) -> str:
        """Watches a client, or those whose address a regular expression matches; or a topic.

        The answer comes to `on_ack`. Returns and raises as `send` does.
        """
        check_destination(destination)
        line = self._open_line()
        transaction = self._next_transaction()
        subscription = Subscription(transaction, destination, regex=bool(use_regex))
        line.write(line.dialect.subscribe(transaction, subscription, line.session))
        return transaction

    def unsubscribe(self) -> str:
        """Ends all subscriptions.

        The answer comes to `on_ack`. Returns and raises as `send` does.
        """
        line = self._open_line()
        transaction = self._next_transaction()
        line.write(line.dialect.unsubscribe_all(transaction, line.session))
        return transaction

    def disconnect(self) -> None:
        """Logs out, and returns at once; `on_disconnected` tells when the connection has ended.

        It ends within 5 seconds, whether the broker answers or not. Without a connection nothing
        happens.
        """
        line = self._line
        if line is not None:
            line.say_goodbye()

    def join(self, timeout: Optional[float] = None) -> bool:
        """Waits until the connection has ended, with `on_disconnected`, and no thread is left.

        Says whether that is so after `timeout` seconds. Must not be called in a callback.
        """
        line = self._line
        return line is None or line.join(timeout)

    def _open_line(self) -> _Line:
        line = self._line
        if line is None or not line.is_open:
            raise NotConnected("the client is not connected: call connect")
        return line

    def _next_transaction(self) -> str:
        return str(next(self._transactions))


class _Callbacks:
    """The callbacks of the program, one for each event."""

    def __init__(
        self,
        on_connected: Callback = None,
        on_disconnected: Callback = None,
        on_error: Callback = None,
        on_message: Callback = None,
        on_ack: Callback = None,
    ) -> None:
        self._on_connected = on_connected
        self._on_disconnected = on_disconnected
        self._on_error = on_error
        self._on_message = on_message
        self._on_ack = on_ack
        self._error_arguments = _accepted(on_error) if on_error is not None else 0

    def connected(self, session: Session) -> None:
        if self._on_connected is not None:
            self._on_connected(
                session.session_id,
                session.destination,
                session.profile,
                session.connection_id or "",
            )

    def disconnected(self, session_id: str) -> None:
        if self._on_disconnected is not None:
            self._on_disconnected(session_id)

    def error(self, text: str, code: str) -> None:
        if self._on_error is not None:
            self._on_error(*(text, code)[: self._error_arguments])

    def message(self, message: Message) -> None:
        if self._on_message is None:
            return
        payload: Union[str, bytes] = message.body
        with contextlib.suppress(UnicodeDecodeError):
            payload = message.text
        self._on_message(
            message.origin, message.origin_destination, message.content_type or "", payload
        )

    def ack(self, transaction_id: str, error_desc: str) -> None:
        if self._on_ack is not None:
            self._on_ack(transaction_id, error_desc)


def _accepted(function: Callable[..., object]) -> int:
    """How many of two arguments a function takes."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        # A function written in C has no signature.
        return 1
    for count in (2, 1, 0):
        with contextlib.suppress(TypeError):
            signature.bind(*("",) * count)
            return count
    return 1


class _Line:
    """One connection: a thread that reads and writes, and one that calls back.

    Neither is a daemon, for a program whose main thread has ended goes on in its callbacks.
    """

    def __init__(self, client: broker_client, dialect: ClassicDialect, sock: socket.socket) -> None:
        self.dialect = dialect
        self.session: Optional[Session] = None
        self.is_open = False
        self._client = client
        self._socket = sock
        self._conversation = Conversation(dialect, FRAME_BYTES_MAX, 1)
        # Held while work is handed to the loop, so that none is handed over once it stops.
        self._gate = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._calls: queue.SimpleQueue[Optional[Callable[[], None]]] = queue.SimpleQueue()
        self._quits = False
        self._opening: concurrent.futures.Future[None] = concurrent.futures.Future()
        # Set once `_opening` is done without an exception.
        self._loop: asyncio.AbstractEventLoop
        self._transport: Transport
        self._goodbye: Optional[asyncio.TimerHandle] = None

    # -- from the threads of the program --------------------------------------------------------

    def open(self, context: Optional[ssl.SSLContext], name: str, greeting: bytes) -> None:
        """Does the TLS handshake and sends the login.

        Raises:
            OSError: there is no TLS to be had.
        """
        for role, work in (
            ("callbacks", self._make_calls),
            ("io", lambda: asyncio.run(self._serve(context, name, greeting))),
        ):
            thread = threading.Thread(target=work, name=f"com-broker-{self._client.id}-{role}")
            thread.start()
            self._threads.append(thread)
        try:
            self._opening.result()
        except (OSError, ValueError):
            self.join(None)
            raise

    def write(self, data: bytes) -> None:
        """Sends; waits while the broker does not read."""
        with self._gate:
            if not self.is_open:
                raise NotConnected("the connection has ended: call connect")
            writing = asyncio.run_coroutine_threadsafe(self._write(data), self._loop)
        try:
            writing.result(SEND_SECONDS_MAX)
        except concurrent.futures.TimeoutError:
            writing.cancel()
            raise AnswerTimeout(
                f"the broker did not read what was sent within {in_words(SEND_SECONDS_MAX)}"
            ) from None
        except concurrent.futures.CancelledError:
            raise NotConnected("the connection has ended: call connect") from None

    def say_goodbye(self) -> None:
        """Logs out."""
        with self._gate:
            if self.is_open:
                self._loop.call_soon_threadsafe(self._log_out)

    def join(self, timeout: Optional[float]) -> bool:
        """Waits for the threads' end; says whether they have ended."""
        deadline = None if timeout is None else time.monotonic() + timeout
        for thread in self._threads:
            thread.join(None if deadline is None else max(deadline - time.monotonic(), 0))
        return not any(thread.is_alive() for thread in self._threads)

    # -- on the thread that reads and writes ----------------------------------------------------

    async def _serve(self, context: Optional[ssl.SSLContext], name: str, greeting: bytes) -> None:
        try:
            adopting = adopt_socket(self._socket, context, name, OUTGOING_BYTES_MAX)
            self._transport = await asyncio.wait_for(adopting, CONNECT_SECONDS_MAX)
        except BaseException as error:
            self._socket.close()
            self._calls.put(None)
            if isinstance(error, asyncio.TimeoutError):
                error = socket.timeout("the TLS handshake is not answered")
            self._opening.set_exception(error)
            return
        self._loop = asyncio.get_running_loop()
        self._transport.write(greeting)
        self.is_open = True
        self._opening.set_result(None)
        try:
            await self._take_all()
        finally:
            with self._gate:
                self.is_open = False
            if self._goodbye is not None:
                self._goodbye.cancel()
            await self._transport.close()
            # What was given to the loop before the gate closed gets its turn.
            await asyncio.sleep(0)
            callbacks, session_id = self._client.callbacks, self._client.session_id
            await self._call([functools.partial(callbacks.disconnected, session_id)])
            self._calls.put(None)

    async def _take_all(self) -> None:
        while not self._quits:
            data = await self._transport.read()
            error: Optional[Refused] = None
            if data:
                try:
                    events = self._conversation.feed(data)
                except ProtocolFault as fault:
                    events, error = [], Refused(str(fault), "", "never")
                except Exception:
                    logger.exception("%s: closed by a fault of the client", self._client.id)
                    events = []
                    error = Refused("the client has a fault; the log says more", "", "never")
            else:
                events = []
                if self._goodbye is None:
                    reason = self._transport.end_reason
                    lost = "the connection to the broker was lost"
                    error = Refused(f"{lost}: {reason}" if reason else lost, "", "now")
            if error is not None:
                events = [Denied(error, None)]
            await self._call([self._told(event) for event in events])
            if not data or any(self._is_last(event) for event in events):
                return

    def _told(self, event: Event) -> Callable[[], object]:
        """The call that tells the program of an event."""
        client, callbacks = self._client, self._client.callbacks
        if isinstance(event, Connected):
            session = self.session = event.session
            client.session_id = session.session_id
            client.login_id = session.login
            client.destination_id = session.destination
            return functools.partial(callbacks.connected, session)
        if isinstance(event, Delivered):
            return functools.partial(callbacks.message, event.message)
        if isinstance(event, Answered):
            if event.request == GOODBYE:
                return lambda: None
            return functools.partial(callbacks.ack, event.request, "OK")
        if event.is_answer and event.request is not None:
            return functools.partial(callbacks.ack, event.request, event.error.description)
        return functools.partial(callbacks.error, event.error.description, event.error.code or "")

    @staticmethod
    def _is_last(event: Event) -> bool:
        if isinstance(event, Answered):
            return event.request == GOODBYE
        return isinstance(event, Denied) and event.error.closes

    async def _call(self, calls: list[Callable[[], object]]) -> None:
        """Has the calls made, in order, and waits: while a callback is slow, nothing is read."""
        made = asyncio.get_running_loop().create_future()

        def make() -> None:
            try:
                for call in calls:
                    self._make_call(call)
            finally:
                self._loop.call_soon_threadsafe(made.set_result, None)

        self._calls.put(make)
        await made

    async def _write(self, data: bytes) -> None:
        await self._transport.room(len(data))
        if not self._transport.is_writable:
            raise NotConnected("the connection has ended: call connect")
        self._transport.write(data)

    def _log_out(self) -> None:
        if self._goodbye is None:
            self._transport.write(self.dialect.disconnect(GOODBYE))
            self._goodbye = self._loop.call_later(GOODBYE_SECONDS_MAX, self._transport.abort)

    # -- on the thread that calls back ----------------------------------------------------------

    def _make_calls(self) -> None:
        while True:
            make = self._calls.get()
            if make is None:
                return
            make()

    def _make_call(self, call: Callable[[], object]) -> None:
        try:
            call()
        except SystemExit:
            self._quits = True
        except BaseException:
            # Any exception: if this thread ended, no callback would ever be called again.
            logger.exception("%s: a callback failed", self._client.id)
