"""`broker_client`: every call and callback that programs of the original use, over TCP and TLS."""

from __future__ import annotations

import inspect
import logging
import os
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from broker_for_tests import APPLICATION_KEY, PROFILE_KEYS, Broker, Proxy, wait_until

from com_broker import AnswerTimeout, NotConnected, _drop_in, broker_client

StartBroker = Callable[..., Broker]
Event = tuple[Any, ...]


class Program:
    """A program of the original: it notes what its callbacks get."""

    def __init__(self, broker: Broker, scheme: str = "tcp", name: str = "client-1") -> None:
        self.broker = broker
        self.events: list[Event] = []
        self.client = broker_client(name, APPLICATION_KEY)
        self.client.link_call_back_functions(
            on_connected=self.on_connected,
            on_disconnected=self.on_disconnected,
            on_error=self.on_error,
            on_message=self.on_message,
            on_ack=self.on_ack,
        )
        if scheme == "tls":
            self.client.set_ssl_options(cert_path=str(broker.authority))

    def on_connected(
        self, session_id: str, destination_id: str, profile: str, connection_id: str
    ) -> None:
        self.events.append(("connected", session_id, destination_id, profile, connection_id))

    def on_disconnected(self, session_id: str) -> None:
        self.events.append(("disconnected", session_id))

    def on_error(self, error_desc: str, code: str) -> None:
        self.events.append(("error", error_desc, code))

    def on_message(self, origin: str, destination: str, content_type: str, payload: object) -> None:
        self.events.append(("message", origin, destination, content_type, payload))

    def on_ack(self, transaction_id: str, error_desc: str) -> None:
        self.events.append(("ack", transaction_id, error_desc))

    def log_in(self, login: str, profile: str = "agent") -> Event:
        assert self.client.connect(
            server_hostname="localhost",
            host="127.0.0.1",
            port=self.broker.port,
            login_id=login,
            secret_key=PROFILE_KEYS[profile],
        )
        return self.wait("connected")

    def wait(self, kind: str, count: int = 1) -> Event:
        """The newest event of a kind, once there are so many."""

        def found() -> list[Event]:
            return [event for event in self.events if event[0] == kind]

        wait_until(lambda: len(found()) >= count, f"{kind}, {count} of it, in {self.events}")
        return found()[-1]


