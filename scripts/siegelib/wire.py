"""Standard STOMP over plain TCP, for one client and for crowds, in as few calls as that can take."""

from __future__ import annotations

import contextlib
import re
import select
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from broker import APPLICATION_KEY, PROFILE_KEYS, Fault

# Logins of a crowd that may be under way at once, fewer than the backlog of a listener.
PACE = 200

# What one source address may open: the kernel has some 28,000 ports for each.
PORTS = 20_000

ERROR_CODE = re.compile(rb"\nerror-code:([A-Z_]+)\n")
LIMIT = re.compile(rb"([a-z_]+_max)")
NATS_ERROR = re.compile(rb"-ERR '([^'\r\n]+)'\r\n")


class Refused(Exception):
    """The broker answered with ERROR, or closed; the text is the error's code."""


class Received(NamedTuple):
    """A frame from the broker."""

    command: str
    headers: dict[str, str]
    body: bytes


def stomp(command: str, headers: Mapping[str, object] = {}, body: bytes = b"") -> bytes:
    """A frame for the broker. Nothing is escaped."""
    lines = "".join(f"{name}:{value}\n" for name, value in headers.items())
    return b"%s\n%s\n%s\0" % (command.encode(), lines.encode(), body)


def connect_frame(
    login: str, profile: str = "agent", version: str = "1.2", **headers: object,
) -> bytes:
    """A CONNECT with both keys; `heart_beat` is written `heart-beat`."""
    return stomp("CONNECT", {
        "accept-version": version, "login": login, "passcode": PROFILE_KEYS[profile],
        "secret-key": APPLICATION_KEY,
        **{name.replace("_", "-"): value for name, value in headers.items()}})


def take_frame(buffer: bytearray) -> Received | None:
    """Takes a whole frame out of a buffer; None if there is none yet."""
    start = 0
    while start < len(buffer) and buffer[start] in b"\r\n":
        start += 1
    if start:
        del buffer[:start]
    head_end = buffer.find(b"\n\n")
    if head_end < 0:
        return None
    command, *lines = buffer[:head_end].decode(errors="replace").split("\n")
    headers: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers.setdefault(name, value)
    at = head_end + 2
    length = headers.get("content-length")
    end = at + int(length) if length else buffer.find(b"\0", at)
    if end < at or len(buffer) <= end:
        return None
    body = bytes(buffer[at:end])
    del buffer[:end + 1]
    return Received(command, headers, body)


def error_word(data: bytes) -> str | None:
    """What an ERROR among these bytes says: its code, and the limit where it names one."""
    found = ERROR_CODE.search(data)
    if not found:
        told = NATS_ERROR.search(data)
        return told[1].decode(errors="replace") if told else None
    word = found[1].decode()
    limit = LIMIT.search(data, max(0, found.start() - 600), found.end() + 300)
    return f"{word}:{limit[1].decode()}" if word == "LIMIT_EXCEEDED" and limit else word


class Client:
    """A blocking client that is logged in."""

    def __init__(
        self, port: int, login: str, profile: str = "agent", *, patience: float = 30,
        receive_buffer: int = 0, source: str = "127.0.0.1", version: str = "1.2",
        **headers: object,
    ):
        self.buffer = bytearray()
        self.stream = open_stream(port, source, receive_buffer, patience)
        try:
            self.send(connect_frame(login, profile, version, **headers))
            self.expect("CONNECTED")
        except BaseException:
            self.stream.close()
            raise

    def send(self, data: bytes) -> None:
        self.stream.sendall(data)

    def fill(self) -> None:
        """Waits for more bytes."""
        received = self.stream.recv(1 << 20)
        if not received:
            raise Refused("closed")
        self.buffer += received

    def take(self) -> Received | None:
        """A frame that has arrived; raises where it is an ERROR."""
        received = take_frame(self.buffer)
        if received and received.command == "ERROR":
            code = received.headers.get("error-code", "ERROR")
            limit = LIMIT.search(received.headers.get("message", "").encode())
            name = f":{limit[1].decode()}" if limit and code == "LIMIT_EXCEEDED" else ""
            raise Refused(f"{code}{name} retry:{received.headers.get('retry')}")
        return received

    def receive(self) -> Received:
        while (received := self.take()) is None:
            self.fill()
        return received

    def expect(self, command: str) -> Received:
        """Waits for a frame of this command; others are dropped."""
        while (received := self.receive()).command != command:
            pass
        return received

    def ask(self, command: str, headers: Mapping[str, object] = {}, body: bytes = b"") -> Received:
        """Sends a frame with a receipt and waits for that."""
        self.send(stomp(command, {**headers, "receipt": "r"}, body))
        return self.expect("RECEIPT")

    def close(self) -> None:
        self.stream.close()


