"""Closing and cancelling at any moment: it ends, soon, and nothing is left behind."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import signal
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Optional

import pytest
from broker_for_tests import PATIENCE, Broker, Proxy, wait_until

from com_broker import (
    AnswerTimeout,
    AsyncClient,
    Client,
    Closed,
    ConnectFailed,
    ConnectionLost,
    NotConnected,
    Reconnect,
    Unconfirmed,
    broker_client,
)
from com_broker._keeper import Keeper

Run = Callable[[Any], Any]

SCHEMES = ["tcp", "tls", "ws", "wss"]
DIALECTS = ["classic", "standard"]
SOON = Reconnect(initial=0.001, maximum=0.01, later=0.01)


@pytest.fixture(params=DIALECTS)
def dialect(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=SCHEMES)
def scheme(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def soon(work: Awaitable[Any]) -> None:
    """Sees that something comes to its end."""
    task = asyncio.ensure_future(work)
    await asyncio.wait({task}, timeout=PATIENCE)
    assert task.done(), "it never comes back"
    task.result()


@pytest.fixture
def at_login(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, Callable[[], None]], None]:
    """Has something done in the turn of the loop in which a login returns, or some turns later."""

    def set_up(turns: int, act: Callable[[], None]) -> None:
        log_in = Keeper._log_in

        def later(left: int) -> None:
            if left == 0:
                act()
            else:
                asyncio.get_running_loop().call_soon(later, left - 1)

        async def log_in_and_act(self: Keeper, number: int) -> Any:
            link = await log_in(self, number)
            if number == watched[0]:
                later(turns)
            return link

        monkeypatch.setattr(Keeper, "_log_in", log_in_and_act)

    watched = [1]
    set_up.watched = watched  # type: ignore[attr-defined]
    return set_up


@pytest.mark.parametrize("turns", range(4))
@pytest.mark.parametrize("number", [1, 2])
def test_closing_in_the_turn_in_which_the_login_returns_ends(
    broker: Broker, run: Run, scheme: str, dialect: str, turns: int, number: int, at_login: Any
) -> None:
    """At the first login, and when the client comes back."""

    async def scenario(proxy: Proxy) -> None:
        options = broker.options(scheme, login=f"race-{scheme}-{dialect}", dialect=dialect)
        options["url"] = f"{scheme}://localhost:{proxy.port}"
        client = AsyncClient(**{**options, "reconnect": SOON})
        closing: list[asyncio.Task[None]] = []
        at_login.watched[0] = number
        at_login(turns, lambda: closing.append(asyncio.ensure_future(client.close())))
        with contextlib.suppress(Closed):
            await client.connect()
            if number == 2:
                proxy.cut()
        while not closing:  # noqa: ASYNC110  Whichever turn it is.
            await asyncio.sleep(0.001)
        await soon(closing[0])
        assert client.state == "closed"

    with Proxy(broker.port) as proxy:
        run(scenario(proxy))


@pytest.mark.parametrize("turns", range(4))
def test_cancelling_in_the_turn_in_which_the_login_returns_is_not_lost(
    broker: Broker, run: Run, dialect: str, turns: int, at_login: Any
) -> None:
    async def scenario() -> None:
        client = AsyncClient(**broker.options(login=f"cancel-{dialect}", dialect=dialect))
        connecting = asyncio.ensure_future(client.connect())
        outcome: list[bool] = []
        at_login(turns, lambda: outcome.append(connecting.cancel()))
        await asyncio.wait({connecting}, timeout=PATIENCE)
        # Either it came too late, or it counts; never is it swallowed.
        assert connecting.cancelled() == outcome[0]
        if outcome[0]:
            assert client.state == "new"
            await client.connect()
        await soon(client.close())

    run(scenario())


@pytest.mark.parametrize("turns", range(12))
def test_a_client_can_be_closed_at_any_moment(
    broker: Broker, run: Run, scheme: str, turns: int
) -> None:
    async def scenario() -> None:
        client = AsyncClient(**broker.options(scheme, login=f"any-{scheme}-{turns}"))
        connecting = asyncio.ensure_future(client.connect())
        for _ in range(turns):
            await asyncio.sleep(0)
        await soon(client.close())
        # Whoever connects is told at once, and does not wait for a login that nobody wants.
        with pytest.raises(Closed):
            await connecting
        assert client.state == "closed"

    run(scenario())


def test_closing_does_not_wait_for_a_login_that_never_comes(run: Run, dialect: str) -> None:
    async def scenario(port: int) -> None:
        client = AsyncClient(
            f"tcp://127.0.0.1:{port}",
            login="ana",
            application_key="a",
            profile_key="b",
            dialect=dialect,
            connect_timeout=3600,
        )
        connecting = asyncio.ensure_future(client.connect())
        await asyncio.sleep(0)
        await soon(client.close())
        with pytest.raises(Closed):
            await connecting

    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        run(scenario(silent.getsockname()[1]))


@pytest.mark.parametrize("turns", range(8))
def test_a_close_that_is_cancelled_at_any_moment_leaves_nothing(
    broker: Broker, run: Run, dialect: str, turns: int
) -> None:
    async def scenario() -> None:
        client = AsyncClient(**broker.options(login=f"left-{dialect}", dialect=dialect))
        await client.connect()
        closing = asyncio.ensure_future(client.close())
        for _ in range(turns):
            await asyncio.sleep(0)
        closing.cancel()
        await asyncio.wait({closing}, timeout=PATIENCE)
        assert closing.done()
        # Cancelled before it began, it did nothing; otherwise it did all.
        assert client.state == ("connected" if turns == 0 else "closed")
        await soon(client.close())
        assert client.state == "closed"

    run(scenario())


def test_closing_twice_at_once_waits_for_the_one_end(broker: Broker, run: Run) -> None:
    async def scenario(proxy: Proxy) -> None:
        options = broker.options(login="twice", answer_timeout=0.2)
        options["url"] = f"tcp://127.0.0.1:{proxy.port}"
        client = AsyncClient(**options)
        await client.connect()
        # So that it takes a while.
        proxy.drop_packets()
        ended: list[int] = []
        supervisor = client._keeper._supervisor
        assert supervisor is not None

        async def close(number: int) -> None:
            await client.close()
            assert supervisor.done(), "it came back before the end"
            ended.append(number)

        await soon(asyncio.wait_for(asyncio.gather(*(close(number) for number in range(3))), 10))
        assert sorted(ended) == [0, 1, 2]

    with Proxy(broker.port) as proxy:
        run(scenario(proxy))


def test_a_fault_in_writing_ends_the_connection(
    broker: Broker, run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever it is: otherwise everybody would wait for what is never written."""

    async def scenario() -> None:
        async with AsyncClient(**broker.options(login="wfault", reconnect=None)) as client:

            async def fail(*_: object) -> None:
                raise RuntimeError("on purpose")

            assert client._lifecycle.link is not None
            monkeypatch.setattr(client._lifecycle.link.transport, "_write_out", fail)
            with pytest.raises(Unconfirmed):
                await client.send("/agent/wfault", "x", timeout=PATIENCE)

    run(scenario())
    assert "on purpose" in caplog.text


