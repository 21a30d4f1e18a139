"""Further attacks, with nothing but what a client is allowed within default limits."""

from __future__ import annotations

import collections
import contextlib
import itertools
import os
import signal
import socket
import ssl
import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path

from broker import UPGRADE, Fault, masked

from .seen import (
    BODY_MAX, make_topics, read_ids, send, subscribe, subscribe_costly, subscribe_many)
from .stage import MEMORY, TURN, Stage, attack
from .wire import Client, Refused, connect_frame, log_in_crowd, open_stream, reset, stomp

# STOMP over WebSocket, in its standard dialect.
UPGRADE_STANDARD = UPGRADE.replace(b": stomp\r\n", b": v12.stomp\r\n")


@attack(
    "login-storm", "anybody", "logs in 100 clients at once, resets them all, and again", for_peers=True)
def login_storm(stage: Stage) -> None:
    stage.begin()
    storm(stage)


@attack(
    "presence-storm", "100 services, anybody",
    "the same, while each of the services watches presence by five regular expressions and reads",
    short=True)
def presence_storm(stage: Stage) -> None:
    streams = stage.crowd(stage.pick(100, 30), "watching-", "service")
    watches = b"".join(
        stomp("SUBSCRIBE", {"id": number, "destination": "STOMP-SERVER", "destination-id": text})
        for number, text in enumerate([".*", "/agent/.*", ".*storm.*", ".*[0-9]", "/a.*"]))
    for stream in streams:
        stage.push(stream, watches)
    stage.begin()
    storm(stage)


def storm(stage: Stage) -> None:
    """Logs in and goes, from changing addresses, so that ports do not run out."""
    for number in itertools.count():
        if not stage.is_on():
            return
        connects = [stage.speech.connect(f"storm-{number}-{one}") for one in range(100)]
        try:
            streams = log_in_crowd(
                stage.port, connects, patience=stage.left() + 1, first_source=2 + number % 200,
                is_welcome=stage.speech.is_welcome)
        except (Refused, OSError, Fault) as fault:
            stage.errors[str(fault)] += 1
            continue
        stage.counts["logins"] += len(streams)
        for stream in streams:
            reset(stream)


@attack(
    "takeovers", "200 agents",
    "each with 1,000 subscriptions is taken over by itself ten times, with `resume:true` and "
    "without, in turn")
def takeovers(stage: Stage) -> None:
    names = [f"/topic/taken/{number}" for number in range(999)]
    count = stage.pick(200, 40)
    logins = [f"taken-{number}" for number in range(count)]
    streams = stage.join([connect_frame(login) for login in logins])
    everything = subscribe_many(names)
    for stream in streams:
        stage.push(stream, everything)
    stage.ask(stage.client("asker"))
    stage.begin()
    for number in range(10):
        if not stage.is_on():
            break
        keeps = "true" if number % 2 == 0 else "false"
        streams = stage.join([connect_frame(login, resume=keeps) for login in logins])
        stage.counts["takeovers"] += count
        if keeps == "false":
            for stream in streams:
                stage.push(stream, everything)


@attack(
    "one-topic", "30 agents",
    "each subscribes 1,000 times to one and the same topic and unsubscribes, again and again", short=True)
def one_topic(stage: Stage) -> None:
    streams = stage.crowd(stage.pick(30, 10), "same-")
    come = subscribe_many(["/topic/same"] * 1_000)
    go = b"".join(stomp("UNSUBSCRIBE", {"id": number}) for number in range(1_000))
    stage.begin()
    while stage.is_on():
        for stream in streams:
            stage.counts["rounds"] += stage.push(stream, come + go)


@attack(
    "wildcard-churn", "agent",
    "subscribes to a wildcard of 10,000 topics and unsubscribes, as fast as it is taken",
    for_peers=True, short=True)
def wildcard_churn(stage: Stage) -> None:
    client = stage.visitor("churning")
    make_topics(stage, client, 9_990)
    once = stage.speech.subscribe(1, "many/*") + stage.speech.unsubscribe(1, "many/*")
    stage.sink.add(client.stream)
    stage.begin()
    stage.counts["rounds"] = 10 * stage.push(client.stream, once * 10, 1_000_000)


@attack(
    "websocket-crumbs", "20 agents",
    "SENDs over WebSocket in fragments of one byte, an empty fragment and a ping between any two")
