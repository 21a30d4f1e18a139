"""Carries bytes between here and the broker: TCP, TLS, WebSocket, secure WebSocket, by asyncio.

It knows nothing of frames. A transport writes in the order of `write`, on a task of its own, and
holds what it could not write yet.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import re
import socket
import ssl
from abc import ABC, abstractmethod
from collections import deque
from dataclasses import dataclass
from typing import Any, Optional, Union

from ._url import BrokerUrl, Proxy
from ._waiting import end
from .errors import ConnectFailed, Unsupported

logger = logging.getLogger("com_broker")

READ_BYTES = 64 * 1024
CLOSE_SECONDS_MAX = 2.0
"""How long the end of a connection may take before it is cut."""
REASON_CHARS_MAX = 200
"""How many characters of a reason given by the other side are repeated."""


@dataclass(eq=False)
class _Place:
    """A task that waits to write."""

    size: int
    turn: asyncio.Future[None]


class Transport(ABC):
    """A connection that is open. At most `queued_bytes_max` wait in it to be written."""

    close_code: Optional[int] = None
    """The WebSocket close code, once the other side gave one."""
    end_reason: Optional[str] = None
    """Why the connection ended, where more is known than that it did."""

    def __init__(self, queued_bytes_max: int) -> None:
        self._queue: deque[bytes] = deque()
        self._queued_bytes = 0
        self._queued_bytes_max = queued_bytes_max
        self._wake: Optional[asyncio.Future[None]] = None
        self._line: deque[_Place] = deque()
        # The task whose turn has come, until it has written.
        self._admitted: Optional[_Place] = None
        self._ended = False
        self._writing = asyncio.ensure_future(self._write_all())

    @abstractmethod
    async def read(self) -> bytes:
        """The next bytes that arrived; none at the end, orderly or not."""

    @abstractmethod
    def abort(self) -> None:
        """Cuts the connection at once, so that `read` ends."""

    @abstractmethod
    async def _write_out(self, data: bytes) -> None:
        """Writes, and waits while the other side does not take it."""

    @abstractmethod
    async def _finish(self) -> None:
        """Ends the connection in order."""

    _coalesces: bool
    """Whether consecutive writes may be joined."""

    def write(self, data: bytes) -> None:
        """Writes, as soon as what was given before is written."""
        if self._ended:
            return
        self._queue.append(data)
        self._queued_bytes += len(data)
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    @property
    def is_writable(self) -> bool:
        """Whether `write` still writes; after the end it drops what it is given."""
        return not self._ended

    def has_room(self, size: int) -> bool:
        """Whether `room` would not wait."""
        return self._fits(size) and not self._line and self._admitted is None

    async def room(self, size: int, timeout: Optional[float] = None) -> bool:
        """Waits in line until `size` more bytes may be queued, or the connection has ended.

        Whoever is let through writes before it awaits anything, so that the next in line counts it.
        Says whether it was let through within `timeout` seconds.
        """
        if self.has_room(size):
            return True
        loop = asyncio.get_running_loop()
        place = _Place(size, loop.create_future())
        self._line.append(place)
        try:
            await asyncio.wait({place.turn}, timeout=timeout)
            return place.turn.done()
        finally:
            if self._admitted is place:
                self._admitted = None
            else:
                self._line.remove(place)
            loop.call_soon(self._admit_next)

    async def close(self) -> None:
        """Ends the connection: orderly if the other side answers, and soon in any case."""
        self._end_writing()
        try:
            await end(self._writing)
            finishing = asyncio.ensure_future(self._finish())
            try:
                await asyncio.wait({finishing}, timeout=CLOSE_SECONDS_MAX)
            finally:
                if not finishing.done() or finishing.cancelled() or finishing.exception():
                    self.abort()
                await end(finishing)
        except asyncio.CancelledError:
            self.abort()
            raise

    async def _write_all(self) -> None:
        try:
            while True:
                while not self._queue:
                    self._wake = asyncio.get_running_loop().create_future()
                    await self._wake
                data = self._queue.popleft()
                if self._coalesces and self._queue and len(data) < READ_BYTES:
                    data = b"".join((data, *self._queue))
                    self._queue.clear()
                await self._write_out(data)
                self._queued_bytes -= len(data)
                self._admit_next()
        except OSError:
            # `read` notices the end, and reports it.
            self._end_writing()
        except Exception:
            # Nothing is written any more, which `read` alone would not notice.
            logger.exception("writing to the broker failed")
            self._end_writing()
            self.abort()

    def _fits(self, size: int) -> bool:
        # A frame above the bound goes when nothing else waits.
        return (
            self._ended
            or self._queued_bytes == 0
            or self._queued_bytes + size <= self._queued_bytes_max
        )

    def _end_writing(self) -> None:
        self._ended = True
        self._queue.clear()
        self._admit_next()

    def _admit_next(self) -> None:
        if self._admitted is None and self._line and self._fits(self._line[0].size):
            self._admitted = self._line.popleft()
            self._admitted.turn.set_result(None)


class StreamTransport(Transport):
    """TCP or TLS."""

    _coalesces = True

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        queued_bytes_max: int,
    ) -> None:
        super().__init__(queued_bytes_max)
        self._reader = reader
        self._writer = writer

    async def read(self) -> bytes:
        try:
            return await self._reader.read(READ_BYTES)
        except OSError as error:
            self.end_reason = reason_of(error)
            return b""

    def abort(self) -> None:
        self._writer.transport.abort()

    async def _write_out(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def _finish(self) -> None:
        self._writer.close()
        await self._writer.wait_closed()


class WebSocketTransport(Transport):
    """A WebSocket, by the package `websockets`."""

    # A message is a frame in the classic dialect.
    _coalesces = False

    def __init__(self, connection: Any, queued_bytes_max: int) -> None:
        super().__init__(queued_bytes_max)
        self._connection = connection

    async def read(self) -> bytes:
        from websockets.exceptions import ConnectionClosed

        message: Union[str, bytes] = b""
        try:
            while not message:
                # An empty message is not the end: empty bytes would say so.
                message = await self._connection.recv()
        except ConnectionClosed as closed:
            self.close_code = closed.rcvd.code if closed.rcvd else None
            ours, theirs = closed.sent, closed.rcvd
            if theirs is not None and theirs.reason:
                self.end_reason = printable(theirs.reason)
            elif ours is not None and not closed.rcvd_then_sent and ours.reason:
                self.end_reason = f"what arrived was refused: {printable(ours.reason)}"
            return b""
        return message.encode() if isinstance(message, str) else message

    def abort(self) -> None:
        self._connection.transport.abort()

    async def _write_out(self, data: bytes) -> None:
        from websockets.exceptions import ConnectionClosed

        try:
            await self._connection.send(data)
        except ConnectionClosed as closed:
            raise ConnectionResetError(str(closed)) from None

    async def _finish(self) -> None:
        await self._connection.close()


# -- opening ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Trust:
    """Whom a TLS connection trusts."""

    ca: Optional[Union[str, os.PathLike[str]]] = None
    """A PEM file with the authorities, or the very certificate, to trust, and no others; without
    one, the system's."""
    server_hostname: Optional[str] = None
    """The name that the certificate must be made for; without one, the host in the URL."""
    context: Optional[ssl.SSLContext] = None
    """What to use in place of all this."""

    def make_context(self) -> ssl.SSLContext:
        """Verifies the certificate and the host name.

        Raises:
            ConnectFailed: the file cannot be read, or holds no certificate.
        """
        if self.context is not None:
            return self.context
        try:
            context = ssl.create_default_context(cafile=self.ca)
        except ssl.SSLError:
            raise ConnectFailed(
                f"the CA file {self.ca} holds no usable certificate in PEM, such as certs/ca.pem "
                "does"
            ) from None
        except OSError as error:
            raise ConnectFailed(
                f"the CA file {self.ca} cannot be read: {error.strerror}"
            ) from error
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self.ca is not None:
            # A file that holds the server's own certificate is enough, too. Python 3.9 has no name
            # for X509_V_FLAG_PARTIAL_CHAIN.
            context.verify_flags |= 0x80000
        return context


