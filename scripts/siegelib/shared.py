"""Attacks on receivers and with large messages, that other servers can be attacked with in the same way."""

from __future__ import annotations

import itertools
import time

from .stage import Stage, attack


@attack(
    "fan-out", "agent",
    "publishes to a topic with 5,000 subscribers who read, as fast as these take it", row="17",
    seen="p99 of the pair 56 ms (p50 0.09; a nats-server on the same core: 47 and 132 ms)",
    for_peers=True, short=True)
def fan_out(stage: Stage) -> None:
    publish_saturated(stage, stage.pick(5_000, 1_000), 1)


@attack(
    "fan-out-10000", "agent",
    "publishes to a topic with 10,000 subscribers who read, in four processes, as fast as these take it",
    for_peers=True, p99_ms_max=1.5)
def fan_out_10000(stage: Stage) -> None:
    publish_saturated(stage, stage.pick(10_000, 2_000), 4)


def publish_saturated(stage: Stage, receivers: int, processes: int) -> None:
    """Publishes to many, a few messages ahead of who reads them."""
    readers = stage.readers("fan", receivers, processes)
    publisher = stage.visitor("publisher")
    body = b"x" * 64
    batch = stage.speech.publish("fan", body) * 8
    stage.ask(publisher)
    stage.begin()
    sent, first, size = 0, readers.data, stage.speech.received_bytes("fan", len(body))
    while stage.is_on():
        stage.push(publisher.stream, batch)
        sent += 8
        wanted = first + (sent - 8) * receivers * size
        while readers.data < wanted and stage.is_on():
            time.sleep(0.002)
    stage.counts["deliveries"] = (readers.data - first) // size


@attack(
    "readers-stopped", "50 agents, agent",
    "subscribe to a topic and do not read, while 1,200 bodies of 64 KiB are published to it as fast as they "
    "are taken", for_peers=True)
def readers_stopped(stage: Stage) -> None:
    streams = stage.crowd(50, "stopped-", receive_buffer=4096, reads=False)
    for stream in streams:
        stage.push(stream, stage.speech.subscribe(1, "stopped"))
    publisher = stage.visitor("publisher")
    stage.ask(publisher)
    one = stage.speech.publish("stopped", bytes(64 << 10))
    stage.begin()
    while stage.is_on() and stage.counts["sent"] < 1_200:
        # No more than a write ahead: a server that stops reading is not given more.
        if not stage.push(publisher.stream, one):
            break
        stage.counts["sent"] += 1
    stage.linger()


@attack(
    "large-bodies", "20 agents",
    "each publishes bodies as large as may be (4 MiB) to a topic of its own, of which it is the only "
    "subscriber, as fast as it gets them", for_peers=True)
def large_bodies(stage: Stage) -> None:
    streams = stage.crowd(20, "large-")
    for number, stream in enumerate(streams):
        stage.push(stream, stage.speech.subscribe(1, f"large/{number}"))
    bodies = bytes(stage.speech.body_max)
    frames = [stage.speech.publish(f"large/{number}", bodies) for number in range(20)]
    stage.begin()
    for number in itertools.count():
        if not stage.is_on():
            break
        stage.counts["sent"] += stage.push(streams[number % 20], frames[number % 20])
        # Two of each may be under way.
        stage.read_to((number - 40) * len(bodies))