def test_a_program_that_cancels_all_tasks_leaves_no_deaf_client(broker: Broker, run: Run) -> None:
    async def scenario() -> None:
        client = AsyncClient(**broker.options(login="deaf"))
        await client.connect()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            if task.get_coro().__qualname__.startswith("Keeper."):  # type: ignore[union-attr]
                task.cancel()
        with pytest.raises(Closed, match="cancelled"):
            await client.receive(PATIENCE)
        with pytest.raises(Closed):
            await client.send("/agent/deaf", "x")
        await soon(client.close())

    run(scenario())


@pytest.mark.behaviour("call-cancelled")
def test_a_send_that_is_cancelled_as_its_turn_comes_is_not_sent(run: Run) -> None:
    async def scenario() -> None:
        async with a_broker_that_does_not_read() as (options, reading):
            client = AsyncClient(**options, outgoing_bytes_max=1000)
            await client.connect()
            first = asyncio.ensure_future(client.send("/agent/a", b"1" * 20_000_000))
            await asyncio.sleep(0)
            second = asyncio.ensure_future(client.send("/agent/a", b"2"))
            await asyncio.sleep(0)
            assert client._lifecycle.link is not None
            transport = client._lifecycle.link.transport
            # In the turn in which there is room.
            transport._queued_bytes = 0
            transport._admit_next()
            second.cancel()
            await asyncio.wait({second})
            assert second.cancelled()
            assert not [one for one in transport._queue if b"\n\n2" in one]
            first.cancel()
            reading.set()
            await soon(client.close())

    run(scenario())


# -- what waits while the broker does not read -----------------------------------------------------


