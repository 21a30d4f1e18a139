"""The well-behaved clients beside an attack, each in a process of its own.

The **pair** are two agents: every 5 ms one sends to the other, which answers; they beat as agreed.
The **guest** comes every half second and does once what a client may do: logs in, subscribes to a
wildcard, a regular expression and a queue, sends a large message to a topic, one in a transaction, and a
small one to the queue, gets all, acknowledges, and leaves. Of another server than the broker it asks
only what there is: the wildcard, the topic, and another topic instead of the queue.

A line on standard input ends a phase: both answer with a JSON object on standard output that says
how it went.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import sys
import threading
import time
from collections import Counter

from .speech import Speech
from .wire import Client, Refused, stomp

PERIOD = 0.005
BEAT = 0.5
GUEST_PERIOD = 0.5
# More than is read of a connection in one turn, so that it arrives in part first.
GUEST_BODY = bytes(300_000)


def percentile(ordered: list[float], quantile: float) -> float:
    """Of values in order; the nearest rank."""
    if not ordered:
        return 0.0
    return ordered[min(len(ordered) - 1, int(len(ordered) * quantile))]


def take_precedence() -> None:
    """Asks the kernel to be woken before the attackers, who share the core."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except (OSError, AttributeError):
        with contextlib.suppress(OSError):
            os.nice(-10)


