"""Ends of connections, of all kinds: what clients do about them, and that nothing is sent twice."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Optional

import pytest
from broker_for_tests import PATIENCE, Broker, Proxy

from com_broker import (
    AnswerTimeout,
    AsyncClient,
    BufferFull,
    Client,
    Closed,
    ConnectionLost,
    LoginRefused,
    Message,
    Reconnect,
    Refused,
    TakenOver,
    Unconfirmed,
)

Run = Callable[[Any], Any]
StartBroker = Callable[..., Broker]

SCHEMES = ["tcp", "tls", "ws", "wss"]
DIALECTS = ["classic", "standard"]
SOON = Reconnect(initial=0.02, maximum=0.2, later=0.1)


@pytest.fixture(params=DIALECTS)
def dialect(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def until(condition: Callable[[], object], what: str) -> None:
    """Waits for a condition, or fails with what did not happen."""

    async def hold() -> None:
        while not condition():  # noqa: ASYNC110  A condition of any kind.
            await asyncio.sleep(0.005)

    try:
        await asyncio.wait_for(hold(), PATIENCE)
    except asyncio.TimeoutError:
        pytest.fail(f"not within {PATIENCE} s: {what}")


def is_away(client: AsyncClient) -> bool:
    return client.state == "away"


async def drain(client: AsyncClient) -> None:
    """Takes messages, of which there should be none, until the client ends."""
    async for message in client.messages():
        pytest.fail(f"a message out of nothing: {message}")


async def in_a_thread(call: Callable[[], object]) -> None:
    """Restarts a broker without holding up the clients."""
    await asyncio.get_running_loop().run_in_executor(None, call)


async def take_texts(client: AsyncClient, last: str) -> list[str]:
    """What arrives up to a last message."""
    texts = [""]
    while texts[-1] != last:
        texts.append((await client.receive(PATIENCE)).text)
    return texts[1:-1]


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.behaviour("comes-back")
@pytest.mark.behaviour("subscriptions-survive")
def test_a_restart_is_survived(
    start_broker: StartBroker, run: Run, scheme: str, dialect: str
) -> None:
    broker = start_broker()
    # A restarted broker shows the certificate that it made before.
    options: dict[str, Any] = {"dialect": dialect, "reconnect": SOON, "answer_timeout": PATIENCE}

    async def scenario() -> None:
        ana = AsyncClient(**broker.options(scheme, **options))
        bob = AsyncClient(**broker.options(scheme, login="bob", **options))
        sue = AsyncClient(**broker.options(scheme, login="sue", profile="service", **options))
        async with ana, bob, sue:
            by_address = await sue.subscribe("/agent/ana")
            by_regex = await sue.subscribe("/agent/b.*", regex=True)
            topic = await sue.subscribe("/topic/news")
            presence = await sue.subscribe_presence("/agent/.*")
            ended = await sue.subscribe("/topic/ended")
            ids = {client: client.session.session_id for client in (ana, bob, sue)}

            await in_a_thread(broker.kill)
            for client in (ana, bob, sue):
                await until(functools.partial(is_away, client), "the end is noticed")
            # These wait, and go once.
            waiting = [
                asyncio.ensure_future(bob.send("/topic/news", f"w{number}")) for number in range(5)
            ]
            await sue.unsubscribe(ended)
            await asyncio.sleep(0)
            assert not any(one.done() for one in waiting)
            await in_a_thread(broker.start_again)
            for client in (ana, bob, sue):
                session = await client.wait_connected(PATIENCE)
                assert session.session_id != ids[client]
                assert client.connections == 2
            await asyncio.gather(*waiting)

            assert set(sue.subscriptions) == {by_address, by_regex, topic, presence}
            await bob.send("/agent/ana", "to ana")
            await ana.send("/agent/bob", "to bob")
            await bob.send("/topic/ended", "unseen")
            await bob.send("/topic/news", "news")
            await bob.send("/service/sue", "last")
            texts = await take_texts(sue, "last")
            # Of those that waited, sue got what came after her.
            assert [text for text in texts if not text.startswith("w")] == [
                "to ana", "to bob", "news",
            ]  # fmt: skip
            assert len(set(texts)) == len(texts)
            await sue.unsubscribe(by_address)
            await bob.send("/agent/ana", "unseen")
            await bob.send("/service/sue", "last")
            assert await take_texts(sue, "last") == []

    run(scenario())


@pytest.mark.behaviour("subscriptions-survive")
@pytest.mark.behaviour("waits-while-away")
def test_what_waits_goes_behind_the_subscriptions(
    start_broker: StartBroker, run: Run, dialect: str
) -> None:
    broker = start_broker()

    async def scenario() -> None:
        options = broker.options(dialect=dialect, reconnect=SOON, answer_timeout=PATIENCE)
        async with AsyncClient(**options) as ana:
            await ana.subscribe("/topic/a")
            await in_a_thread(broker.kill)
            await until(lambda: ana.state == "away", "the end is noticed")
            sending = [
                asyncio.ensure_future(ana.send("/topic/a", str(number))) for number in range(100)
            ]
            await asyncio.sleep(0)
            await in_a_thread(broker.start_again)
            await asyncio.gather(*sending)
            received = [(await ana.receive(PATIENCE)).text for _ in range(100)]
            assert received == [str(number) for number in range(100)]
            await ana.send("/agent/ana", "last")
            assert await take_texts(ana, "last") == []

    run(scenario())


@pytest.mark.behaviour("never-sent-twice")
def test_nothing_is_sent_twice(start_broker: StartBroker, run: Run, dialect: str) -> None:
    """Cuts the connection again and again under load.

    Each message arrives once, if at all, and those whose `send` did not raise do arrive.
    """
    broker = start_broker("[limits]\ntakeovers_max = 1000\n")

    async def scenario(proxy: Proxy) -> None:
        options = broker.options(dialect=dialect, reconnect=SOON, answer_timeout=PATIENCE)
        through_proxy = {**options, "url": f"tcp://127.0.0.1:{proxy.port}", "login": "bob"}
        async with AsyncClient(**options) as ana, AsyncClient(**through_proxy) as bob:
            sent: set[str] = set()
            unknown: set[str] = set()
            stopping = False

            async def send(name: str) -> None:
                number = 0
                while not stopping:
                    number += 1
                    text = f"{name}{number}"
                    try:
                        await bob.send("/agent/ana", text)
                        sent.add(text)
                    except Unconfirmed:
                        unknown.add(text)

            senders = [asyncio.ensure_future(send(name)) for name in "abcdefgh"]
            for times in range(1, 8):
                enough = len(sent) + 200
                await until(functools.partial(lambda least: len(sent) > least, enough), "messages")
                proxy.cut()
                back = functools.partial(lambda least: bob.connections > least, times)
                await until(back, "bob comes back")
            stopping = True
            await asyncio.gather(*senders)
            await ana.send("/agent/ana", "last")
            texts = await take_texts(ana, "last")
            assert len(texts) == len(set(texts)), "a message arrived twice"
            assert sent <= set(texts), "a message that was acknowledged did not arrive"
            assert set(texts) <= sent | unknown
            assert unknown, "the connection was never cut under a message"

    with Proxy(broker.port) as proxy:
        run(scenario(proxy))


@pytest.mark.behaviour("answer-times-out")
def test_an_answer_that_does_not_come_is_not_waited_for(
    broker: Broker, run: Run, dialect: str
) -> None:
    async def scenario(proxy: Proxy) -> None:
        options = broker.options(login=f"patient-{dialect}", dialect=dialect, answer_timeout=0.2)
        options["url"] = f"tcp://127.0.0.1:{proxy.port}"
        client = AsyncClient(**options)
        await client.connect()
        proxy.drop_packets()
        with pytest.raises(AnswerTimeout, match=r"the broker did not answer within 0\.2 s"):
            await client.send("/topic/a", "into the void")
        with pytest.raises(AnswerTimeout, match=r"the broker did not answer within 0\.1 s"):
            await client.subscribe("/topic/a", timeout=0.1)
        assert client.is_connected
        await client.close()

    with Proxy(broker.port) as proxy:
        run(scenario(proxy))


@pytest.mark.behaviour("silence-noticed")
def test_a_half_open_connection_is_noticed(
    start_broker: StartBroker, run: Run, dialect: str
) -> None:
    """Packets are dropped on the way, so that neither side ever hears of an end."""
    broker = start_broker("[limits]\nheart_beat_ms_min = 200\nwebsocket_ping_ms = 200\n")

    async def scenario(proxy: Proxy, scheme: str) -> None:
        options = broker.options(
            scheme,
            login=f"{scheme}-{dialect}",
            dialect=dialect,
            heart_beat=0.2,
            reconnect=SOON,
            answer_timeout=PATIENCE,
        )
        options["url"] = f"{scheme}://localhost:{proxy.port}"
        async with AsyncClient(**options) as client:
            await client.subscribe("/topic/a")
            proxy.drop_packets()
            sending = asyncio.ensure_future(client.send("/topic/a", "into the void"))
            with pytest.raises(ConnectionLost) as caught:
                await sending
            assert "nothing was heard" in str(caught.value.__cause__)
            session = await client.wait_connected(PATIENCE)
            assert client.connections == 2
            await client.send("/topic/a", "here again")
            assert (await client.receive(PATIENCE)).text == "here again"
            # The session was taken over from ourselves, which is no reason to stop.
            assert session.login == f"{scheme}-{dialect}"

    for scheme in SCHEMES:
        with Proxy(broker.port) as proxy:
            run(scenario(proxy, scheme))


@pytest.mark.behaviour("unsubscribed-stays-so")
def test_what_was_unsubscribed_meanwhile_does_not_come_back(
    start_broker: StartBroker, run: Run, dialect: str
) -> None:
    """The session outlives the connection, and its subscriptions with it."""
    broker = start_broker("[limits]\nheart_beat_ms_min = 200\n")

    async def scenario(proxy: Proxy) -> None:
        options = broker.options(
            profile="super agent", login="sue", dialect=dialect, heart_beat=0.2, reconnect=SOON
        )
        through_proxy = {**options, "url": f"tcp://127.0.0.1:{proxy.port}"}
        async with (
            AsyncClient(**broker.options(dialect=dialect)) as ana,
            AsyncClient(**through_proxy) as sue,
        ):
            kept = await sue.subscribe("/topic/kept")
            watched = await sue.subscribe("/agent/ana")
            ended = await sue.subscribe("/topic/ended")
            proxy.drop_packets()
            await until(lambda: sue.state == "away" or sue.connections == 2, "silence is noticed")
            if sue.state == "away":
                await sue.unsubscribe(ended)
            await sue.wait_connected(PATIENCE)
            if ended in sue.subscriptions:
                await sue.unsubscribe(ended)
            await ana.send("/topic/ended", "unseen")
            await ana.send("/agent/ana", "seen")
            await ana.send("/topic/kept", "last")
            assert await take_texts(sue, "last") == ["seen"]
            await sue.unsubscribe(watched)
            await ana.send("/agent/ana", "unseen")
            await ana.send("/topic/kept", "last")
            assert await take_texts(sue, "last") == []
            assert sue.subscriptions == (kept,)

    with Proxy(broker.port) as proxy:
        run(scenario(proxy))


@pytest.mark.behaviour("unsubscribed-stays-so")
def test_what_is_unsubscribed_while_it_is_restored_does_not_come_back(
    start_broker: StartBroker, run: Run, dialect: str
) -> None:
    broker = start_broker()

    async def scenario() -> None:
        async with AsyncClient(**broker.options(dialect=dialect, reconnect=SOON)) as client:
            await client.subscribe("/topic/kept")
            ended = await client.subscribe("/topic/ended")
            await in_a_thread(broker.kill)
            await until(lambda: client.state == "away", "the end is noticed")
            starting = asyncio.ensure_future(in_a_thread(broker.start_again))
            while client.connections == 1:  # noqa: ASYNC110  Not one turn of the loop too late.
                await asyncio.sleep(0)
            assert client.state == "away"
            await client.unsubscribe(ended)
            await starting
            await client.wait_connected(PATIENCE)
            await client.send("/topic/ended", "unseen")
            await client.send("/topic/kept", "last")
            assert await take_texts(client, "last") == []

    run(scenario())


@pytest.mark.behaviour("heart-beats-sent")
def test_heart_beats_keep_a_silent_connection(
    start_broker: StartBroker, run: Run, dialect: str
) -> None:
    broker = start_broker("[limits]\nheart_beat_ms_min = 100\nheart_beat_margin_ms = 100\n")

    async def scenario() -> None:
        options = broker.options(dialect=dialect, heart_beat=0.1, reconnect=None)
        async with AsyncClient(**options) as client:
            # Ten times as long as the silence that either side would take for an end.
            with pytest.raises(AnswerTimeout):
                await client.receive(2.0)
            assert client.is_connected

    run(scenario())


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.behaviour("takeover-stops")
def test_a_takeover_is_told_and_not_fought(
    broker: Broker, run: Run, scheme: str, dialect: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "com_broker")

    async def scenario() -> None:
        options = broker.options(scheme, login=f"twin-{scheme}-{dialect}", dialect=dialect)
        old = AsyncClient(**{**options, "reconnect": SOON})
        await old.connect()
        with_messages = asyncio.ensure_future(take_texts(old, "last"))
        async with AsyncClient(**options) as new:
            assert new.session.session_id == old.session.session_id
            with pytest.raises(Closed) as caught:
                await with_messages
            assert isinstance(caught.value.__cause__, TakenOver)
            assert caught.value.__cause__.retry == "never"
            assert old.state == "closed"
            with pytest.raises(TakenOver):
                await drain(old)
            with pytest.raises(Closed, match="NEW_CONNECTION_LOGGED"):
                await old.send("/agent/ana", "x")
            await new.send(new.session.destination, "mine")
            assert (await new.receive(PATIENCE)).text == "mine"
            assert (old.connections, new.connections) == (1, 1)
        await old.close()

    run(scenario())
    assert "closed for good" in caplog.text


@pytest.mark.behaviour("login-refused")
def test_a_login_in_use_is_refused_for_now(broker: Broker, run: Run, dialect: str) -> None:
    async def scenario() -> None:
        options = broker.options(login=f"one-{dialect}", profile="service", dialect=dialect)
        async with AsyncClient(**options):
            with pytest.raises(LoginRefused) as caught:
                await AsyncClient(**options).connect()
            assert (caught.value.code, caught.value.retry) == ("LOGIN_ID_ALREADY_LOGGED", "later")

    run(scenario())


@pytest.mark.parametrize("scheme", ["tcp", "wss"])
@pytest.mark.behaviour("drain-survived")
def test_a_drain_is_survived(
    start_broker: StartBroker,
    run: Run,
    scheme: str,
    dialect: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    broker = start_broker()
    caplog.set_level(logging.INFO, "com_broker")

    async def scenario() -> None:
        options = broker.options(scheme, dialect=dialect, reconnect=SOON, answer_timeout=PATIENCE)
        async with AsyncClient(**options) as client:
            await client.subscribe("/topic/a")
            await in_a_thread(lambda: broker.stop(PATIENCE))
            await until(lambda: client.state == "away", "the end is noticed")
            await in_a_thread(broker.start_again)
            await client.wait_connected(PATIENCE)
            await client.send("/topic/a", "after")
            assert (await client.receive(PATIENCE)).text == "after"

    run(scenario())
    assert "DRAINING" in caplog.text
    assert "trying again in 0.0 s" in caplog.text


@pytest.mark.behaviour("slow-consumer-returns")
@pytest.mark.behaviour("incoming-bounded")
def test_a_slow_consumer_is_cut_and_comes_back(
    start_broker: StartBroker, run: Run, dialect: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "com_broker")
    broker = start_broker(
        '[limits]\nbody_bytes_max = "128 KiB"\n[limits.outbound.agent]\n'
        'hard_bytes_max = "256 KiB"\nsoft_bytes_max = "128 KiB"\nsoft_ms_max = 200\n'
    )

    async def scenario() -> None:
        slow_options = broker.options(dialect=dialect, reconnect=SOON, incoming_bytes_max=10_000)
        async with (
            AsyncClient(**slow_options) as slow,
            AsyncClient(**broker.options(login="bob", dialect=dialect)) as fast,
        ):
            await slow.subscribe("/topic/a")
            # Enough for what the kernel holds on both sides, and more.
            body = b"x" * 100_000
            with contextlib.suppress(Refused):
                for _ in range(300):
                    await fast.send("/agent/ana", body)
            # What it had read before is there, and then it is told, and comes back.
            while slow.connections == 1:
                with contextlib.suppress(AnswerTimeout):
                    assert (await slow.receive(0.05)).body == body
            await slow.wait_connected(PATIENCE)
            await fast.send("/topic/a", "last")
            assert set(await take_texts(slow, "last")) <= {body.decode()}

    run(scenario())
    assert "SLOW_CONSUMER" in caplog.text


@pytest.mark.behaviour("outgoing-bounded")
def test_the_outgoing_buffer_is_bounded(start_broker: StartBroker, run: Run, dialect: str) -> None:
    broker = start_broker()

    async def scenario() -> None:
        options = broker.options(
            dialect=dialect, reconnect=SOON, outgoing_bytes_max=10_000, answer_timeout=PATIENCE
        )
        async with AsyncClient(**options) as client:
            await in_a_thread(broker.kill)
            await until(lambda: client.state == "away", "the end is noticed")
            first = asyncio.ensure_future(client.send("/agent/ana", b"1" * 6000))
            await asyncio.sleep(0)
            with pytest.raises(BufferFull, match="10000 bytes"):
                await client.send("/agent/ana", b"2" * 6000)
            # What is given up makes room, and is not sent.
            with pytest.raises(AnswerTimeout, match="nothing was sent"):
                await client.send("/agent/ana", b"3" * 2000, timeout=0.05)
            cancelled = asyncio.ensure_future(client.send("/agent/ana", b"4" * 2000))
            await asyncio.sleep(0)
            cancelled.cancel()
            with pytest.raises(asyncio.CancelledError):
                await cancelled
            fifth = asyncio.ensure_future(client.send("/agent/ana", b"5" * 2000))
            await asyncio.sleep(0)
            await in_a_thread(broker.start_again)
            await asyncio.gather(first, fifth)
            await client.send("/agent/ana", "last")
            assert [text[0] for text in await take_texts(client, "last")] == ["1", "5"]

    run(scenario())


@pytest.mark.behaviour("ack-same-connection")
def test_an_acknowledgement_is_for_the_connection_that_brought_the_message(
    start_broker: StartBroker, run: Run
) -> None:
    broker = start_broker()

    async def scenario(proxy: Proxy) -> None:
        options = broker.options(profile="service", dialect="standard", reconnect=SOON)
        options["url"] = f"tcp://127.0.0.1:{proxy.port}"
        async with AsyncClient(**options) as worker:
            await worker.subscribe("/queue/a", ack="client-individual")
            await worker.send("/queue/a", "job")
            before = await worker.receive(PATIENCE)
            proxy.cut()
            again = await worker.receive(PATIENCE)
            assert (again.text, again.redelivered) == ("job", True)
            with pytest.raises(ConnectionLost, match="delivers it again"):
                await worker.ack(before)
            await worker.ack(again)

    with Proxy(broker.port) as proxy:
        run(scenario(proxy))


@pytest.mark.behaviour("return-switched-off")
def test_without_reconnect_the_end_is_the_end(
    start_broker: StartBroker, run: Run, dialect: str
) -> None:
    broker = start_broker()

    async def scenario() -> None:
        async with AsyncClient(**broker.options(dialect=dialect, reconnect=None)) as client:
            await in_a_thread(broker.kill)
            with pytest.raises(ConnectionLost, match="was lost"):
                await drain(client)
            assert client.state == "closed"

    run(scenario())


def test_attempts_end_where_they_are_bounded(
    start_broker: StartBroker, run: Run, dialect: str
) -> None:
    broker = start_broker()

    async def scenario() -> None:
        rules = Reconnect(initial=0.01, maximum=0.02, attempts_max=3)
        async with AsyncClient(**broker.options(dialect=dialect, reconnect=rules)) as client:
            await in_a_thread(broker.kill)
            with pytest.raises(Closed, match="is the broker running"):
                await client.receive(PATIENCE)
            assert client.connections == 1

    run(scenario())


def test_keys_that_became_wrong_end_it(start_broker: StartBroker, run: Run, dialect: str) -> None:
    broker = start_broker()

    async def scenario() -> None:
        async with AsyncClient(**broker.options(dialect=dialect, reconnect=SOON)) as client:
            await in_a_thread(broker.kill)
            broker.config += "\n[keys]\n" + "".join(
                f'{name} = "new-{name}"\n'
                for name in ("application", "agent", "super_agent", "service", "admin")
            )
            await in_a_thread(broker.start_again)
            with pytest.raises(LoginRefused) as caught:
                await drain(client)
            assert caught.value.code == "INVALID_APP_KEY"

    run(scenario())


def test_closing_while_away_is_quick(start_broker: StartBroker, run: Run, dialect: str) -> None:
    broker = start_broker()

    async def scenario() -> None:
        rules = Reconnect(initial=60, maximum=60)
        client = AsyncClient(**broker.options(dialect=dialect, reconnect=rules))
        await client.connect()
        await in_a_thread(broker.kill)
        await until(lambda: client.state == "away", "the end is noticed")
        sending = asyncio.ensure_future(client.send("/agent/ana", "x", timeout=60))
        await asyncio.sleep(0)
        await client.close()
        with pytest.raises(Closed):
            await sending

    run(scenario())


def test_closing_does_not_wait_for_messages_to_be_taken(
    broker: Broker, run: Run, dialect: str
) -> None:
    async def scenario() -> None:
        options = broker.options(login=f"full-{dialect}", dialect=dialect, incoming_bytes_max=1)
        client = AsyncClient(**options)
        await client.connect()
        for number in range(3):
            with contextlib.suppress(AnswerTimeout):
                await client.send(client.session.destination, str(number), timeout=0.1)
        began = asyncio.get_running_loop().time()
        await client.close()
        assert asyncio.get_running_loop().time() - began < 4
        assert [message.text async for message in client.messages()] == ["0", "1", "2"]

    run(scenario())


def test_a_close_that_is_cancelled_leaves_nothing(broker: Broker, run: Run, dialect: str) -> None:
    async def scenario(proxy: Proxy) -> None:
        options = broker.options(login=f"cut-{dialect}", dialect=dialect)
        options["url"] = f"tcp://127.0.0.1:{proxy.port}"
        client = AsyncClient(**options)
        await client.connect()
        proxy.drop_packets()
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(client.close(), 0.1)
        assert client.state == "closed"

    with Proxy(broker.port) as proxy:
        run(scenario(proxy))


@pytest.mark.behaviour("close-bounded")
def test_closing_a_half_open_connection_ends(broker: Broker, run: Run, dialect: str) -> None:
    async def scenario(proxy: Proxy) -> None:
        options = broker.options(login=f"half-{dialect}", dialect=dialect, answer_timeout=0.2)
        options["url"] = f"tcp://127.0.0.1:{proxy.port}"
        client = AsyncClient(**options)
        await client.connect()
        proxy.drop_packets()
        await asyncio.wait_for(client.close(), 5)

    with Proxy(broker.port) as proxy:
        run(scenario(proxy))


@pytest.mark.behaviour("comes-back")
def test_the_blocking_client_survives_a_restart(start_broker: StartBroker, dialect: str) -> None:
    broker = start_broker()
    options = broker.options(dialect=dialect, reconnect=SOON, answer_timeout=PATIENCE)
    with Client(**options) as client:
        client.subscribe("/topic/a")
        broker.restart()
        while True:
            try:
                client.send("/topic/a", "x")
                break
            except ConnectionLost:
                # It was on its way.
                continue
        assert client.receive(PATIENCE).text == "x"
        assert client.connections == 2


# -- what a broker may say, said by one of the test's own ------------------------------------------


class Scripted:
    """A broker that lets everybody in, and then does what it is told."""

    def __init__(self, dialect: str, farewell: Callable[[Any], Awaitable[None]]) -> None:
        self.dialect = dialect
        self.farewell = farewell
        self.logins = 0

    async def serve(self, connection: Any) -> None:
        await connection.recv()
        self.logins += 1
        if self.dialect == "classic":
            name = "accept-version:1.2\nsession-id:s\nconnection-id:1"
        else:
            name = "version:1.2\nsession:s"
        await connection.send(
            f"CONNECTED\n{name}\nlogin:ana\nprofile-code:1\nprofile-desc:agent\n"
            "destination:/agent/ana\n\n\0"
        )
        if self.logins == 1:
            await self.farewell(connection)
        else:
            # Until the client goes.
            with contextlib.suppress(Exception):
                while True:
                    await connection.recv()


@pytest.mark.parametrize(
    ("code", "retry", "comes_back"),
    [
        (4000, None, False),
        (4099, None, False),
        (4100, None, True),
        (4199, None, True),
        (4200, None, True),
        (4299, None, True),
        (1000, None, True),
        (1000, "never", False),
        (1000, "later", True),
        (1000, "now", True),
    ],
)
@pytest.mark.behaviour("retry-obeyed")
def test_close_codes_and_retry_are_obeyed(
    run: Run, dialect: str, code: int, retry: Optional[str], comes_back: bool
) -> None:
    from websockets.asyncio.server import serve
    from websockets.typing import Subprotocol

    async def say_farewell(connection: Any) -> None:
        if retry is not None:
            word = "error-desc" if dialect == "classic" else "message"
            await connection.send(f"ERROR\n{word}:go\nerror-code:SOME\nretry:{retry}\n\n\0")
        await connection.close(code)

    async def scenario() -> None:
        scripted = Scripted(dialect, say_farewell)
        protocol = Subprotocol("stomp" if dialect == "classic" else "v12.stomp")
        async with serve(scripted.serve, "127.0.0.1", 0, subprotocols=[protocol]) as server:
            port = next(iter(server.sockets)).getsockname()[1]
            client = AsyncClient(
                f"ws://127.0.0.1:{port}",
                login="ana",
                application_key="a",
                profile_key="b",
                dialect=dialect,
                reconnect=SOON,
                heart_beat=0,
                answer_timeout=0.2,
            )
            await client.connect()
            if comes_back:
                await until(lambda: client.connections == 2, "the client comes back")
            else:
                await until(lambda: client.state == "closed", "the client gives up")
                with pytest.raises(ConnectionLost if retry is None else Refused):
                    await drain(client)
                assert scripted.logins == 1
            await client.close()

    run(scenario())


class Resuming:
    """A standard broker that keeps what was subscribed only for who asks for it."""

    def __init__(self) -> None:
        self.logins: list[list[str]] = []
        self.subscribed: dict[str, str] = {}
        self.writer: Optional[asyncio.StreamWriter] = None
        self.serving: list[asyncio.Future[None]] = []
        self.lets_in = asyncio.Event()
        """Whether it lets those in who come back."""

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.serving.append(asyncio.ensure_future(self.serve(reader, writer)))

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                frame = (await reader.readuntil(b"\0")).strip(b"\n\0").decode()
                if "resume:true" in frame:
                    await self.lets_in.wait()
                self.answer(frame.split("\n"), writer)
        writer.close()

    def answer(self, lines: list[str], writer: asyncio.StreamWriter) -> None:
        headers = dict(line.split(":", 1) for line in lines[1:] if ":" in line)
        if lines[0] == "CONNECT":
            self.logins.append(lines)
            if headers.get("resume") != "true":
                self.subscribed.clear()
            writer.write(
                b"CONNECTED\nversion:1.2\nheart-beat:0,0\nsession:s\nlogin:ana\n"
                b"destination:/agent/ana\n\n\0"
            )
            if "resume" in headers:
                # Between the login and the first SUBSCRIBE.
                self.send("/topic/kept", "in the gap")
        elif lines[0] == "SUBSCRIBE":
            self.subscribed[headers["id"]] = headers["destination"]
        elif lines[0] == "UNSUBSCRIBE":
            del self.subscribed[headers["id"]]
        if "receipt" in headers:
            writer.write(f"RECEIPT\nreceipt-id:{headers['receipt']}\n\n\0".encode())

    def send(self, topic: str, text: str) -> None:
        assert self.writer is not None
        for name, destination in self.subscribed.items():
            if destination == topic:
                self.writer.write(
                    f"MESSAGE\nsubscription:{name}\nmessage-id:{text}\ndestination:{topic}\n"
                    f"\n{text}\0".encode()
                )


@pytest.mark.behaviour("resumes-own-session")
def test_who_comes_back_has_no_gap_and_nothing_that_it_ended(run: Run) -> None:
    async def scenario() -> None:
        broker = Resuming()
        # Of another program, before.
        broker.subscribed["7"] = "/topic/strange"
        server = await asyncio.start_server(broker.accept, "127.0.0.1", 0)
        client = AsyncClient(
            f"tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}",
            login="ana",
            application_key="a",
            profile_key="b",
            dialect="standard",
            heart_beat=0,
            reconnect=SOON,
            answer_timeout=PATIENCE,
        )
        async with client:
            assert broker.subscribed == {}
            kept = await client.subscribe("/topic/kept")
            ended = await client.subscribe("/topic/ended")
            assert broker.writer is not None
            broker.writer.transport.abort()
            await until(lambda: client.state == "away", "the end is noticed")
            await client.unsubscribe(ended)
            broker.lets_in.set()
            assert (await client.receive(PATIENCE)).text == "in the gap"
            await client.wait_connected(PATIENCE)
            assert broker.subscribed == {kept.id: "/topic/kept"}
            first, again = broker.logins
            assert {"inbox:true"} <= set(first)
            assert "resume:true" not in first
            assert {"inbox:true", "resume:true"} <= set(again)
        server.close()
        await server.wait_closed()
        await asyncio.gather(*broker.serving)

    run(scenario())


def test_programs_can_make_messages() -> None:
    """For tests of their own."""
    message = Message(b"[1]", "ana", "/agent/ana")
    assert (message.text, message.json(), message.correlation_id) == ("[1]", [1], None)