async def open_transport(
    url: BrokerUrl,
    dialect: str,
    trust: Trust,
    *,
    proxy: Optional[Proxy],
    frame_bytes_max: int,
    queued_bytes_max: int,
) -> Transport:
    """Connects, without logging in.

    Raises:
        ConnectFailed: there is no connection to be had; the text says what to look at.
        Unsupported: the URL needs the package `websockets`, which is not installed.
    """
    context = trust.make_context() if url.is_tls else None
    server_hostname = (trust.server_hostname or url.host) if url.is_tls else None
    try:
        if url.is_websocket:
            connection = await _open_websocket(
                url, dialect, context, server_hostname, proxy, frame_bytes_max
            )
            return WebSocketTransport(connection, queued_bytes_max)
        reader, writer = await asyncio.open_connection(
            url.host, url.port, ssl=context, server_hostname=server_hostname
        )
    except ConnectFailed:
        # An SSLError is an OSError, so that it comes first.
        raise
    except OSError as error:
        if proxy is not None and not isinstance(error, ssl.SSLError):
            # All but TLS is with the proxy.
            raise explain(error, proxy.address, is_tls=url.is_tls, what="proxy") from error
        raise explain(error, url.address, is_tls=url.is_tls) from error
    except UnicodeError:
        raise no_host(url.host) from None
    return StreamTransport(reader, writer, queued_bytes_max)