def websocket_crumbs(stage: Stage) -> None:
    streams = open_websockets(stage, 20)
    ping = b"\x89\x80" + bytes(4)
    message = send("/agent/nobody", b"x" * 200)
    empty = b"\0\x80" + bytes(4)
    parts = [bytes([0 if at else 2, 0x81]) + bytes(4) + message[at:at + 1] + empty + ping
             for at in range(len(message) - 1)]
    crumbs = b"".join([*parts, b"\x80\x81" + bytes(4) + message[-1:]])
    stage.begin()
    spray(stage, streams, crumbs * 20)


@attack("ping-flood", "20 agents", "pings of 125 bytes over WebSocket, the pongs not read")
def ping_flood(stage: Stage) -> None:
    streams = open_websockets(stage, 20)
    stage.begin()
    spray(stage, streams, (b"\x89\xfd" + bytes(4) + b"p" * 125) * 1_000)


def open_websockets(stage: Stage, count: int) -> list[socket.socket]:
    """Clients of the standard dialect over WebSocket, logged in; what comes is not read."""
    streams = []
    for number in range(count):
        stream = open_stream(stage.port)
        stream.sendall(UPGRADE_STANDARD + masked(connect_frame(f"web-{number}"), 2))
        answer = b""
        while b"CONNECTED" not in answer:
            answer += stream.recv(4096)
        streams.append(stream)
    stage.streams += streams
    return streams


SEND_BUFFER = 32 << 10


def spray(stage: Stage, streams: list[socket.socket], data: bytes) -> None:
    """Sends the same to all of them, whoever takes it, until the time is over or all are cut."""
    at = [0] * len(streams)
    alive = set(range(len(streams)))
    for stream in streams:
        stream.setblocking(False)
        # What waits on the side of the sender is on another machine as a rule; here it would use up what the kernel
        # has for all sockets, which then drops what the pair sends.
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
    while stage.is_on() and alive:
        is_blocked = True
        for number in list(alive):
            try:
                sent = streams[number].send(data[at[number]:])
            except BlockingIOError:
                continue
            except OSError:
                alive.discard(number)
                stage.counts["cut"] += 1
                continue
            is_blocked = False
            at[number] = (at[number] + sent) % len(data)
            stage.counts["bytes"] += sent
        if is_blocked:
            time.sleep(0.001)


@attack(
    "tls-rush", "anybody",
    "the same ClientHello from one new connection after another, 500 open at once: each costs the "
    "broker a signature, and the client nothing")
def tls_rush(stage: Stage) -> None:
    hello = client_hello()
    stage.begin()
    pending: list[socket.socket] = []
    for number in itertools.count():
        if not stage.is_on():
            break
        try:
            source = f"127.{2 + number // 20_000}.0.1"
            stream = open_stream(stage.port, source, patience=stage.left())
            stream.sendall(hello)
        except OSError:
            continue
        pending.append(stream)
        stage.counts["handshakes"] += 1
        if len(pending) >= 500:
            for one in pending[:250]:
                reset(one)
            del pending[:250]
    stage.streams += pending


@attack(
    "places-held", "anybody",
    "all places there are (with `connections_max` 4,000) are held by connections that say nothing, and ever new ones "
    "come: from one address, then from 200, and then from that of the guest, as through a proxy",
    config="[limits]\nconnections_max = 4_000\n")
def places_held(stage: Stage) -> None:
    held: collections.deque[socket.socket] = collections.deque()
    begun = 0.0
    while not begun or stage.is_on():
        if len(held) >= 4_500 and not begun:
            stage.begin()
            begun = time.monotonic()
        phase = int(3 * (time.monotonic() - begun) / stage.seconds) if begun else 0
        number = 1 + stage.counts["connections"] % 200
        source = ("127.9.0.1", f"127.9.1.{number}", "127.0.0.1")[min(phase, 2)]
        if len(held) < 4_900:
            try:
                held.append(open_stream(stage.port, source, patience=5))
                held[-1].setblocking(False)
                stage.counts["connections"] += 1
            except OSError as fault:
                stage.errors[type(fault).__name__] += 1
        for _ in range(2):
            if held and has_ended(held[0]):
                held.popleft().close()
            else:
                held.rotate(-1)
    stage.streams += held


def has_ended(stream: socket.socket) -> bool:
    """Whether the other end of one that gets nothing else has ended it."""
    try:
        stream.recv(1)
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True


