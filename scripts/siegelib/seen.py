"""The attacks that were seen to work on 826955a, row by row."""

from __future__ import annotations

import itertools
import os
import re
import signal
import time

from broker import connect_frame as classic_connect
from broker import envelope, frame

from .stage import CUT, MEMORY, Stage, attack
from .wire import Client, Refused, stomp

BODY_MAX = 4 << 20


def subscribe(number: int, destination: str, **headers: object) -> bytes:
    return stomp("SUBSCRIBE", {
        "id": number, "destination": destination,
        **{name.replace("_", "-"): value for name, value in headers.items()}})


def subscribe_many(names: list[str], **headers: object) -> bytes:
    return b"".join(subscribe(number, name, **headers) for number, name in enumerate(names))


def send(destination: str, body: bytes = b"", **headers: object) -> bytes:
    return stomp("SEND", {"destination": destination, "content-length": len(body), **headers}, body)


@attack(
    "acks-listing", "super agent",
    "500 × SUBSCRIBE `.*` and DISCONNECT in one write, 1,200 agents with login ids of 2 KiB being "
    "there: each ACK of the classic dialect lists them all", row="1",
    seen="abort at 2.4 GB; short of that 4.3 GB and 9 s")
def acks_listing(stage: Stage) -> None:
    stage.crowd(1_200, "listed-", width=2048)
    watcher, = stage.join([envelope(classic_connect("lister", "super agent"))])
    one = envelope(frame("SUBSCRIBE", {
        "destination": ".*", "destination-type": 1, "transaction": "t"}))
    stage.begin()
    # The answer to the last is queued whatever the bound, and begins where 31 bits do not reach.
    stage.push(watcher, one * 500 + envelope(frame("DISCONNECT")))
    # The answers come, if they do, when all are written: who left before would not see it end.
    stage.until += 30
    stage.read_to(1 << 40)


@attack(
    "snapshots-listing", "service",
    "600 times in one write: SUBSCRIBE to presence with a snapshot, UNSUBSCRIBE; then a SEND to one of "
    "the 11,000 agents that are there", row="1", seen="abort")
def snapshots_listing(stage: Stage) -> None:
    stage.crowd(stage.pick(11_000, 3_000), "listed-", inbox="true")
    service = stage.client("lister", "service")
    stage.sink.add(service.stream)
    stage.begin()
    stage.push(service.stream, (
        subscribe(1, "STOMP-SERVER", destination_id=".*", snapshot="true")
        + stomp("UNSUBSCRIBE", {"id": 1, "destination": "STOMP-SERVER"})) * 600
        + send("/agent/listed-00000"))
    stage.until += 30
    stage.read_to(1 << 40)


@attack(
    "topics-wildcards", "agent",
    "10,000 topics, then 300 × SUBSCRIBE `/topic/many/>` in one write, and it leaves", row="2",
    seen="5 s stall, 9.5 s when it leaves")
def topics_wildcards(stage: Stage) -> None:
    client = stage.client("fan")
    make_topics(stage, client, 9_990)
    stage.begin()
    stage.ask(client, subscribe_many(["/topic/many/>"] * stage.pick(300, 60)))


@attack(
    "wildcards-leaving", "400 agents",
    "each subscribes to `/topic/many/>` over 9,000 topics; all leave together", row="2",
    seen="19 s")
def wildcards_leaving(stage: Stage) -> None:
    make_topics(stage, stage.client("maker"), stage.pick(9_000, 3_000))
    streams = stage.crowd(stage.pick(400, 100), "leaving-")
    asker = stage.client("asker")
    for stream in streams:
        stage.push(stream, subscribe(1, "/topic/many/>"))
    stage.ask(asker)
    stage.begin()


def make_topics(stage: Stage, client: Client, count: int) -> None:
    stage.ask(client, b"".join(send(f"/topic/many/{number}") for number in range(count)))


@attack(
    "queued-headers", "agent", "630,000 × SEND to queues, with 60 header lines `A:` each", row="3",
    seen="2.3 GB before `queues_bytes_max` = 128 MiB refuses")
def queued_headers(stage: Stage) -> None:
    stage.begin()
    for number in range(stage.pick(7, 2)):
        client = stage.client(f"lines-{number}")
        batch = send(f"/queue/lines-{number}").replace(b"\n\n", b"\n" + b"A:\n" * 60 + b"\n")
        stage.counts["sent"] += 90 * stage.push(client.stream, batch * 90, 1000)
        if not stage.ask(client):
            break