async def _open_websocket(
    url: BrokerUrl,
    dialect: str,
    context: Optional[ssl.SSLContext],
    server_hostname: Optional[str],
    proxy: Optional[Proxy],
    frame_bytes_max: int,
) -> Any:
    try:
        from websockets.asyncio.client import connect
        from websockets.exceptions import InvalidStatus, ProxyError, WebSocketException
        from websockets.typing import Subprotocol
    except ImportError:
        raise Unsupported(
            f'{url.scheme}:// needs the package websockets: pip install "websockets>=15"'
        ) from None
    tls: dict[str, Any] = {"ssl": context, "server_hostname": server_hostname} if context else {}
    try:
        return await connect(
            f"{url.scheme}://{url.address}{url.path}",
            subprotocols=[Subprotocol("stomp" if dialect == "classic" else "v12.stomp")],
            compression=None,
            max_size=frame_bytes_max,
            # With the default, `websockets` would take a proxy from the environment.
            proxy=proxy.url if proxy else None,
            # The link watches for silence, and the keeper limits the time of opening.
            ping_interval=None,
            open_timeout=None,
            close_timeout=CLOSE_SECONDS_MAX,
            **tls,
        )
    except ImportError as error:
        raise Unsupported(f"the proxy needs a package that is not installed: {error}") from None
    except ProxyError as error:
        where = proxy.address if proxy else "?"
        raise ConnectFailed(
            f"the proxy {where} does not open the way to {url.address}: {chain_of(error)}"
        ) from error
    except InvalidStatus as error:
        raise ConnectFailed(
            f"{url.address} refuses the WebSocket with HTTP {error.response.status_code}: "
            + (first_line(error.response.body) or "are the port and the path right?")
        ) from error
    except (WebSocketException, EOFError) as error:
        hint = "" if url.is_tls else ", and does the port want TLS (wss://)"
        raise ConnectFailed(
            f"{url.address} does not answer as a WebSocket server ({chain_of(error)}): are the "
            f"port and the path right{hint}?"
        ) from error


