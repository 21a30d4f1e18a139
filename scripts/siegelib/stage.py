"""What an attack is, and what it is given."""

from __future__ import annotations

import contextlib
import json
import select
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

from broker import Fault

from .readers import Readers
from .speech import Speech
from .wire import Client, Refused, Sink, log_in_crowd, reset

T = TypeVar("T")

# Bounds that an attack may be held to.
P99, TURN, MEMORY, COUNTED, CUT = "p99", "turn", "memory", "counted", "cut"
ALL = frozenset({P99, TURN, MEMORY, COUNTED, CUT})


@dataclass(frozen=True)
class Attack:
    """One attack, by the name and the sentence that people see."""

    name: str
    sentence: str
    act: Callable[[Stage], None]
    # What the attackers are called.
    who: str
    # The rows of the table of 826955a that it repeats, such as "2"; empty for others.
    row: str
    # What that table says of it.
    seen: str
    # TOML that it needs besides the defaults.
    config: str
    judged: frozenset[str]
    # Whether other servers can be attacked in the same way.
    for_peers: bool
    # Whether it is one of those that matter most.
    is_short: bool
    # A bound on the pair's p99 of its own, whatever the idle one is.
    p99_ms_max: float | None
    # Whether the broker is to end in it, as after SIGTERM.
    is_last: bool = False


ATTACKS: dict[str, Attack] = {}


def attack(
    name: str, who: str, sentence: str, *, row: str = "", seen: str = "", config: str = "",
    judged: frozenset[str] = ALL, for_peers: bool = False, short: bool = False,
    p99_ms_max: float | None = None, is_last: bool = False,
) -> Callable[[Callable[[Stage], None]], Callable[[Stage], None]]:
    """Enters a function in the list of attacks."""
    def enter(act: Callable[[Stage], None]) -> Callable[[Stage], None]:
        ATTACKS[name] = Attack(
            name, sentence, act, who, row, seen, config, judged, for_peers, short, p99_ms_max, is_last)
        return act
    return enter