@contextlib.asynccontextmanager
async def a_broker_that_does_not_read() -> AsyncIterator[tuple[dict[str, Any], asyncio.Event]]:
    """Lets everybody in, and reads nothing more until it is told; then it confirms everything."""
    reading = asyncio.Event()
    serving: set[asyncio.Future[Any]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.add(asyncio.ensure_future(answer(reader, writer)))

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\0")
            writer.write(
                b"CONNECTED\nversion:1.2\nsession:s\nlogin:ana\ndestination:/agent/ana\n\n\0"
            )
            # The kernel takes what it can.
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            await reading.wait()
            writer.transport.resume_reading()  # type: ignore[attr-defined]
            while True:
                frame = await reader.readuntil(b"\0")
                for line in frame.split(b"\n"):
                    if line.startswith(b"receipt:"):
                        writer.write(b"RECEIPT\nreceipt-id:" + line[8:] + b"\ndelivered:1\n\n\0")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=100_000_000)
    port = server.sockets[0].getsockname()[1]
    try:
        yield (
            {
                "url": f"tcp://127.0.0.1:{port}",
                "login": "ana",
                "application_key": "a",
                "profile_key": "b",
                "dialect": "standard",
                "heart_beat": 0,
                "reconnect": None,
                "answer_timeout": PATIENCE,
            },
            reading,
        )
    finally:
        reading.set()
        server.close()
        await server.wait_closed()
        await asyncio.gather(*serving)


def queued(client: AsyncClient) -> int:
    """What a client holds to be sent, in bytes."""
    assert client._lifecycle.link is not None
    waiting = sum(len(request.data) for request in client._requests._waiting.values())
    return client._lifecycle.link.transport._queued_bytes + waiting


@pytest.mark.behaviour("outgoing-bounded")
def test_what_waits_is_bounded_while_nothing_is_read(run: Run) -> None:
    """However many send at once, and again after they gave up."""
    bound, body = 1_000_000, b"x" * 400_000

    async def scenario() -> None:
        async with a_broker_that_does_not_read() as (options, reading):
            client = AsyncClient(**options, outgoing_bytes_max=bound)
            await client.connect()
            most = 0
            for _ in range(3):
                calls = [
                    asyncio.ensure_future(client.send("/agent/a", body, timeout=0.2))
                    for _ in range(60)
                ]
                while not all(call.done() for call in calls):
                    most = max(most, queued(client))
                    await asyncio.sleep(0.01)
                outcomes = {str(call.exception()) for call in calls}
                assert any("nothing was sent" in text for text in outcomes)
            assert most <= bound
            reading.set()
            # And then it goes on, in order, each once its turn comes.
            late = [asyncio.ensure_future(client.send("/agent/a", body)) for _ in range(60)]
            while not all(call.done() for call in late):
                most = max(most, queued(client))
                await asyncio.sleep(0)
            assert {(await call).delivered for call in late} == {1}
            assert most <= bound
            # A frame that is larger than all that may wait goes alone.
            assert (await client.send("/agent/a", b"y" * 2 * bound)).delivered == 1
            await soon(client.close())

    run(scenario())


@pytest.mark.behaviour("close-releases")
def test_those_who_wait_for_room_are_released_when_the_client_closes(run: Run) -> None:
    async def scenario() -> None:
        async with a_broker_that_does_not_read() as (options, reading):
            options["answer_timeout"] = 0.5
            client = AsyncClient(**options, outgoing_bytes_max=1000)
            await client.connect()
            calls = [
                asyncio.ensure_future(client.send("/agent/a", b"x" * 10_000_000, timeout=PATIENCE))
                for _ in range(20)
            ]
            await asyncio.sleep(0)
            await soon(client.close())
            for call in calls:
                with pytest.raises((Closed, ConnectionLost)):
                    await call
            reading.set()

    run(scenario())


# -- subscriptions of which nobody knows whether they were made ------------------------------------


def test_a_subscription_that_was_given_up_brings_nothing(
    broker: Broker, run: Run, dialect: str
) -> None:
    async def scenario() -> None:
        topic = f"/topic/given-up-{dialect}"
        async with AsyncClient(**broker.options(login=f"gu-{dialect}", dialect=dialect)) as client:
            subscribing = asyncio.ensure_future(client.subscribe(topic))
            await asyncio.sleep(0)
            subscribing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await subscribing
            assert client.subscriptions == ()
            await client.send(topic, "unseen")
            await client.send(client.session.destination, "last")
            assert (await client.receive(PATIENCE)).text == "last"

    run(scenario())


