"""Clients that nobody here wrote, behind one face.

Each gives whole frames (`receive`), takes whole frames (`send`), and says how its connection ended
(`ending`): "orderly" for an end of stream that TLS vouches for, or a WebSocket close code.
"""

import asyncio
import base64
import json
import queue
import socket
import ssl
import subprocess
import threading
import time
from pathlib import Path

from broker import Fault, envelope, take_envelope

HERE = Path(__file__).resolve().parent

# Far more than anything takes on a loaded machine.
PATIENCE = 20


class StreamClient:
    """Python's `socket`, and whatever wraps it."""

    is_websocket = False

    def __init__(self, broker):
        self.buffer = bytearray()
        self.stream = self.open(broker)

    def open(self, broker):
        return socket.create_connection(("127.0.0.1", broker.port), PATIENCE)

    def send(self, data):
        self.stream.sendall(envelope(data))

    def receive(self, seconds=PATIENCE):
        deadline = time.monotonic() + seconds
        while (data := take_envelope(self.buffer)) is None:
            self.stream.settimeout(max(deadline - time.monotonic(), 0.001))
            try:
                received = self.stream.recv(65536)
            except TimeoutError:
                return None
            if not received:
                raise Fault("the broker closed where a frame was expected")
            self.buffer += received
        return data

    def ending(self):
        self.stream.settimeout(PATIENCE)
        received = self.stream.recv(65536)
        if received or self.buffer:
            raise Fault(f"the end was expected, and {bytes(self.buffer) + received!r} came")
        return "orderly"

    def close(self):
        self.stream.close()


class Tls12Client(StreamClient):
    """Python's `ssl` as old clients use it: TLS 1.2, no server name."""

    def open(self, broker):
        context = ssl.create_default_context(cafile=broker.authority)
        context.check_hostname = False
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        # An end without a close_notify is an error.
        stream = context.wrap_socket(super().open(broker), suppress_ragged_eofs=False)
        if stream.version() != "TLSv1.2":
            raise Fault(f"{stream.version()} was negotiated")
        return stream

    def ending(self):
        try:
            return super().ending()
        except ssl.SSLZeroReturnError:
            return "orderly"


class Tls13Client(Tls12Client):
    """Python's `ssl` as it is meant to be used: TLS 1.3, and the host name is verified."""

    def open(self, broker):
        context = ssl.create_default_context(cafile=broker.authority)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        stream = StreamClient.open(self, broker)
        return context.wrap_socket(
            stream, server_hostname="localhost", suppress_ragged_eofs=False)


class WebSocketClient:
    """The package `websockets` from PyPI, in its form for asyncio: the threads of the other one read
    and write TLS at the same time, in which Python before 3.13 loses what is written now and then."""

    is_websocket = True
    scheme = "ws"
    # One for all, so that whoever waits lets all others answer pings.
    loop = asyncio.new_event_loop()

    def __init__(self, broker):
        from websockets.asyncio.client import connect

        context = None
        if self.scheme == "wss":
            context = ssl.create_default_context(cafile=broker.authority)
        self.socket = self.wait(connect(
            f"{self.scheme}://localhost:{broker.port}/", subprotocols=["stomp"], ssl=context,
            open_timeout=PATIENCE, proxy=None))
        if self.socket.subprotocol != "stomp":
            raise Fault(f"the subprotocol is {self.socket.subprotocol}")

    def wait(self, awaitable, seconds=PATIENCE):
        async def limited():
            return await asyncio.wait_for(awaitable, seconds)

        return self.loop.run_until_complete(limited())

    def send(self, data):
        try:
            self.wait(self.socket.send(data.decode()))
        except UnicodeDecodeError:
            self.wait(self.socket.send(data))

    def receive(self, seconds=PATIENCE):
        from websockets.exceptions import ConnectionClosed

        try:
            message = self.wait(self.socket.recv(), seconds)
        except asyncio.TimeoutError:
            return None
        except ConnectionClosed as closed:
            raise Fault(f"the broker closed where a frame was expected: {closed}") from None
        return message.encode() if isinstance(message, str) else message

    def ping(self):
        pong = self.wait(self.socket.ping(b"are you there"))
        try:
            self.wait(pong)
        except asyncio.TimeoutError:
            raise Fault("a ping was not answered") from None

    def ending(self):
        from websockets.exceptions import ConnectionClosed

        try:
            message = self.wait(self.socket.recv())
        except ConnectionClosed:
            self.wait(self.socket.wait_closed())
            return self.socket.close_code
        raise Fault(f"the end was expected, and {message!r} came")

    def close(self):
        self.wait(self.socket.close())


