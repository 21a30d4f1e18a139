"""The attacks that were seen to work on 826955a, row by row."""

from __future__ import annotations

import itertools
import os
import re
import signal
import time
from collections.abc import Callable

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
    "10,000 topics, then 240 × SUBSCRIBE `/topic/many/>` in one write, which is less than its share; "
    "three others do it, too, and all leave", row="2",
    seen="5 s stall, 9.5 s when it leaves", for_peers=True, short=True)
def topics_wildcards(stage: Stage) -> None:
    clients = [stage.visitor(f"fan-{number}") for number in range(4)]
    make_topics(stage, clients[0], 9_990)
    write = b"".join(
        stage.speech.subscribe(number, "many/>") for number in range(stage.pick(240, 60)))
    stage.begin()
    for client in clients:
        stage.push(client.stream, write)
    for client in clients:
        stage.ask(client)


@attack(
    "wildcards-leaving", "400 agents",
    "each subscribes to `/topic/many/>` over 9,000 topics; all leave together", row="2",
    seen="19 s", short=True)
def wildcards_leaving(stage: Stage) -> None:
    make_topics(stage, stage.client("maker"), stage.pick(9_000, 3_000))
    streams = stage.crowd(stage.pick(400, 100), "leaving-")
    asker = stage.client("asker")
    for stream in streams:
        stage.push(stream, subscribe(1, "/topic/many/>"))
    stage.ask(asker)
    stage.begin()


def make_topics(stage: Stage, client: Client, count: int) -> None:
    stage.ask(client, b"".join(
        stage.speech.publish(f"many/{number}") for number in range(count)))


@attack(
    "queued-headers", "7 agents", "90,000 × SEND to a queue each, with 60 header lines `A:`", row="3",
    seen="2.3 GB before `queues_bytes_max` = 128 MiB refuses")
def queued_headers(stage: Stage) -> None:
    stage.begin()
    for number in range(stage.pick(7, 2)):
        client = stage.client(f"lines-{number}")
        batch = send(f"/queue/lines-{number}").replace(b"\n\n", b"\n" + b"A:\n" * 60 + b"\n")
        stage.counts["sent"] += 90 * stage.push(client.stream, batch * 90, 1000)
        # Who exceeds its share is cut, and the next one comes.
        stage.ask(client)


@attack(
    "unacknowledged", "super agent",
    "a consumer with `ack:client-individual` reads 1,000 messages of 4 MiB and acknowledges none; they "
    "come from 150 agents, of whom none sends more than its share", row="4", seen="4.1 GB", short=True)
def unacknowledged(stage: Stage) -> None:
    consumer = stage.client("keeper", "super agent")
    consumer.ask("SUBSCRIBE", {"id": 1, "destination": "/queue/kept", "ack": "client-individual"})
    stage.sink.add(consumer.stream)
    senders = [stage.client(f"sender-{number}") for number in range(150)]
    one = send("/queue/kept", bytes(BODY_MAX))
    stage.begin()
    for number in range(stage.pick(1_000, 300)):
        if not stage.is_on():
            break
        # Who was cut, because its messages were the largest part, is not the only one.
        if stage.push(senders[number % 150].stream, one):
            stage.counts["sent"] += 1
        # No more than two wait, so that what waits in queues stays small. Dropped ones do not come.
        before, patience = stage.sink.data, time.monotonic() + 0.05
        stage.linger(lambda: stage.sink.data - before > BODY_MAX or time.monotonic() > patience)
    stage.linger()


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
    "topic-names", "agent",
    "SEND to 990,000 topics with names of 4 KiB, or as long as the server takes them", row="6",
    seen="4.0 GB, stalls of 2 s; `idle_topics_max` does not hold for SEND", for_peers=True)
def topic_names(stage: Stage) -> None:
    client = stage.visitor("namer")
    mark = "0000000"
    one = stage.speech.publish(mark.ljust(stage.speech.name_max - len(stage.speech.topic("")), "x"))
    stage.begin()
    # Four gigabytes take longer than the others' time.
    stage.until += stage.pick(25, 0)
    for start in range(0, stage.pick(990_000, 300_000), 500):
        batch = b"".join(
            one.replace(mark.encode(), f"{number:07}".encode(), 1)
            for number in range(start, start + 500))
        if not stage.push(client.stream, batch):
            break
        stage.counts["topics"] += 500
    stage.ask(client)