def test_two_subscriptions_to_the_same_end_one_by_one(
    broker: Broker, run: Run, dialect: str
) -> None:
    async def scenario() -> None:
        topic = f"/topic/same-{dialect}"
        async with AsyncClient(
            **broker.options(login=f"same-{dialect}", dialect=dialect)
        ) as client:
            first = await client.subscribe(topic)
            second = await client.subscribe(topic)
            await client.unsubscribe(first)
            await client.send(topic, "seen")
            assert (await client.receive(PATIENCE)).text == "seen"
            await client.unsubscribe(second)
            await client.send(topic, "unseen")
            await client.send(client.session.destination, "last")
            texts = []
            while "last" not in texts:
                texts.append((await client.receive(PATIENCE)).text)
            assert "unseen" not in texts

    run(scenario())


@pytest.mark.behaviour("unsubscribed-stays-so")
def test_what_is_unsubscribed_as_the_connection_breaks_does_not_come_back(
    start_broker: Callable[..., Broker], run: Run, dialect: str
) -> None:
    broker = start_broker("[limits]\nheart_beat_ms_min = 200\n")

    async def scenario(proxy: Proxy) -> None:
        options = broker.options(
            login="half", dialect=dialect, heart_beat=0.2, reconnect=SOON, answer_timeout=PATIENCE
        )
        through_proxy = {**options, "url": f"tcp://127.0.0.1:{proxy.port}"}
        async with (
            AsyncClient(**broker.options(login="bob", dialect=dialect)) as bob,
            AsyncClient(**through_proxy) as client,
        ):
            ended = await client.subscribe("/topic/ended")
            kept = await client.subscribe("/topic/kept")
            proxy.drop_packets()
            # It is under way when the silence is noticed; the broker never hears of it.
            await client.unsubscribe(ended)
            again = None if dialect == "classic" else await client.subscribe("/topic/again")
            await client.wait_connected(PATIENCE)
            assert client.connections == 2
            await bob.send("/topic/ended", "unseen")
            await bob.send("/topic/kept", "last")
            assert (await client.receive(PATIENCE)).text == "last"
            assert client.subscriptions == ((kept,) if again is None else (kept, again))

    with Proxy(broker.port) as proxy:
        run(scenario(proxy))


def test_a_destination_that_is_subscribed_anew_outlives_its_end(
    start_broker: Callable[..., Broker], run: Run, dialect: str
) -> None:
    """The end of the former is made up for when the client is back, and must not hit the latter."""
    broker = start_broker("[limits]\nheart_beat_ms_min = 200\n")

    async def scenario(proxy: Proxy) -> None:
        options = broker.options(
            login="anew", dialect=dialect, heart_beat=0.2, reconnect=SOON, answer_timeout=PATIENCE
        )
        through_proxy = {**options, "url": f"tcp://127.0.0.1:{proxy.port}"}
        async with (
            AsyncClient(**broker.options(login="bob", dialect=dialect)) as bob,
            AsyncClient(**through_proxy) as client,
        ):
            for _ in range(2):
                former = await client.subscribe("/topic/a")
                latter = await client.subscribe("/topic/a")
                before = client.connections
                proxy.drop_packets()
                await client.unsubscribe(former)
                while client.connections == before:  # noqa: ASYNC110  Whenever it is noticed.
                    await asyncio.sleep(0.005)
                await client.wait_connected(PATIENCE)
                await bob.send("/topic/a", "seen")
                assert (await client.receive(PATIENCE)).text == "seen"
                await client.unsubscribe(latter)
                await bob.send("/topic/a", "unseen")
                await bob.send("/agent/anew", "last")
                assert (await client.receive(PATIENCE)).text == "last"

    with Proxy(broker.port) as proxy:
        run(scenario(proxy))


# -- threads ---------------------------------------------------------------------------------------


def test_a_blocking_client_is_closed_while_it_connects() -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        client = Client(
            f"tcp://127.0.0.1:{silent.getsockname()[1]}",
            login="ana",
            application_key="a",
            profile_key="b",
            connect_timeout=3600,
        )
        outcomes: list[BaseException] = []

        def connect() -> None:
            try:
                client.connect()
            except Closed as closed:
                outcomes.append(closed)

        connecting = threading.Thread(target=connect)
        connecting.start()
        wait_until(lambda: client.state == "connecting", "it connects")
        client.close()
        connecting.join(PATIENCE)
        assert not connecting.is_alive()
        assert len(outcomes) == 1


