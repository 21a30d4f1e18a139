"""Carries octets between here and the broker: TCP, TLS, WebSocket, secure WebSocket, by asyncio.

It knows nothing of frames. A transport writes in the order of `write`, on a task of its own, and
holds what it could not write yet.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import re
import socket
import ssl
from abc import ABC, abstractmethod
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Optional, Union

from ._url import BrokerUrl
from .errors import ConnectFailed, Unsupported

if TYPE_CHECKING:
    import os

READ_BYTES = 64 * 1024
CLOSE_SECONDS_MAX = 2.0
"""How long the end of a connection may take before it is cut."""
QUEUED_BYTES_HIGH = 1024 * 1024
"""What may wait to be written before senders wait as well."""


class Transport(ABC):
    """A connection that is open."""

    close_code: Optional[int] = None
    """The WebSocket close code, once the other side gave one."""

    def __init__(self) -> None:
        self._queue: deque[bytes] = deque()
        self._queued_bytes = 0
        self._wake: Optional[asyncio.Future[None]] = None
        self._waiting_for_room: list[asyncio.Future[None]] = []
        self._ended = False
        self._writing = asyncio.ensure_future(self._write_all())

    @abstractmethod
    async def read(self) -> bytes:
        """What arrived next; nothing at the end, however it came."""

    @abstractmethod
    def abort(self) -> None:
        """Cuts the connection at once, so that `read` ends."""

    @abstractmethod
    async def _write_out(self, octets: bytes) -> None:
        """Writes, and waits while the other side does not take it."""

    @abstractmethod
    async def _finish(self) -> None:
        """Ends the connection in order."""

    _coalesces: bool
    """Whether neighbours may be written as one."""

    def write(self, octets: bytes) -> None:
        """Writes, as soon as what was given before is written."""
        if self._ended:
            return
        self._queue.append(octets)
        self._queued_bytes += len(octets)
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    @property
    def is_congested(self) -> bool:
        """Whether `room` would wait."""
        return self._queued_bytes > QUEUED_BYTES_HIGH and not self._ended

    async def room(self) -> None:
        """Waits until little enough is queued, or the connection has ended."""
        while self.is_congested:
            waiter = asyncio.get_running_loop().create_future()
            self._waiting_for_room.append(waiter)
            try:
                await waiter
            finally:
                if waiter in self._waiting_for_room:
                    self._waiting_for_room.remove(waiter)

    async def close(self) -> None:
        """Ends the connection: in order if the other side plays along, and soon in any case."""
        self._end_writing()
        self._writing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._writing
        try:
            await asyncio.wait_for(self._finish(), CLOSE_SECONDS_MAX)
        except (asyncio.TimeoutError, OSError):
            self.abort()
        except asyncio.CancelledError:
            self.abort()
            raise

    async def _write_all(self) -> None:
        try:
            while True:
                while not self._queue:
                    self._wake = asyncio.get_running_loop().create_future()
                    await self._wake
                octets = self._queue.popleft()
                if self._coalesces and self._queue and len(octets) < READ_BYTES:
                    octets = b"".join((octets, *self._queue))
                    self._queue.clear()
                await self._write_out(octets)
                self._queued_bytes -= len(octets)
                self._release_waiters()
        except OSError:
            # Whoever reads notices the end, and says what it was.
            self._end_writing()

    def _end_writing(self) -> None:
        self._ended = True
        self._queue.clear()
        self._release_waiters()

    def _release_waiters(self) -> None:
        if not self.is_congested:
            for waiter in self._waiting_for_room:
                if not waiter.done():
                    waiter.set_result(None)
            self._waiting_for_room.clear()


class StreamTransport(Transport):
    """TCP or TLS."""

    _coalesces = True

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        super().__init__()
        self._reader = reader
        self._writer = writer

    async def read(self) -> bytes:
        try:
            return await self._reader.read(READ_BYTES)
        except OSError:
            return b""

    def abort(self) -> None:
        self._writer.transport.abort()

    async def _write_out(self, octets: bytes) -> None:
        self._writer.write(octets)
        await self._writer.drain()

    async def _finish(self) -> None:
        self._writer.close()
        await self._writer.wait_closed()


class WebSocketTransport(Transport):
    """A WebSocket, by the package `websockets`."""

    # A message is a frame in the classic dialect.
    _coalesces = False

    def __init__(self, connection: Any) -> None:
        super().__init__()
        self._connection = connection

    async def read(self) -> bytes:
        from websockets.exceptions import ConnectionClosed

        try:
            message: Union[str, bytes] = await self._connection.recv()
        except ConnectionClosed as closed:
            self.close_code = closed.rcvd.code if closed.rcvd else None
            return b""
        return message.encode() if isinstance(message, str) else message

    def abort(self) -> None:
        self._connection.transport.abort()

    async def _write_out(self, octets: bytes) -> None:
        from websockets.exceptions import ConnectionClosed

        try:
            await self._connection.send(octets)
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


async def open_transport(url: BrokerUrl, dialect: str, trust: Trust, bytes_max: int) -> Transport:
    """Connects, without logging in.

    Raises:
        ConnectFailed: there is no connection to be had; the text says what to look at.
        Unsupported: the URL needs the package `websockets`, which is not installed.
    """
    context = trust.make_context() if url.is_tls else None
    server_hostname = (trust.server_hostname or url.host) if url.is_tls else None
    try:
        if url.is_websocket:
            return await _open_websocket(url, dialect, context, server_hostname, bytes_max)
        reader, writer = await asyncio.open_connection(
            url.host, url.port, ssl=context, server_hostname=server_hostname
        )
    except OSError as error:
        raise explain(error, url.address) from error
    except UnicodeError:
        raise ConnectFailed(f"{url.host!r} is no name that a host can have") from None
    return StreamTransport(reader, writer)


async def _open_websocket(
    url: BrokerUrl,
    dialect: str,
    context: Optional[ssl.SSLContext],
    server_hostname: Optional[str],
    bytes_max: int,
) -> Transport:
    try:
        from websockets.asyncio.client import connect
        from websockets.exceptions import WebSocketException
        from websockets.typing import Subprotocol
    except ImportError:
        raise Unsupported(
            f'{url.scheme}:// needs the package websockets, 14.2 or later: pip install "com-broker'
            '[websocket]"'
        ) from None
    tls: dict[str, Any] = {"ssl": context, "server_hostname": server_hostname} if context else {}
    try:
        connection = await connect(
            f"{url.scheme}://{url.address}{url.path}",
            subprotocols=[Subprotocol("stomp" if dialect == "classic" else "v12.stomp")],
            compression=None,
            max_size=bytes_max,
            # Whoever uses the transport listens for beats, and limits the time.
            ping_interval=None,
            open_timeout=None,
            close_timeout=CLOSE_SECONDS_MAX,
            **tls,
        )
    except (WebSocketException, EOFError) as error:
        raise ConnectFailed(
            f"{url.address} does not accept the WebSocket ({error or type(error).__name__}): are "
            "the port and the path right?"
        ) from error
    return WebSocketTransport(connection)


async def adopt_socket(
    connected: socket.socket, context: Optional[ssl.SSLContext], server_hostname: str
) -> Transport:
    """A transport on a TCP connection that is there already.

    Raises:
        OSError: there is no TLS to be had on it.
    """
    reader, writer = await asyncio.open_connection(
        sock=connected, ssl=context, server_hostname=server_hostname if context else None
    )
    return StreamTransport(reader, writer)


def explain(error: OSError, address: str) -> ConnectFailed:
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
        return ConnectFailed(f"no TLS with {address} ({error.reason}): does this port speak it?")
    if isinstance(error, socket.gaierror):
        return ConnectFailed(f"no address for the host of {address}: {error.strerror}")
    if _numbers(error) == {errno.ECONNREFUSED}:
        return ConnectFailed(f"connection refused at {address}: is the broker running?")
    return ConnectFailed(f"no connection to {address}: {error}")


def _numbers(error: OSError) -> set[int]:
    """What the system says; of a host with several addresses asyncio gives only the texts."""
    if error.errno is not None:
        return {error.errno}
    return {int(number) for number in re.findall(r"\[Errno (\d+)\]", str(error))}
