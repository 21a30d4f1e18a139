"""What frames mean to a client: answers, copies, refusals, heart-beats."""

from __future__ import annotations

from typing import Optional

import pytest

from com_broker import Message, Refused, TakenOver
from com_broker._conversation import Conversation
from com_broker._dialect import (
    Answered,
    ClassicDialect,
    Connected,
    Delivered,
    Denied,
    Dialect,
    Keys,
    StandardDialect,
)
from com_broker._frames import encode_classic, encode_standard
from com_broker._inbox import Arrivals
from com_broker._model import ListedClient, Receipt
from com_broker.errors import ProtocolFault


def classic(command: str, body: bytes = b"", /, **headers: str) -> bytes:
    named = [(key.replace("_", "-"), value) for key, value in headers.items()]
    return encode_classic(command, named, body) + b"\0"


def standard(command: str, body: bytes = b"", /, **headers: str) -> bytes:
    return encode_standard(
        command, [(key.replace("_", "-"), value) for key, value in headers.items()], body
    )


def logged_in(dialect: Dialect) -> Conversation:
    conversation = Conversation(dialect, 10_000, 1)
    greeting = {
        "login": "ana",
        "profile_code": "1",
        "profile_desc": "agent",
        "destination": "/agent/ana",
    }
    if isinstance(dialect, ClassicDialect):
        data = classic("CONNECTED", b"", session_id="s1", connection_id="9", **greeting)
    else:
        data = standard("CONNECTED", b"", session="s1", version="1.2", **greeting)
    (event,) = conversation.feed(data)
    assert isinstance(event, Connected)
    assert conversation.session == event.session
    assert (event.session.session_id, event.session.destination) == ("s1", "/agent/ana")
    return conversation


def in_classic() -> Conversation:
    return logged_in(ClassicDialect(enveloped=False))


@pytest.mark.behaviour("answer-matched")
def test_a_classic_error_is_about_the_oldest_request() -> None:
    conversation = in_classic()
    conversation.note_request("1")
    conversation.note_request("2")
    conversation.note_request("3")
    assert conversation.feed(classic("ACK", transaction="1", error_desc="OK")) == [
        Answered("1", Receipt())
    ]
    (event,) = conversation.feed(
        classic("ERROR", error_desc="nobody", error_code="NO_SUCH_DESTINATION")
    )
    assert isinstance(event, Denied)
    assert (event.request, event.error.code, event.error.closes) == (
        "2",
        "NO_SUCH_DESTINATION",
        False,
    )
    assert not event.is_answer
    (event,) = conversation.feed(classic("ACK", transaction="3", error_desc="no", error_code="X"))
    assert isinstance(event, Denied)
    assert (event.request, event.is_answer) == ("3", True)


def test_an_error_about_the_connection_is_about_no_request() -> None:
    conversation = in_classic()
    conversation.note_request("1")
    (event,) = conversation.feed(
        classic("ERROR", error_desc="x", error_code="NEW_CONNECTION_LOGGED", retry="never")
    )
    assert isinstance(event, Denied)
    assert event.request is None
    assert isinstance(event.error, TakenOver)


def test_a_standard_error_names_its_request_and_closes() -> None:
    conversation = logged_in(StandardDialect())
    conversation.note_request("1")
    conversation.note_request("2")
    (event,) = conversation.feed(standard("ERROR", message="no", error_code="X", receipt_id="2"))
    assert isinstance(event, Denied)
    assert (event.request, event.error.description, event.error.closes) == ("2", "no", True)


def test_the_list_in_an_ack_is_read() -> None:
    conversation = in_classic()
    body = (
        "Destinations subscribed:\n--------------------\n"
        "[a]:[b]:[5f]:[/agent/a]:[b]\n[ñ]:[6a]:[/agent/ñ]\n--------------------"
    ).encode()
    (event,) = conversation.feed(classic("ACK", body, transaction="1", error_desc="OK"))
    assert isinstance(event, Answered)
    assert event.receipt.clients[1] == ListedClient("ñ", "/agent/ñ")


def test_a_copy_is_told_from_a_message_to_us() -> None:
    for conversation, ours, theirs in (
        (
            in_classic(),
            classic("MESSAGE", session_id="s1", origin="b", destination="/agent/b"),
            classic("MESSAGE", session_id="s2", origin="b", destination="/agent/b"),
        ),
        (
            logged_in(StandardDialect()),
            standard("MESSAGE", destination="/agent/ana", origin="b", subscription="inbox"),
            standard("MESSAGE", destination="/agent/eve", origin="b", subscription="1"),
        ),
    ):
        for data, is_copy in ((ours, False), (theirs, True)):
            (event,) = conversation.feed(data)
            assert isinstance(event, Delivered)
            assert event.message.is_copy is is_copy


def test_a_topic_brings_no_copies() -> None:
    (event,) = logged_in(StandardDialect()).feed(
        standard("MESSAGE", destination="/topic/a", origin="b", subscription="1", ack="1-2")
    )
    assert isinstance(event, Delivered)
    assert (event.message.is_copy, event.message.subscription) == (False, "1")
    assert (event.message.ack_id, event.message.connection) == ("1-2", 1)


@pytest.mark.parametrize(
    ("ours", "theirs", "say", "hear"),
    [
        (10_000, "1000,1000", 10_000, 10_000),
        (500, "1000,2000", 2000, 1000),
        (0, "1000,1000", 0, 0),
        (500, "0,2000", 2000, 0),
        (500, None, 0, 0),
    ],
)
def test_each_direction_beats_at_the_longer_of_both(
    ours: int, theirs: Optional[str], say: int, hear: int
) -> None:
    # STOMP 1.2, "Heart-beating".
    dialect = StandardDialect()
    dialect.connect("ana", Keys("a", "b"), "localhost", ours)
    headers = {} if theirs is None else {"heart_beat": theirs}
    (event,) = Conversation(dialect, 1000, 1).feed(
        standard("CONNECTED", b"", session="s", **headers)
    )
    assert isinstance(event, Connected)
    assert (event.beat_ms, event.beat_expected_ms) == (say, hear)