class Phase:
    """What happened since the last line on standard input."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.faults: Counter[str] = Counter()

    def note(self, elapsed: float) -> None:
        """Notes a round trip, and those that should have begun while it was under way."""
        while elapsed > 0:
            self.times.append(elapsed)
            elapsed -= PERIOD

    def told(self) -> dict[str, object]:
        return {"times": [round(one, 6) for one in self.times], "faults": self.faults}


class Pair:
    """Two agents of whom the first sends, and the second answers."""

    def __init__(self, port: int, speech: Speech):
        self.port = port
        self.speech = speech
        self.phase = Phase()
        self.sent_at: float | None = None
        self.next_at = time.monotonic()
        self.clients: list[Client] = []
        self.beats_at = [0.0, 0.0]
        self.sends = [self.send_to(to) for to in "ba"]
        self.open()

    def send_to(self, name: str) -> bytes:
        if self.speech.name == "stomp":
            return stomp("SEND", {"destination": f"/agent/siege-pair-{name}"}, b"x" * 64)
        return self.speech.publish(f"siege-pair-{name}", b"x" * 64)

    def open(self) -> None:
        for name in "ab":
            login = f"siege-pair-{name}"
            if self.speech.name == "stomp":
                self.clients.append(Client(
                    self.port, login, patience=60, inbox="true", heart_beat="1000,1000"))
                continue
            client = self.speech.open(self.port, login, patience=60)
            self.clients.append(client)
            client.send(self.speech.subscribe(1, login) + self.speech.ask)
            client.expect("RECEIPT")

    def say(self, index: int, data: bytes) -> None:
        self.clients[index].send(data)
        self.beats_at[index] = time.monotonic() + BEAT

    def run(self) -> None:
        while True:
            try:
                self.turn()
            except EOFError:
                return
            except (Refused, OSError) as fault:
                self.lose(fault)

    def lose(self, fault: Exception) -> None:
        """One was cut: both come again, as soon as they may."""
        self.phase.faults[str(fault) or type(fault).__name__] += 1
        self.end_flight()
        for client in self.clients:
            client.close()
        self.clients = []
        started = time.monotonic()
        while not self.clients:
            self.take_line(0.1)
            try:
                self.open()
            except ConnectionRefusedError:
                pass
            except (Refused, OSError) as another:
                self.phase.faults[f"again: {another}"] += 1
            if len(self.clients) < 2:
                for client in self.clients:
                    client.close()
                self.clients = []
        self.phase.note(time.monotonic() - started)

    def end_flight(self) -> None:
        if self.sent_at is not None:
            self.phase.note(time.monotonic() - self.sent_at)
            self.sent_at = None

    def turn(self) -> None:
        now = time.monotonic()
        if self.sent_at is None and now >= self.next_at:
            self.sent_at, self.next_at = now, now + PERIOD
            self.say(0, self.sends[0])
        for index in (0, 1):
            if now >= self.beats_at[index]:
                self.say(index, self.speech.beat)
        until = min(self.beats_at)
        if self.sent_at is None:
            until = min(until, self.next_at)
        streams = [client.stream for client in self.clients]
        ready, _, _ = select.select([*streams, sys.stdin], [], [], max(0.0, until - now))
        if sys.stdin in ready:
            self.take_line(0)
        for index, stream in enumerate(streams):
            if stream in ready:
                self.take(index)

    def take(self, index: int) -> None:
        client = self.clients[index]
        client.fill()
        while received := client.take():
            if received.command != "MESSAGE":
                continue
            if index == 1:
                self.say(1, self.sends[1])
            elif self.sent_at is not None:
                self.phase.note(time.monotonic() - self.sent_at)
                self.sent_at = None

    def take_line(self, seconds: float) -> None:
        """A line ends the phase. What is under way counts there with what it has lasted."""
        if not select.select([sys.stdin], [], [], seconds)[0]:
            return
        if not sys.stdin.readline():
            raise EOFError
        ended, self.phase = self.phase, Phase()
        if self.sent_at is not None and time.monotonic() - self.sent_at > PERIOD:
            ended.note(time.monotonic() - self.sent_at)
        print(json.dumps(ended.told()), flush=True)


class Guest:
    """Comes and goes."""

    def __init__(self, port: int, speech: Speech):
        self.port = port
        self.speech = speech
        self.phase = Phase()
        self.number = 0

    def run(self) -> None:
        threading.Thread(target=self.visit_always, daemon=True).start()
        while sys.stdin.readline():
            ended, self.phase = self.phase, Phase()
            print(json.dumps(ended.told()), flush=True)

    def visit_always(self) -> None:
        while True:
            started = time.monotonic()
            self.number += 1
            try:
                self.visit() if self.speech.name == "stomp" else self.visit_peer()
            except (Refused, OSError, RuntimeError) as fault:
                self.phase.faults[str(fault) or type(fault).__name__] += 1
            elapsed = time.monotonic() - started
            self.phase.times.append(elapsed)
            time.sleep(max(0.05, GUEST_PERIOD - elapsed))

    def visit(self) -> None:
        topic = f"/topic/siege-guest/{self.number}"
        queue = f"/queue/siege-guest-{self.number}"
        client = Client(self.port, f"siege-guest-{self.number}", "super agent", patience=60)
        try:
            client.ask("SUBSCRIBE", {"id": 1, "destination": "/topic/siege-guest/*"})
            client.ask("SUBSCRIBE", {
                "id": 2, "destination": "/agent/siege-nobody-.*", "destination-type": 1})
            client.ask("SUBSCRIBE", {"id": 3, "destination": queue, "ack": "client-individual"})
            client.send(stomp("SEND", {
                "destination": topic, "content-length": len(GUEST_BODY)}, GUEST_BODY))
            if client.expect("MESSAGE").body != GUEST_BODY:
                raise Refused("another body")
            client.send(
                stomp("BEGIN", {"transaction": "t"})
                + stomp("SEND", {"destination": topic, "transaction": "t"}, b"x")
                + stomp("COMMIT", {"transaction": "t"}))
            client.expect("MESSAGE")
            client.send(stomp("SEND", {"destination": queue}, b"x"))
            received = client.expect("MESSAGE")
            client.ask("ACK", {"id": received.headers["ack"]})
            client.ask("DISCONNECT")
        finally:
            client.close()


    def visit_peer(self) -> None:
        """What of it another server has."""
        speech = self.speech
        client = speech.open(self.port, f"siege-guest-{self.number}", patience=60)
        try:
            client.send(
                speech.subscribe(1, "siege-guest/*") + speech.subscribe(2, f"siege-q/{self.number}"))
            client.send(speech.publish(f"siege-guest/{self.number}", GUEST_BODY))
            if client.expect("MESSAGE").body != GUEST_BODY:
                raise Refused("another body")
            client.send(speech.publish(f"siege-q/{self.number}", b"x"))
            client.expect("MESSAGE")
            client.send(speech.ask)
            client.expect("RECEIPT")
        finally:
            client.close()


def work(role: str, port: int, speech: Speech) -> int:
    """The process of one of them."""
    if role == "pair":
        take_precedence()
        Pair(port, speech).run()
    else:
        Guest(port, speech).run()
    return 0
