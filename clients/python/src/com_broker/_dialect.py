"""The two dialects: requests to bytes, frames to events. No sockets, no time.

Every client in this package speaks through one of these, so that both dialects, over any
transport, are written down once.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Optional, Union

from ._arguments import check_text
from ._frames import (
    EnvelopeReader,
    Frame,
    FrameReader,
    MessageReader,
    StandardReader,
    encode_classic,
    encode_standard,
    envelope,
)
from ._model import ListedClient, Message, Receipt, Session, Subscription
from .errors import ProtocolFault, Refused, TakenOver, Unsupported

BROKER = "STOMP-SERVER"
"""The broker's own address: presence comes from there, and an admin sends commands there."""

RESERVED_HEADERS = frozenset(
    (
        "ack",
        "content-length",
        "content-type",
        "destination",
        "message-id",
        "origin",
        "origin-destination",
        "passcode",
        "receipt",
        "receipt-id",
        "redelivered",
        "secret-key",
        "session-id",
        "subscription",
        "transaction",
        "undeliverable",
    )
)
"""Headers of SEND and MESSAGE that a sender cannot choose, or chooses by other arguments."""

LISTED_CHARS_MAX = 4096
"""The longest line read as a listed client; the expression is slow on longer ones."""


@dataclass(frozen=True)
class Connected:
    """We are logged in."""

    session: Session
    beat_ms: int = 0
    """How often the broker expects to hear us; zero if it does not."""
    beat_expected_ms: int = 0
    """How often the broker will be heard; zero if it did not say."""


@dataclass(frozen=True)
class Delivered:
    """A message arrived."""

    message: Message


@dataclass(frozen=True)
class Answered:
    """The broker did what a request asked."""

    request: str
    receipt: Receipt


@dataclass(frozen=True)
class Denied:
    """A request was refused, or the connection ends, or both."""

    error: Refused
    request: Optional[str]
    """The id of the request that is refused, if it is one of ours."""
    is_answer: bool = False
    """Whether it came as an ACK for that request, and not as an ERROR."""


Event = Union[Connected, Delivered, Answered, Denied]


@dataclass(frozen=True)
class Keys:
    """The two secrets of a login; not shown."""

    application: str
    profile: str

    def __repr__(self) -> str:
        return "Keys(…)"


class Dialect(ABC):
    """How requests are written, and how frames of the broker are read."""

    name: str

    @abstractmethod
    def reader(self, frame_bytes_max: int) -> FrameReader:
        """A reader for the frames of one connection."""

    @abstractmethod
    def connect(
        self, login: str, keys: Keys, host: str, beat_ms: int, resume: bool = False
    ) -> bytes:
        """Logs in; with `resume` to the subscriptions of a session that the broker may have kept.

        Keys show in no error.
        """

    @abstractmethod
    def send(
        self,
        request: str,
        destination: str,
        body: bytes,
        content_type: Optional[str],
        headers: Mapping[str, str],
    ) -> bytes:
        """Sends a message."""

    @abstractmethod
    def subscribe(self, request: str, subscription: Subscription) -> bytes:
        """Subscribes."""

    @abstractmethod
    def unsubscribe(self, request: str, subscription: Subscription) -> bytes:
        """Ends a subscription."""

    @abstractmethod
    def settle(self, request: str, ack_id: str, consumed: bool) -> bytes:
        """Acknowledges a message of a queue, or gives it back."""

    @abstractmethod
    def disconnect(self, request: str) -> bytes:
        """Logs out."""

    @abstractmethod
    def beat(self, request: str) -> bytes:
        """A heart-beat."""

    beat_is_answered: bool
    """Whether a beat is a request, which the broker answers."""

    @abstractmethod
    def interpret(self, frame: Frame, session: Optional[Session]) -> Event:
        """The event that a frame is to the client whose `session` is given."""


# -- classic ---------------------------------------------------------------------------------------


