"""stomp.py from PyPI. Usage: stomp_py.py 1.0|1.1|1.2 tcp|tls|ws|wss

Like every program here it makes the checks that suite.py lists and prints a line for each.
"""

import importlib.metadata
import os
import queue
import sys
import threading
import time

import stomp

VERSION, TRANSPORT = sys.argv[1:]
HOST, PORT = "localhost", int(os.environ["BROKER_PORT"])
LOGIN = os.environ["BROKER_LOGIN"]
KEYS = os.environ["BROKER_KEYS"]
PATIENCE = 20


class Listener(stomp.ConnectionListener):
    def __init__(self):
        self.frames = {kind: queue.Queue() for kind in ("connected", "message", "receipt", "error")}
        self.beats = 0
        self.disconnected = threading.Event()

    def on_connected(self, frame):
        self.frames["connected"].put(frame)

    def on_message(self, frame):
        self.frames["message"].put(frame)

    def on_receipt(self, frame):
        self.frames["receipt"].put(frame)

    def on_error(self, frame):
        self.frames["error"].put(frame)

    def on_heartbeat(self):
        self.beats += 1

    def on_disconnected(self):
        self.disconnected.set()

    def next(self, kind):
        try:
            return self.frames[kind].get(timeout=PATIENCE)
        except queue.Empty:
            raise AssertionError(f"no {kind}") from None


def open_connection(beats=(0, 0)):
    make = {"1.0": stomp.Connection10, "1.1": stomp.Connection11, "1.2": stomp.Connection12}
    options = {"reconnect_attempts_max": 1, "auto_decode": False}
    if TRANSPORT in ("ws", "wss"):
        make = {"1.2": stomp.WSConnection}
    if VERSION != "1.0":
        options["heartbeats"] = beats
    connection = make[VERSION]([(HOST, PORT)], **options)
    if TRANSPORT in ("tls", "wss"):
        connection.set_ssl([(HOST, PORT)], ca_certs=os.environ["BROKER_CA"])
    listener = Listener()
    connection.set_listener("", listener)
    return connection, listener


def log_in(check, beats=(0, 0)):
    connection, listener = open_connection(beats)
    connection.connect(f"{LOGIN}-{check}", KEYS, wait=True)
    return connection, listener


def leave(connection):
    # With a receipt of one's own the library waits until it has sent what is queued.
    connection.disconnect(receipt="bye")


def address(check):
    return f"/{{}}/{LOGIN}-{check}"


def expect(truth, otherwise):
    if not truth:
        raise AssertionError(otherwise)


def body_of(frame):
    return frame.body if isinstance(frame.body, bytes) else frame.body.encode()


def expect_body(listener, body):
    frame = listener.next("message")
    expect(body_of(frame) == body, f"{body[:40]} was expected: {str(frame.body)[:200]}")
    return frame


def acknowledge(connection, frame, verb="ack"):
    act = getattr(connection, verb)
    if VERSION == "1.0":
        act(frame.headers["message-id"], receipt=verb)
    elif VERSION == "1.1":
        act(frame.headers["message-id"], "1", receipt=verb)
    else:
        act(frame.headers["ack"], receipt=verb)


def expect_receipt(listener, name):
    frame = listener.next("receipt")
    expect(frame.headers["receipt-id"] == name, f"a receipt for {name} was expected: {frame}")
    return frame


# -- the checks -----------------------------------------------------------------------------------


def connect():
    connection, listener = log_in("connect")
    headers = listener.next("connected").headers
    expect(headers["version"] == VERSION, f"another version: {headers}")
    expect(headers["destination"] == f"/agent/{LOGIN}-connect", f"another address: {headers}")
    expect(headers["session"], "no session")
    leave(connection)


def subscribe_and_send():
    connection, listener = log_in("subscribe_and_send")
    topic, own = address("topic").format("topic"), address("subscribe_and_send").format("agent")
    connection.subscribe(topic, id="1")
    connection.subscribe(own, id="2")
    for destination, subscription in ((topic, "1"), (own, "2")):
        # STOMP 1.0 escapes nothing.
        color = "rojo" if VERSION == "1.0" else "x\\y:z\nw"
        connection.send(destination, "¿qué tal, señora? ☎", headers={"color": color})
        headers = expect_body(listener, "¿qué tal, señora? ☎".encode()).headers
        expect(headers["destination"] == destination, f"another destination: {headers}")
        expect(headers["subscription"] == subscription, f"another subscription: {headers}")
        expect(headers["origin-destination"] == own, f"another origin: {headers}")
        expect(headers["color"] == color, f"another color: {headers}")
    connection.send(topic, "x" * 300_000)
    expect_body(listener, b"x" * 300_000)
    # Over WebSocket the library sends text only.
    if TRANSPORT in ("tcp", "tls"):
        data = bytes(range(256)) * 3
        connection.send(topic, data)
        expect_body(listener, data)
    connection.unsubscribe(destination=topic, id="1")
    leave(connection)