def test_ids_of_messages_are_opaque() -> None:
    (event,) = logged_in(StandardDialect()).feed(
        standard("MESSAGE", destination="/queue/a", message_id="a:b\\/ c", ack="a:b\\/ c")
    )
    assert isinstance(event, Delivered)
    assert event.message.message_id == event.message.ack_id == "a:b\\/ c"
    assert b"\nid:a\\cb\\\\/ c\n" in StandardDialect().settle("1", "a:b\\/ c", True)


def test_frames_follow_each_other_without_a_line_end() -> None:
    conversation = logged_in(StandardDialect())
    message = standard("MESSAGE", b"x", destination="/agent/ana", content_length="1")
    for between in (b"", b"\n", b"\r\n\n"):
        assert len(conversation.feed(message + between + message)) == 2


def test_a_copy_names_its_receiver_where_its_session_was_listed() -> None:
    conversation = in_classic()
    body = b"Destinations subscribed:\n---\n[bob]:[s2]:[/agent/bob]\n---"
    conversation.feed(classic("ACK", body, transaction="1", error_desc="OK"))
    for session, receiver in (("s2", "/agent/bob"), ("s3", None), ("s1", None)):
        (event,) = conversation.feed(
            classic("MESSAGE", session_id=session, origin="eve", destination="/agent/eve")
        )
        assert isinstance(event, Delivered)
        assert (event.message.destination, event.message.is_copy) == (receiver, session != "s1")
    # However many come and go.
    for number in range(3):
        lines = "".join(f"[x]:[{number}-{one}]:[/agent/x]\n" for one in range(50_000))
        conversation.feed(classic("ACK", lines.encode(), transaction="1", error_desc="OK"))
    assert len(conversation._watched) == 100_000


@pytest.mark.parametrize(
    ("name", "value"), [("delivered", "9" * 5000), ("delivered", "²"), ("profile_code", "9" * 5000)]
)
def test_headers_that_should_be_numbers_and_are_not_are_ignored(name: str, value: str) -> None:
    conversation = logged_in(StandardDialect())
    command = "RECEIPT" if name == "delivered" else "CONNECTED"
    (event,) = conversation.feed(standard(command, b"", **{name: value}))
    if isinstance(event, Answered):
        assert event.receipt.delivered is None
    else:
        assert isinstance(event, Connected)
        assert event.session.profile_code == 0


@pytest.mark.parametrize(
    "body",
    [b"", b"5", b"[]", b"null", b"\xff", b"[" * 100_000, b'{"at": 5}', b'{"at": {"a": 1}}',
     b'{"at": "9999999-01-01"}'],
)  # fmt: skip
def test_presence_that_makes_no_sense_is_a_fault(body: bytes) -> None:
    message = Message(body, "", "STOMP-SERVER", headers={"event": "logged"})
    arrivals = Arrivals(10_000_000)
    with pytest.raises(ProtocolFault, match="makes no sense"):
        arrivals.deliver(message)


@pytest.mark.behaviour("incoming-bounded")
def test_headers_count_for_what_may_wait() -> None:
    arrivals = Arrivals(1_000_000)
    headers = {f"x-{number}": "y" * 60 for number in range(200)}
    count = 0
    while not arrivals.is_full:
        arrivals.deliver(Message(b"", "eve", "/agent/eve", headers=headers))
        count += 1
    assert count < 30


def test_a_head_without_an_end_is_a_fault() -> None:
    """So that a frame of nothing but short headers cannot fill the memory."""
    for dialect in (ClassicDialect(enveloped=False), StandardDialect()):
        conversation = Conversation(dialect, 16_000_000, 1)
        with pytest.raises(ProtocolFault):
            conversation.feed(b"MESSAGE\n" + b"a:b\n" * 100_000 + b"\n\0")


def test_a_list_without_an_end_takes_no_time() -> None:
    conversation = in_classic()
    body = b"[a]:[b]:[c" * 200_000
    (event,) = conversation.feed(classic("ACK", body, transaction="1", error_desc="OK"))
    assert event == Answered("1", Receipt())


@pytest.mark.behaviour("resumes-own-session")
def test_who_comes_back_asks_for_its_subscriptions() -> None:
    keys = Keys("a", "b")
    first = StandardDialect().connect("ana", keys, "h", 0)
    again = StandardDialect().connect("ana", keys, "h", 0, resume=True)
    assert b"\ninbox:true\n" in first
    assert b"resume" not in first
    assert b"\ninbox:true\nresume:true\n" in again
    classic_dialect = ClassicDialect(enveloped=False)
    assert classic_dialect.connect("ana", keys, "h", 0) == classic_dialect.connect(
        "ana", keys, "h", 0, resume=True
    )


@pytest.mark.behaviour("malformed-refused")
def test_a_frame_that_makes_no_sense_is_a_fault() -> None:
    for conversation, data in (
        (in_classic(), classic("SEND", destination="/a")),
        (logged_in(StandardDialect()), standard("SEND", destination="/a")),
    ):
        with pytest.raises(ProtocolFault, match="SEND"):
            conversation.feed(data)


def test_a_refusal_reads_well() -> None:
    assert str(Refused("nobody is there", "NO_SUCH_DESTINATION")) == (
        "nobody is there (NO_SUCH_DESTINATION)"
    )
    assert not Refused("x").closes