def client_hello(protocols: int = 0) -> bytes:
    """The first bytes of a TLS client, with the names of so many protocols."""
    context = ssl.create_default_context()
    if protocols:
        context.set_alpn_protocols(["a"] * protocols)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    with contextlib.suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


@attack(
    "dripping-headers", "500 agents",
    "each sends a frame with 16 KiB of header lines, 8 bytes at a time, again and again")
def dripping_headers(stage: Stage) -> None:
    streams = stage.crowd(stage.pick(500, 100), "drip-")
    lines = "".join(f"h{number:03}:{'v' * 56}\n" for number in range(240))
    message = f"SEND\ndestination:/agent/nobody\n{lines}\n\0".encode()
    # All but the last bytes at once: then the dripping is where there is most to look at again.
    for stream in streams:
        stage.push(stream, message[:-2_000])
    stage.begin()
    for at in itertools.cycle(range(len(message) - 2_000, len(message), 8)):
        for stream in streams:
            if at == len(message) - 2_000 and stage.counts["drops"] >= 250 * len(streams):
                stage.push(stream, message[:-2_000])
            stage.push(stream, message[at:at + 8])
        stage.counts["drops"] += len(streams)
        if not stage.is_on():
            break


@attack(
    "receipts-unread", "20 agents", "SENDs to nobody with receipts of 8 KiB, the answers not read")
def receipts_unread(stage: Stage) -> None:
    streams = stage.crowd(20, "deaf-", receive_buffer=4096, reads=False)
    stage.begin()
    spray(stage, streams, send("/agent/nobody", receipt="r" * 8_000) * 16)


@attack(
    "nack-loop", "super agent, agent",
    "a queue with 20,000 messages whose consumer refuses all that it gets, the youngest first")
def nack_loop(stage: Stage) -> None:
    consumer = stage.client("refusing", "super agent")
    sender = stage.client("sender")
    stage.ask(sender, send("/queue/refused", b"x" * 100) * stage.pick(20_000, 5_000))
    consumer.send(subscribe(1, "/queue/refused", ack="client-individual"))
    stage.begin()
    while stage.is_on():
        consumer.stream.settimeout(stage.left())
        try:
            ids = read_ids(consumer, 500)
        except (OSError, Refused):
            break
        stage.push(consumer.stream, b"".join(stomp("NACK", {"id": one}) for one in reversed(ids)))
        stage.counts["nacks"] += len(ids)
        if stage.counts["nacks"] % 20_000 < 500:
            stage.push(sender.stream, send("/queue/refused", b"x" * 100) * 2_000)


@attack(
    "large-commit", "agent",
    "transactions of 20,000 SENDs to a topic with 100 subscribers who read, done by one COMMIT each")
def large_commit(stage: Stage) -> None:
    for stream in stage.crowd(100, "committed-"):
        stage.push(stream, subscribe(1, "/topic/commit"))
    client = stage.client("committing")
    begun = stomp("BEGIN", {"transaction": "t"}) + send(
        "/topic/commit", transaction="t") * stage.pick(20_000, 5_000)
    stage.begin()
    while stage.ask(client, begun + stomp("COMMIT", {"transaction": "t"})):
        stage.counts["commits"] += 1


@attack(
    "deep-wildcards", "4 agents",
    "960 wildcards of sixty levels, and SENDs to ever new topics of 2,000 levels")
def deep_wildcards(stage: Stage) -> None:
    for owner in range(4):
        client = stage.client(f"deep-{owner}")
        stage.ask(client, subscribe_many(
            ["/topic/" + "*/" * 58 + f"{owner}-{number}/>" for number in range(240)]))
    tail = "/a" * 1_990
    stage.begin()
    for start in itertools.count(0, 50):
        batch = b"".join(send(f"/topic/{start + one}{tail}") for one in range(50))
        if not stage.push(client.stream, batch):
            break
        stage.counts["topics"] += 50


@attack(
    "hostile-regexes", "super agent",
    "regular expressions as costly to compile as they may be, subscribed and given up again", short=True)
