"""Every call of the clients, against the real broker, over every transport and in both dialects."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Callable
from typing import Any, Union

import pytest
from broker_for_tests import PATIENCE, PROFILE_KEYS, Broker, wait_until

from com_broker import (
    AnswerTimeout,
    AsyncClient,
    Client,
    Closed,
    ConnectFailed,
    LoginRefused,
    Message,
    ProtocolFault,
    Refused,
    Unsupported,
)

SCHEMES = ["tcp", "tls", "ws", "wss"]
DIALECTS = ["classic", "standard"]
Run = Callable[[Any], Any]

pytestmark = pytest.mark.usefixtures("_unique_logins")


@pytest.fixture(params=SCHEMES)
def scheme(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=DIALECTS)
def dialect(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def _unique_logins(request: pytest.FixtureRequest) -> None:
    """Tests share a broker; each has login ids of its own."""
    global stem
    stem = f"t{abs(hash(request.node.nodeid)) % 10**9}"


stem = ""


def named(login: str) -> str:
    return f"{stem}-{login}"


def open_client(broker: Broker, scheme: str, login: str = "ana", **options: Any) -> AsyncClient:
    return AsyncClient(**broker.options(scheme, login=named(login), **options))


async def quiet(client: AsyncClient) -> None:
    """Sees that no message came, by one that comes after it would have."""
    await client.send(client.session.destination, "marker")
    assert (await client.receive(PATIENCE)).text == "marker"


@pytest.mark.parametrize(
    ("profile", "code", "prefix"),
    [("agent", 1, "agent"), ("super agent", 2, "agent"), ("service", 3, "service"),
     ("admin", 4, "admin")],
)  # fmt: skip
def test_each_profile_logs_in(
    broker: Broker, run: Run, scheme: str, dialect: str, profile: str, code: int, prefix: str
) -> None:
    async def scenario() -> None:
        async with open_client(broker, scheme, profile=profile, dialect=dialect) as client:
            session = client.session
            assert (session.profile, session.profile_code) == (profile, code)
            assert session.login == named("ana")
            assert session.destination == f"/{prefix}/{named('ana')}"
            assert (session.connection_id is None) == (dialect == "standard")
            assert session.session_id
            assert session.session_id not in repr(client.session)
            assert client.is_connected
            assert client.state == "connected"
            assert client.connections == 1
        assert client.state == "closed"
        assert not client.is_connected

    run(scenario())


@pytest.mark.parametrize(
    ("keys", "code"),
    [
        ({"application_key": "wrong-hush"}, "INVALID_APP_KEY"),
        ({"profile_key": "wrong-hush"}, "INVALID_PROFILE_KEY"),
    ],
)
@pytest.mark.behaviour("login-refused")
def test_wrong_keys_are_told(
    broker: Broker, run: Run, scheme: str, dialect: str, keys: dict[str, str], code: str
) -> None:
    async def scenario() -> None:
        client = open_client(broker, scheme, dialect=dialect, **keys)
        with pytest.raises(LoginRefused) as caught:
            await client.connect()
        assert (caught.value.code, caught.value.retry) == (code, "never")
        assert "hush" not in str(caught.value)
        assert client.state == "new"
        await client.close()

    run(scenario())


@pytest.mark.behaviour("bodies-unchanged")
def test_bodies_arrive_as_they_are(broker: Broker, run: Run, scheme: str, dialect: str) -> None:
    async def scenario() -> None:
        bodies: list[Union[str, bytes]] = [
            "",
            "hello",
            "¡Señor, 日本 😀!\n\n:\\",
            b"\0",
            b"\xff\0\xfe",
            bytes(range(256)),
        ]
        bodies += [os.urandom(1024 * 1024), "ñ" * 300_000]
        async with (
            open_client(broker, scheme, dialect=dialect) as ana,
            open_client(broker, scheme, "bob", dialect=dialect) as bob,
        ):
            for body in bodies:
                receipt = await bob.send(ana.session.destination, body)
                assert receipt.delivered == (None if dialect == "classic" else 1)
                message = await ana.receive(PATIENCE)
                assert message.body == (body.encode() if isinstance(body, str) else body)
                is_text = isinstance(body, str)
                assert message.content_type == (
                    "text/plain" if is_text else "application/octet-stream"
                )
                assert (message.origin, message.origin_destination) == (
                    named("bob"),
                    bob.session.destination,
                )
                assert not message.is_copy

    run(scenario())


@pytest.mark.behaviour("headers-pass")
def test_headers_and_content_type_pass(broker: Broker, run: Run, scheme: str, dialect: str) -> None:
    async def scenario() -> None:
        async with open_client(broker, scheme, dialect=dialect) as ana:
            headers = {"x-note": "one: two", "x-ñ": "ü"}
            await ana.send(
                ana.session.destination, b"{}", content_type="application/json", headers=headers
            )
            message = await ana.receive(PATIENCE)
            assert dict(message.headers) == headers
            assert (message.content_type, message.json()) == ("application/json", {})

    run(scenario())


NO_BODIES: list[Any] = [5, 0, True, None, 1.5, [1, 2], (1,), {"a": 1}, object(), range(3)]
NO_TEXTS: list[Any] = [5, None, b"/agent/ana", True, ["/agent/ana"], object()]


def test_a_body_of_a_wrong_type_is_refused_before_anything_is_sent(
    broker: Broker, run: Run, dialect: str
) -> None:
    """Five is not five NULs."""

    async def scenario() -> None:
        async with open_client(broker, "tcp", dialect=dialect) as ana:
            ours = ana.session.destination
            message = Message(b"", named("ana"), ours, headers={"correlation-id": "1"})
            for body in NO_BODIES:
                for call in (
                    ana.send(ours, body),
                    ana.request(ours, body),
                    ana.reply(message, body),
                ):
                    with pytest.raises(TypeError, match=f"the body must be .* not {kind(body)}"):
                        await call
            for good in ("x", b"x", bytearray(b"x"), memoryview(b"xyx")[::2][:1]):
                await ana.send(ours, good)
                assert (await ana.receive(PATIENCE)).body == b"x"
            await quiet(ana)

    run(scenario())


def kind(value: object) -> str:
    return type(value).__name__


def test_a_text_of_a_wrong_type_is_refused_before_anything_is_sent(
    broker: Broker, run: Run, dialect: str
) -> None:
    async def scenario() -> None:
        async with open_client(broker, "tcp", profile="service", dialect=dialect) as ana:
            ours = ana.session.destination
            message = Message(b"", named("ana"), ours)
            wrong: Any
            for wrong in NO_TEXTS:
                named_by: Any = {wrong if wrong.__hash__ else 5: "x"}
                calls = [
                    ana.send(wrong, "x"),
                    ana.request(wrong, "x"),
                    ana.subscribe(wrong),
                    ana.subscribe_presence(wrong),
                    ana.send(ours, "x", headers=named_by),
                    ana.send(ours, "x", headers={"x-note": wrong}),
                    ana.reply(message, "x", headers={"x-note": wrong}),
                    ana.request(ours, "x", headers={"x-note": wrong}),
                    ana.reply(wrong, "x"),
                    ana.ack(wrong),
                    ana.nack(wrong),
                ]
                if wrong is not None:
                    calls += [
                        ana.send(ours, "x", content_type=wrong),
                        ana.unsubscribe(wrong),
                        ana.send(ours, "x", headers=wrong),
                        ana.request(ours, "x", headers=wrong),
                        ana.reply(message, "x", headers=wrong),
                    ]
                for call in calls:
                    with pytest.raises(
                        TypeError, match=f"must be .*, and not {kind(wrong)}|and not int"
                    ):
                        await call
            for number in ("5", True, object()):
                wrong = number
                for call in (
                    ana.send(ours, "x", timeout=wrong),
                    ana.request(ours, "x", timeout=wrong),
                    ana.receive(wrong),
                    ana.receive_presence(wrong),
                    ana.wait_connected(wrong),
                    ana.subscribe("/topic/a", prefetch=wrong),
                    ana.subscribe("/topic/a", timeout=wrong),
                ):
                    with pytest.raises(TypeError, match="must be "):
                        await call
            wrong = 1
            for call in (
                ana.subscribe("/topic/a", regex=wrong),
                ana.subscribe_presence(snapshot=wrong),
            ):
                with pytest.raises(TypeError, match="must be bool"):
                    await call
            for call in (ana.send("", "x"), ana.subscribe(""), ana.request("", "x")):
                with pytest.raises(ValueError, match="the destination is empty"):
                    await call
            assert ana.subscriptions == ()
            await quiet(ana)

    run(scenario())


@pytest.mark.behaviour("own-headers-refused")
def test_headers_that_the_client_or_the_broker_owns_are_refused(
    broker: Broker, run: Run, dialect: str
) -> None:
    async def scenario() -> None:
        async with open_client(broker, "tcp", dialect=dialect) as ana:
            ours = ana.session.destination
            for name in ("content-length", "destination", "origin", "origin-destination", " origin",
                         "origin ", "\u00a0destination", "\u3000ack", " x-note", "x-note\u2003",
                         "subscription", "message-id", "receipt", "transaction"):  # fmt: skip
                with pytest.raises(ValueError, match="header"):
                    await ana.send(ours, "x", headers={name: "boss"})
            asked = Message(b"", named("ana"), ours, headers={"correlation-id": "1"})
            for name in ("correlation-id", "reply-to", " reply-to"):
                for call in (
                    ana.request(ours, "x", headers={name: "boss"}),
                    ana.reply(asked, "x", headers={name: "boss"}),
                ):
                    with pytest.raises(ValueError, match=r"the header .* is set by the client"):
                        await call
            # What came can go on as it came.
            await ana.send(ours, "longer", headers={"x-note": "kept"})
            message = await ana.receive(PATIENCE)
            await ana.send(ours, "x", headers=message.headers)
            assert (await ana.receive(PATIENCE)).headers == {"x-note": "kept"}
            await quiet(ana)

    run(scenario())


@pytest.mark.parametrize(
    "reply_to",
    [
        "/nowhere/x",
        "x",
        "/topic/>",
        "/topic/a.*",
        "/agent/",
        "STOMP-SERVER",
        "/agent/\n",
        "/queue/" + "x" * 1001,
    ],
)
def test_where_nobody_can_send_to_nobody_is_answered(
    broker: Broker, run: Run, dialect: str, reply_to: str
) -> None:
    """Who asks must not be able to end who answers: such a SEND would end its connection."""

    async def scenario() -> None:
        async with open_client(broker, "tcp", dialect=dialect) as ana:
            asked = Message(b"", "eve", "/agent/eve", headers={"reply-to": reply_to})
            with pytest.raises(ValueError, match="wants its reply at"):
                await ana.reply(asked, "x")
            await quiet(ana)
            assert ana.connections == 1

    run(scenario())


@pytest.mark.behaviour("reply-only-from-asked")
def test_only_who_was_asked_can_reply(broker: Broker, run: Run, dialect: str) -> None:
    async def scenario() -> None:
        async with (
            open_client(broker, "tcp", dialect=dialect) as ana,
            open_client(broker, "tcp", "bob", dialect=dialect) as bob,
            open_client(broker, "tcp", "eve", profile="service", dialect=dialect) as eve,
        ):
            await eve.subscribe(bob.session.destination)
            asking = asyncio.ensure_future(
                ana.request(bob.session.destination, "who are you?", timeout=PATIENCE)
            )
            seen = await eve.receive(PATIENCE)
            await eve.reply(seen, "I am bob")
            await bob.reply(await bob.receive(PATIENCE), "bob")
            assert (await asking).text == "bob"
            # What another says is a message like any other.
            assert (await ana.receive(PATIENCE)).text == "I am bob"
            # At a topic nobody in particular is asked.
            topic = f"/topic/{stem}/ask"
            await bob.subscribe(topic)
            asking = asyncio.ensure_future(ana.request(topic, "anybody?", timeout=PATIENCE))
            await bob.reply(await bob.receive(PATIENCE), "here")
            assert (await asking).text == "here"

    run(scenario())


@pytest.mark.behaviour("nobody-there")
def test_an_unknown_destination_raises_and_the_connection_stays(
    broker: Broker, run: Run, scheme: str, dialect: str
) -> None:
    async def scenario() -> None:
        async with open_client(broker, scheme, dialect=dialect) as ana:
            nobody = f"/agent/{named('nobody')}"
            for sending in (
                ana.send(nobody, "x"),
                ana.request(nobody, "x", timeout=PATIENCE),
            ):
                with pytest.raises(Refused) as caught:
                    await sending
                assert caught.value.code == "NO_SUCH_DESTINATION"
                assert nobody in str(caught.value)
                assert not caught.value.closes
            await quiet(ana)
            assert ana.connections == 1

    run(scenario())


@pytest.mark.behaviour("answer-matched")
def test_answers_find_their_requests(broker: Broker, run: Run, scheme: str, dialect: str) -> None:
    async def scenario() -> None:
        async with open_client(broker, scheme, dialect=dialect) as ana:
            ours, nobody = ana.session.destination, f"/agent/{named('nobody')}"
            targets = [ours if number % 3 else nobody for number in range(60)]
            results = await asyncio.gather(
                *(ana.send(target, str(number)) for number, target in enumerate(targets)),
                return_exceptions=True,
            )
            assert [isinstance(result, Refused) for result in results] == [
                target == nobody for target in targets
            ]
            received = [(await ana.receive(PATIENCE)).text for _ in range(40)]
            assert received == [str(number) for number in range(60) if number % 3]

    run(scenario())


@pytest.mark.behaviour("request-replied")
def test_requests_get_their_replies(broker: Broker, run: Run, scheme: str, dialect: str) -> None:
    async def scenario() -> None:
        async with (
            open_client(broker, scheme, dialect=dialect) as ana,
            open_client(broker, scheme, "svc", profile="service", dialect=dialect) as service,
        ):

            async def serve() -> None:
                requests = [await service.receive(PATIENCE) for _ in range(20)]
                # Backwards, so that order alone does not do.
                for request in reversed(requests):
                    await service.reply(request, request.body[::-1])

            serving = asyncio.ensure_future(serve())
            replies = await asyncio.gather(
                *(
                    ana.request(service.session.destination, f"q{number}", timeout=PATIENCE)
                    for number in range(20)
                )
            )
            await serving
            assert [reply.text for reply in replies] == [f"q{n}"[::-1] for n in range(20)]
            assert replies[0].origin == named("svc")
            await quiet(ana)

    run(scenario())


def test_requests_work_between_the_dialects(broker: Broker, run: Run) -> None:
    async def scenario() -> None:
        async with (
            open_client(broker, "tcp") as classic,
            open_client(broker, "tcp", "bob", dialect="standard") as standard,
        ):
            for asking, answering in ((classic, standard), (standard, classic)):
                pending = asyncio.ensure_future(
                    asking.request(answering.session.destination, "x", timeout=PATIENCE)
                )
                await answering.reply(await answering.receive(PATIENCE), "y")
                assert (await pending).text == "y"

    run(scenario())


@pytest.mark.behaviour("request-times-out")
def test_a_request_without_a_reply_times_out(broker: Broker, run: Run, dialect: str) -> None:
    async def scenario() -> None:
        async with (
            open_client(broker, "tcp", dialect=dialect) as ana,
            open_client(broker, "tcp", "bob", dialect=dialect) as bob,
        ):
            with pytest.raises(AnswerTimeout, match=r"no reply .* 0\.2 s"):
                await ana.request(bob.session.destination, "x", timeout=0.2)
            # The reply that comes too late is a message like any other.
            await bob.reply(await bob.receive(PATIENCE), "late")
            assert (await ana.receive(PATIENCE)).text == "late"

    run(scenario())


@pytest.mark.behaviour("copy-not-reply")
def test_a_copy_of_a_request_is_not_the_reply(broker: Broker, run: Run, dialect: str) -> None:
    async def scenario() -> None:
        async with (
            open_client(broker, "tcp", "svc", profile="service", dialect=dialect) as service,
            open_client(broker, "tcp", dialect=dialect) as ana,
        ):
            await service.subscribe(ana.session.destination)
            asking = asyncio.ensure_future(
                service.request(ana.session.destination, "x", timeout=PATIENCE)
            )
            await ana.reply(await ana.receive(PATIENCE), "y")
            assert (await asking).text == "y"
            assert (await service.receive(PATIENCE)).is_copy

    run(scenario())


@pytest.mark.behaviour("watch-address")
def test_watching_by_address(broker: Broker, run: Run, scheme: str, dialect: str) -> None:
    async def scenario() -> None:
        async with (
            open_client(broker, scheme, dialect=dialect) as ana,
            open_client(broker, scheme, "sue", profile="super agent", dialect=dialect) as sue,
        ):
            watching = await sue.subscribe(ana.session.destination)
            assert sue.subscriptions == (watching,)
            if dialect == "classic":
                assert [one.destination for one in watching.clients] == [ana.session.destination]
            await ana.send(ana.session.destination, "hello")
            copy = await sue.receive(PATIENCE)
            assert (copy.text, copy.origin, copy.is_copy) == ("hello", named("ana"), True)
            if dialect == "standard":
                assert (copy.subscription, copy.destination) == (
                    watching.id,
                    ana.session.destination,
                )
            await sue.unsubscribe(watching)
            assert sue.subscriptions == ()
            await ana.send(ana.session.destination, "unseen")
            await quiet(sue)
            with pytest.raises(ValueError, match="no subscription"):
                await sue.unsubscribe(watching)

    run(scenario())


@pytest.mark.behaviour("watch-pattern")
def test_watching_by_regex_lasts(broker: Broker, run: Run, scheme: str, dialect: str) -> None:
    async def scenario() -> None:
        async with open_client(broker, scheme, "sue", profile="service", dialect=dialect) as sue:
            await sue.subscribe(f"/agent/{stem}-a.*", regex=True)
            # Logs in later.
            async with open_client(broker, scheme, dialect=dialect) as ana:
                await ana.send(ana.session.destination, "hello")
                assert (await sue.receive(PATIENCE)).text == "hello"
                await sue.unsubscribe()
                await ana.send(ana.session.destination, "unseen")
                await quiet(sue)

    run(scenario())


@pytest.mark.parametrize(
    ("wish", "code"),
    [
        ({"destination": "/agent/nobody-at-all"}, "NO_DESTINATION_SUB"),
        ({"destination": "(", "regex": True}, "INVALID_REGEX"),
    ],
)
def test_what_cannot_be_subscribed_raises(
    broker: Broker, run: Run, dialect: str, wish: dict[str, Any], code: str
) -> None:
    async def scenario() -> None:
        async with open_client(broker, "tcp", profile="service", dialect=dialect) as client:
            with pytest.raises(Refused) as caught:
                await client.subscribe(**wish)
            assert caught.value.code == code
            assert client.subscriptions == ()
            if dialect == "classic":
                await quiet(client)
            else:
                # STOMP 1.2, "ERROR": the connection ends; and the broker said never.
                with pytest.raises(Closed, match=code):
                    await client.send(client.session.destination, "x")
                assert client.connections == 1

    run(scenario())


@pytest.mark.behaviour("presence")
def test_presence(broker: Broker, run: Run, scheme: str, dialect: str) -> None:
    async def scenario() -> None:
        async with (
            open_client(broker, scheme, "old", dialect=dialect) as old,
            open_client(broker, scheme, "svc", profile="service", dialect=dialect) as service,
        ):
            made = await service.subscribe_presence(f"/agent/{stem}-.*", snapshot=True)
            assert made.is_presence
            first = await service.receive_presence(PATIENCE)
            assert (first.login, first.event, first.snapshot) == (old.session.login, "logged", True)
            async with open_client(broker, scheme, dialect=dialect) as ana:
                event = await service.receive_presence(PATIENCE)
                assert (event.event, event.reason, event.snapshot) == ("logged", "login", False)
                assert (event.login, event.destination) == (named("ana"), ana.session.destination)
                assert event.profile == "agent"
                assert isinstance(event.connection_id, int)
                assert event.at is not None
                assert event.at.tzinfo is not None
            ends = []
            async for event in service.presence_events():
                ends.append((event.event, event.reason))
                if len(ends) == 2:
                    break
            assert ends == [("disconnected", "logout"), ("logout", "logout")]
            await service.unsubscribe(made)
            async with open_client(broker, scheme, dialect=dialect):
                await quiet(service)
            with pytest.raises(AnswerTimeout):
                await service.receive_presence(0.01)

    run(scenario())


def test_presence_is_for_services(broker: Broker, run: Run) -> None:
    async def scenario() -> None:
        async with open_client(broker, "tcp") as ana:
            with pytest.raises(Refused) as caught:
                await ana.subscribe_presence()
            assert caught.value.code == "PROF_NO_RIGHTS"

    run(scenario())


def test_nobody_forges_presence(broker: Broker, run: Run, dialect: str) -> None:
    async def scenario() -> None:
        with pytest.raises(LoginRefused, match="the name of the broker itself"):
            async with AsyncClient(**broker.options(login="STOMP-SERVER", dialect=dialect)):
                pass
        async with (
            open_client(broker, "tcp", "forger", dialect=dialect) as forger,
            open_client(broker, "tcp", "svc", profile="service", dialect=dialect) as service,
        ):
            await forger.send(
                service.session.destination, '{"event": "logged"}', headers={"event": "logged"}
            )
            message = await service.receive(PATIENCE)
            assert message.origin_destination == forger.session.destination
            assert "event" not in message.headers

    run(scenario())


@pytest.mark.behaviour("topics")
def test_topics(broker: Broker, run: Run, scheme: str, dialect: str) -> None:
    async def scenario() -> None:
        async with (
            open_client(broker, scheme, dialect=dialect) as ana,
            open_client(broker, scheme, "bob", dialect=dialect) as bob,
        ):
            topic = f"/topic/{stem}/sport"
            made = await ana.subscribe(topic)
            await bob.subscribe(f"/topic/{stem}/*")
            receipt = await bob.send(topic, "1:0")
            assert receipt.delivered == (None if dialect == "classic" else 2)
            for client in (ana, bob):
                message = await client.receive(PATIENCE)
                assert (message.text, message.is_copy) == ("1:0", False)
                assert message.destination == (None if dialect == "classic" else topic)
            await ana.unsubscribe(made)
            await bob.send(topic, "2:0")
            await quiet(ana)
            # Nobody has to be there.
            assert (await bob.send(f"/topic/{stem}", "x")).delivered in (0, None)

    run(scenario())


@pytest.mark.behaviour("queues-acknowledged")
def test_queues_with_acknowledgements(broker: Broker, run: Run, scheme: str) -> None:
    async def scenario() -> None:
        queue = f"/queue/{stem}"
        options = {"profile": "service", "dialect": "standard"}
        async with open_client(broker, scheme, **options) as producer:
            async with open_client(broker, scheme, "w1", **options) as worker:
                await worker.subscribe(queue, ack="client-individual", prefetch=1)
                for number in range(3):
                    await producer.send(queue, str(number))
                first = await worker.receive(PATIENCE)
                assert (first.text, first.redelivered) == ("0", False)
                await worker.nack(first)
                again = await worker.receive(PATIENCE)
                assert (again.text, again.redelivered) == ("0", True)
                await quiet(worker)
                await worker.ack(again)
                assert (await worker.receive(PATIENCE)).text == "1"
            async with open_client(broker, scheme, "w2", **options) as other:
                await other.subscribe(queue, ack="client")
                # What the first did not acknowledge, and what it never got.
                messages = [await other.receive(PATIENCE) for _ in range(2)]
                assert [one.text for one in messages] == ["1", "2"]
                assert [one.redelivered for one in messages] == [True, False]
                await other.ack(messages[-1])
            async with open_client(broker, scheme, "w3", **options) as last:
                await last.subscribe(queue, ack="auto")
                await quiet(last)
                await producer.send(queue, "x")
                message = await last.receive(PATIENCE)
                with pytest.raises(ValueError, match="no acknowledgement"):
                    await last.ack(message)

    run(scenario())


def test_queues_are_not_for_the_classic_dialect(broker: Broker, run: Run) -> None:
    async def scenario() -> None:
        async with open_client(broker, "tcp", profile="service") as client:
            for subscribing in (
                client.subscribe("/queue/a"),
                client.subscribe("/topic/a", ack="client"),
                client.subscribe("/topic/a", prefetch=1),
            ):
                with pytest.raises(Unsupported, match="standard"):
                    await subscribing
            with pytest.raises(Unsupported, match="standard"):
                await client.ack(Message(b"", "", "", ack_id="1-1", connection=1))
            await quiet(client)

    run(scenario())


def test_iteration_ends_when_the_client_closes(broker: Broker, run: Run, scheme: str) -> None:
    async def scenario() -> None:
        client = open_client(broker, scheme)
        await client.connect()

        async def take_all() -> list[str]:
            return [message.text async for message in client.messages()]

        taking = [asyncio.ensure_future(take_all()) for _ in range(2)]
        for number in range(4):
            await client.send(client.session.destination, str(number))
        await client.close()
        await client.close()
        first, second = await asyncio.gather(*taking)
        assert sorted(first + second) == ["0", "1", "2", "3"]
        for calling in (client.send("/agent/ana", "x"), client.receive(), client.connect()):
            with pytest.raises(Closed):
                await calling

    run(scenario())


@pytest.mark.behaviour("call-cancelled")
def test_cancelling_a_call_harms_no_other(broker: Broker, run: Run, dialect: str) -> None:
    async def scenario() -> None:
        async with open_client(broker, "tcp", dialect=dialect) as ana:
            nobody = f"/agent/{named('nobody')}"
            calls = [asyncio.ensure_future(ana.send(nobody, "x")) for _ in range(5)]
            waiting = asyncio.ensure_future(ana.receive())
            await asyncio.sleep(0)
            calls[0].cancel()
            calls[3].cancel()
            waiting.cancel()
            for number, call in enumerate(calls):
                expected = asyncio.CancelledError if number in (0, 3) else Refused
                with pytest.raises(expected):
                    await call
            await quiet(ana)

    run(scenario())


@pytest.mark.behaviour("certificate-verified")
def test_a_certificate_is_verified(broker: Broker, run: Run, dialect: str) -> None:
    async def scenario(scheme: str) -> None:
        strange = open_client(broker, scheme, dialect=dialect, ca=None)
        with pytest.raises(ConnectFailed, match=r"is not trusted .*: give the CA"):
            await strange.connect()
        options = {"dialect": dialect, "server_hostname": "elsewhere.example"}
        with pytest.raises(ConnectFailed, match="not made for this host"):
            await open_client(broker, scheme, **options).connect()

    for scheme in ("tls", "wss"):
        run(scenario(scheme))


@pytest.mark.behaviour("failure-explained")
def test_a_wrong_port_is_told(run: Run) -> None:
    async def scenario() -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            port = silent.getsockname()[1]
            for scheme in SCHEMES:
                client = AsyncClient(
                    f"{scheme}://127.0.0.1:{port}",
                    login="ana",
                    application_key="a",
                    profile_key="b",
                    connect_timeout=0.2,
                )
                with pytest.raises(ConnectFailed, match=r"within 0\.2 s"):
                    await client.connect()
        for scheme in SCHEMES:
            client = AsyncClient(
                f"{scheme}://localhost:{port}", login="ana", application_key="a", profile_key="b"
            )
            with pytest.raises(ConnectFailed, match="is the broker running"):
                await client.connect()
            with pytest.raises(ConnectFailed):
                await client.connect()

    run(scenario())


def test_a_server_that_is_not_the_broker_is_named(run: Run) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example ESMTP\r\n")
        await writer.drain()
        await reader.read(10_000)
        writer.close()

    async def scenario() -> None:
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        for dialect in DIALECTS:
            for scheme in ("tcp", "tls", "ws"):
                client = AsyncClient(
                    f"{scheme}://127.0.0.1:{port}",
                    login="ana",
                    application_key="a",
                    profile_key="b",
                    dialect=dialect,
                    connect_timeout=0.5,
                )
                with pytest.raises((ConnectFailed, ProtocolFault)):
                    await client.connect()
        server.close()
        await server.wait_closed()

    run(scenario())


# -- the blocking client ---------------------------------------------------------------------------


@pytest.fixture
def client(broker: Broker, scheme: str) -> Any:
    with Client(**broker.options(scheme, login=named("ana"), profile="service")) as opened:
        yield opened


def test_the_blocking_client_has_it_all(broker: Broker, scheme: str, dialect: str) -> None:
    options = {"profile": "service", "dialect": dialect}
    with (
        Client(**broker.options(scheme, login=named("svc"), **options)) as service,
        Client(**broker.options(scheme, login=named("ana"), dialect=dialect)) as ana,
    ):
        assert service.wait_connected(PATIENCE).destination == service.session.destination
        watching = service.subscribe(ana.session.destination)
        ana.send(ana.session.destination, "hello", headers={"x": "y"})
        assert service.receive(PATIENCE).is_copy
        assert ana.receive(PATIENCE).headers["x"] == "y"
        service.unsubscribe(watching)
        presence = service.subscribe_presence(f"/agent/{stem}.*", snapshot=True)
        assert next(service.presence_events()).login == named("ana")
        assert service.subscriptions == (presence,)
        service.unsubscribe()

        answering = threading.Thread(
            target=lambda: service.reply(service.receive(PATIENCE), "pong")
        )
        answering.start()
        assert ana.request(service.session.destination, "ping", timeout=PATIENCE).text == "pong"
        answering.join()
        if dialect == "standard":
            service.subscribe(f"/queue/{stem}", ack="client-individual")
            ana.send(f"/queue/{stem}", "job")
            service.nack(service.receive(PATIENCE))
            job = service.receive(PATIENCE)
            assert job.redelivered
            service.ack(job)
        with pytest.raises(AnswerTimeout, match="nothing came"):
            ana.receive(0.01)


def test_threads_share_a_blocking_client(client: Client) -> None:
    received: list[str] = []
    lock = threading.Lock()

    def take() -> None:
        for message in client.messages():
            with lock:
                received.append(message.text)

    def send(name: str) -> None:
        for number in range(50):
            client.send(client.session.destination, f"{name}{number}")

    takers = [threading.Thread(target=take) for _ in range(2)]
    senders = [threading.Thread(target=send, args=(name,)) for name in "abc"]
    for thread in takers + senders:
        thread.start()
    for thread in senders:
        thread.join()
    expected = sorted(f"{name}{number}" for name in "abc" for number in range(50))
    wait_until(lambda: len(received) == len(expected), "all messages")
    client.close()
    for thread in takers:
        thread.join(PATIENCE)
        assert not thread.is_alive()
    assert sorted(received) == expected


@pytest.mark.behaviour("close-releases")
def test_closing_releases_whoever_waits(client: Client) -> None:
    outcomes: list[BaseException] = []
    started = threading.Barrier(3)

    def wait(call: Callable[[], object]) -> None:
        started.wait()
        try:
            call()
        except Closed as closed:
            outcomes.append(closed)

    calls: list[Callable[[], object]] = [
        client.receive,
        lambda: client.request(client.session.destination, "?", timeout=PATIENCE),
    ]
    threads = [threading.Thread(target=wait, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    started.wait()
    client.close()
    for thread in threads:
        thread.join(PATIENCE)
    assert len(outcomes) == 2
    with pytest.raises(Closed):
        client.send("/agent/ana", "x")
    with pytest.raises(Closed):
        client.connect()


def test_a_failed_connect_leaves_no_thread_and_may_be_repeated(broker: Broker) -> None:
    client = Client(**broker.options(login=named("ana"), profile_key="wrong"))
    for _ in range(2):
        with pytest.raises(LoginRefused):
            client.connect()
        assert not [one for one in threading.enumerate() if one.name == "com-broker-client"]
    with (
        pytest.raises(RuntimeError, match="once"),
        Client(**broker.options(login=named("bob"))) as bob,
    ):
        bob.connect()


def test_the_keys_of_the_profiles_differ() -> None:
    # Otherwise the tests of profiles could not fail.
    assert len(set(PROFILE_KEYS.values())) == 4