class Stage:
    """One run of an attack, in its own process.

    What comes before `begin` is preparation; then there is time until `is_on` says no. What is open
    when the attack returns is closed all at once: that everybody leaves is part of it.
    """

    def __init__(self, port: int, pid: int, quick: bool, seconds: float, speech: Speech):
        self.port = port
        self.pid = pid
        self.quick = quick
        self.seconds = seconds
        self.speech = speech
        self.crowds: list[Readers] = []
        self.streams: list[socket.socket] = []
        self.counts: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()
        self.notes: list[str] = []
        self.breaches: list[str] = []
        self.sink = Sink()
        self.until = time.monotonic() + 60

    def pick(self, full: T, quick: T) -> T:
        """One of two sizes."""
        return quick if self.quick else full

    def begin(self) -> None:
        """Ends the preparation; from now on it is the attack."""
        self.tell({"phase": "attack"})
        self.until = time.monotonic() + self.seconds

    def is_on(self) -> bool:
        return time.monotonic() < self.until

    def left(self) -> float:
        """Seconds; a moment where the time is over."""
        return max(0.05, self.until - time.monotonic())

    def tell(self, what: dict[str, object]) -> None:
        """Says something, and waits until it was heard."""
        print(json.dumps(what), flush=True)
        if not sys.stdin.readline():
            sys.exit(1)

    # -- clients ----------------------------------------------------------------------------------

    def client(self, login: str, profile: str = "agent", **options: object) -> Client:
        """Logs one in, which is closed at the end."""
        client = Client(self.port, login, profile, **options)  # type: ignore[arg-type]
        self.streams.append(client.stream)
        return client

    def visitor(self, login: str, *, receive_buffer: int = 0) -> Client:
        """As `client`, in whatever the server speaks."""
        client = self.speech.open(
            self.port, login, patience=self.left() + 30, receive_buffer=receive_buffer)
        self.streams.append(client.stream)
        return client

    def readers(self, topic: str, count: int, processes: int) -> Readers:
        """Subscribers who read, in processes of their own."""
        readers = Readers(self.port, self.speech, topic, count, processes)
        self.crowds.append(readers)
        return readers

    def crowd(
        self, count: int, prefix: str, profile: str = "agent", *, width: int = 0,
        receive_buffer: int = 0, reads: bool = True, first_source: int = 1, **headers: object,
    ) -> list[socket.socket]:
        """Logs many in. Those who read do it in a thread, which counts."""
        connects = (
            self.speech.connect(f"{prefix}{number:05}".ljust(width, "a"), profile, **headers)
            for number in range(count))
        return self.join(connects, receive_buffer, reads, first_source)

    def join(
        self, connects: Iterable[bytes], receive_buffer: int = 0, reads: bool = True,
        first_source: int = 1,
    ) -> list[socket.socket]:
        streams = log_in_crowd(
            self.port, connects, receive_buffer=receive_buffer, first_source=first_source,
            patience=90, is_welcome=self.speech.is_welcome)
        self.streams += streams
        if reads:
            self.sink.add(*streams)
        return streams

    def push(self, stream: socket.socket, data: bytes | memoryview, times: int = 1) -> int:
        """Sends something again and again, until the time is over or the broker closes; says how
        often it went out whole."""
        view = memoryview(data)
        stream.setblocking(False)
        for sent in range(times):
            at = 0
            while at < len(view):
                if not self.is_on():
                    return sent
                try:
                    at += stream.send(view[at:])
                except BlockingIOError:
                    select.select([], [stream], [], min(0.2, self.left()))
                except OSError:
                    return sent
        return times

    def close_cut(self, clients: list[Client]) -> list[Client]:
        """Closes those whose connection the broker has ended; gives the others."""
        poll = select.poll()
        for client in clients:
            poll.register(client.stream, select.POLLRDHUP)
        ended = {descriptor for descriptor, _ in poll.poll(0)}
        cut = [client for client in clients if client.stream.fileno() in ended]
        for client in cut:
            self.counts["cut"] += 1
            self.streams.remove(client.stream)
            client.close()
        return [client for client in clients if client not in cut]

    def ask(self, client: Client, data: bytes = b"") -> bool:
        """Sends frames and waits until the broker is through with them; says whether it was in time."""
        if self.push(client.stream, data + self.speech.ask) == 0:
            return False
        return self.wait(client, "RECEIPT")

    def wait(self, client: Client, command: str) -> bool:
        """Waits for a frame, whatever comes before; says whether it came in time."""
        client.stream.setblocking(False)
        while self.is_on():
            try:
                while received := client.take():
                    if received.command == command:
                        return True
                select.select([client.stream], [], [], min(0.2, self.left()))
                client.fill()
            except BlockingIOError:
                continue
            except (Refused, OSError) as fault:
                self.errors[str(fault) or type(fault).__name__] += 1
                return False
        return False

    def linger(self, is_enough: Callable[[], bool] = lambda: False) -> None:
        """Does nothing until the time is over, or something is true."""
        while self.is_on() and not is_enough():
            time.sleep(0.02)

    def read_to(self, data: int) -> None:
        """Waits until so many bytes were read of the crowd, or somebody of it was cut."""
        self.linger(lambda: self.sink.data > data or self.sink.ends > 0)

    def keep_beating(self, streams: list[socket.socket], seconds: float) -> None:
        """Sends a heart-beat on each connection at this interval, until the end."""
        def beat() -> None:
            while True:
                started = time.monotonic()
                for stream in streams:
                    with contextlib.suppress(OSError):
                        stream.send(b"\n", socket.MSG_DONTWAIT)
                time.sleep(max(0.01, started + seconds - time.monotonic()))
        threading.Thread(target=beat, daemon=True).start()

    def leave(self) -> None:
        """Closes everything at once."""
        self.tell({"phase": "leave"})
        self.sink.stop()
        for readers in self.crowds:
            readers.stop()
            self.errors += readers.errors
        for stream in self.streams:
            reset(stream)


def work(name: str, stage: Stage) -> int:
    """The process of one attack."""
    try:
        ATTACKS[name].act(stage)
    except (Refused, OSError, Fault) as fault:
        stage.notes.append(f"broke off: {fault or type(fault).__name__}")
    stage.leave()
    print(json.dumps({
        "counts": stage.counts, "errors": stage.errors + stage.sink.errors,
        "ends": stage.sink.ends + sum(one.ends for one in stage.crowds),
        "bytes_read": stage.sink.data, "notes": stage.notes,
        "breaches": stage.breaches}), flush=True)
    return 0