def hostile_regexes(stage: Stage) -> None:
    client = stage.client("expressive", "super agent")
    texts = [
        "(" * 60 + "a" + "{1,2})" * 60, "(\\p{L}{1,8}){1,20}", "[^\\p{Lu}\\p{Nd}]{30}|x",
        "(a|b|c|d|e|f|.*){1,30}", "(?:[a-y]{1,9}z){1,40}"]
    stage.begin()
    rounds = b"".join(
        subscribe(number, text, destination_type=1) + stomp("UNSUBSCRIBE", {"id": number})
        for number, text in enumerate(accepted(stage, map(escape, texts))))
    stage.counts["subscribed"] = 20 * stage.push(client.stream, rounds * 20, 10_000)


def escape(text: str) -> str:
    """A value as STOMP 1.2 writes it."""
    return text.replace("\\", "\\\\").replace(":", "\\c")


def accepted(stage: Stage, texts: Iterable[str]) -> list[str]:
    """Those that the broker takes: one that it does not ends the connection."""
    taken = []
    for number, text in enumerate(texts):
        try:
            probe = stage.client(f"probe-{number}", "super agent", patience=stage.left() + 5)
            probe.ask("SUBSCRIBE", {"id": 1, "destination": text, "destination-type": 1})
            taken.append(text)
        except (Refused, OSError) as fault:
            stage.errors[str(fault)] += 1
    return taken or ["/agent/x{1000}"]


@attack(
    "regexes-refused", "super agents",
    "log in, subscribe to a regular expression that is compiled for long before it is too large, are "
    "cut, and come again")
def regexes_refused(stage: Stage) -> None:
    # Each counts on its own; the largest stand at the end.
    text = "".join(f"(\\p{{L}}{{{number}}})" for number in range(60, 130))
    ask = subscribe(1, escape(text[:1_000].rsplit("(", 1)[0]), destination_type=1)
    stage.begin()
    for number in itertools.count():
        if not stage.is_on():
            break
        connects = [
            connect_frame(f"again-{number}-{one}", "super agent") + ask for one in range(20)]
        try:
            streams = log_in_crowd(
                stage.port, connects, patience=stage.left() + 5, first_source=2 + number % 200)
        except (Refused, OSError) as fault:
            stage.errors[str(fault)] += 1
            continue
        stage.counts["asked"] += len(streams)
        for stream in streams:
            stream.settimeout(stage.left())
            try:
                while stream.recv(4096):
                    pass
            except OSError:
                pass
            reset(stream)


@attack(
    "expiring", "5 agents",
    "100,000 messages to one queue that all expire in the same millisecond, then one SEND more: all "
    "go at once")
def expiring(stage: Stage) -> None:
    clients = [stage.client(f"expiring-{number}") for number in range(5)]
    client = clients[0]
    count = stage.pick(20_000, 6_000)
    stage.begin()
    for number in itertools.count():
        queue = f"/queue/expiring-{number}"
        at = round(time.time() * 1000) + 2_000
        if not all([stage.ask(one, send(queue, expires=at) * count) for one in clients]):
            break
        stage.linger(partial(has_passed, at + 5))
        # A consumer finds them all expired where the queue is not full.
        if stage.quick:
            consumer = stage.client(f"consumer-{number}", "super agent", patience=stage.left() + 5)
            stage.push(consumer.stream, subscribe(1, queue))
        stage.ask(client, send(queue))
        stage.counts["rounds"] += 1


def has_passed(at_ms: int) -> bool:
    return time.time() * 1000 > at_ms


@attack(
    "many-lines", "10 agents",
    "SENDs with 256 header lines that need a second look each, to a topic with subscribers of all "
    "versions")
def many_lines(stage: Stage) -> None:
    for version in ("1.0", "1.1", "1.2"):
        connects = [connect_frame(f"lines-{version}-{one}", version=version) for one in range(5)]
        for stream in stage.join(connects):
            stage.push(stream, subscribe(1, "/topic/lines"))
    value = "\\n" * 20 + "\u200b"
    lines = "".join(f"\u00e9{number}\\c:{value}\n" for number in range(250))
    message = send("/topic/lines", b"x").replace(b"\n\n", b"\n" + lines.encode() + b"\n", 1)
    streams = stage.crowd(10, "liner-")
    stage.begin()
    spray(stage, streams, message * 16)


@attack(
    "half-frames", "60 agents",
    "bodies of 4 MiB in writes of 64 KiB, all at the same time, each broken off before its end")
