"""What kernel and broker say of the broker's process: turns, processor time, memory, endings."""

from __future__ import annotations

import base64
import os
import re
import signal
import struct
import subprocess
import threading
import time
import zlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from broker import Broker, wait_until

from .peers import Peer

SAMPLE_SECONDS = 0.01
# Between two exports, and until one that was not heard is asked for again.
EXPORT_GAP = 0.3
ASK_AGAIN = 5.0


@dataclass
class Turns:
    """Turns of the loop by their length in nanoseconds, as the broker's histogram has them."""

    counts: Counter[int] = field(default_factory=Counter)
    max_ns: int = 0
    # Where the broker did not answer: how long it has been asked.
    is_stuck: bool = False

    def __add__(self, other: Turns) -> Turns:
        return Turns(
            self.counts + other.counts, max(self.max_ns, other.max_ns),
            self.is_stuck or other.is_stuck)

    def quantile_ns(self, quantile: float) -> int:
        left = sum(self.counts.values()) * quantile
        for length, count in sorted(self.counts.items()):
            left -= count
            if left <= 0:
                return min(length, self.max_ns)
        return self.max_ns

    def without_longest(self, count: int) -> Turns:
        """Those that are left when the longest are taken away."""
        left = Counter(self.counts)
        for length in sorted(left, reverse=True):
            taken = min(count, left[length])
            left[length] -= taken
            count -= taken
            if not count:
                break
        left = +left
        return Turns(left, min(self.max_ns, max(left, default=0)), self.is_stuck)

    def above(self, nanoseconds: int) -> int:
        return sum(count for length, count in self.counts.items() if length > nanoseconds)


def read_turns(path: Path) -> Turns:
    """The interval of the stage `turn` in an HdrHistogram log."""
    for line in path.read_text().splitlines():
        if line.startswith("Tag=turn,"):
            _, _, _, most, data = line.split(",")
            return Turns(decode(base64.b64decode(data)), round(float(most) * 1e6))
    return Turns()


def decode(data: bytes) -> Counter[int]:
    """Counts by value of a histogram in the compressed encoding, version 2."""
    payload = zlib.decompress(data[8:])
    _, length, _, digits, lowest, _, _ = struct.unpack_from(">IIIIQQd", payload)
    half_bits = (2 * 10 ** digits - 1).bit_length() - 1
    half, unit_bits = 1 << half_bits, lowest.bit_length() - 1
    counts: Counter[int] = Counter()
    at, end, index = 40, 40 + length, 0
    while at < end:
        number, shift = 0, 0
        while True:
            one = payload[at]
            at += 1
            if shift == 56:
                number |= one << shift
                break
            number |= (one & 0x7F) << shift
            shift += 7
            if one < 0x80:
                break
        count = (number >> 1) ^ -(number & 1)
        if count < 0:
            index -= count
            continue
        bucket = (index >> half_bits) - 1
        sub = (index & (half - 1)) + half
        if bucket < 0:
            bucket, sub = 0, sub - half
        counts[(sub + 1 << bucket + unit_bits) - 1] += count
        index += 1
    return counts


@dataclass
class Counted:
    """The most memory that the broker says it counted, and the most that the process held; and what it counts,
    in all and by account."""

    most: int
    held: int
    total: int
    parts: dict[str, int]


@dataclass
class Sample:
    """The loop's thread and the process at one moment."""

    at: float
    ran_ns: int
    # Time that it could have run, and did not: others had the core, or the machine.
    waited_ns: int
    # Of that, what the machine below took.
    stolen_ns: int
    resident: int
    # How often others were run instead although it was not done.
    preempted: int


