"""Frames of both dialects, as values and as bytes, cut from a stream however it arrives.

It knows nothing of what the commands mean.

    classic, TCP and TLS    flag  length (4 bytes)  frame
    classic, WebSocket      frame, one a message
    standard                frame NUL, line ends between frames

    frame                   command LF  key:value LF …  LF  body
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Optional, Protocol

from .errors import ProtocolFault

HeaderLines = Iterable[tuple[str, str]]

HEAD_BYTES_MAX = 64 * 1024
"""The bound on a command with its headers, four times that of the broker."""


@dataclass(frozen=True)
class Frame:
    """A frame that arrived."""

    command: str
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def get(self, name: str) -> Optional[str]:
        """The value of a header; of repeated ones the first counts."""
        return next((value for key, value in self.headers if key == name), None)

    def text(self, name: str) -> str:
        """The value of a header that must be there."""
        return self.get(name) or ""


class FrameReader(Protocol):
    """Cuts frames from what arrives."""

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that `data` completes.

        Raises:
            ProtocolFault: what arrived is no frame, or a larger one than is taken.
        """
        ...


# -- the classic dialect ---------------------------------------------------------------------------


def encode_classic(command: str, headers: HeaderLines, body: bytes = b"") -> bytes:
    """A classic frame without its envelope.

    Raises:
        ValueError: a header that the dialect cannot carry: nothing in it is escaped.
    """
    lines = [command]
    for key, value in headers:
        if not key or re.search(r"[\x00\r\n:]", key) or key != key.strip(" "):
            raise ValueError(f"the classic dialect cannot carry a header named {key!r}")
        if not value or re.search(r"[\x00\r\n]", value) or value != value.strip(" "):
            raise ValueError(
                f"the classic dialect cannot carry this value of the header {key!r}: it is empty, "
                "begins or ends with a blank, or holds a line end or NUL"
            )
        lines.append(f"{key}:{value}")
    return "\n".join(lines).encode() + b"\n\n" + body


def envelope(frame: bytes) -> bytes:
    """A classic frame as it goes over TCP and TLS; the length is in bytes."""
    return struct.pack("<BI", 0, len(frame)) + frame


def decode_classic(data: bytes) -> Frame:
    """Reads a classic frame from the broker; its last byte, a NUL, belongs to no body."""
    blank = data.find(b"\n\n", 0, min(HEAD_BYTES_MAX, len(data) - 1))
    if blank < 0:
        raise ProtocolFault("a frame without an empty line arrived: is this the broker?")
    head, body = data[:blank], data[blank + 2 : -1]
    command, *lines = head.decode("utf-8", "replace").split("\n")
    headers = []
    for line in lines:
        key, colon, value = line.partition(":")
        if not colon:
            raise ProtocolFault("a header line without a colon arrived: is this the broker?")
        headers.append((key.strip(" "), value.strip(" ")))
    return Frame(command, tuple(headers), body)


