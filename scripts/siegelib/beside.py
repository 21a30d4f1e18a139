"""The well-behaved clients beside an attack, each in a process of its own.

The **pair** are two agents: every 5 ms one sends to the other, which answers; they beat as agreed.
The **guest** comes every half second and does once what a client may do: logs in, subscribes to a
wildcard, a regular expression and a queue, sends a large message to a topic and a small one to the
queue, gets both, acknowledges, and leaves.

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

    def __init__(self, port: int):
        self.port = port
        self.phase = Phase()
        self.sent_at: float | None = None
        self.next_at = time.monotonic()
        self.clients: list[Client] = []
        self.beats_at = [0.0, 0.0]
        self.sends = [
            stomp("SEND", {"destination": f"/agent/siege-pair-{to}"}, b"x" * 64) for to in "ba"]
        self.open()

    def open(self) -> None:
        for name in "ab":
            self.clients.append(Client(
                self.port, f"siege-pair-{name}", patience=60, inbox="true",
                heart_beat="1000,1000"))

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
                self.say(index, b"\n")
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

    def __init__(self, port: int):
        self.port = port
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
                self.visit()
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
            client.send(stomp("SEND", {"destination": queue}, b"x"))
            received = client.expect("MESSAGE")
            client.ask("ACK", {"id": received.headers["ack"]})
            client.ask("DISCONNECT")
        finally:
            client.close()


def work(role: str, port: int) -> int:
    """The process of one of them."""
    if role == "pair":
        take_precedence()
        Pair(port).run()
    else:
        Guest(port).run()
    return 0