class SecureWebSocketClient(WebSocketClient):
    """The same over TLS, the host name verified."""

    scheme = "wss"


class ProgramClient:
    """A program that is driven over its standard input and output."""

    def __init__(self, arguments, environment=None):
        self.process = subprocess.Popen(
            arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env=environment)
        self.errors = b""
        self.received = queue.Queue()
        self.threads = [threading.Thread(target=target, daemon=True)
                        for target in (self.read, self.read_errors)]
        for thread in self.threads:
            thread.start()

    def read_errors(self):
        self.errors = self.process.stderr.read()

    def write(self, data):
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def close(self):
        self.process.kill()
        self.process.wait()
        for thread in self.threads:
            thread.join(PATIENCE)
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            try:
                stream.close()
            except BrokenPipeError:
                pass


class OpensslClient(ProgramClient):
    """`openssl s_client`, with the session typed through it."""

    is_websocket = False

    def __init__(self, broker):
        self.buffer = bytearray()
        super().__init__([
            "openssl", "s_client", "-quiet", "-connect", f"127.0.0.1:{broker.port}",
            "-servername", "localhost", "-verify_hostname", "localhost",
            "-CAfile", broker.authority, "-verify_return_error"])

    def read(self):
        while data := self.process.stdout.read1(65536):
            self.received.put(data)
        self.received.put(None)

    def send(self, data):
        self.write(envelope(data))

    def receive(self, seconds=PATIENCE):
        while (data := take_envelope(self.buffer)) is None:
            try:
                received = self.received.get(timeout=seconds)
            except queue.Empty:
                return None
            if received is None:
                raise Fault(f"openssl ended where a frame was expected: {self.errors.decode()}")
            self.buffer += received
        return data

    def ending(self):
        received = self.received.get(timeout=PATIENCE)
        if received is not None or self.buffer:
            raise Fault(f"the end was expected, and {received!r} came")
        code = self.process.wait(PATIENCE)
        self.threads[1].join(PATIENCE)
        if code != 0 or b"error" in self.errors:
            raise Fault(f"openssl ended with {code}: {self.errors.decode()}")
        return "orderly"


class NodeClient(ProgramClient):
    """The package `ws` from npm."""

    is_websocket = True
    scheme = "ws"
    # Set by the runner: node, and where its packages are.
    environment = None

    def __init__(self, broker):
        arguments = ["node", HERE / "ws_client.js", f"{self.scheme}://localhost:{broker.port}/"]
        if self.scheme == "wss":
            arguments.append(broker.authority)
        super().__init__(arguments, self.environment)
        opened = self.next("open", PATIENCE)
        if opened != "stomp":
            raise Fault(f"the subprotocol is {opened}")

    def read(self):
        for line in self.process.stdout:
            self.received.put(json.loads(line))
        self.received.put(None)

    def next(self, kind, seconds):
        """What the next event that is no ping says, which must be of a kind."""
        while True:
            try:
                event = self.received.get(timeout=seconds)
            except queue.Empty:
                return None
            if event is None:
                raise Fault(f"node ended where {kind} was expected: {self.errors.decode()}")
            if kind in event:
                return event[kind]
            if "ping" not in event:
                raise Fault(f"{kind} was expected, and {event} came")

    def order(self, order, payload):
        order = {"order": order, "payload": base64.b64encode(payload).decode()}
        self.write(json.dumps(order).encode() + b"\n")

    def send(self, data):
        try:
            data.decode()
            self.order("text", data)
        except UnicodeDecodeError:
            self.order("binary", data)

    def receive(self, seconds=PATIENCE):
        message = self.next("message", seconds)
        return message if message is None else base64.b64decode(message)

    def ping(self):
        self.order("ping", b"are you there")
        answer = self.next("pong", PATIENCE)
        if answer is None or base64.b64decode(answer) != b"are you there":
            raise Fault("a ping was not answered")

    def ending(self):
        return self.next("close", PATIENCE)


class SecureNodeClient(NodeClient):
    """The same over TLS, the host name verified."""

    scheme = "wss"


CLIENTS = {
    "tcp": StreamClient,
    "tls-1.2": Tls12Client,
    "tls-1.3": Tls13Client,
    "openssl": OpensslClient,
    "websockets": WebSocketClient,
    "websockets-tls": SecureWebSocketClient,
    "node-ws": NodeClient,
    "node-ws-tls": SecureNodeClient,
}