class ClassicDialect(Dialect):
    """The classic dialect: a refused request leaves the connection; there are no queues."""

    name = "classic"
    # The dialect has no heart-beats; a request without effect, which is answered, serves as one.
    beat_is_answered = True

    def __init__(self, enveloped: bool) -> None:
        self._enveloped = enveloped

    def reader(self, frame_bytes_max: int) -> FrameReader:
        return EnvelopeReader(frame_bytes_max) if self._enveloped else MessageReader()

    def connect(
        self, login: str, keys: Keys, host: str, beat_ms: int, resume: bool = False
    ) -> bytes:
        # Here the broker always resumes.
        _check_login(login, keys)
        return self._encode(
            "CONNECT",
            [
                ("accept-version", "1.2"),
                ("login", login),
                ("passcode", keys.profile),
                ("secret-key", keys.application),
            ],
        )

    def send(
        self,
        request: str,
        destination: str,
        body: bytes,
        content_type: Optional[str],
        headers: Mapping[str, str],
        session: Optional[Session] = None,
    ) -> bytes:
        """Sends a message; with `session` the frame is as the original's clients write it."""
        return self._encode(
            "SEND",
            [
                *_own(request, session),
                ("destination", destination),
                *([("content-type", content_type)] if content_type else []),
                ("content-length", str(len(body))),
                *_user_headers(headers),
            ],
            body,
        )

    def subscribe(
        self, request: str, subscription: Subscription, session: Optional[Session] = None
    ) -> bytes:
        lines = [
            *_own(request, session),
            ("destination-type", "1" if subscription.regex else "0"),
            *self._target(subscription),
        ]
        if subscription.snapshot:
            lines.append(("snapshot", "true"))
        return self._encode("SUBSCRIBE", lines)

    def unsubscribe(self, request: str, subscription: Subscription) -> bytes:
        return self._encode("UNSUBSCRIBE", [*_own(request), *self._target(subscription)])

    def unsubscribe_all(self, request: str, session: Optional[Session] = None) -> bytes:
        """Ends every subscription of this client."""
        return self._encode("UNSUBSCRIBE", _own(request, session, origin=False))

    def settle(self, request: str, ack_id: str, consumed: bool) -> bytes:
        raise Unsupported('nothing is acknowledged in the classic dialect: use dialect="standard"')

    def disconnect(self, request: str) -> bytes:
        return self._encode("DISCONNECT", [("receipt-id", request)])

    def beat(self, request: str) -> bytes:
        # Ends nothing: this is no address, and as a regular expression it is invalid.
        return self._encode("UNSUBSCRIBE", [*_own(request), ("destination", "(beat")])

    def interpret(self, frame: Frame, session: Optional[Session]) -> Event:
        if frame.command == "MESSAGE":
            return Delivered(_classic_message(frame, session))
        if frame.command == "ACK":
            request, description = frame.text("transaction"), frame.text("error-desc")
            if description == "OK":
                return Answered(request, Receipt(clients=_listed_clients(frame.body)))
            return Denied(Refused(description, frame.get("error-code")), request, True)
        if frame.command == "CONNECTED":
            return Connected(_session(frame, frame.text("session-id")))
        if frame.command == "RECEIPT":
            return Answered(frame.text("receipt-id"), Receipt())
        if frame.command == "ERROR":
            return Denied(_refused(frame, frame.text("error-desc"), frame.get("retry")), None)
        raise ProtocolFault(f"a frame with the command {frame.command!r} arrived")

    @staticmethod
    def _target(subscription: Subscription) -> list[tuple[str, str]]:
        if subscription.is_presence:
            return [("destination", BROKER), ("destination-id", subscription.destination)]
        return [("destination", subscription.destination)]

    def _encode(self, command: str, headers: Iterable[tuple[str, str]], body: bytes = b"") -> bytes:
        frame = encode_classic(command, headers, body)
        return envelope(frame) if self._enveloped else frame


def _own(
    request: str, session: Optional[Session] = None, origin: bool = True
) -> list[tuple[str, str]]:
    lines = [("transaction", request)]
    if session is not None:
        lines.append(("session-id", session.session_id))
        if origin:
            lines.append(("origin", session.login))
    return lines


def _classic_message(frame: Frame, session: Optional[Session]) -> Message:
    owned = ("transaction", "session-id", "origin", "destination", "content-type", "content-length")
    others = session is not None and frame.get("session-id") != session.session_id
    address = frame.text("destination")
    return Message(
        body=frame.body,
        origin=frame.text("origin"),
        origin_destination=address,
        content_type=frame.get("content-type"),
        headers=_further_headers(frame, owned),
        transaction=frame.get("transaction"),
        is_copy=others and address != BROKER,
        receiver_session=frame.get("session-id"),
    )


