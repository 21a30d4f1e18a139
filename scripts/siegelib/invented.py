"""Further attacks, with nothing but what a client is allowed within default limits."""

from __future__ import annotations

import contextlib
import itertools
import socket
import ssl
import time
from collections.abc import Iterable
from functools import partial

from broker import UPGRADE, Fault, masked

from .seen import BODY_MAX, make_topics, read_ids, send, subscribe, subscribe_many
from .stage import Stage, attack
from .wire import Refused, connect_frame, log_in_crowd, open_stream, reset, stomp

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


def spray(stage: Stage, streams: list[socket.socket], data: bytes) -> None:
    """Sends the same to all of them, whoever takes it, until the time is over or all are cut."""
    at = [0] * len(streams)
    alive = set(range(len(streams)))
    for stream in streams:
        stream.setblocking(False)
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


def client_hello() -> bytes:
    """The first bytes of a TLS client."""
    context = ssl.create_default_context()
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