class Watch(threading.Thread):
    """Looks at the broker's process a hundred times a second."""

    def __init__(self, broker: Broker | Peer, core: int):
        super().__init__(daemon=True)
        self.broker = broker
        self.pid = broker.process.pid
        self.core = core
        self.samples: list[Sample] = []
        self.exports = 0
        self.exported_at = 0.0
        # Files of exports.
        self.read: set[Path] = set()
        self.is_done = False

    def run(self) -> None:
        tick_ns = 10 ** 9 // os.sysconf("SC_CLK_TCK")
        number = 0
        resident = preempted = 0
        while not self.is_done:
            try:
                ran, waited = self.ran_and_waited()
                if number % 10 == 0:
                    resident = self.memory("VmRSS")
                    preempted = self.preemptions()
                stolen = stolen_ticks(self.core) * tick_ns
            except (OSError, ValueError):
                return
            self.samples.append(Sample(
                time.monotonic(), ran, waited + stolen, stolen, resident, preempted))
            number += 1
            time.sleep(SAMPLE_SECONDS)

    def ran_and_waited(self) -> tuple[int, int]:
        """Of the loop's thread; of another server's threads all together."""
        tasks = Path(f"/proc/{self.pid}/task")
        main = tasks / str(self.pid)
        ran = waited = 0
        for task in tasks.iterdir() if isinstance(self.broker, Peer) else [main]:
            try:
                one_ran, one_waited, _ = map(int, (task / "schedstat").read_text().split())
            except OSError:
                if task == main:
                    raise
                continue
            ran, waited = ran + one_ran, waited + one_waited
        return ran, waited

    def preemptions(self) -> int:
        """How often the loop's thread had to stop in the middle of something."""
        text = Path(f"/proc/{self.pid}/task/{self.pid}/status").read_text()
        found = re.search(r"^nonvoluntary_ctxt_switches:\s+(\d+)$", text, re.M)
        return int(found[1]) if found else 0

    def memory(self, name: str) -> int:
        """A line of /proc/PID/status in bytes; zero where the process is gone."""
        try:
            text = Path(f"/proc/{self.pid}/status").read_text()
        except OSError:
            return 0
        found = re.search(rf"^{name}:\s+(\d+) kB$", text, re.M)
        return int(found[1]) * 1024 if found else 0

    def between(self, start: float, end: float) -> list[Sample]:
        return [one for one in list(self.samples) if start <= one.at <= end]

    def share(self, start: float, end: float) -> float:
        """The part of the time that the loop's thread ran."""
        samples = self.between(start, end)
        if len(samples) < 2:
            return 0.0
        elapsed = samples[-1].at - samples[0].at
        return (samples[-1].ran_ns - samples[0].ran_ns) / 1e9 / elapsed if elapsed else 0.0

    def waited(self, start: float, end: float, length_ns: int) -> int:
        """The most that the thread was kept from running within any such length, in nanoseconds."""
        samples = self.between(start, end)
        window = length_ns / 1e9 + 2 * SAMPLE_SECONDS
        most = first = 0
        for one in samples:
            while one.at - samples[first].at > window and first < len(samples) - 2:
                first += 1
            most = max(most, one.waited_ns - samples[first].waited_ns)
        return min(most, length_ns)

    def disturbed(self, start: float, end: float) -> int:
        """How many times the thread was kept from running: so many turns can be longer for it."""
        samples = self.between(start - 10 * SAMPLE_SECONDS, end)
        if not samples:
            return 0
        stolen = sum(one.stolen_ns > before.stolen_ns for before, one in zip(samples, samples[1:]))
        return samples[-1].preempted - samples[0].preempted + stolen

    def counted(self, rest: int) -> Counted | None:
        """What the broker counted at the export before, if it says that, and a peer does not; and the most that
        its process held more than at rest."""
        lines: list[str] = []

        def has_come() -> bool:
            lines[:] = [one for one in list(self.broker.log) if " memory counted " in one]
            return len(lines) >= self.exports

        # It is written by another thread than the files.
        if self.exports == 0 or not wait_until(has_come, 1):
            return None
        found = {name: int(data) for name, data in re.findall(r" (\w+)_bytes=(\d+)", lines[-1])}
        held = max(0, self.memory("VmHWM") - rest)
        total, most = found.pop("total"), found.pop("most")
        return Counted(most, held, total, found)

    def export(self, patience: float) -> Turns:
        """Has the broker export its histograms; gives the turns since the export before."""
        if isinstance(self.broker, Peer):
            return Turns()
        started = time.monotonic()
        # The thread of the export before writes other files behind the one that is looked for.
        time.sleep(max(0.0, self.exported_at + EXPORT_GAP - started))
        asked_at = 0.0
        new: set[Path] = set()

        def has_come() -> bool:
            nonlocal asked_at
            # Asked again where the export before was not over, and this one ignored.
            if time.monotonic() > asked_at + ASK_AGAIN and not self.is_over():
                self.broker.process.send_signal(signal.SIGUSR1)
                asked_at = time.monotonic()
            new.update(set(self.broker.latency_directory.glob("*.hlog")) - self.read)
            return bool(new) or self.is_over()

        has_ended = wait_until(has_come, patience)
        self.exported_at = time.monotonic()
        self.read |= new
        turns = Turns(is_stuck=not has_ended)
        for path in new:
            turns += read_turns(path)
        self.exports += bool(new)
        if not has_ended:
            turns.max_ns = round((time.monotonic() - started) * 1e9)
        return turns

    def is_over(self) -> bool:
        return self.broker.process.poll() is not None


def stolen_ticks(core: int) -> int:
    """Ticks that the machine under this one took of a core."""
    for line in Path("/proc/stat").read_text().splitlines():
        name, *ticks = line.split()
        if name == f"cpu{core}":
            return int(ticks[7])
    return 0


# How connections end that nobody cut.
ORDINARY = {"logout", "closed", "lost", "answered", "DRAINING"}


def endings(log: list[str]) -> tuple[Counter[str], Counter[str]]:
    """Who was cut, by reason: pair and guest, and all others."""
    beside: Counter[str] = Counter()
    others: Counter[str] = Counter()
    for line in log:
        reason = re.search(r' reason="?([^" ]+)', line)
        if not reason or reason[1] in ORDINARY:
            continue
        many = re.search(r" closed without a line for each .*connections=(\d+)", line)
        if many:
            others[reason[1]] += int(many[1])
        elif " closed connection=" in line:
            named = re.search(r' login="siege-(pair|guest)', line)
            if named:
                beside[f"{named[1]} {reason[1]}"] += 1
            else:
                others[reason[1]] += 1
    return beside, others


def configured_bytes(program: Path) -> int:
    """The sum of the bounds on memory that the default configuration has, from `check`."""
    text = subprocess.run(
        [program, "check"], capture_output=True, text=True, check=True, timeout=20,
        cwd="/").stdout
    said = re.search(r"memory_bytes_max = (\d+)", text)
    if said:
        return int(said[1])
    bounds = {name: int(value) for name, value in re.findall(r"^(\w+) = (\d+)$", text, re.M)}
    return (
        bounds["inbound_total_bytes_max"] + bounds["queues_bytes_max"]
        + bounds["outbound_total_bytes_max"]
        + bounds["patterns_max"] * bounds["pattern_compiled_bytes_max"])