@attack(
    "unacknowledged", "super agent",
    "a consumer with `ack:client-individual` reads 1,000 messages of 4 MiB and acknowledges none",
    row="4", seen="4.1 GB")
def unacknowledged(stage: Stage) -> None:
    consumer = stage.client("keeper", "super agent")
    consumer.ask("SUBSCRIBE", {"id": 1, "destination": "/queue/kept", "ack": "client-individual"})
    stage.sink.add(consumer.stream)
    sender = stage.client("sender")
    one = send("/queue/kept", bytes(BODY_MAX))
    stage.begin()
    for number in range(stage.pick(1_000, 300)):
        if not stage.push(sender.stream, one):
            break
        # No more than two wait, so that what waits in queues stays small.
        stage.read_to((number - 1) * BODY_MAX)
        stage.counts["sent"] += 1
    stage.ask(sender)


@attack(
    "rights-reused", "agent",
    "SEND to an address that it may send to, whose place in the table is then taken by one that it "
    "may not", row="5", seen="delivered: the rights check is skipped where the place is the same",
    config='[rights.agent]\nsend = ["/agent/>", "/topic/>"]\n')
def rights_reused(stage: Stage) -> None:
    stage.begin()
    for number in range(stage.pick(100, 20)):
        sender = Client(stage.port, f"guesser-{number}")
        allowed = Client(stage.port, "allowed", inbox="true")
        sender.ask("SEND", {"destination": "/agent/allowed"}, b"1")
        allowed.expect("MESSAGE")
        allowed.ask("DISCONNECT")
        allowed.close()
        forbidden = Client(stage.port, f"forbidden-{number}", "service", inbox="true")
        try:
            told = sender.ask("SEND", {"destination": f"/service/forbidden-{number}"}, b"2")
            stage.breaches.append(f"delivered:{told.headers['delivered']} to a forbidden address")
        except Refused as fault:
            stage.errors[str(fault)] += 1
        sender.close()
        forbidden.close()
        if not stage.is_on():
            break


@attack(
    "topic-names", "agent", "SEND to 990,000 topics with names of 4 KiB", row="6",
    seen="4.0 GB, stalls of 2 s; `idle_topics_max` does not hold for SEND")
def topic_names(stage: Stage) -> None:
    client = stage.client("namer")
    tail = "x" * (4096 - len("/topic/0000000")) + "\n\n\0"
    stage.begin()
    # Four gigabytes take longer than the others' time.
    stage.until += stage.pick(25, 0)
    for start in range(0, stage.pick(990_000, 300_000), 500):
        batch = "".join(
            f"SEND\ndestination:/topic/{number:07}{tail}" for number in range(start, start + 500))
        if not stage.push(client.stream, batch.encode()):
            break
        stage.counts["topics"] += 500
    stage.ask(client)


@attack(
    "fan-unread", "100 agents",
    "each has 300 subscriptions to one topic and does not read; 60 kB of SENDs in one write",
    row="7", seen="1.4 GB, 12 s")
