"""Frames of both dialects: what is written, and that no split of what arrives matters."""

from __future__ import annotations

import random
import struct

import pytest

from com_broker._dialect import ClassicDialect, Keys, StandardDialect
from com_broker._frames import (
    EnvelopeReader,
    Frame,
    FrameReader,
    MessageReader,
    StandardReader,
    encode_classic,
    encode_standard,
    envelope,
)
from com_broker._model import Session, Subscription
from com_broker.errors import ProtocolFault

KEYS = Keys("my_app_secret_key", "my_agent_secret_key")
SESSION = Session("5f", "ana", "agent", 1, "/agent/ana", "17")


def test_a_classic_login_is_what_the_original_client_sends() -> None:
    wire = ClassicDialect(enveloped=True).connect("ana", KEYS, "localhost", 0)
    # As recorded from the original.
    assert wire[:5].hex() == "0060000000"
    assert wire[5:] == (
        b"CONNECT\naccept-version:1.2\nlogin:ana\npasscode:my_agent_secret_key\n"
        b"secret-key:my_app_secret_key\n\n"
    )


def test_a_classic_send_is_what_the_original_client_sends() -> None:
    wire = ClassicDialect(enveloped=False).send(
        "17", "/service/bob", b"hello world", "text/plain", {}, SESSION
    )
    assert wire == (
        b"SEND\ntransaction:17\nsession-id:5f\norigin:ana\ndestination:/service/bob\n"
        b"content-type:text/plain\ncontent-length:11\n\nhello world"
    )


def test_a_classic_subscription_is_what_the_original_client_sends() -> None:
    dialect = ClassicDialect(enveloped=False)
    wish = Subscription("1", "/agent/a.*", regex=True)
    assert dialect.subscribe("2", wish, SESSION) == (
        b"SUBSCRIBE\ntransaction:2\nsession-id:5f\norigin:ana\ndestination-type:1\n"
        b"destination:/agent/a.*\n\n"
    )
    assert dialect.unsubscribe_all("6", SESSION) == (
        b"UNSUBSCRIBE\ntransaction:6\nsession-id:5f\n\n"
    )
    assert dialect.disconnect("DISCONNECTED") == b"DISCONNECT\nreceipt-id:DISCONNECTED\n\n"


def test_lengths_are_in_bytes() -> None:
    wire = ClassicDialect(enveloped=True).send("1", "/agent/ñ", "¡€😀".encode(), None, {})
    (length,) = struct.unpack_from("<I", wire, 1)
    assert length == len(wire) - 5
    assert b"\ncontent-length:9\n" in wire
    assert b"\ncontent-length:9\n" in StandardDialect().send("1", "/a", "¡€😀".encode(), None, {})


@pytest.mark.parametrize("value", ["", " a", "a ", "a\nb", "a\rb", "a\0b"])
def test_a_header_that_the_classic_dialect_cannot_carry_is_refused(value: str) -> None:
    with pytest.raises(ValueError, match="'x-note'"):
        ClassicDialect(enveloped=True).send("1", "/agent/ana", b"", None, {"x-note": value})


def test_headers_that_are_the_brokers_are_refused() -> None:
    for dialect in (ClassicDialect(enveloped=True), StandardDialect()):
        for name in ("origin", "transaction", "receipt", "content-length", "destination"):
            with pytest.raises(ValueError, match=name):
                dialect.send("1", "/agent/ana", b"", None, {name: "x"})


@pytest.mark.parametrize("key", ["", "hu:sh", "hu sh", "hu\nsh", "hu\\sh"])
@pytest.mark.behaviour("keys-stay-secret")
def test_a_key_that_cannot_be_right_is_refused_and_not_repeated(key: str) -> None:
    for dialect in (ClassicDialect(enveloped=True), StandardDialect()):
        with pytest.raises(ValueError, match="key is empty, or holds") as caught:
            dialect.connect("ana", Keys("app", key), "localhost", 0)
        assert not key or key not in str(caught.value)


@pytest.mark.behaviour("keys-stay-secret")
def test_keys_do_not_show() -> None:
    assert "secret" not in repr(KEYS)


def test_standard_headers_are_escaped_and_come_back() -> None:
    value = "a:b\\c\nd\re"
    data = encode_standard("MESSAGE", [("x:y", value)], b"body")
    assert data == b"MESSAGE\nx\\cy:a\\cb\\\\c\\nd\\re\n\nbody\0"
    assert StandardReader(1000).feed(data) == [Frame("MESSAGE", (("x:y", value),), b"body")]