@pytest.fixture(params=["tcp", "tls"])
def scheme(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def start(broker: Broker, scheme: str) -> Iterator[Callable[[str], Program]]:
    """Programs that log out at the end, and leave no thread."""
    programs: list[Program] = []

    def start_one(name: str = "client-1") -> Program:
        programs.append(Program(broker, scheme, name))
        return programs[-1]

    yield start_one
    for program in programs:
        program.client.disconnect()
        assert program.client.join(20)


@pytest.mark.parametrize("wrong", [5, 0, None, True, 1.5, ["x"], object()])
def test_what_cannot_be_sent_is_refused_at_once(
    start: Callable[[str], Program], wrong: Any
) -> None:
    program = start("types")
    program.log_in("drop-types")
    client = program.client
    with pytest.raises(TypeError, match="the body must be"):
        client.send("/agent/drop-types", wrong)
    for call in (
        lambda: client.send(wrong, "x"),
        lambda: client.send("/agent/drop-types", "x", wrong),
        lambda: client.subscribe(wrong),
        lambda: broker_client("x", wrong).connect("", "127.0.0.1", 1, "ana", "key"),
        lambda: broker_client("x", "key").connect("", "127.0.0.1", 1, wrong, "key"),
        lambda: broker_client("x", "key").connect("", "127.0.0.1", 1, "ana", wrong),
        lambda: broker_client("x", "key").connect("", wrong, 1, "ana", "key"),
    ):
        with pytest.raises(TypeError, match="must be str"):
            call()
    for body in (b"x", bytearray(b"x"), memoryview(b"x"), "x"):
        client.send("/agent/drop-types", body)  # type: ignore[arg-type]
    program.wait("message", 4)
    assert {event[4] for event in program.events if event[0] == "message"} == {"x"}
    for port in (0, 65536, -1):
        with pytest.raises(ValueError, match="port"):
            broker_client("x", "key").connect("", "127.0.0.1", port, "ana", "key")


def test_names_and_order_are_the_originals() -> None:
    def arguments(call: Callable[..., object]) -> list[str]:
        return [name for name in inspect.signature(call).parameters if name != "self"]

    kind = broker_client
    assert arguments(kind) == ["id", "app_key"]
    assert arguments(kind.link_call_back_functions) == [
        "on_connected", "on_disconnected", "on_error", "on_message", "on_ack",
    ]  # fmt: skip
    assert arguments(kind.set_app_key) == ["app_key"]
    assert arguments(kind.set_ssl_options)[0] == "cert_path"
    assert arguments(kind.connect) == ["server_hostname", "host", "port", "login_id", "secret_key"]
    assert arguments(kind.send) == ["destination", "message", "content_type"]
    assert inspect.signature(kind.send).parameters["content_type"].default == "text/plain"
    assert arguments(kind.subscribe) == ["destination", "use_regex"]
    for call in (kind.unsubscribe, kind.disconnect, kind.is_connected, kind.version):
        assert arguments(call) == []


@pytest.mark.parametrize(
    ("profile", "destination"),
    [("agent", "/agent/"), ("super agent", "/agent/"), ("service", "/service/"),
     ("admin", "/admin/")],
)  # fmt: skip
def test_each_profile_logs_in(
    start: Callable[[], Program], scheme: str, profile: str, destination: str
) -> None:
    program = start()
    login = f"in-{scheme}-{profile.replace(' ', '')}"
    _, session_id, address, told, connection_id = program.log_in(login, profile)
    assert (address, told) == (destination + login, profile)
    assert session_id
    assert connection_id.isdecimal()
    client = program.client
    assert client.is_connected()
    assert (client.session_id, client.login_id) == (session_id, login)
    assert client.destination_id == address
    assert client.connect("localhost", "127.0.0.1", program.broker.port, "x", "y") is False
    client.disconnect()
    assert program.wait("disconnected") == ("disconnected", session_id)
    assert not client.is_connected()
    assert client.join(20)
    assert "error" not in [event[0] for event in program.events]


def test_by_position_and_a_second_time(start: Callable[[], Program], scheme: str) -> None:
    program = start()
    for times in (1, 2):
        program.client.connect(
            "localhost", "127.0.0.1", str(program.broker.port), f"po-{scheme}",
            PROFILE_KEYS["agent"],
        )  # fmt: skip
        program.wait("connected", times)
        program.client.disconnect()
        program.wait("disconnected", times)


@pytest.mark.parametrize("which", ["application", "profile"])
def test_wrong_keys_come_to_on_error(start: Callable[[], Program], which: str) -> None:
    program = start()
    key = PROFILE_KEYS["agent"]
    if which == "application":
        program.client.set_app_key("wrong-hush")
    else:
        key = "wrong-hush"
    assert program.client.connect("localhost", "127.0.0.1", program.broker.port, "ana", key)
    program.wait("disconnected")
    (error, end) = program.events
    assert error[0] == "error"
    assert error[2] == ("INVALID_APP_KEY" if which == "application" else "INVALID_PROFILE_KEY")
    assert "hush" not in str(error)
    assert end == ("disconnected", "client-1")
    assert not program.client.is_connected()


def test_messages_and_acks(start: Callable[..., Program], scheme: str) -> None:
    ana, bob = start("a"), start("b")
    ana.log_in(f"ma-{scheme}")
    bob.log_in(f"mb-{scheme}")
    number = bob.client.send(f"/agent/ma-{scheme}", "hello world")
    assert bob.wait("ack") == ("ack", number, "OK")
    assert ana.wait("message") == (
        "message", f"mb-{scheme}", f"/agent/mb-{scheme}", "text/plain", "hello world",
    )  # fmt: skip
    ana.client.send(destination=ana.events[-1][2], message="¡sí!", content_type="text/html")
    assert bob.wait("message")[3:] == ("text/html", "¡sí!")


def test_unicode_and_binary_bodies(start: Callable[..., Program], scheme: str) -> None:
    program = start()
    ours = program.log_in(f"ñandú-{scheme}")[2]
    binary = os.urandom(1024 * 1024) + b"\xff\0"
    bodies: list[Any] = ["日本 ¡€😀!\n\n:", "ñ" * 300_000, binary, "", "\0"]
    for count, body in enumerate(bodies, 1):
        program.client.send(ours, body)
        assert program.wait("message", count)[4] == body


def test_an_unknown_destination_comes_to_on_error(
    start: Callable[[], Program], scheme: str
) -> None:
    program = start()
    ours = program.log_in(f"un-{scheme}")[2]
    program.client.send("/agent/nobody", "x")
    assert program.wait("error")[2] == "NO_SUCH_DESTINATION"
    program.client.send(ours, "still here")
    assert program.wait("message")[4] == "still here"


def test_watching_direct_and_by_regex(start: Callable[..., Program], scheme: str) -> None:
    ana, sue, eve = start("a"), start("s"), start("e")
    address = ana.log_in(f"wa-{scheme}")[2]
    sue.log_in(f"ws-{scheme}", "super agent")
    eve.log_in(f"we-{scheme}", "service")
    number = sue.client.subscribe(address, False)
    assert sue.wait("ack") == ("ack", number, "OK")
    number = eve.client.subscribe(f"/agent/wa-{scheme}|/agent/x", use_regex=True)
    assert eve.wait("ack") == ("ack", number, "OK")
    ana.client.send(address, "seen")
    for watcher in (sue, eve):
        assert watcher.wait("message")[1:] == (
            f"wa-{scheme}", address, "text/plain", "seen",
        )  # fmt: skip
    number = sue.client.unsubscribe()
    assert sue.wait("ack", 2) == ("ack", number, "OK")
    ana.client.send(address, "unseen")
    eve.wait("message", 2)
    sue.client.send(f"/agent/ws-{scheme}", "marker")
    assert sue.wait("message", 2)[4] == "marker"


def test_a_refused_subscription_fails_its_ack(start: Callable[[], Program], scheme: str) -> None:
    program = start()
    program.log_in(f"rs-{scheme}", "service")
    for count, (destination, use_regex) in enumerate((("/agent/nobody", 0), ("(", 1)), 1):
        number = program.client.subscribe(destination, use_regex)
        _, transaction, error_desc = program.wait("ack", count)
        assert transaction == number
        assert error_desc != "OK"
    assert program.client.is_connected()


def test_a_takeover_is_told(start: Callable[..., Program], scheme: str) -> None:
    old, new = start("old"), start("new")
    session_id = old.log_in(f"tk-{scheme}")[1]
    assert new.log_in(f"tk-{scheme}")[1] == session_id
    old.wait("disconnected")
    assert [event[0] for event in old.events] == ["connected", "error", "disconnected"]
    assert old.events[1][2] == "NEW_CONNECTION_LOGGED"
    assert old.client.join(20)
    new.client.send(f"/agent/tk-{scheme}", "mine")
    assert new.wait("message")[4] == "mine"
    with pytest.raises(NotConnected):
        old.client.send("/agent/ana", "x")


def test_a_broker_that_drains_is_told(start_broker: StartBroker, scheme: str) -> None:
    broker = start_broker()
    program = Program(broker, scheme)
    program.log_in("ana")
    broker.stop(20)
    program.wait("disconnected")
    assert program.events[1][2] == "DRAINING"
    # The program comes back, if it wants to.
    broker.start_again()
    program.client.connect("localhost", "127.0.0.1", broker.port, "ana", PROFILE_KEYS["agent"])
    program.wait("connected", 2)
    broker.kill()
    program.wait("disconnected", 2)
    assert "lost" in program.wait("error", 2)[1]
    assert program.client.join(20)


def test_each_call_may_be_made_in_a_callback(broker: Broker, scheme: str) -> None:
    program = Program(broker, scheme)
    client = program.client
    done = threading.Event()

    def on_connected(*_: str) -> None:
        assert client.is_connected()
        client.send(client.destination_id, "from a callback")

    def on_message(*_: object) -> None:
        client.subscribe("/topic/a", False)
        client.unsubscribe()
        client.disconnect()

    def on_disconnected(session_id: str) -> None:
        # As programs come back: at once, and from here.
        if not done.is_set():
            done.set()
            connect()

    def connect() -> None:
        client.connect("localhost", "127.0.0.1", broker.port, f"cb-{scheme}", PROFILE_KEYS["agent"])

    client.link_call_back_functions(
        on_connected, on_disconnected, program.on_error, on_message, program.on_ack
    )
    connect()
    wait_until(done.is_set, "the first end")
    # Each connection has its send, subscribe and unsubscribe acknowledged.
    program.wait("ack", 6)
    wait_until(lambda: not client.is_connected(), "the second end")
    assert client.join(20)
    assert program.events == [(kind, number, "OK") for kind, number, _ in program.events]


def test_no_callbacks_are_needed(broker: Broker, scheme: str) -> None:
    client = broker_client("quiet", APPLICATION_KEY)
    if scheme == "tls":
        client.set_ssl_options(str(broker.authority))
    client.connect("localhost", "127.0.0.1", broker.port, f"qt-{scheme}", PROFILE_KEYS["agent"])
    client.send("/agent/nobody", "x")
    client.send(f"/agent/qt-{scheme}", "x")
    client.disconnect()
    assert client.join(20)


@pytest.mark.parametrize(
    ("on_error", "expected"),
    [
        (lambda *told: told, 2),
        (lambda text, code: (text, code), 2),
        (lambda text, code="": (text, code), 2),
        (lambda text: (text,), 1),
        (lambda: (), 0),
    ],
)
def test_on_error_takes_what_it_takes(
    broker: Broker, on_error: Callable[..., tuple[str, ...]], expected: int
) -> None:
    told: list[tuple[str, ...]] = []

    # The wrapper must have the same signature.
    def note(*arguments: str) -> None:
        told.append(on_error(*arguments))

    note.__signature__ = inspect.signature(on_error)  # type: ignore[attr-defined]
    client = broker_client("errors", APPLICATION_KEY)
    client.link_call_back_functions(None, None, note, None, None)
    client.connect("localhost", "127.0.0.1", broker.port, "x", "wrong")
    assert client.join(20)
    assert [len(one) for one in told] == [expected]
    if expected:
        assert "key" in told[0][0]


@pytest.mark.behaviour("callback-contained")
def test_an_exception_in_a_callback_is_logged_and_changes_nothing(
    broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    program = Program(broker, name="faulty")
    program.client.link_call_back_functions(
        program.on_connected, program.on_disconnected, program.on_error, program.on_message,
        lambda *_: 1 // 0,
    )  # fmt: skip
    ours = program.log_in("faulty")[2]
    program.client.send(ours, "1")
    program.client.send(ours, "2")
    program.wait("message", 2)
    program.client.disconnect()
    assert program.client.join(20)
    assert caplog.text.count("ZeroDivisionError") == 2
    assert "faulty: a callback failed" in caplog.text


def test_leaving_in_a_callback_ends_the_connection(broker: Broker) -> None:
    program = Program(broker)
    program.client.link_call_back_functions(
        program.on_connected, program.on_disconnected, program.on_error, lambda *_: sys.exit(0),
        program.on_ack,
    )  # fmt: skip
    ours = program.log_in("leaving")[2]
    program.client.send(ours, "leave")
    program.wait("disconnected")
    assert program.client.join(20)


def test_no_connection_is_an_oserror(broker: Broker) -> None:
    client = Program(broker).client
    with pytest.raises(NotConnected):
        client.send("/agent/ana", "x")
    client.disconnect()
    assert client.join(0)
    assert issubclass(NotConnected, OSError)
    with pytest.raises(OSError, match="is the broker running"):
        client.connect("localhost", "127.0.0.1", 1, "ana", "x")
    with pytest.raises(ValueError, match="login id"):
        client.connect("localhost", "127.0.0.1", broker.port, "", "x")
    assert not client.is_connected()


@pytest.mark.behaviour("certificate-verified")
def test_the_certificate_is_verified(broker: Broker) -> None:
    program = Program(broker)
    arguments = ("127.0.0.1", broker.port, "tls-ana", PROFILE_KEYS["agent"])
    # The system does not know the development authority.
    program.client.set_ssl_options(None)
    with pytest.raises(OSError, match="not trusted"):
        program.client.connect("localhost", *arguments)
    # The authority does; and the server's own certificate is as good.
    for path in (broker.authority, broker.directory / "certs" / "server.pem"):
        program.client.set_ssl_options(str(path))
        with pytest.raises(OSError, match="not made for this host"):
            program.client.connect("elsewhere.example", *arguments)
        assert program.client.connect("localhost", *arguments)
        program.client.disconnect()
        assert program.client.join(20)
    # Without a name, the host's address is what counts.
    assert program.client.connect("", *arguments)
    program.client.disconnect()
    assert program.client.join(20)
    # For certificates that cannot be made anew.
    program.client.set_ssl_options(str(broker.authority), check_hostname=False)
    assert program.client.connect("elsewhere.example", *arguments)
    program.client.disconnect()
    assert program.client.join(20)


def test_a_port_without_tls_is_told(broker: Broker) -> None:
    import socket

    program = Program(broker, "tls")
    answered = b"220 mail.example ESMTP\r\n"
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(answered)
                connection.recv(10_000)

        answering = threading.Thread(target=answer)
        answering.start()
        with pytest.raises(OSError, match="does this port speak it"):
            program.client.connect("localhost", "127.0.0.1", listener.getsockname()[1], "a", "b")
        answering.join()


def test_disconnecting_a_half_open_connection_ends(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_drop_in, "GOODBYE_SECONDS_MAX", 0.2)
    with Proxy(broker.port) as proxy:
        program = Program(broker)
        program.client.connect(
            "localhost", "127.0.0.1", proxy.port, "half-open", PROFILE_KEYS["agent"]
        )
        program.wait("connected")
        proxy.drop_packets()
        program.client.disconnect()
        program.wait("disconnected")
        assert program.client.join(20)
        assert [event[0] for event in program.events] == ["connected", "disconnected"]


def test_who_does_not_read_is_cut(start_broker: StartBroker) -> None:
    broker = start_broker(
        '[limits]\nbody_bytes_max = "128 KiB"\n[limits.outbound.agent]\n'
        'hard_bytes_max = "256 KiB"\nsoft_bytes_max = "128 KiB"\nsoft_ms_max = 200\n'
    )
    slow, fast = Program(broker), Program(broker)
    released = threading.Event()
    slow.client.link_call_back_functions(
        slow.on_connected, slow.on_disconnected, slow.on_error, lambda *_: released.wait(20),
        slow.on_ack,
    )  # fmt: skip
    slow.log_in("slow")
    fast.log_in("fast")
    wait_until(
        lambda: (
            fast.client.send("/agent/slow", b"x" * 100_000)
            and any(event[0] == "error" for event in fast.events)
        ),
        "the broker says that nobody is there any more",
    )
    assert fast.wait("error")[2] == "NO_SUCH_DESTINATION"
    released.set()
    slow.wait("disconnected")
    assert slow.wait("error")[2] == "SLOW_CONSUMER"
    fast.client.disconnect()
    for program in (slow, fast):
        assert program.client.join(20)


def test_a_broker_that_does_not_read_does_not_hold_up_for_ever(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_drop_in, "SEND_SECONDS_MAX", 0.2)
    monkeypatch.setattr(_drop_in, "GOODBYE_SECONDS_MAX", 0.2)
    import socket

    with socket.create_server(("127.0.0.1", 0)) as deaf:
        client = broker_client("deaf", APPLICATION_KEY)
        client.connect("localhost", "127.0.0.1", deaf.getsockname()[1], "ana", "x")

        def send_much() -> None:
            for _ in range(100):
                client.send("/agent/ana", b"x" * 1_000_000)

        with pytest.raises(AnswerTimeout, match="did not read"):
            send_much()
        client.disconnect()
        assert client.join(20)


def test_it_goes_on_when_the_main_thread_has_ended(broker: Broker) -> None:
    """As programs do that only have callbacks."""
    script = f"""
from com_broker import broker_client
client = broker_client("c", {APPLICATION_KEY!r})

def on_message(origin, destination, content_type, payload):
    print(payload, flush=True)
    client.send(destination, payload + "x") if len(payload) < 5 else client.disconnect()

client.link_call_back_functions(
    lambda *told: client.send("/agent/alone", "x"), lambda session_id: print("end"),
    print, on_message, lambda *told: None)
client.connect("localhost", "127.0.0.1", {broker.port}, "alone", {PROFILE_KEYS["agent"]!r})
"""
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, timeout=30
    )
    assert (run.stderr, run.returncode) == ("", 0)
    assert run.stdout.split() == ["x", "xx", "xxx", "xxxx", "xxxxx", "end"]


def test_it_says_what_it_is(broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
    assert Program(broker).client.version().startswith("Communication Broker API V")
    assert logging.getLogger("com_broker").handlers
    assert ssl.OPENSSL_VERSION