def half_frames(stage: Stage) -> None:
    part = send("/agent/nobody", bytes(BODY_MAX))[:-10]
    stage.begin()
    for number in itertools.count():
        if not stage.is_on():
            break
        streams = log_in_crowd(
            stage.port, [connect_frame(f"half-{number}-{one}") for one in range(60)],
            patience=stage.left() + 5)
        for at in range(0, len(part), 64 << 10):
            for stream in streams:
                stage.push(stream, part[at:at + (64 << 10)])
        stage.counts["frames"] += len(streams)
        for stream in streams:
            reset(stream)


@attack(
    "http-rush", "anybody", "GET requests with a hundred header lines, a connection each")
def http_rush(stage: Stage) -> None:
    lines = "".join(f"X-{number}: {'v' * 60}\r\n" for number in range(95))
    request = f"GET / HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n".encode()
    stage.begin()
    for number in itertools.count():
        if not stage.is_on():
            break
        streams = []
        try:
            for _ in range(50):
                stream = open_stream(
                    stage.port, f"127.{2 + number // 400}.0.2", patience=stage.left())
                streams.append(stream)
                stream.sendall(request)
            for stream in streams:
                stream.recv(65536)
        except OSError as fault:
            stage.errors[type(fault).__name__] += 1
        stage.counts["requests"] += len(streams)
        for stream in streams:
            reset(stream)


@attack(
    "wide-fan", "agent",
    "one write of 2,000 SENDs to a topic with 1,000 subscribers who read: 2,000,000 deliveries", short=True)
def wide_fan(stage: Stage) -> None:
    for stream in stage.crowd(stage.pick(1_000, 300), "wide-"):
        stage.push(stream, subscribe(1, "/topic/wide"))
    client = stage.client("wide")
    stage.ask(client)
    stage.begin()
    while stage.ask(client, send("/topic/wide", b"x" * 64) * stage.pick(2_000, 500)):
        stage.counts["writes"] += 1


# -- aimed at shares, jobs, groups and accounts ----------------------------------------------------


@attack(
    "shares-overdrawn", "200 agents",
    "keep sending frames of which each alone costs more than a share of a turn: 250 header lines with "
    "escapes, a name of 2,000 levels, and 200 subscribers who all do it", short=True)
def shares_overdrawn(stage: Stage) -> None:
    streams = stage.crowd(stage.pick(200, 60), "costly-")
    name = "/topic/costly" + "/a" * 1_900
    for stream in streams:
        stage.push(stream, subscribe(1, name))
    lines = "".join(f"n\\c{number}:" + "\\n\\\\" * 8 + "\n" for number in range(250))
    message = send(name, b"x").replace(b"\n\n", b"\n" + lines.encode() + b"\n", 1)
    stage.begin()
    spray(stage, streams, message * 4)


@attack(
    "jobs-endless", "30 agents, agent",
    "each subscribes to another topic with wildcards that 10,000 topics match and gives it up, again and "
    "again, while topics come and go as fast as they are taken: what goes through them never ends")
def jobs_endless(stage: Stage) -> None:
    maker = stage.client("maker")
    make_topics(stage, maker, 9_000)
    streams = stage.crowd(stage.pick(30, 10), "endless-")
    rounds = [
        b"".join(subscribe(one, f"/topic/many/{end}") + stomp("UNSUBSCRIBE", {"id": one})
                 for one, end in enumerate(("*", ">", "*"))) * 20
        for _ in streams]
    made = [b"".join(send(f"/topic/many/{number}-{at}") for at in range(50)) for number in range(100)]
    at = [0] * len(streams)
    for stream in streams:
        stream.setblocking(False)
    stage.begin()
    for number in itertools.count():
        if not stage.is_on() or not stage.push(maker.stream, made[number % 100]):
            break
        stage.counts["topics"] += 50
        for index, stream in enumerate(streams):
            at[index] = send_on(stream, rounds[index], at[index])


def send_on(stream: socket.socket, data: bytes, at: int) -> int:
    """Sends what is taken of something that is repeated; says where it goes on."""
    try:
        return (at + stream.send(memoryview(data)[at:])) % len(data)
    except OSError:
        return at


@attack(
    "jobs-abandoned", "anybody",
    "40 clients at once log in, ask for what takes long (10,000 topics by wildcards, all agents by a "
    "regular expression, presence with a snapshot), and are gone before it is done", short=True)