def test_closing_does_not_wait_for_a_name_that_is_looked_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import socket

    answered = threading.Event()

    def look_up(*_: object, **__: object) -> object:
        answered.wait(PATIENCE)
        raise socket.gaierror(socket.EAI_AGAIN, "later")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    for timeout in (0.1, 3600):
        client = Client(
            "tcp://slow.example",
            login="ana",
            application_key="a",
            profile_key="b",
            connect_timeout=timeout,
        )
        outcomes: list[str] = []

        def connect(client: Client = client, outcomes: list[str] = outcomes) -> None:
            try:
                client.connect()
            except (Closed, ConnectFailed) as error:
                outcomes.append(type(error).__name__)

        connecting = threading.Thread(target=connect)
        connecting.start()
        if timeout > 1:
            wait_until(lambda client=client: client.state == "connecting", "it connects")  # type: ignore[misc]
            client.close()
        connecting.join(PATIENCE / 2)
        assert not connecting.is_alive()
        assert outcomes == ["Closed" if timeout > 1 else "ConnectFailed"]
        assert not answered.is_set()
    answered.set()


def test_threads_close_a_blocking_client_at_once(broker: Broker) -> None:
    client = Client(**broker.options(login="all-close"))
    client.connect()
    left: list[int] = []

    def close() -> None:
        client.close()
        left.append(sum(one.name == "com-broker-client" for one in threading.enumerate()))

    threads = [threading.Thread(target=close) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()
    # For each of them it is the end.
    assert left == [0] * 5


def test_a_handler_of_signals_may_close_a_blocking_client(broker: Broker) -> None:
    """Also while the same thread is in a call, or closes it already."""
    client = Client(**broker.options(login="signals"))
    client.connect()
    former = signal.signal(signal.SIGALRM, lambda *_: client.close())
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(Closed):
            client.receive(PATIENCE)
        with client._lock:
            # In the middle of a call, of all moments.
            signal.raise_signal(signal.SIGALRM)
        client.close()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)
    assert client.state == "closed"


class Strange(BaseException):
    """What no `except Exception` catches; as `asyncio.CancelledError`, or pytest's own."""


@pytest.mark.parametrize("kind", [ValueError, Strange, asyncio.CancelledError, KeyboardInterrupt])
@pytest.mark.behaviour("callback-contained")
def test_whatever_a_callback_raises_the_client_hears_on(
    broker: Broker, kind: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[str] = []
    ended = threading.Event()

    def on_message(origin: str, destination: str, content_type: str, payload: str) -> None:
        heard.append(payload)
        if payload == "first":
            raise kind("on purpose")

    client = broker_client("strange", "my_app_secret_key")
    client.link_call_back_functions(None, lambda _: ended.set(), None, on_message, None)
    client.connect("localhost", "127.0.0.1", broker.port, "strange", "my_agent_secret_key")
    wait_until(lambda: client.destination_id, "the login")
    client.send("/agent/strange", "first")
    client.send("/agent/strange", "second")
    wait_until(lambda: heard == ["first", "second"], "both are heard")
    client.disconnect()
    assert ended.wait(PATIENCE)
    assert client.join(PATIENCE)
    assert "a callback failed" in caplog.text


def test_the_original_interface_is_left_from_any_callback(broker: Broker) -> None:
    for name in ("on_connected", "on_message", "on_ack"):
        ended = threading.Event()
        client = broker_client(name, "my_app_secret_key")

        def leave(*_: object, client: broker_client = client) -> None:
            client.disconnect()
            client.disconnect()
            with contextlib.suppress(NotConnected, AnswerTimeout):
                client.send(client.destination_id, "behind the end")

        calls: dict[str, Optional[Callable[..., object]]] = {
            "on_connected": None, "on_message": None, "on_ack": None, name: leave,
        }  # fmt: skip
        client.link_call_back_functions(
            calls["on_connected"],
            functools.partial(lambda ended, _: ended.set(), ended),
            None,
            calls["on_message"],
            calls["on_ack"],
        )
        client.connect("localhost", "127.0.0.1", broker.port, f"left-{name}", "my_agent_secret_key")
        if name != "on_connected":
            wait_until(lambda client=client: client.destination_id, "the login")  # type: ignore[misc]
            client.send(client.destination_id, "x")
        assert ended.wait(PATIENCE)
        assert client.join(PATIENCE)