def test_connected_is_not_escaped() -> None:
    # STOMP 1.2, "Value Encoding": CONNECT and CONNECTED are not.
    (frame,) = StandardReader(1000).feed(b"CONNECTED\nlogin:a\\b:c\n\n\0")
    assert frame.get("login") == "a\\b:c"


@pytest.mark.behaviour("first-header-wins")
def test_of_repeated_headers_the_first_counts() -> None:
    (frame,) = StandardReader(1000).feed(b"MESSAGE\na:1\na:2\n\n\0")
    assert frame.get("a") == "1"
    (frame,) = MessageReader().feed(b"MESSAGE\na : 1\na:2\n\nx\0")
    assert (frame.get("a"), frame.body) == ("1", b"x")


BODIES = [b"", b"x", b"\0\0", bytes(range(256)) * 3, "ñ€😀\n\n".encode(), b"\n\n\0"]


def classic_stream() -> bytes:
    return b"".join(
        envelope(encode_classic("MESSAGE", [("n", str(number))], body) + b"\0")
        for number, body in enumerate(BODIES)
    )


def standard_stream() -> bytes:
    return b"\n".join(
        encode_standard("MESSAGE", [("n", str(number)), ("content-length", str(len(body)))], body)
        for number, body in enumerate(BODIES)
    )


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("dialect", ["classic", "standard"])
@pytest.mark.behaviour("chunking-invisible")
def test_no_split_of_what_arrives_matters(dialect: str, seed: int) -> None:
    draw = random.Random(seed)
    stream = classic_stream() if dialect == "classic" else standard_stream()
    reader: FrameReader = EnvelopeReader(10_000) if dialect == "classic" else StandardReader(10_000)
    frames = []
    while stream:
        size = draw.choice([1, 2, 3, 7, 100, 5000])
        frames += reader.feed(stream[:size])
        stream = stream[size:]
    assert [frame.body for frame in frames] == BODIES
    assert [frame.get("n") for frame in frames] == [str(one) for one in range(len(BODIES))]


def test_a_big_endian_envelope_is_understood() -> None:
    frame = b"ACK\ntransaction:1\n\n\0"
    (read,) = EnvelopeReader(100).feed(b"\1" + struct.pack(">I", len(frame)) + frame)
    assert read.get("transaction") == "1"


@pytest.mark.parametrize(
    ("reader", "data"),
    [
        (EnvelopeReader(100), b"HTTP/1.1 400 Bad Request\r\n"),
        (EnvelopeReader(100), b"\0\0\0\0\0"),
        (EnvelopeReader(100), b"\0\x65\0\0\0"),
        (EnvelopeReader(100), envelope(b"no blank line\0")),
        (EnvelopeReader(100), envelope(b"A\nno colon\n\n\0")),
        (StandardReader(100), b"A\nno colon\n\n\0"),
        (StandardReader(100), b"A\nx:\\t\n\n\0"),
        (StandardReader(100), b"A\ncontent-length:x\n\n\0"),
        (StandardReader(100), b"A\ncontent-length:101\n\n"),
        (StandardReader(100), b"A\ncontent-length:1\n\nxx"),
        (StandardReader(100), b"A\n\n" + b"x" * 100),
        (StandardReader(100_000), b"x" * 70_000),
    ],
)
@pytest.mark.behaviour("malformed-refused")
def test_a_malformed_frame_is_a_fault(reader: FrameReader, data: bytes) -> None:
    with pytest.raises(ProtocolFault):
        reader.feed(data)


@pytest.mark.behaviour("frame-bounded")
@pytest.mark.parametrize(
    ("reader", "head"),
    [
        (EnvelopeReader(100), envelope(b"A\n\n" + b"x" * 97 + b"\0")[:8]),
        (StandardReader(100), b"A\ncontent-length:101\n\n"),
    ],
)
def test_a_frame_that_is_too_large_is_refused_before_its_body_is_here(
    reader: FrameReader, head: bytes
) -> None:
    with pytest.raises(ProtocolFault, match="frame_bytes_max"):
        reader.feed(head)


def test_a_large_body_in_small_pieces_is_looked_at_once() -> None:
    body = b"x" * 2_000_000
    data = b"MESSAGE\n\n" + body + b"\0"
    reader = StandardReader(3_000_000)
    frames = []
    for at in range(0, len(data), 1000):
        frames += reader.feed(data[at : at + 1000])
    assert frames == [Frame("MESSAGE", (), body)]