def jobs_abandoned(stage: Stage) -> None:
    make_topics(stage, stage.client("maker"), 9_900)
    stage.crowd(stage.pick(3_000, 500), "there-")
    asked = (
        ("agent", b"".join(subscribe(number, f"/topic/many/{end}") for number, end in enumerate("*>"))),
        ("super agent", subscribe(1, "/agent/there-.*", destination_type=1)),
        ("service", subscribe(1, "STOMP-SERVER", destination_id=".*", snapshot="true")))
    stage.begin()
    for number in itertools.count():
        if not stage.is_on():
            break
        connects = [
            connect_frame(f"gone-{number}-{one}-{profile}", profile) + frames
            for one in range(14) for profile, frames in asked]
        streams = []
        for connect in connects:
            try:
                stream = open_stream(
                    stage.port, f"127.0.{2 + number % 200}.3", patience=stage.left() + 1)
                streams.append(stream)
                stream.sendall(connect)
            except OSError as fault:
                stage.errors[type(fault).__name__] += 1
        # Some answers have come, and the rest is under way.
        with contextlib.suppress(OSError):
            streams[0].recv(1)
        for stream in streams:
            reset(stream)
        stage.counts["abandoned"] += len(streams)


@attack(
    "groups-flapping", "20 agents, agent",
    "come to be the first and go as the last subscribers of topics with wildcards, all the time, while a "
    "message is on its way to 1,000 subscribers of a topic that all of these match")
def groups_flapping(stage: Stage) -> None:
    for stream in stage.crowd(stage.pick(1_000, 300), "staying-"):
        stage.push(stream, subscribe(1, "/topic/flap/a/b"))
    flappers = stage.crowd(20, "flapping-")
    patterns = ["/topic/flap/>", "/topic/flap/*/b", "/topic/*/a/b", "/topic/flap/a/*", "/topic/*/a/>"]
    writes = [
        b"".join(subscribe(number, one) for number, one in enumerate(patterns))
        + b"".join(stomp("UNSUBSCRIBE", {"id": one}) for one in order)
        for order in itertools.islice(itertools.permutations(range(5)), 20)]
    publisher = stage.client("publisher")
    stage.ask(publisher)
    at = [0] * 20
    for stream in flappers:
        stream.setblocking(False)
    one = send("/topic/flap/a/b", b"x" * 64) * 4
    stage.begin()
    while stage.is_on():
        for index, stream in enumerate(flappers):
            at[index] = send_on(stream, writes[index], at[index])
        if not stage.ask(publisher, one):
            break
        stage.counts["published"] += 4


@attack(
    "always-new", "300 agents, 20 agents",
    "each sends a little that has just arrived whenever the loop looks, and so stands in the list of those "
    "to be read anew, while the others have much that waits its turn", short=True)
def always_new(stage: Stage) -> None:
    small = stage.crowd(stage.pick(300, 100), "new-")
    large = stage.crowd(20, "waiting-")
    for stream in (*small, *large):
        stream.setblocking(False)
    crumb = send("/agent/nobody")
    bulk = send("/topic/bulk", b"x" * 100) * 3_000
    at = [0] * 20
    stage.begin()
    while stage.is_on():
        for index, stream in enumerate(large):
            at[index] = send_on(stream, bulk, at[index])
        for stream in small:
            # All of it, or none: it is far smaller than what the kernel keeps.
            with contextlib.suppress(OSError):
                stage.counts["crumbs"] += stream.send(crumb) // len(crumb)


@attack(
    "shares-just-below", "3,000 agents",
    "hold a little less each than the guest needs, and together about all that there is: a frame of 88 kB "
    "without its end, 20 kB in a transaction, 40 kB in a queue")
