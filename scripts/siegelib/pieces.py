"""Attacks with pieces: what is small as a whole, cut so small that each piece costs more than it seems to."""

from __future__ import annotations

import itertools
import socket
import ssl
import struct
import time

from broker import connect_frame as classic_connect
from broker import envelope, frame

from .invented import UPGRADE_STANDARD, client_hello, open_websockets, spray
from .stage import Stage, attack
from .wire import connect_frame, open_stream, reset, stomp


def message(data: bytes) -> bytes:
    """A WebSocket message, masked with zeros."""
    return bytes([0x82, 0x80 + len(data)]) + bytes(4) + data


@attack(
    "lines-torn", "4 agents (WebSocket)",
    "valid SENDs with 250 header lines, each line in a WebSocket message of its own")
def lines_torn(stage: Stage) -> None:
    streams = open_websockets(stage, 4)
    lines = [b"SEND\n", b"destination:/agent/nobody\n", *[b"a:\n"] * 247, b"\n\0"]
    stage.begin()
    spray(stage, streams, b"".join(map(message, lines)) * 100)


@attack(
    "lines-torn-malformed", "anybody (WebSocket)",
    "20 at once who are not logged in each send a malformed CONNECT of 3,900 header lines, each line in a WebSocket "
    "message of its own, in one write of 31 kB, and come again", short=True)
def lines_torn_malformed(stage: Stage) -> None:
    begun = message(b"CONNECT\nx\n") + message(b"a\n") * 3_900
    stage.begin()
    while stage.is_on():
        streams = [open_stream(stage.port) for _ in range(20)]
        for stream in streams:
            stream.sendall(UPGRADE_STANDARD)
            stream.recv(4096)
        for stream in streams:
            stage.counts["writes"] += stage.push(stream, begun)
        time.sleep(0.5)
        for stream in streams:
            reset(stream)


@attack(
    "lines-dripping", "200 agents",
    "each begins a malformed frame with 7,500 header lines of one letter, and lets one line more arrive at a time")
def lines_dripping(stage: Stage) -> None:
    begun = b"SEND\nx\n" + b"a\n" * 7_500
    stage.begin()
    for number in itertools.count():
        if not stage.is_on():
            return
        streams = stage.crowd(200, f"dripping-{number}-")
        for stream in streams:
            stage.push(stream, begun)
        for _ in range(600):
            drop(stage, streams, b"a\n")
        for stream in streams:
            stage.streams.remove(stream)
            stage.sink.remove(stream)
            reset(stream)


def drop(stage: Stage, streams: list[socket.socket], piece: bytes) -> None:
    """Sends a piece to each of them that takes it."""
    for stream in streams:
        if not stage.is_on():
            return
        try:
            stage.counts["pieces"] += stream.send(piece) // len(piece)
        except OSError:
            continue


@attack(
    "levels-refused", "agent (classic)",
    "SUBSCRIBE to wildcards of 2,000 levels, the last but one of which is empty, each of which is refused")
def levels_refused(stage: Stage) -> None:
    streams = stage.join([envelope(classic_connect("levels"))])
    name = "/topic/*" + "/a" * 1_980 + "//b"
    one = envelope(frame("SUBSCRIBE", {"destination": name, "destination-type": 0}))
    stage.begin()
    spray(stage, streams, one * 20)


@attack(
    "light-crowd", "2,000 agents",
    "each sends 4 KiB of the smallest SENDs whenever it may, after 70 that were alone, so that it counts among those "
    "that need little")
def light_crowd(stage: Stage) -> None:
    streams = stage.crowd(stage.pick(2_000, 500), "light-")
    one = stomp("SEND", {"destination": "/agent/z"})
    for stream in streams:
        stream.setblocking(False)
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    for _ in range(70):
        drop(stage, streams, one)
        time.sleep(0.01)
    stage.begin()
    while stage.is_on():
        drop(stage, streams, one * 140)


@attack(
    "heads-bursts", "agent (STOMP)",
    "bursts of 400 kB of SENDs of 1,900 bytes to a topic with 25 subscribers, each of which has an id of its own, so "
    "that the message is put together for each of them")