def receipt():
    connection, listener = log_in("receipt")
    own = address("receipt").format("agent")
    connection.subscribe(own, id="1", receipt="a:1")
    expect_receipt(listener, "a:1")
    connection.send(own, "hola", receipt="2")
    expect(expect_receipt(listener, "2").headers["delivered"] == "1", "not delivered")
    connection.send("/agent/nobody", "hola", receipt="3")
    expect(expect_receipt(listener, "3").headers["delivered"] == "0", "delivered to nobody")
    leave(connection)


def ack():
    connection, listener = log_in("ack")
    name = address("ack").format("queue")
    mode = "client" if VERSION == "1.0" else "client-individual"
    connection.subscribe(name, id="1", ack=mode, headers={"prefetch-count": "1"})
    connection.send(name, "first")
    connection.send(name, "second")
    acknowledge(connection, expect_body(listener, b"first"))
    expect_body(listener, b"second")
    expect_receipt(listener, "ack")
    connection.unsubscribe(destination=name, id="1")
    connection.subscribe(name, id="1", ack=mode)
    frame = expect_body(listener, b"second")
    expect(frame.headers.get("redelivered") == "true", f"not marked: {frame.headers}")
    acknowledge(connection, frame)
    expect_receipt(listener, "ack")
    leave(connection)


def nack():
    connection, listener = log_in("nack")
    name = address("nack").format("queue")
    connection.subscribe(name, id="1", ack="client-individual")
    connection.send(name, "hola")
    acknowledge(connection, expect_body(listener, b"hola"), "nack")
    frame = expect_body(listener, b"hola")
    expect(frame.headers.get("redelivered") == "true", f"not marked: {frame.headers}")
    expect_receipt(listener, "nack")
    acknowledge(connection, frame)
    expect_receipt(listener, "ack")
    leave(connection)


def transaction():
    connection, listener = log_in("transaction")
    topic = address("transaction").format("topic")
    connection.subscribe(topic, id="1")
    connection.begin("t1")
    connection.send(topic, "inside", transaction="t1")
    connection.send(topic, "outside")
    expect_body(listener, b"outside")
    connection.commit("t1")
    expect_body(listener, b"inside")
    connection.begin("t2")
    connection.send(topic, "aborted", transaction="t2")
    connection.abort("t2")
    connection.send(topic, "last")
    expect_body(listener, b"last")
    leave(connection)


def heart_beat():
    connection, listener = log_in("heart_beat", (1000, 1000))
    expect(listener.next("connected").headers["heart-beat"] == "1000,1000", "no beats agreed")
    listener.beats = 0
    expect(not listener.disconnected.wait(4.5), "the idle connection was lost")
    expect(listener.beats >= 3, f"{listener.beats} beats seen")
    own = address("heart_beat").format("agent")
    connection.subscribe(own, id="1")
    connection.send(own, "hola")
    expect_body(listener, b"hola")
    leave(connection)


def disconnect():
    connection, listener = log_in("disconnect")
    connection.disconnect(receipt="77")
    expect_receipt(listener, "77")
    expect(listener.disconnected.wait(PATIENCE), "the end is not seen")
    expect(listener.frames["error"].empty(), "an ERROR was seen")


def wrong_key():
    connection, listener = open_connection()
    try:
        connection.connect(f"{LOGIN}-wrong_key", "my_app_secret_key.wrong", wait=True)
    except stomp.exception.ConnectFailedException:
        pass
    else:
        raise AssertionError("logged in with a wrong key")
    headers = listener.next("error").headers
    expect(headers["error-code"] == "INVALID_PROFILE_KEY", f"another error: {headers}")
    expect(headers["retry"] == "never", f"another error: {headers}")
    # Over TLS stomp.py 9 takes the end of the stream for "nothing yet", and never notices it.
    if TRANSPORT != "tls":
        expect(listener.disconnected.wait(PATIENCE), "the broker does not close")


def main():
    print("version", importlib.metadata.version("stomp.py"))
    checks = [connect, subscribe_and_send, receipt, ack, transaction, disconnect, wrong_key]
    if VERSION != "1.0":
        checks += [nack, heart_beat]
    for check in checks:
        started = time.monotonic()
        try:
            check()
        except Exception as fault:  # whatever the library raises is the reason
            print(f"FAILED {check.__name__}: {type(fault).__name__}: {fault}", flush=True)
        else:
            print(f"ok {check.__name__} ({time.monotonic() - started:.2f} s)", flush=True)


main()
