#!/usr/bin/env python3
"""The checks that tests/foreign/run makes with each client; started by it."""

import argparse
import contextlib
import itertools
import json
import os
import re
import ssl
import sys
import time
import traceback
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "scripts"))

import clients  # noqa: E402
from broker import Broker, Fault, Frame, build, connect_frame, frame, run_script  # noqa: E402

# Silence after which the broker pings, short enough to see it happen.
PING_MS = 300
CONFIG = f"""
[limits]
websocket_ping_ms = {PING_MS}
websocket_pong_ms_max = 10000
# Longer than a client may have to wait for the end of an orderly close.
linger_ms_max = 4000
"""


class Room:
    """One check's clients: each check has logins of its own, and its clients go when it ends."""

    numbers = itertools.count(1)

    def __init__(self, broker, make):
        self.broker = broker
        self.make = make
        self.number = next(self.numbers)
        self.stack = contextlib.ExitStack()

    def login(self, name):
        return f"{name}-{self.number}"

    def client(self):
        client = self.make(self.broker)
        self.stack.callback(client.close)
        return client

    def logged_in(self, name, profile="agent"):
        client = self.client()
        client.send(connect_frame(self.login(name), profile))
        client.session = expect(client, "CONNECTED")["session-id"]
        return client


def expect(client, command, **headers):
    data = client.receive()
    if data is None:
        raise Fault(f"{command} was expected, and nothing came")
    received = Frame(data)
    check(received.command == command, f"{command} was expected: {received}")
    for name, value in headers.items():
        name = name.replace("_", "-")
        check(received[name] == value, f"{name}:{value} was expected: {received}")
    return received


def check(truth, otherwise):
    if not truth:
        raise Fault(otherwise)


def check_closed(client):
    started = time.monotonic()
    ending = client.ending()
    check(time.monotonic() - started < 2, "the broker keeps the client waiting for the end")
    check(ending == (1000 if client.is_websocket else "orderly"), f"it ended with {ending}")


# -- the checks: every function is one, named as it is reported -----------------------------------


def login(room):
    client = room.client()
    client.send(connect_frame(room.login("ana")))
    connected = expect(
        client, "CONNECTED", accept_version="1.2", login=room.login("ana"), profile_code="1",
        profile_desc="agent", destination=f"/agent/{room.login('ana')}")
    names = ["accept-version", "session-id", "login", "profile-code", "profile-desc",
             "destination", "connection-id"]
    check(connected.names == names, f"headers in another order: {connected}")


def send_and_ack(room):
    ana, bob = room.logged_in("ana"), room.logged_in("bob")
    bob.send(frame("SEND", {
        "destination": f"/agent/{room.login('ana')}", "transaction": "17",
        "session-id": bob.session, "content-type": "text/plain", "color": "rojo",
    }, "¿qué tal, señora? ☎".encode()))
    message = expect(
        ana, "MESSAGE", transaction="17", session_id=ana.session, origin=room.login("bob"),
        destination=f"/agent/{room.login('bob')}", content_type="text/plain", color="rojo")
    check(message.body.decode() == "¿qué tal, señora? ☎", f"another body: {message}")
    expect(bob, "ACK", transaction="17", session_id=bob.session, error_desc="OK")


def many_messages_in_order(room):
    ana, bob = room.logged_in("ana"), room.logged_in("bob")
    for number in range(200):
        body = f"{number} ".encode() + b"x" * (number * 37)
        bob.send(frame("SEND", {"destination": f"/agent/{room.login('ana')}"}, body))
    for number in range(200):
        body = expect(ana, "MESSAGE").body
        check(body == f"{number} ".encode() + b"x" * (number * 37), f"{number}: {body[:20]}")


def watch(room):
    ana, bob = room.logged_in("ana"), room.logged_in("bob")
    watcher = room.logged_in("soporte", "service")
    watcher.send(frame("SUBSCRIBE", {
        "destination": f"/agent/.*-{room.number}", "destination-type": "1", "transaction": "1"}))
    listed = expect(watcher, "ACK", transaction="1", error_desc="OK").body.decode()
    for name in ("ana", "bob"):
        check(f"]:[/agent/{room.login(name)}]\n" in listed, f"{name} is not listed: {listed}")
    bob.send(frame("SEND", {"destination": f"/agent/{room.login('ana')}"}, b"hola"))
    received, copied = expect(ana, "MESSAGE"), expect(watcher, "MESSAGE")
    check(received.data == copied.data, f"the copy differs: {copied}")
    watcher.send(frame("UNSUBSCRIBE", {"transaction": "2"}))
    expect(watcher, "ACK", transaction="2", error_desc="OK")
    bob.send(frame("SEND", {"destination": f"/agent/{room.login('ana')}", "transaction": "3"}))
    expect(ana, "MESSAGE")
    expect(bob, "ACK", transaction="3")
    check(watcher.receive(0.3) is None, "a copy without a subscription")