class EnvelopeReader:
    """Cuts classic frames from a stream, by the lengths that their envelopes claim."""

    def __init__(self, frame_bytes_max: int) -> None:
        self._frame_bytes_max = frame_bytes_max
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that `data` completes."""
        self._buffer += data
        frames = []
        start = 0
        while len(self._buffer) - start >= 5:
            order = "<" if self._buffer[start] == 0 else ">"
            (length,) = struct.unpack_from(f"{order}I", self._buffer, start + 1)
            if not 0 < length <= self._frame_bytes_max:
                raise ProtocolFault(
                    f"an envelope of {length} bytes arrived, and frame_bytes_max is "
                    f"{self._frame_bytes_max}: does this port speak the classic dialect?"
                )
            if len(self._buffer) - start < 5 + length:
                break
            frames.append(decode_classic(bytes(self._buffer[start + 5 : start + 5 + length])))
            start += 5 + length
        del self._buffer[:start]
        return frames


class MessageReader:
    """Takes each WebSocket message for one classic frame."""

    def feed(self, data: bytes) -> list[Frame]:
        """The one frame that the message `data` holds."""
        return [decode_classic(data)]


# -- the standard dialect: STOMP 1.2 ---------------------------------------------------------------

_ESCAPES = {"\\": "\\\\", "\n": "\\n", "\r": "\\r", ":": "\\c"}
_UNESCAPES = {escape: char for char, escape in _ESCAPES.items()}


def encode_standard(
    command: str, headers: HeaderLines, body: bytes = b"", escaping: bool = True
) -> bytes:
    """A frame of STOMP 1.2, with the NUL that ends it.

    Args:
        command: such as `SEND`.
        headers: in their order.
        body: what follows the empty line.
        escaping: off for CONNECT. STOMP 1.2, "Value Encoding": it is not escaped.

    Raises:
        ValueError: a header holds a NUL, or cannot go without escaping.
    """
    lines = [command]
    for key, value in headers:
        if not key or "\0" in key or "\0" in value:
            raise ValueError(f"the header {key!r} has no name, or a NUL in it")
        if not escaping and re.search(r"[\r\n:\\]", value):
            raise ValueError(f"CONNECT cannot carry this value of the header {key!r}")
        lines.append(f"{_escape(key)}:{_escape(value)}" if escaping else f"{key}:{value}")
    return "\n".join(lines).encode() + b"\n\n" + body + b"\0"


def _escape(text: str) -> str:
    return re.sub(r"[\\\n\r:]", lambda found: _ESCAPES[found[0]], text)


def _unescape(text: str) -> str:
    if "\\" not in text:
        return text

    def replaced(found: re.Match[str]) -> str:
        try:
            return _UNESCAPES[found[0]]
        except KeyError:
            raise ProtocolFault("a header with an undefined escape sequence arrived") from None

    return re.sub(r"\\.?", replaced, text)


class StandardReader:
    """Cuts STOMP frames from a stream, by `content-length` or by the NUL behind the body."""

    def __init__(self, frame_bytes_max: int) -> None:
        self._frame_bytes_max = frame_bytes_max
        self._buffer = bytearray()
        # What is known of the frame at the buffer's beginning, so that nothing is looked at twice:
        # without a head, how far the end of one was looked for; with one, how far the NUL was.
        self._examined = 0
        self._head: Optional[Frame] = None
        self._body_from = 0
        self._body_length: Optional[int] = None

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that `data` completes; line ends between frames are heart-beats."""
        self._buffer += data
        frames: list[Frame] = []
        while True:
            frame = self._next_frame()
            if frame is None:
                if len(self._buffer) > self._frame_bytes_max:
                    raise self._too_large()
                return frames
            frames.append(frame)

    def _next_frame(self) -> Optional[Frame]:
        if self._head is None and not self._read_head():
            return None
        body_to = self._find_body_end()
        if body_to is None or self._head is None:
            return None
        head = self._head
        frame = Frame(head.command, head.headers, bytes(self._buffer[self._body_from : body_to]))
        del self._buffer[: body_to + 1]
        self._examined, self._head = 0, None
        return frame

    def _read_head(self) -> bool:
        blank = re.match(rb"[\r\n]*", self._buffer)
        if blank and blank.end():
            del self._buffer[: blank.end()]
            self._examined = 0
        end = self._buffer.find(b"\n\n", max(self._examined - 1, 0), HEAD_BYTES_MAX)
        if end < 0:
            self._examined = len(self._buffer)
            if self._examined > HEAD_BYTES_MAX or b"\0" in self._buffer:
                raise ProtocolFault("what arrived is no STOMP: does this port speak it?")
            return False
        command, *lines = self._buffer[:end].decode("utf-8", "replace").split("\n")
        headers = []
        for line in lines:
            key, colon, value = line.partition(":")
            if not colon:
                raise ProtocolFault("a header line without a colon arrived: is this the broker?")
            if command == "CONNECTED":
                headers.append((key, value))
            else:
                headers.append((_unescape(key), _unescape(value)))
        self._head = Frame(command, tuple(headers), b"")
        self._body_from = self._examined = end + 2
        length = self._head.get("content-length")
        self._body_length = None
        if length is not None:
            if not re.fullmatch(r"[0-9]{1,19}", length):
                raise ProtocolFault("a content-length that is no number arrived")
            self._body_length = int(length)
            if self._body_length > self._frame_bytes_max:
                raise self._too_large()
        return True

    def _find_body_end(self) -> Optional[int]:
        if self._body_length is None:
            end = self._buffer.find(b"\0", self._examined)
            self._examined = len(self._buffer)
            return end if end >= 0 else None
        end = self._body_from + self._body_length
        if len(self._buffer) <= end:
            return None
        if self._buffer[end] != 0:
            raise ProtocolFault("no NUL stands where content-length says that the body ends")
        return end

    def _too_large(self) -> ProtocolFault:
        return ProtocolFault(f"a frame above frame_bytes_max ({self._frame_bytes_max}) arrived")