@attack(
    "fan-unread", "100 agents",
    "each has 300 subscriptions to one topic and does not read; 60 kB of SENDs in one write",
    row="7", seen="1.4 GB, 12 s", short=True)
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
    "patterns-logins", "4 super agents, agent",
    "980 patterns `/agent/.*a.{600}|xN`, of each less than its share; logins with ids of 2 KiB", row="11",
    seen="7.6 s a login", short=True)
def patterns_logins(stage: Stage) -> None:
    subscribe_costly(stage, stage.pick(245, 50))
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


def subscribe_costly(stage: Stage, each: int) -> None:
    """Four watchers, each with its share of regular expressions that are slow to match."""
    for watcher in range(4):
        client = stage.client(f"patterns-{watcher}", "super agent")
        texts = [f"/agent/.*a.{{600}}|x{watcher}-{number}" for number in range(each)]
        stage.ask(client, subscribe_many(texts, destination_type=1))


@attack(
    "wildcards-taken", "agents",
    "each subscribes to as many topics with wildcards as its share has, until there is no room for one more",
    row="12", seen="everybody else is refused, with `retry:never`, and closed", short=True)
def wildcards_taken(stage: Stage) -> None:
    stage.begin()
    take_all(stage, "agent", lambda number: subscribe(number, f"/topic/taken-{number}/*"))


@attack(
    "patterns-taken", "super agents",
    "each subscribes to as many regular expressions as its share has, until there is no room for one more",
    row="12", seen="everybody else is refused, with `retry:never`, and closed")
def patterns_taken(stage: Stage) -> None:
    stage.begin()
    take_all(stage, "super agent", lambda number: subscribe(
        number, f"/agent/taken-{number}", destination_type=1))


# Sessions that share in it at once.
TAKERS_MAX = 200


def take_all(stage: Stage, profile: str, make: Callable[[int], bytes]) -> None:
    """Subscribes as many sessions as it takes to all that there is, and to each that gets free."""
    numbers = itertools.count()
    logins = itertools.count()
    clients: list[Client] = []
    sizes = itertools.chain((250, 100, 30, 10, 3), itertools.repeat(1))
    # Who is refused is cut, and all its subscriptions with it: so the last gap is filled by smaller ones.
    for size in sizes:
        # Each that comes may be at the cost of one that came before: so it ends after some.
        for _ in range(40):
            if not stage.is_on():
                return
            try:
                client = stage.client(f"taking-{next(logins)}", profile, patience=stage.left() + 5)
            except (Refused, OSError):
                break
            clients.append(client)
            frames = b"".join(make(next(numbers)) for _ in range(size))
            is_taken = stage.ask(client, frames)
            stage.counts["taken"] += size if is_taken else 0
            clients = stage.close_cut(clients)
            # As many sessions as there are things, with one each, could not be told from ordinary clients.
            while len(clients) > TAKERS_MAX:
                stage.streams.remove(clients[0].stream)
                clients.pop(0).close()
            if not is_taken:
                break
        if size == 1:
            time.sleep(0.02)


@attack(
    "queues-filled", "40 agents",
    "send messages of 2 MB to a queue that nobody reads, each as many as its share has, and smaller ones "
    "into what room is left, again and again",
    row="12", seen="everybody else is refused, with `retry:never`, and closed", short=True)
def queues_filled(stage: Stage) -> None:
    fillers = stage.crowd(40, "filler-")
    stage.begin()
    # Below a quarter of 128 MiB. Who is refused is cut; what it sent before stays.
    for size, times in ((2_000_000, 16), (100_000, 12), (10_000, 10), (1_000, 10), (100, 10)):
        for stream in fillers:
            stage.counts["sent"] += stage.push(stream, send("/queue/full", bytes(size)), times)
    for number in itertools.count():
        if not stage.is_on():
            break
        stage.counts["sent"] += stage.push(fillers[number % 40], send("/queue/full", bytes(1_000)))
        time.sleep(0.001)


@attack(
    "frames-unfinished", "70 agents",
    "each sends all but 100 kB of a SEND as large as may be (4 MiB), and no more", row="12",
    seen="everybody else is refused, with `retry:never`, and closed", for_peers=True, short=True)
def frames_unfinished(stage: Stage) -> None:
    streams = stage.crowd(70, "torn-")
    part = stage.speech.publish("nobody", bytes(stage.speech.body_max))[:-100_000]
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
    seen="1.2 GB: no bound on all of them", short=True)
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
    # More than one, whose shares are large enough together.
    senders = [stage.client(f"sender-{number}") for number in range(8)]
    ids = []
    for number, queue in enumerate(queues):
        stage.until = time.monotonic() + 60
        stage.push(senders[number % 8].stream, send(queue) * 1_000)
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
