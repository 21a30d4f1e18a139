"""How the few things are said that attacks and measurements need of any server: in STOMP, NATS, MQTT and RESP.

Topics are written with `/` between levels, `*` for one level and `>` for the rest.
"""

from __future__ import annotations

import json
import re
from typing import ClassVar

from .wire import (
    Client, Received, Refused, connect_frame, error_word, is_connected, open_stream, stomp, take_frame)


class Speech:
    """A protocol. This one is the standard dialect of com-broker."""

    name: ClassVar[str] = "stomp"
    # The largest body, and the longest name of a topic, that servers take by default.
    body_max: ClassVar[int] = 4 << 20
    name_max: ClassVar[int] = 4096
    # What is answered, with RECEIPT, when the server is through with all before.
    ask: ClassVar[bytes] = stomp(
        "SEND", {"destination": "/topic/siege-barrier", "receipt": "barrier"})
    # What a client says from time to time.
    beat: ClassVar[bytes] = b"\n"

    def connect(self, login: str, profile: str = "agent", **headers: object) -> bytes:
        return connect_frame(login, profile, "1.2", **headers)

    def is_welcome(self, answer: bytes) -> bool:
        """Whether the login is through; raises where it is refused."""
        return is_connected(answer)

    def topic(self, topic: str) -> str:
        """A topic as the protocol writes it."""
        return f"/topic/{topic}"

    def subscribe(self, number: int, topic: str) -> bytes:
        return stomp("SUBSCRIBE", {"id": number, "destination": self.topic(topic)})

    def unsubscribe(self, number: int, topic: str) -> bytes:
        return stomp("UNSUBSCRIBE", {"id": number})

    def publish(self, topic: str, body: bytes = b"") -> bytes:
        return stomp("SEND", {"destination": self.topic(topic), "content-length": len(body)}, body)

    def received_bytes(self, topic: str, body: int) -> int:
        """The size of a message at its receiver, or a little less."""
        return 86 + body

    def take(self, buffer: bytearray) -> Received | None:
        """Takes what has arrived whole out of a buffer."""
        return take_frame(buffer)

    def open(self, port: int, login: str, *, patience: float = 30, receive_buffer: int = 0) -> Client:
        """Logs a client in."""
        return Client(port, login, patience=patience, receive_buffer=receive_buffer)


class PeerClient(Client):
    """A client of another server."""

    def __init__(self, speech: Speech, port: int, login: str, patience: float, receive_buffer: int):
        self.buffer = bytearray()
        self.speech = speech
        self.stream = open_stream(port, receive_buffer=receive_buffer, patience=patience)
        try:
            self.send(speech.connect(login))
            while not speech.is_welcome(bytes(self.buffer)):
                self.fill()
            self.buffer.clear()
        except BaseException:
            self.stream.close()
            raise

    def take(self) -> Received | None:
        while received := self.speech.take(self.buffer):
            if received.command == "ERROR":
                raise Refused(received.body.decode(errors="replace"))
            if received.command != "PING":
                return received
            self.send(b"PONG\r\n")
        return None


class Nats(Speech):
    """The text protocol of nats-server."""

    name = "nats"
    body_max = 1 << 20
    name_max = 3_900  # A line has at most 4,096 bytes.
    ask = b"PING\r\n"
    beat = b""

    def connect(self, login: str, profile: str = "agent", **headers: object) -> bytes:
        options = {"verbose": False, "pedantic": False, "name": login, "protocol": 1}
        return f"CONNECT {json.dumps(options)}\r\nPING\r\n".encode()

    def is_welcome(self, answer: bytes) -> bool:
        if b"-ERR" in answer:
            raise Refused(error_word(answer) or "-ERR")
        return b"PONG\r\n" in answer

    def topic(self, topic: str) -> str:
        return topic.replace("/", ".")

    def subscribe(self, number: int, topic: str) -> bytes:
        return f"SUB {self.topic(topic)} {number}\r\n".encode()

    def unsubscribe(self, number: int, topic: str) -> bytes:
        return f"UNSUB {number}\r\n".encode()

    def publish(self, topic: str, body: bytes = b"") -> bytes:
        return b"PUB %s %d\r\n%s\r\n" % (self.topic(topic).encode(), len(body), body)

    def received_bytes(self, topic: str, body: int) -> int:
        return len(f"MSG {topic} 1 {body}\r\n") + body + 2

    def take(self, buffer: bytearray) -> Received | None:
        end = buffer.find(b"\r\n")
        if end < 0:
            return None
        line = buffer[:end].decode(errors="replace")
        word, _, rest = line.partition(" ")
        if word == "MSG":
            size = int(rest.rsplit(" ", 1)[1])
            if len(buffer) < end + 2 + size + 2:
                return None
            body = bytes(buffer[end + 2:end + 2 + size])
            del buffer[:end + 2 + size + 2]
            return Received("MESSAGE", {}, body)
        del buffer[:end + 2]
        if word == "-ERR":
            return Received("ERROR", {}, rest.strip("'").encode())
        return Received({"PONG": "RECEIPT"}.get(word, word), {}, b"")

    def open(self, port: int, login: str, *, patience: float = 30, receive_buffer: int = 0) -> Client:
        return PeerClient(self, port, login, patience, receive_buffer)