def heads_bursts(stage: Stage) -> None:
    for number, stream in enumerate(stage.crowd(25, "head-")):
        stream.sendall(stomp("SUBSCRIBE", {"id": f"own-{number}", "destination": "/topic/heads"}))
    sender = stage.client("bursts")
    one = stomp("SEND", {"destination": "/topic/heads"}, b"x" * 1_900)
    burst = one * (400_000 // len(one))
    stage.begin()
    while stage.is_on():
        stage.counts["bursts"] += stage.push(sender.stream, burst)
        time.sleep(0.02)


@attack(
    "tls-unread", "1,500 agents (TLS)",
    "each subscribes to one topic and does not read; an agent sends 100 messages of 8 kB there: what TLS has encrypted "
    "for them is of each alone")
def tls_unread(stage: Stage) -> None:
    trust = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trust.check_hostname = False
    trust.verify_mode = ssl.CERT_NONE
    for number in range(stage.pick(1_500, 300)):
        plain = open_stream(stage.port, f"127.{2 + number % 20}.0.1", receive_buffer=4096)
        stream = trust.wrap_socket(plain)
        stage.streams.append(stream)
        stream.sendall(
            connect_frame(f"deaf-{number}") +
            stomp("SUBSCRIBE", {"id": 0, "destination": "/topic/deaf", "receipt": "r"}))
        read = b""
        while b"RECEIPT" not in read:
            read += stream.recv(4096)
    sender = stage.client("loud")
    stage.begin()
    stage.counts["messages"] += stage.push(
        sender.stream, stomp("SEND", {"destination": "/topic/deaf"}, b"x" * 8_000), 100)
    stage.linger()


def large_hello(length: int) -> bytes:
    """The beginning of a ClientHello that says it is long."""
    return b"\x01" + struct.pack(">I", length)[1:] + b"\x03\x03" + bytes(length)


def greet(stage: Stage, data: bytes, count: int) -> None:
    """Sends the same on so many new connections at once, from ever other addresses."""
    stage.begin()
    for number in itertools.count():
        if not stage.is_on():
            return
        streams = [open_stream(stage.port, f"127.{2 + number % 200}.0.1") for _ in range(count)]
        for stream in streams:
            stage.counts["whole"] += stage.push(stream, data)
        time.sleep(0.05)
        for stream in streams:
            reset(stream)


@attack(
    "hello-crumbs", "anybody (TLS)",
    "64 kB of a ClientHello in TLS records of one byte each, on 40 new connections at once, again and again")
def hello_crumbs(stage: Stage) -> None:
    hello = large_hello(65_000)
    data = b"".join(b"\x16\x03\x01\0\1" + hello[at:at + 1] for at in range(10_900))
    greet(stage, data, 40)


@attack(
    "hellos-held", "anybody (TLS)",
    "3,000 connections, each with 60 kB of a ClientHello that does not end")
def hellos_held(stage: Stage) -> None:
    hello = large_hello(65_000)
    data = b"".join(
        b"\x16\x03\x01" + struct.pack(">H", 15_000) + hello[at:at + 15_000]
        for at in range(0, 60_000, 15_000))
    stage.begin()
    for number in range(stage.pick(3_000, 500)):
        stream = open_stream(stage.port, f"127.{2 + number % 20}.0.1")
        stage.streams.append(stream)
        stage.counts["whole"] += stage.push(stream, data)
    stage.linger()


@attack(
    "hello-lists", "anybody (TLS)",
    "ClientHellos of 15 kB with 7,000 names of protocols of one letter, on 20 new connections at once, again and again")
def hello_lists(stage: Stage) -> None:
    data = client_hello(7_000)
    greet(stage, data, 20)


@attack(
    "aborts-lined", "7 agents",
    "each fills a transaction with 60 SENDs of 131 kB, 7.5 MiB, and then all ABORT in the same moment")
def aborts_lined(stage: Stage) -> None:
    streams = stage.crowd(7, "trader-")
    send = stomp("SEND", {"destination": "/topic/nobody", "transaction": "t"}, b"x" * 131_200)
    begun = stomp("BEGIN", {"transaction": "t"}) + send * 60
    stage.begin()
    while stage.is_on():
        for stream in streams:
            stage.push(stream, begun)
            # The pair is on this core, too.
            time.sleep(0.03)
        time.sleep(0.05)
        for stream in streams:
            stage.counts["aborted"] += stage.push(stream, stomp("ABORT", {"transaction": "t"}))
        time.sleep(0.05)


@attack(
    "claims-many", "7 agents",
    "each fills a transaction with 16,800 SENDs to topics that do not exist, no two of them alike, and then all COMMIT "
    "in the same moment")
def claims_many(stage: Stage) -> None:
    streams = stage.crowd(7, "claimant-")
    begun = [
        stomp("BEGIN", {"transaction": "t"}) + b"".join(
            stomp("SEND", {"destination": f"/topic/{agent}/{number}", "transaction": "t"})
            for number in range(16_800))
        for agent in range(len(streams))]
    stage.begin()
    while stage.is_on():
        for stream, frames in zip(streams, begun):
            stage.push(stream, frames)
        time.sleep(0.25)
        for stream in streams:
            stage.counts["committed"] += stage.push(stream, stomp("COMMIT", {"transaction": "t"}))
        time.sleep(0.25)


@attack(
    "words-many", "4 agents",
    "240 wildcards each of 62 levels, no two levels alike, subscribed and given up, again and again")
def words_many(stage: Stage) -> None:
    agents = [stage.client(f"words-{number}") for number in range(4)]
    names = [
        [
            f"/topic/*/{'/'.join(f'{agent}-{number}-{level}' for level in range(60))}"
            for number in range(240)]
        for agent in range(len(agents))]
    stage.begin()
    while stage.is_on():
        for number in range(240):
            for agent, client in enumerate(agents):
                client.send(
                    stomp("SUBSCRIBE", {"id": number, "destination": names[agent][number]}))
        if not all(stage.ask(client) for client in agents):
            return
        for number in range(240):
            for client in agents:
                client.send(stomp("UNSUBSCRIBE", {"id": number}))
        if not all(stage.ask(client) for client in agents):
            return
        stage.counts["rounds"] += 1
