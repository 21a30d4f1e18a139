"""Each way in which a connection can fail says what it was, and names the right address."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import pathlib
import re
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from broker_for_tests import PATIENCE, Broker

from com_broker import AsyncClient, ConnectFailed, ConnectionLost, Unsupported, broker_client
from com_broker._transport import reason_of
from com_broker._url import Proxy

Run = Callable[[Any], Any]
Act = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

SCHEMES = ["tcp", "tls", "ws", "wss"]
GOOD: dict[str, Any] = {
    "login": "ana",
    "application_key": "hush-a",
    "profile_key": "hush-b",
    "connect_timeout": PATIENCE,
}


class OneListener(Broker):
    """A broker whose listener has a `tls` of its own."""

    def __init__(self, program: pathlib.Path, tls: str) -> None:
        super().__init__(program)
        self.config = f'[[listener]]\naddress = "127.0.0.1:0"\ntls = "{tls}"\n'


@contextlib.asynccontextmanager
async def serving(act: Act) -> AsyncIterator[int]:
    """A server that does what it is told to each connection, and closes it; says on which port."""
    serving: set[asyncio.Future[Any]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.add(asyncio.ensure_future(answer(reader, writer)))

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await act(reader, writer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await server.wait_closed()
        await asyncio.gather(*serving)


async def close_at_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    pass


async def close_when_greeted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(10_000)


async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(10)
    await cut(writer)


async def cut(writer: asyncio.StreamWriter) -> None:
    await writer.drain()
    end = writer.get_extra_info("socket")
    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def greet_as_mail(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"220 mail.example ESMTP\r\n")
    await reader.read(10_000)


async def failure(url: str, **options: Any) -> str:
    client = AsyncClient(url, **{**GOOD, **options})
    with pytest.raises(ConnectionError) as caught:
        await client.connect()
    assert isinstance(caught.value, ConnectFailed)
    text = str(caught.value)
    assert client.state == "new"
    assert "hush" not in text
    # Nothing that is empty, twice the same, or from the inside of Python.
    assert not re.search(r"\(\)|None|: *$|: :|Errno|Error\b|\[", text), text
    return text


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("act", [close_at_once, close_when_greeted, reset])
@pytest.mark.behaviour("failure-explained")
def test_a_port_that_closes_is_told(run: Run, scheme: str, act: Act) -> None:
    async def scenario() -> None:
        async with serving(act) as port:
            text = await failure(f"{scheme}://127.0.0.1:{port}")
            assert f"127.0.0.1:{port}" in text
            assert text.count(str(port)) == 1
            assert re.search("TLS", text)
            assert re.search("closed", text)

    run(scenario())


@pytest.mark.parametrize("scheme", ["tls", "wss"])
@pytest.mark.behaviour("failure-explained")
def test_tls_to_a_plain_port_is_told(
    program: pathlib.Path, run: Run, scheme: str, capsys: pytest.CaptureFixture[str]
) -> None:
    async def scenario(port: int) -> None:
        assert "does this port speak TLS?" in await failure(f"{scheme}://localhost:{port}")
        async with serving(greet_as_mail) as mail:
            text = await failure(f"{scheme}://localhost:{mail}")
            assert "(wrong version number): does this port speak it?" in text

    with OneListener(program, "off") as plain:
        run(scenario(plain.port))


def test_a_plain_websocket_to_a_port_for_tls_is_told_why(program: pathlib.Path, run: Run) -> None:
    async def scenario(port: int) -> None:
        text = await failure(f"ws://localhost:{port}")
        assert text == (
            f"localhost:{port} refuses the WebSocket with HTTP 403: only TLS is served on this port"
        )

    with OneListener(program, "required") as secure:
        run(scenario(secure.port))


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"HTTP/1.1 403 No\r\nContent-Length: 11\r\n\r\nnot for you", "HTTP 403: not for you"),
        (b"HTTP/1.1 403 No\r\nContent-Length: 10\r\n\r\nno\x1b[31m\x07\nx", "HTTP 403: no?[31m?"),
        (b"HTTP/1.1 404 No\r\nContent-Length: 6\r\n\r\n<html>", "path right?"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "HTTP 200: are the port and"),
        (b"HTTP/1.1 500 No\r\nContent-Length: 900\r\n\r\n" + b"x" * 900, "x" * 200 + "…"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "does not answer as a WebSocket server"),
    ],
)
def test_what_refuses_a_websocket_is_told(run: Run, answer: bytes, reason: str) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)

    async def scenario() -> None:
        async with serving(refuse) as port:
            client = AsyncClient(f"ws://127.0.0.1:{port}", **GOOD)
            with pytest.raises(ConnectFailed) as caught:
                await client.connect()
            assert reason in str(caught.value)
            assert "\x1b" not in str(caught.value)
            assert len(str(caught.value)) < 400

    run(scenario())


@pytest.mark.parametrize("scheme", SCHEMES)
def test_names_and_ports_that_nobody_has_are_told(run: Run, scheme: str) -> None:
    async def scenario() -> None:
        assert "no address for the host of no-such-host.invalid" in await failure(
            f"{scheme}://no-such-host.invalid:7"
        )
        with socket.create_server(("127.0.0.1", 0)) as gone:
            port = gone.getsockname()[1]
        for host in ("127.0.0.1", "localhost"):
            text = await failure(f"{scheme}://{host}:{port}")
            assert text == f"connection refused at {host}:{port}: is the broker running?"

    run(scenario())


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.behaviour("login-times-out")
def test_a_port_that_says_nothing_is_told(run: Run, scheme: str) -> None:
    async def scenario() -> None:
        stop = asyncio.Event()

        async def say_nothing(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
            await stop.wait()

        async with serving(say_nothing) as port:
            text = await failure(f"{scheme}://127.0.0.1:{port}", connect_timeout=0.1 + 0.2)
            # Not 0.30000000000000004.
            assert f"no login at 127.0.0.1:{port} within 0.3 s: " in text
            assert ("nobody answers" in text) == (scheme == "tcp")
            stop.set()

    run(scenario())


def test_every_reason_has_words() -> None:
    for error, words in (
        (ConnectionResetError(), "connection reset"),
        (TimeoutError(), "timeout"),
        (ssl.SSLError(), "ssl"),
        (ssl.SSLEOFError(8, "EOF occurred"), "ended it without a word"),
        (OSError(101, "x"), "Network is unreachable"),
        (OSError("Multiple exceptions: [Errno 111] a, [Errno 101] b"), "Connection refused"),
    ):
        assert words in reason_of(error)


def test_the_end_of_a_connection_has_its_reason(run: Run) -> None:
    from websockets.asyncio.server import serve
    from websockets.typing import Subprotocol

    async def say_goodbye(connection: Any) -> None:
        await connection.recv()
        await connection.send(
            "CONNECTED\nsession-id:s\nlogin:ana\nprofile-code:1\ndestination:/agent/ana\n\n\0"
        )
        # Nothing in it, and not the end.
        await connection.send("")
        await connection.close(4000, "out of coffee")

    async def send_too_much(connection: Any) -> None:
        await connection.recv()
        await connection.send(
            "CONNECTED\nsession-id:s\nlogin:ana\nprofile-code:1\ndestination:/agent/ana\n\n\0"
        )
        await connection.send("x" * 10_000)
        await connection.wait_closed()

    async def scenario(act: Any, reason: str) -> None:
        async with serve(act, "127.0.0.1", 0, subprotocols=[Subprotocol("stomp")]) as server:
            port = next(iter(server.sockets)).getsockname()[1]
            options = {**GOOD, "reconnect": None, "frame_bytes_max": 1000}
            async with AsyncClient(f"ws://127.0.0.1:{port}", **options) as client:
                with pytest.raises(ConnectionLost, match=reason):
                    async for _ in client.messages():
                        pass

    run(scenario(say_goodbye, "was lost: out of coffee"))
    run(scenario(send_too_much, "was refused: .*1000"))


# -- proxies ---------------------------------------------------------------------------------------


async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A proxy that opens the way to where CONNECT says."""
    head = await reader.readuntil(b"\r\n\r\n")
    host, _, port = head.split(b" ")[1].decode().rpartition(":")
    far_reader, far_writer = await asyncio.open_connection(host, int(port))
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n")

    async def pass_on(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(10_000):
                target.write(data)
            target.close()

    await asyncio.gather(pass_on(reader, far_writer), pass_on(far_reader, writer))
    far_writer.close()


async def refuse_to_relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 407 Who are you\r\n\r\n")


@pytest.mark.parametrize("scheme", ["ws", "wss"])
def test_no_proxy_is_taken_from_the_environment(
    broker: Broker, run: Run, scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "ws_proxy", "wss_proxy"):
        # Nobody is there.
        monkeypatch.setenv(name, "http://127.0.0.1:1")
        monkeypatch.setenv(name.upper(), "http://127.0.0.1:1")

    async def scenario() -> None:
        async with AsyncClient(**broker.options(scheme, login=f"proxy-{scheme}")) as client:
            await client.send(client.session.destination, "direct")

    run(scenario())


@pytest.mark.parametrize("scheme", ["ws", "wss"])
def test_a_proxy_that_is_asked_for_is_used(broker: Broker, run: Run, scheme: str) -> None:
    ways: list[str] = []

    async def relay_and_note(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ways.append("used")
        await relay(reader, writer)

    async def scenario() -> None:
        async with serving(relay_and_note) as port:
            options = broker.options(
                scheme, login=f"by-{scheme}", proxy=f"http://me:hush@127.0.0.1:{port}"
            )
            async with AsyncClient(**options) as client:
                await client.send(client.session.destination, "by way of the proxy")
                assert (await client.receive(PATIENCE)).text == "by way of the proxy"
        assert ways == ["used"]

    run(scenario())


def test_a_proxy_that_fails_is_named_and_its_password_is_not(run: Run) -> None:
    async def scenario() -> None:
        text = await failure("ws://broker.example:7", proxy="http://me:hush@127.0.0.1:1")
        assert text == "connection refused at 127.0.0.1:1: is the proxy running?"
        async with serving(refuse_to_relay) as port:
            text = await failure("ws://broker.example:7", proxy=f"http://me:hush@127.0.0.1:{port}")
            assert f"the proxy 127.0.0.1:{port} does not open the way to broker.example:7" in text
            assert "407" in text
        with pytest.raises(Unsupported, match="python-socks"):
            await AsyncClient("ws://b:7", **GOOD, proxy="socks5://127.0.0.1:1").connect()

    run(scenario())


@pytest.mark.parametrize("proxy", ["127.0.0.1:1", "ftp://hush@a:1", "http://hush", "http://a:b:1"])
def test_a_malformed_proxy_is_refused(proxy: str) -> None:
    with pytest.raises(ValueError, match="the proxy must be a URL") as caught:
        AsyncClient("ws://b", **GOOD, proxy=proxy)
    assert "hush" not in str(caught.value)
    with pytest.raises(ValueError, match="only ws:// and wss://"):
        AsyncClient("tcp://b", **GOOD, proxy="http://a:1")
    assert "hush" not in repr(Proxy.parse("http://me:hush@a:1"))


# -- the original's interface ----------------------------------------------------------------------


def test_the_drop_in_client_names_what_failed(program: pathlib.Path, run: Run) -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()

        def connect(host: str, port: int) -> str:
            client = broker_client("drop-in", "hush-a")
            client.set_ssl_options(None)
            with pytest.raises(ConnectFailed) as caught:
                client.connect("localhost", host, port, "ana", "hush-b")
            assert client.join(PATIENCE)
            return str(caught.value)

        async with serving(close_when_greeted) as port:
            text = await loop.run_in_executor(None, connect, "127.0.0.1", port)
            assert "does this port speak TLS?" in text
        host = "x" * 70 + ".example"
        assert "no name that a host" in await loop.run_in_executor(None, connect, host, 7)

    run(scenario())


def test_reasons_are_in_the_log(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    """What a client that comes back by itself survives, or gives up, is there for people, too."""
    caplog.set_level(logging.INFO, "com_broker")

    async def let_in_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.read(10_000)
        if b"STOMP" in head or b"CONNECT" in head:
            writer.write(b"CONNECTED\nsession:s\nlogin:ana\ndestination:/agent/ana\n\n\0")
            await cut(writer)

    async def scenario() -> None:
        async with serving(let_in_once) as port:
            options = {**GOOD, "dialect": "standard", "reconnect": None, "heart_beat": 0}
            client = AsyncClient(f"tcp://127.0.0.1:{port}", **options)
            await client.connect()
            with pytest.raises(ConnectionLost, match="lost: Connection reset by peer"):
                async for _ in client.messages():
                    pass
            await client.close()

    run(scenario())
    assert "closed for good: the connection to the broker was lost: Connection reset" in caplog.text