class Mqtt(Speech):
    """MQTT 3.1.1 with quality of service 0."""

    name = "mqtt"
    ask = b"\xc0\x00"
    beat = b""

    def connect(self, login: str, profile: str = "agent", **headers: object) -> bytes:
        # Keep-alive 0: the server expects no pings.
        return packet(0x10, b"\0\4MQTT\4\2\0\0" + text(login))

    def is_welcome(self, answer: bytes) -> bool:
        if len(answer) < 4:
            return False
        if answer.startswith(b"\x20\x02") and answer[3] == 0:
            return True
        raise Refused(f"CONNACK {answer[3]}")

    def topic(self, topic: str) -> str:
        return topic.replace("*", "+").replace(">", "#")

    def subscribe(self, number: int, topic: str) -> bytes:
        return packet(0x82, identifier(number) + text(self.topic(topic)) + b"\0")

    def unsubscribe(self, number: int, topic: str) -> bytes:
        return packet(0xA2, identifier(number) + text(self.topic(topic)))

    def publish(self, topic: str, body: bytes = b"") -> bytes:
        return packet(0x30, text(self.topic(topic)) + body)

    def received_bytes(self, topic: str, body: int) -> int:
        return len(self.publish(topic, bytes(body)))

    def take(self, buffer: bytearray) -> Received | None:
        head = re.match(rb"(?s).([\x80-\xff]{0,3}[\0-\x7f])", buffer)
        if not head:
            return None
        size = sum((one & 0x7F) << 7 * at for at, one in enumerate(head[1]))
        start = head.end()
        if len(buffer) < start + size:
            return None
        kind, rest = buffer[0] & 0xF0, bytes(buffer[start:start + size])
        del buffer[:start + size]
        if kind == 0x30:
            return Received("MESSAGE", {}, rest[2 + int.from_bytes(rest[:2], "big"):])
        if kind == 0x90 and rest[2] > 2:
            return Received("ERROR", {}, b"SUBACK with a failure")
        return Received({0xD0: "RECEIPT"}.get(kind, f"{kind:#x}"), {}, b"")

    def open(self, port: int, login: str, *, patience: float = 30, receive_buffer: int = 0) -> Client:
        return PeerClient(self, port, login, patience, receive_buffer)


def packet(kind: int, rest: bytes) -> bytes:
    """An MQTT packet with its length."""
    length, left = bytearray(), len(rest)
    while left >= 0x80:
        length.append(left & 0x7F | 0x80)
        left >>= 7
    length.append(left)
    return bytes([kind, *length]) + rest


def text(value: str) -> bytes:
    """A string as MQTT has it."""
    data = value.encode()
    return len(data).to_bytes(2, "big") + data


def identifier(number: int) -> bytes:
    """A packet's identifier, which is not zero."""
    return (number % 0xFFFF + 1).to_bytes(2, "big")


class Redis(Speech):
    """The protocol of redis-server, as far as subscriptions go: its messages are not taken."""

    name = "redis"
    ask = b"PING\r\n"
    beat = b""

    def connect(self, login: str, profile: str = "agent", **headers: object) -> bytes:
        return self.ask

    def is_welcome(self, answer: bytes) -> bool:
        if answer.startswith(b"-"):
            raise Refused(answer.decode(errors="replace").strip())
        return answer.endswith(b"+PONG\r\n")

    def topic(self, topic: str) -> str:
        return topic.replace(">", "*")

    def subscribe(self, number: int, topic: str) -> bytes:
        command = "PSUBSCRIBE" if "*" in self.topic(topic) else "SUBSCRIBE"
        return f"{command} {self.topic(topic)}\r\n".encode()


SPEECHES: dict[str, Speech] = {one.name: one for one in (Speech(), Nats(), Mqtt(), Redis())}