async def adopt_socket(
    connected: socket.socket,
    context: Optional[ssl.SSLContext],
    server_hostname: str,
    queued_bytes_max: int,
) -> Transport:
    """A transport on a TCP connection that is there already.

    Raises:
        OSError: there is no TLS to be had on it.
    """
    reader, writer = await asyncio.open_connection(
        sock=connected, ssl=context, server_hostname=server_hostname if context else None
    )
    return StreamTransport(reader, writer, queued_bytes_max)


# -- reasons ---------------------------------------------------------------------------------------


def explain(error: OSError, address: str, *, is_tls: bool, what: str = "broker") -> ConnectFailed:
    """What kept us from connecting, and what to do about it."""
    if isinstance(error, ssl.SSLCertVerificationError):
        # X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH
        if error.verify_code in (62, 64):
            why = "is not made for this host: use a host name that it was made for"
        elif error.verify_message == "certificate has expired":
            why = "has expired: the broker needs a new one"
        else:
            why = (
                f"is not trusted ({error.verify_message}): give the CA that signed it, such as "
                "certs/ca.pem"
            )
        return ConnectFailed(f"the certificate of {address} {why}")
    if isinstance(error, ssl.SSLError):
        return ConnectFailed(
            f"no TLS with {address} ({reason_of(error)}): does this port speak it?"
        )
    if isinstance(error, socket.gaierror):
        return ConnectFailed(
            f"no address for the host of {address} ({error.strerror}): is the name right?"
        )
    if isinstance(error, (ConnectionResetError, ConnectionAbortedError, BrokenPipeError)):
        hint = "does this port speak TLS?" if is_tls else "is this the broker's port?"
        return ConnectFailed(f"{address} closed the connection at once: {hint}")
    if _numbers(error) == {errno.ECONNREFUSED}:
        return ConnectFailed(f"connection refused at {address}: is the {what} running?")
    return ConnectFailed(f"no connection to {address}: {reason_of(error)}")


def no_host(host: str) -> ConnectFailed:
    """A name that cannot even be looked up."""
    return ConnectFailed(f"{host!r} is no name that a host can have")


def reason_of(error: BaseException) -> str:
    """What went wrong, in words; never empty."""
    if isinstance(error, ssl.SSLEOFError):
        return "the other side ended it without a word"
    # Python's own TLS errors have none.
    reason = getattr(error, "reason", None)
    if isinstance(error, ssl.SSLError) and reason:
        return str(reason).lower().replace("_", " ")
    numbers = _numbers(error) if isinstance(error, OSError) else set()
    if numbers and not isinstance(error, ssl.SSLError):
        return ", ".join(os.strerror(number) for number in sorted(numbers))
    words = " ".join(str(error).split())
    if error.args and words:
        return printable(words)
    # ConnectionResetError becomes "connection reset".
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(error).__name__).lower()
    return name[: -len(" error")] if name.endswith(" error") else name


def chain_of(error: BaseException) -> str:
    """What went wrong, with its cause."""
    reasons: list[str] = []
    cause: Optional[BaseException] = error
    while cause is not None and len(reasons) < 4:
        if isinstance(cause, EOFError):
            return "it closed the connection"
        if reason_of(cause) not in reasons:
            reasons.append(reason_of(cause))
        cause = cause.__cause__
    return ": ".join(reasons)


def first_line(body: Optional[bytes]) -> str:
    """The text of an HTTP answer, if it is a sentence and not a page."""
    words = (body or b"").decode("utf-8", "replace").strip()
    return "" if words.startswith("<") else printable(words.split("\n", 1)[0].strip())


def printable(text: str) -> str:
    """Text of the other side, shortened, without characters that control a terminal."""
    shown = "".join(char if char.isprintable() else "?" for char in text[: REASON_CHARS_MAX + 1])
    return shown if len(text) <= REASON_CHARS_MAX else shown[:REASON_CHARS_MAX] + "…"


def _numbers(error: OSError) -> set[int]:
    """The text of a system error; for a host with several addresses asyncio gives only texts."""
    if error.errno is not None:
        return {error.errno}
    return {int(number) for number in re.findall(r"\[Errno (\d+)\]", str(error))}