def _listed_clients(body: bytes) -> tuple[ListedClient, ...]:
    listed = []
    for line in body.decode("utf-8", "replace").split("\n"):
        if len(line) > LISTED_CHARS_MAX:
            continue
        # From the right, since a login id may hold anything; a topic has no login id.
        found = re.fullmatch(r"[^\[]*\[(.+)\]:\[([^\[\]]*)\]:\[(.+)\]", line)
        if found:
            listed.append(ListedClient(found[1], found[3], found[2]))
    return tuple(listed)


# -- standard --------------------------------------------------------------------------------------


class StandardDialect(Dialect):
    """STOMP 1.2: heart-beats and acknowledgements; every refusal ends the connection."""

    name = "standard"
    beat_is_answered = False

    def __init__(self) -> None:
        self._wanted_ms = 0

    def reader(self, frame_bytes_max: int) -> FrameReader:
        return StandardReader(frame_bytes_max)

    def connect(
        self, login: str, keys: Keys, host: str, beat_ms: int, resume: bool = False
    ) -> bytes:
        _check_login(login, keys)
        self._wanted_ms = beat_ms
        headers = [
            ("accept-version", "1.2"),
            ("host", host),
            ("login", login),
            ("passcode", keys.profile),
            ("secret-key", keys.application),
            ("heart-beat", f"{beat_ms},{beat_ms}"),
            # Direct messages come without being subscribed.
            ("inbox", "true"),
            *([("resume", "true")] if resume else []),
        ]
        return encode_standard("CONNECT", headers, escaping=False)

    def send(
        self,
        request: str,
        destination: str,
        body: bytes,
        content_type: Optional[str],
        headers: Mapping[str, str],
    ) -> bytes:
        lines = [
            ("destination", destination),
            ("receipt", request),
            *([("content-type", content_type)] if content_type else []),
            ("content-length", str(len(body))),
            *_user_headers(headers),
        ]
        return encode_standard("SEND", lines, body)

    def subscribe(self, request: str, subscription: Subscription) -> bytes:
        lines = [("id", subscription.id), ("receipt", request)]
        if subscription.is_presence:
            lines += [("destination", BROKER), ("destination-id", subscription.destination)]
        else:
            lines += [("destination", subscription.destination), ("ack", subscription.ack)]
        if subscription.regex:
            lines.append(("destination-type", "1"))
        if subscription.prefetch is not None:
            lines.append(("prefetch-count", str(subscription.prefetch)))
        if subscription.snapshot:
            lines.append(("snapshot", "true"))
        return encode_standard("SUBSCRIBE", lines)

    def unsubscribe(self, request: str, subscription: Subscription) -> bytes:
        return encode_standard("UNSUBSCRIBE", [("id", subscription.id), ("receipt", request)])

    def settle(self, request: str, ack_id: str, consumed: bool) -> bytes:
        command = "ACK" if consumed else "NACK"
        return encode_standard(command, [("id", ack_id), ("receipt", request)])

    def disconnect(self, request: str) -> bytes:
        return encode_standard("DISCONNECT", [("receipt", request)])

    def beat(self, request: str) -> bytes:
        return b"\n"

    def interpret(self, frame: Frame, session: Optional[Session]) -> Event:
        if frame.command == "MESSAGE":
            return Delivered(_standard_message(frame, session))
        if frame.command == "RECEIPT":
            delivered = frame.text("delivered")
            receipt = Receipt(delivered=int(delivered) if _is_number(delivered) else None)
            return Answered(frame.text("receipt-id"), receipt)
        if frame.command == "CONNECTED":
            can, wants = self._read_beats(frame)
            session = _session(frame, frame.text("session"))
            ours = self._wanted_ms
            return Connected(
                session,
                beat_ms=max(ours, wants) if ours and wants else 0,
                beat_expected_ms=max(ours, can) if ours and can else 0,
            )
        if frame.command == "ERROR":
            # STOMP 1.2, "ERROR": the connection closes after every one.
            retry = frame.get("retry") or "later"
            description = frame.text("message") or frame.body.decode("utf-8", "replace")
            return Denied(_refused(frame, description, retry), frame.get("receipt-id"))
        raise ProtocolFault(f"a frame with the command {frame.command!r} arrived")

    @staticmethod
    def _read_beats(frame: Frame) -> tuple[int, int]:
        found = re.fullmatch(r"([0-9]{1,9}),([0-9]{1,9})", frame.get("heart-beat") or "0,0")
        return (int(found[1]), int(found[2])) if found else (0, 0)