def fan_unread(stage: Stage) -> None:
    for number in range(stage.pick(100, 20)):
        agent = stage.client(f"unread-{number}", receive_buffer=4096)
        agent.send(subscribe_many(["/topic/loud"] * 299))
        agent.ask("SUBSCRIBE", {"id": 299, "destination": "/topic/loud"})
    sender = stage.client("loud")
    one = send("/topic/loud", b"x" * 64)
    stage.begin()
    stage.ask(sender, one * (60_000 // len(one)))


@attack(
    "unread", "310 agents",
    "each leaves 1.9 MiB unread, below every bound of its own, together nine tenths of "
    "`outbound_total_bytes_max`", row="8", seen="all publishers paused for 53 s")
def unread(stage: Stage) -> None:
    count = 310
    stage.crowd(count, "lazy-", receive_buffer=4096, reads=False, inbox="true")
    sender = stage.client("filler")
    body = bytes(64 << 10)
    stage.begin()
    for _ in range(stage.pick(30, 30)):
        for number in range(count):
            if not stage.push(sender.stream, send(f"/agent/lazy-{number:05}", body)):
                break
            stage.counts["sent"] += 1
        if not stage.is_on():
            break
    stage.linger()


@attack(
    "counted-characters", "8 agents",
    "a classic frame of 4 MiB whose length counts characters, one byte at a time", row="9",
    seen="0.9 ms CPU a byte")
def counted_characters(stage: Stage) -> None:
    connects = [envelope(classic_connect(f"counting-{number}")) for number in range(8)]
    streams = stage.join(connects)
    head = b"SEND\ndestination:/agent/nobody\n\n"
    characters = 2_000_000
    text = head + "é".encode() * characters
    begun = b"\0" + (len(head) + characters).to_bytes(4, "little") + text[:len(text) - 200_000]
    for stream in streams:
        stage.push(stream, begun)
    rest = text[len(text) - 200_000:]
    stage.begin()
    for at in itertools.cycle(range(len(rest) - 1)):
        if not stage.is_on():
            break
        for stream in streams:
            stage.push(stream, rest[at:at + 1])
        stage.counts["bytes"] += len(streams)
        # A byte a read: what arrives together is looked at once.
        time.sleep(0.0005)


@attack(
    "queues-waiting", "40 super agents",
    "1,000 queues each, with one unacknowledged and one waiting message; then nothing", row="10",
    seen="p99 of the pair 332 to 744 ms for ever")
def queues_waiting(stage: Stage) -> None:
    for owner in range(stage.pick(40, 10)):
        client = stage.client(f"waiting-{owner}", "super agent")
        names = [f"/queue/waiting-{owner}-{number}" for number in range(1_000)]
        client.send(subscribe_many(names, ack="client-individual", prefetch_count=1))
        client.send(b"".join(send(name, b"x") * 2 for name in names))
        stage.ask(client)
        stage.sink.add(client.stream)
    stage.begin()
    stage.linger()


@attack(
    "patterns-logins", "super agent, agent",
    "1,000 patterns `/agent/.*a.{600}|xN`; logins with ids of 2 KiB", row="11",
    seen="7.6 s a login")
def patterns_logins(stage: Stage) -> None:
    watcher = stage.client("patterns", "super agent")
    count = stage.pick(995, 200)
    stage.ask(watcher, subscribe_many(
        [f"/agent/.*a.{{600}}|x{number}" for number in range(count)], destination_type=1))
    stage.begin()
    for number in itertools.count():
        if not stage.is_on():
            break
        try:
            stage.client(f"{number}".ljust(2048, "a"), patience=stage.left())
        except OSError:
            break
        stage.counts["logins"] += 1
        time.sleep(0.1)


@attack(
    "wildcards-taken", "agent", "1,000 subscriptions to topics with wildcards", row="12",
    seen="everybody else is refused, with `retry:never`, and closed")
def wildcards_taken(stage: Stage) -> None:
    client = stage.client("greedy")
    stage.begin()
    stage.ask(client, subscribe_many([f"/topic/{number}/*" for number in range(999)]))
    for number in range(999, 1_000):
        client.stream.setblocking(True)
        client.send(subscribe(number, f"/topic/{number}/*"))
    stage.linger()


@attack(
    "patterns-taken", "super agent", "1,000 regular expressions", row="12",
    seen="everybody else is refused, with `retry:never`, and closed")
def patterns_taken(stage: Stage) -> None:
    client = stage.client("greedy", "super agent")
    stage.begin()
    stage.ask(client, subscribe_many(
        [f"/agent/x{number}" for number in range(998)], destination_type=1))
    stage.push(client.stream, subscribe(998, "/agent/x", destination_type=1))
    stage.push(client.stream, subscribe(999, "/agent/y", destination_type=1))
    stage.linger()


@attack(
    "queues-filled", "agent",
    "67 messages of 2 MB to a queue that nobody reads, and smaller ones into what room is left",
    row="12",
    seen="everybody else is refused, with `retry:never`, and closed")
def queues_filled(stage: Stage) -> None:
    stage.begin()
    # Who is refused is cut; what it sent before stays. So the last gap is filled by smaller ones.
    for size in (2_000_000, 100_000, 10_000, 1_000, 100, 0):
        client = stage.client(f"filler-{size}")
        stage.push(client.stream, send("/queue/full", bytes(size)), 67)
    stage.linger()


@attack(
    "frames-unfinished", "70 agents", "each sends 3.9 MiB of a SEND of 4 MiB, and no more", row="12",
    seen="everybody else is refused, with `retry:never`, and closed")
def frames_unfinished(stage: Stage) -> None:
    streams = stage.crowd(70, "torn-")
    part = send("/agent/nobody", bytes(BODY_MAX))[:-100_000]
    stage.begin()
    for stream in streams:
        stage.push(stream, part)
    stage.linger()


@attack(
    "late-beats", "anybody",
    "3,000 clients beat every 0.6 s as they agreed; the broker is stopped for 10 s and goes on",
    row="13", seen="all clients with heart-beats are cut: their beats wait in the kernel",
    judged=frozenset({CUT, MEMORY}))
def late_beats(stage: Stage) -> None:
    streams = stage.crowd(stage.pick(3_000, 500), "beating-", heart_beat="1000,0")
    stage.keep_beating(streams, 0.6)
    stage.begin()
    os.kill(stage.pid, signal.SIGSTOP)
    try:
        time.sleep(stage.pick(10, 4.5))
    finally:
        os.kill(stage.pid, signal.SIGCONT)
    time.sleep(2)
    if stage.sink.ends:
        stage.breaches.append(f"{stage.sink.ends} of {len(streams)} that beat were cut")


@attack(
    "transactions", "150 agents", "each begins a transaction and leaves 8 MiB in it", row="14",
    seen="1.2 GB: no bound on all of them")
def transactions(stage: Stage) -> None:
    streams = stage.crowd(150, "trader-")
    begun = stomp("BEGIN", {"transaction": "t"}) + send(
        "/topic/trade", bytes(2_000_000), transaction="t") * 4
    stage.begin()
    for stream in streams:
        stage.push(stream, begun)
    stage.linger()


@attack(
    "late-acks", "super agent",
    "300,000 unacknowledged messages of 300 subscriptions, of each the youngest acknowledged first, "
    "in STOMP 1.0", row="15", seen="3 s for 19 kB")
def late_acks(stage: Stage) -> None:
    queues = [f"/queue/late-{number}" for number in range(stage.pick(300, 40))]
    consumer = stage.client("late", "super agent", version="1.0")
    consumer.send(subscribe_many(queues, ack="client-individual"))
    sender = stage.client("sender")
    ids = []
    for queue in queues:
        stage.until = time.monotonic() + 60
        stage.push(sender.stream, send(queue) * 1_000)
        ids.append(read_ids(consumer, 1_000))
    stage.begin()
    for number in range(999, -1, -1):
        acks = b"".join(stomp("ACK", {"message-id": one[number]}) for one in ids)
        if not stage.ask(consumer, acks):
            break
        stage.counts["acks"] += len(ids)


def read_ids(consumer: Client, count: int) -> list[str]:
    """Ids of the next messages."""
    data = bytearray()
    consumer.stream.settimeout(30)
    while data.count(b"\nmessage-id:") < count or not data.endswith((b"\0", b"\0\n")):
        received = consumer.stream.recv(1 << 20)
        if not received:
            raise Refused("closed")
        data += received
    return [one.decode() for one in re.findall(rb"\nmessage-id:(\S+)", data)]


@attack(
    "presence-snapshot", "service",
    "a snapshot of 15,000 sessions, asked for again as soon as it is there", row="16",
    seen="one turn of 20 ms; the watcher is cut where the snapshot exceeds its bound")
def presence_snapshot(stage: Stage) -> None:
    count = stage.pick(15_000, 3_000)
    stage.crowd(count, "present-")
    service = stage.client("watcher", "service")
    stage.sink.add(service.stream)
    events = stomp("SUBSCRIBE", {"id": 1, "destination": "STOMP-SERVER", "destination-id": ".*",
                                 "snapshot": "true"})
    end = stomp("UNSUBSCRIBE", {"id": 1, "destination": "STOMP-SERVER"})
    stage.begin()
    while stage.is_on() and not stage.sink.ends:
        before = stage.sink.data
        stage.push(service.stream, events)
        # An event has more than 200 bytes.
        stage.read_to(before + count * 200)
        time.sleep(0.1)
        stage.push(service.stream, end)
        stage.counts["snapshots"] += 1


@attack(
    "fan-out", "agent",
    "publishes to a topic with 5,000 subscribers who read, as fast as these take it", row="17",
    seen="p99 of the pair 56 ms (p50 0.09; a nats-server on the same core: 47 and 132 ms)")
def fan_out(stage: Stage) -> None:
    publish_saturated(stage, stage.pick(5_000, 1_000))


def publish_saturated(stage: Stage, receivers: int) -> None:
    """Publishes to many, a few messages ahead of who reads them."""
    streams = stage.crowd(receivers, "reading-")
    for stream in streams:
        stage.push(stream, subscribe(1, "/topic/fan"))
    publisher = stage.client("publisher")
    stage.ask(publisher)
    one = send("/topic/fan", b"x" * 64)
    stage.begin()
    sent, first = 0, stage.sink.data
    while stage.is_on():
        stage.push(publisher.stream, one * 8)
        sent += 8
        # A message has more than 150 bytes.
        stage.read_to(first + (sent - 8) * receivers * 150)
    stage.counts["deliveries"] = sent * receivers