def shares_just_below(stage: Stage) -> None:
    streams = stage.crowd(stage.pick(3_000, 900), "below-")
    size = stage.pick(88_000, 88_000 * 10 // 3)
    other = stage.pick(1, 3)
    stage.begin()
    for number, stream in enumerate(streams):
        held = (
            stomp("BEGIN", {"transaction": "t"})
            + send("/topic/below", bytes(20_000 * other), transaction="t")
            + send(f"/queue/below-{number % 100}", bytes(40_000 * other))
            + send("/agent/nobody", bytes(size))[:-10_000])
        stage.counts["holding"] += stage.push(stream, held)
    stage.linger()


@attack(
    "input-kept", "3,000 agents",
    "each sends in one write 64 kB of frames that cost much, so that nearly all of it waits in the broker "
    "for its turn, and goes on as soon as it is taken")
def input_kept(stage: Stage) -> None:
    streams = stage.crowd(stage.pick(3_000, 500), "kept-")
    lines = "".join(f"n\\c{number}:\\n\n" for number in range(250))
    message = send("/agent/nobody").replace(b"\n\n", b"\n" + lines.encode() + b"\n", 1)
    write = message * (65_536 // len(message))
    stage.begin()
    spray(stage, streams, write)


@attack(
    "largest-changing", "12 agents, super agent",
    "fill the queues, each about as much as the others, and send one message after the other in turn, so "
    "that with each another one is the largest, and pays; a consumer takes some")
def largest_changing(stage: Stage) -> None:
    streams = stage.crowd(12, "rival-")
    consumer = stage.client("taking", "super agent")
    one = send("/queue/rivals", bytes(10_000))
    stage.begin()
    # Twelve times a little more than a twelfth of 128 MiB: less than a quarter.
    for stream in streams:
        stage.counts["sent"] += stage.push(stream, one, 1_150)
    consumer.send(subscribe(1, "/queue/rivals", ack="client-individual", prefetch_count=1))
    for number in itertools.count():
        if not stage.is_on():
            break
        stage.counts["sent"] += stage.push(streams[number % 12], one)
        if number % 50 == 0:
            acknowledge_one(stage, consumer)


def acknowledge_one(stage: Stage, consumer: Client) -> None:
    """Acknowledges the next message, if one has come."""
    consumer.stream.setblocking(False)
    try:
        consumer.fill()
        while received := consumer.take():
            if received.command == "MESSAGE":
                stage.push(consumer.stream, stomp("ACK", {"id": received.headers["ack"]}))
                stage.counts["taken"] += 1
    except BlockingIOError:
        return
    except (Refused, OSError) as fault:
        stage.errors[str(fault) or type(fault).__name__] += 1


@attack(
    "frames-slow", "50 agents",
    "each holds 2 MiB of a frame of 4 MiB and lets it grow a little faster than it must (with "
    "`frame_ms_max` 2,000: 2 bytes a millisecond), so that it is never too late; ten others are a "
    "little slower, and have to go",
    config="[limits]\nframe_ms_max = 2000\n")
def frames_slow(stage: Stage) -> None:
    streams = stage.crowd(50, "slow-", reads=False)
    frame = send("/agent/nobody", bytes(BODY_MAX))
    begun = 2 << 20
    for stream in streams:
        stage.push(stream, frame[:begun])
    fast, slow = streams[:40], streams[40:]
    stage.begin()
    started, at = time.monotonic(), begun
    while stage.is_on():
        time.sleep(0.25)
        elapsed = time.monotonic() - started
        # With room for the script's own lateness.
        wanted = begun + int(elapsed * 3_000)
        for stream in fast:
            stage.push(stream, frame[at:wanted])
        at = wanted
        for stream in slow:
            stage.push(stream, b"\0")
    cut = [is_cut(stream) for stream in streams]
    stage.counts["cut for slowness"] = sum(cut[40:])
    if any(cut[:40]):
        stage.breaches.append(f"{sum(cut[:40])} of 40 frames that grew fast enough were cut")
    # Two deadlines, of which the first may have begun before the slowness.
    if elapsed > 5 and not all(cut[40:]):
        stage.breaches.append(f"{10 - sum(cut[40:])} of 10 frames that were too slow were not cut")


def is_cut(stream: socket.socket) -> bool:
    """Whether the broker has ended a connection or sent something, which can be nothing but an ERROR."""
    stream.setblocking(False)
    try:
        stream.recv(4096)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


@attack(
    "logins-waiting", "4 super agents, anybody",
    "980 regular expressions are matched with each login id of 2 KiB, while 200 clients at once log in with "
    "new ids, half of them gone before they are through, and some take over from each other")
def logins_waiting(stage: Stage) -> None:
    subscribe_costly(stage, stage.pick(245, 50))
    stage.begin()
    for number in itertools.count():
        if not stage.is_on():
            break
        streams = []
        for one in range(200):
            # Every fourth has the id of the one before.
            login = f"{number}-{one - (one % 4 == 3)}-".ljust(2_040, "a")
            try:
                stream = open_stream(
                    stage.port, f"127.0.{2 + number % 200}.4", patience=stage.left() + 1)
                streams.append(stream)
                stream.sendall(connect_frame(login))
            except OSError as fault:
                stage.errors[type(fault).__name__] += 1
        for stream in streams[::2]:
            reset(stream)
        for stream in streams[1::2]:
            stream.settimeout(stage.left())
            with contextlib.suppress(OSError):
                stage.counts["answered"] += bool(stream.recv(4096))
        for stream in streams[1::2]:
            reset(stream)


@attack(
    "quoted-names", "40 services, 200 agents",
    "have login ids of 2 KiB that are all quotation marks, which each event about them has to escape, and leave "
    "together, again and again, while the services watch presence and read; who is cut comes again")
def quoted_names(stage: Stage) -> None:
    watch = stomp("SUBSCRIBE", {"id": 1, "destination": "STOMP-SERVER", "destination-id": ".*"})
    ended, missing = 0, 40
    for number in itertools.count():
        for stream in stage.crowd(missing, f"quoting-{number}-", "service"):
            stage.push(stream, watch)
        if number == 0:
            stage.begin()
        if not stage.is_on():
            break
        connects = (connect_frame(f"{number}-{one}-".ljust(2_040, '"')) for one in range(200))
        try:
            streams = log_in_crowd(
                stage.port, connects, first_source=2 + number % 200, patience=stage.left() + 1)
        except (Refused, OSError, Fault) as fault:
            stage.errors[str(fault)] += 1
            continue
        stage.counts["left"] += len(streams)
        for stream in streams:
            reset(stream)
        before = -1
        while stage.is_on() and before < stage.sink.data:
            before = stage.sink.data
            time.sleep(0.1)
        missing, ended = stage.sink.ends - ended, stage.sink.ends


@attack(
    "logins-lined", "service, anybody",
    "watches presence by 1,000 subscriptions to 250 regular expressions and reads, and comes again when it is cut, "
    "while 2,000 clients at once ask to log in, wait 2 s, go, and come again")
def logins_lined(stage: Stage) -> None:
    watches = b"".join(
        stomp("SUBSCRIBE", {
            "id": number, "destination": "STOMP-SERVER", "destination-id": f".*x{number % 250}|/agent/.*"})
        for number in range(1_000))
    count, ended = stage.pick(2_000, 500), -1
    for number in itertools.count():
        if stage.sink.ends > ended:
            ended = stage.sink.ends
            watcher, = stage.crowd(1, f"lining-{number}-", "service")
            stage.push(watcher, watches)
        if number == 0:
            stage.begin()
        if not stage.is_on():
            break
        streams = []
        for _ in range(count):
            try:
                streams.append(open_stream(
                    stage.port, f"127.0.{2 + number % 200}.5", patience=stage.left() + 1))
            except OSError as fault:
                stage.errors[type(fault).__name__] += 1
        for one, stream in enumerate(streams):
            with contextlib.suppress(OSError):
                stream.sendall(connect_frame(f"lined-{number}-{one}"))
        until = time.monotonic() + 2
        stage.linger(lambda: time.monotonic() > until)
        stage.counts["asked"] += len(streams)
        for stream in streams:
            reset(stream)


@attack(
    "drain", "the operator",
    "SIGTERM while 16,000 agents are logged in, each of whom is told and closed; pair and guest, too",
    judged=frozenset({TURN, MEMORY}), is_last=True)
def drain(stage: Stage) -> None:
    count = stage.pick(16_000, 3_000)
    readers = stage.readers("/topic/drained", count, 4)
    stage.begin()
    started = time.monotonic()
    os.kill(stage.pid, signal.SIGTERM)
    stage.linger(lambda: is_gone(stage.pid))
    if not is_gone(stage.pid):
        stage.breaches.append("it did not end")
    stage.counts["milliseconds"] = round((time.monotonic() - started) * 1000)
    # What has come is still to be read.
    time.sleep(2)
    readers.stop()
    told = sum(number for word, number in readers.errors.items() if word.startswith("DRAINING"))
    stage.counts["told"] = told
    if told < count or readers.ends < count:
        stage.breaches.append(f"of {count}, {told} were told and {readers.ends} closed")


def is_gone(pid: int) -> bool:
    """Whether a process has ended, whether or not its parent knows."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True