def _standard_message(frame: Frame, session: Optional[Session]) -> Message:
    owned = (
        "subscription",
        "message-id",
        "destination",
        "origin",
        "origin-destination",
        "content-type",
        "content-length",
        "ack",
        "redelivered",
    )
    destination, subscription = frame.text("destination"), frame.get("subscription")
    others = session is not None and destination != session.destination
    return Message(
        body=frame.body,
        origin=frame.text("origin"),
        origin_destination=frame.text("origin-destination"),
        content_type=frame.get("content-type"),
        headers=_further_headers(frame, owned),
        destination=destination,
        # What the broker calls direct messages that were not subscribed.
        subscription=None if subscription == "inbox" else subscription,
        message_id=frame.get("message-id"),
        redelivered=frame.get("redelivered") == "true",
        is_copy=others and is_address(destination),
        ack_id=frame.get("ack"),
    )


# -- both ------------------------------------------------------------------------------------------


def is_address(destination: str) -> bool:
    """Whether a destination is the address of a client, and no topic, queue or the broker."""
    return destination != BROKER and not destination.startswith(("/topic/", "/queue/", "/broker/"))


def _check_login(login: str, keys: Keys) -> None:
    check_text("the login id", login)
    if not login:
        raise ValueError("the login id is empty")
    for name, key in (("application key", keys.application), ("profile key", keys.profile)):
        check_text(f"the {name}", key)
        if not key or re.search(r"[\x00-\x20:\\\x7f]", key):
            raise ValueError(
                f"the {name} is empty, or holds a blank, a colon, a backslash or a control "
                "character"
            )


def _user_headers(headers: Mapping[str, str]) -> Iterable[tuple[str, str]]:
    for key, value in headers.items():
        # Receivers may trim a name, and then take it for what the broker says.
        trimmed = trim(key)
        if trimmed in RESERVED_HEADERS:
            raise ValueError(f"the header {key!r} is the broker's, or has an argument of its own")
        if key != trimmed:
            raise ValueError(f"the name of the header {key!r} begins or ends with a blank")
        yield key, value


def trim(name: str) -> str:
    """A header name without blanks, in the sense of any language: JavaScript trims U+FEFF, too."""
    return re.sub(r"^[\s\ufeff]+|[\s\ufeff]+$", "", name)


def is_for_replies(destination: str) -> bool:
    """Whether a destination that somebody else named can be sent to at all.

    In the standard dialect a SEND that makes no sense ends the connection.
    """
    return (
        re.fullmatch(
            r"/(?:agent|service|admin|queue)/[^\x00-\x1f\x7f]{1,1000}"
            r"|/topic/[^\x00-\x1f\x7f*>#]{1,1000}",
            destination,
        )
        is not None
    )


def _is_number(text: str) -> bool:
    # Python refuses to read a number of thousands of digits.
    return re.fullmatch(r"[0-9]{1,19}", text) is not None


def _further_headers(frame: Frame, owned: tuple[str, ...]) -> Mapping[str, str]:
    further: dict[str, str] = {}
    for key, value in frame.headers:
        if key not in owned:
            further.setdefault(key, value)
    return MappingProxyType(further)


def _session(frame: Frame, session_id: str) -> Session:
    code = frame.text("profile-code")
    return Session(
        session_id=session_id,
        login=frame.text("login"),
        profile=frame.text("profile-desc"),
        profile_code=int(code) if _is_number(code) else 0,
        destination=frame.text("destination"),
        connection_id=frame.get("connection-id"),
    )


def _refused(frame: Frame, description: str, retry: Optional[str]) -> Refused:
    code = frame.get("error-code")
    kind = TakenOver if code == "NEW_CONNECTION_LOGGED" else Refused
    return kind(description, code, retry)