def open_stream(
    port: int, source: str = "127.0.0.1", receive_buffer: int = 0, patience: float = 30
) -> socket.socket:
    """Connects. With a small receive buffer the broker's kernel keeps little, too: its own buffer is a
    multiple of the segments that it may send."""
    stream = socket.socket()
    # The port is chosen when the other end is known, so that one serves many other ends.
    stream.setsockopt(socket.IPPROTO_IP, 24, 1)  # IP_BIND_ADDRESS_NO_PORT
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if receive_buffer:
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)
    stream.settimeout(patience)
    try:
        stream.bind((source, 0))
        stream.connect(("127.0.0.1", port))
    except OSError:
        stream.close()
        raise
    return stream


def reset(stream: socket.socket) -> None:
    """Ends a connection at once, so that it leaves no port behind that waits."""
    with contextlib.suppress(OSError):
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    stream.close()


def is_connected(answer: bytes) -> bool:
    """Whether a login is through, in either dialect; raises where it is refused."""
    if answer.startswith((b"CONNECTED", b"\0", b"\1")):
        return True
    raise Refused(error_word(answer) or f"a login was answered with {answer[:60]!r}")


def log_in_crowd(
    port: int, connects: Iterable[bytes], *, receive_buffer: int = 0, patience: float = 30,
    first_source: int = 1, is_welcome: Callable[[bytes], bool] = is_connected,
) -> list[socket.socket]:
    """Opens a connection for each CONNECT and waits until all are answered; in order."""
    poll = select.epoll()
    waiting: dict[int, socket.socket] = {}
    answers: dict[int, bytes] = {}
    streams: list[socket.socket] = []
    deadline = time.monotonic() + patience

    def take(left: int) -> None:
        while len(waiting) > left:
            if time.monotonic() > deadline:
                raise Fault(f"{len(waiting)} of {len(streams)} logins are not answered")
            for descriptor, _ in poll.poll(1):
                received = waiting[descriptor].recv(16_384)
                answer = answers.pop(descriptor, b"") + received
                if not received:
                    raise Refused(error_word(answer) or "a login was answered with the end")
                if not is_welcome(answer):
                    answers[descriptor] = answer
                    continue
                poll.unregister(descriptor)
                del waiting[descriptor]

    try:
        for number, connect in enumerate(connects):
            source = f"127.0.{first_source + number // PORTS}.1"
            stream = open_stream(port, source, receive_buffer, patience)
            streams.append(stream)
            stream.sendall(connect)
            waiting[stream.fileno()] = stream
            poll.register(stream, select.EPOLLIN)
            take(PACE)
        take(0)
    except BaseException:
        for stream in streams:
            stream.close()
        raise
    finally:
        poll.close()
    return streams


class Sink:
    """A thread that reads from many connections, and only counts: bytes, ERRORs by code, ends."""

    def __init__(self, shared: memoryview | None = None) -> None:
        # Where another process reads how much it was.
        self.shared = shared
        self.poll = select.epoll()
        self.streams: dict[int, socket.socket] = {}
        self.data = 0
        self.errors: Counter[str] = Counter()
        self.ends = 0
        self.is_done = False
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def add(self, *streams: socket.socket) -> None:
        for stream in streams:
            self.streams[stream.fileno()] = stream
            self.poll.register(stream, select.EPOLLIN)

    def remove(self, stream: socket.socket) -> None:
        if self.streams.pop(stream.fileno(), None):
            self.poll.unregister(stream)

    def stop(self) -> None:
        self.is_done = True
        self.thread.join(5)

    def _run(self) -> None:
        room = memoryview(bytearray(1 << 20))
        while not self.is_done:
            for descriptor, _ in self.poll.poll(0.2):
                stream = self.streams.get(descriptor)
                if stream:
                    self._read(stream, descriptor, room)
            if self.shared:
                self.shared[0] = self.data

    def _read(self, stream: socket.socket, descriptor: int, room: memoryview) -> None:
        try:
            count = stream.recv_into(room, 0, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            count = 0
        if count:
            self.data += count
            # An ERROR is the last that comes, so it stands at the end.
            word = error_word(room[max(0, count - 1500):count].tobytes())
            if word:
                self.errors[word] += 1
            return
        self.ends += 1
        self.streams.pop(descriptor, None)
        with contextlib.suppress(OSError):
            self.poll.unregister(descriptor)