def presence(room):
    service = room.logged_in("soporte", "service")
    service.send(frame("SUBSCRIBE", {
        "destination": "STOMP-SERVER", "destination-type": "1", "transaction": "1",
        "destination-id": f"/agent/.*-{room.number}"}))
    expect(service, "ACK", transaction="1", error_desc="OK")
    ana = room.logged_in("ana")
    event = expect(service, "MESSAGE", origin="STOMP-SERVER", event="logged")
    told = json.loads(event.body)
    check((told["login"], told["destination"]) ==
          (room.login("ana"), f"/agent/{room.login('ana')}"), f"another client: {told}")
    ana.send(frame("DISCONNECT"))
    expect(ana, "RECEIPT")
    for word in ("disconnected", "logout"):
        told = json.loads(expect(service, "MESSAGE", event=word).body)
        check(told["reason"] == "logout", f"another reason: {told}")


def patterns_on_letters(room):
    """What docs/protocol.md says of patterns, of a program that was built without what tests need."""
    login = f"peña-{room.number}"
    client = room.client()
    client.send(connect_frame(login))
    expect(client, "CONNECTED", login=login)
    watcher = room.logged_in("soporte", "service")
    for text in [rf"/agent/\p{{L}}+-{room.number}", rf"/agent/pe[nñ]\w-{room.number}",
                 rf"(?i)/agent/PE[NÑ]A-\d+", rf"/agent/\p{{Ll}}+-{room.number}"]:
        watcher.send(frame("SUBSCRIBE", {
            "destination": text, "destination-type": "1", "transaction": "1"}))
        listed = expect(watcher, "ACK", transaction="1", error_desc="OK").body.decode()
        check(f"]:[/agent/{login}]\n" in listed, f"{text} does not match: {listed}")
        watcher.send(frame("UNSUBSCRIBE", {"transaction": "2"}))
        expect(watcher, "ACK", transaction="2", error_desc="OK")
    watcher.send(frame("SUBSCRIBE", {
        "destination": r"/agent/\p{Greek}", "destination-type": "1", "transaction": "3"}))
    expect(watcher, "ACK", transaction="3", error_code="INVALID_REGEX")


def takeover(room):
    older = room.logged_in("ana")
    newer = room.logged_in("ana")
    check(newer.session == older.session, "another session")
    expect(older, "ERROR", error_code="NEW_CONNECTION_LOGGED", retry="never")
    check_closed(older)
    bob = room.logged_in("bob")
    bob.send(frame("SEND", {"destination": f"/agent/{room.login('ana')}"}, b"hola"))
    check(expect(newer, "MESSAGE").body == b"hola", "another body")


def unknown_destination(room):
    ana = room.logged_in("ana")
    ana.send(frame("SEND", {"destination": "/agent/nobody", "transaction": "1"}, b"hola"))
    expect(ana, "ERROR", error_code="NO_SUCH_DESTINATION")
    ana.send(frame("SEND", {
        "destination": f"/agent/{room.login('ana')}", "transaction": "2"}, "a mí".encode()))
    expect(ana, "MESSAGE")
    expect(ana, "ACK", transaction="2", error_desc="OK")


def binary_body(room):
    ana, bob = room.logged_in("ana"), room.logged_in("bob")
    body = bytes(range(256)) * 5 + b"\0\0\n\n\0"
    bob.send(frame("SEND", {
        "destination": f"/agent/{room.login('ana')}", "content-length": len(body),
        "content-type": "application/octet-stream"}, body))
    message = expect(
        ana, "MESSAGE", content_length=str(len(body)), content_type="application/octet-stream")
    check(message.body == body, f"another body: {message}")


def large_body(room):
    ana, bob = room.logged_in("ana"), room.logged_in("bob")
    body = bytes(index * 7 % 251 for index in range(1_000_000))
    bob.send(frame("SEND", {
        "destination": f"/agent/{room.login('ana')}", "content-length": len(body)}, body))
    check(expect(ana, "MESSAGE", content_length="1000000").body == body, "another body")


def ping_from_client(room):
    ana = room.logged_in("ana")
    ana.ping()
    ana.send(frame("SEND", {"destination": f"/agent/{room.login('ana')}"}, b"a mi"))
    expect(ana, "MESSAGE")


def ping_from_broker(room):
    ana = room.logged_in("ana")
    # Longer than silence is allowed, were the pings not answered.
    check(ana.receive(PING_MS / 1000 * 4) is None, "a frame that nobody sent")
    ana.send(frame("SEND", {"destination": f"/agent/{room.login('ana')}"}, b"a mi"))
    expect(ana, "MESSAGE")


def clean_disconnect(room):
    ana = room.logged_in("ana")
    ana.send(frame("DISCONNECT", {"receipt-id": "77"}))
    receipt = expect(ana, "RECEIPT", receipt_id="77", login=room.login("ana"))
    names = ["session-id", "login", "destination", "connection-id", "receipt-id"]
    check(receipt.names == names, f"headers in another order: {receipt}")
    check_closed(ana)


def wrong_key(room):
    client = room.client()
    client.send(connect_frame(room.login("ana"), key="not-the-key"))
    error = expect(client, "ERROR", error_code="INVALID_APP_KEY", retry="never")
    check("not-the-key" not in str(error), f"the key is repeated: {error}")
    check_closed(client)


CHECKS = [login, send_and_ack, many_messages_in_order, watch, presence, patterns_on_letters,
          takeover,
          unknown_destination, binary_body, large_body, clean_disconnect, wrong_key]
WEBSOCKET_CHECKS = [ping_from_client, ping_from_broker]


# -- checks that are not for every client ---------------------------------------------------------


def unknown_authority_is_refused_by_the_client(broker):
    stream = clients.StreamClient(broker).stream
    try:
        ssl.create_default_context().wrap_socket(stream, server_hostname="localhost")
    except ssl.SSLCertVerificationError:
        return
    finally:
        stream.close()
    raise Fault("a certificate of an unknown authority was accepted")


def another_host_name_is_refused_by_the_client(broker):
    stream = clients.StreamClient(broker).stream
    context = ssl.create_default_context(cafile=broker.authority)
    try:
        context.wrap_socket(stream, server_hostname="example.org")
    except ssl.SSLCertVerificationError:
        return
    finally:
        stream.close()
    raise Fault("a certificate for another host was accepted")


def clients_of_all_kinds_meet(broker, kinds):
    with contextlib.ExitStack() as stack:
        logged_in = {}
        for kind in kinds:
            client = clients.CLIENTS[kind](broker)
            stack.callback(client.close)
            client.send(connect_frame(f"meet/{kind}"))
            expect(client, "CONNECTED", destination=f"/agent/meet/{kind}")
            logged_in[kind] = client
        for sender, receiver in itertools.permutations(kinds, 2):
            body = f"{sender} to {receiver}".encode() + b"\xff\0"
            logged_in[sender].send(frame("SEND", {
                "destination": f"/agent/meet/{receiver}", "content-length": len(body)}, body))
            message = expect(logged_in[receiver], "MESSAGE", origin=f"meet/{sender}")
            check(message.body == body, f"another body: {message}")


def the_broker_stops_in_order(broker):
    client = clients.StreamClient(broker)
    client.send(connect_frame("last"))
    expect(client, "CONNECTED")
    code, seconds = broker.stop(10)
    expect(client, "ERROR", error_code="DRAINING", retry="now")
    check_closed(client)
    client.close()
    check(code == 0, f"exit code {code}")
    check(seconds < 6, f"it took {seconds:.1f} s")
    broken = [line for line in broker.log if re.search(r" (ERROR|WARN) |panicked", line)]
    check(not broken, "\n".join(broken))


class Report:
    def __init__(self, only, broker):
        self.broker = broker
        self.only = re.compile(only)
        self.passed = 0
        self.failed = 0

    def run(self, name, act):
        if not self.only.search(name):
            return
        started = time.monotonic()
        try:
            act()
        except Exception as fault:
            self.failed += 1
            why = fault if isinstance(fault, Fault) else traceback.format_exc()
            print(f"FAIL  {name}: {why}\nthe broker's last words:", flush=True)
            for line in list(self.broker.log)[-8:]:
                print(f"  {line}", flush=True)
        else:
            self.passed += 1
            print(f"ok    {name} ({time.monotonic() - started:.2f} s)", flush=True)


def main():
    parser = argparse.ArgumentParser(prog="tests/foreign/run", description=__doc__)
    parser.add_argument("--broker", type=Path)
    parser.add_argument("--only", default="")
    parser.add_argument("--kinds", required=True)
    parser.add_argument("--node-modules", default="")
    arguments = parser.parse_args()
    clients.NodeClient.environment = {**os.environ, "NODE_PATH": arguments.node_modules}
    kinds = arguments.kinds.split(",")
    program = arguments.broker.resolve() if arguments.broker else build()
    with Broker(program, CONFIG) as broker:
        report = Report(arguments.only, broker)
        for kind in kinds:
            make = clients.CLIENTS[kind]
            checks = CHECKS + (WEBSOCKET_CHECKS if make.is_websocket else [])
            for act in checks:
                room = Room(broker, make)

                def enter(act=act, room=room):
                    with room.stack:
                        act(room)

                report.run(f"{kind}: {act.__name__}", enter)
        for act in (unknown_authority_is_refused_by_the_client,
                    another_host_name_is_refused_by_the_client):
            report.run(f"tls: {act.__name__}", lambda act=act: act(broker))
        report.run("all: clients_of_all_kinds_meet", lambda: clients_of_all_kinds_meet(broker, kinds))
        if broker.process.poll() is not None:
            print("\n".join(broker.log))
            raise Fault("the broker died")
        report.run("all: the_broker_stops_in_order", lambda: the_broker_stops_in_order(broker))
    print(f"\n{report.passed} passed, {report.failed} failed", flush=True)
    if report.passed + report.failed == 0:
        raise Fault(f"no check is named {arguments.only}")
    return 1 if report.failed else 0


if __name__ == "__main__":
    run_script("tests/foreign/run", main)
