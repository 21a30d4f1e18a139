"""One attack, from the first idle second to the last look at memory."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from broker import Broker, Fault

from .beside import percentile
from .loop import Counted, Turns, Watch, endings
from .peers import Kind, Peer
from .stage import ALL, COUNTED, CUT, MEMORY, P99, TURN, Attack

# Preparation may take this long: it is no part of the attack.
PREPARATION_SECONDS = 120.0


# Between two looks at what is counted.
COUNT_SECONDS = 1.0


@dataclass(frozen=True)
class Bounds:
    """What no attack may exceed."""

    # The pair's p99 against the idle one, and what is never held against it.
    p99_factor: float
    p99_floor_ms: float
    # The loop's own processor time in its longest turn, and in all but a thousandth of them; the latter
    # is not judged without a bound.
    turn_ms: float
    turn_p999_ms: float | None
    # Above the configured bounds and what the idle broker holds.
    memory_slack: int
    # By what part counted and held memory may differ, where the process holds this much more than idle.
    counted_part: float
    counted_from: int
    # Whether bounds that single attacks have of their own hold, too.
    has_bars: bool


@dataclass(frozen=True)
class Form:
    """How long an attack takes, how large it is, and what it may do."""

    name: str
    is_small: bool
    idle_seconds: float
    attack_seconds: float
    # After the last connection is closed, for the broker to tidy up.
    rest_seconds: float
    # How long a broker may not answer.
    patience: float
    # Descriptors that a process needs.
    descriptors: int
    bounds: Bounds


@dataclass
class Setting:
    """How all attacks of a run are made."""

    script: Path
    program: Path
    form: Form
    configured: int
    ceiling: int
    patience: float
    broker_core: int
    load_cores: set[int]
    idle_p99_ms: float = 0.0

    @property
    def bounds(self) -> Bounds:
        return self.form.bounds

    @property
    def memory_max(self) -> int:
        return self.configured + self.bounds.memory_slack


@dataclass
class Outcome:
    """What one attack did."""

    attack: Attack | None
    # Another server that was attacked instead of the broker.
    peer: Kind | None = None
    idle: list[float] = field(default_factory=list)
    besieged: list[float] = field(default_factory=list)
    guest: list[float] = field(default_factory=list)
    turns: Turns = field(default_factory=Turns)
    preparation: Turns = field(default_factory=Turns)
    # How long the loop's thread can have been kept from running during its longest turn.
    kept_ns: int = 0
    # Turns that others can have prolonged.
    disturbed: int = 0
    # What it counted.
    counted: Counted | None = None
    share: float = 0.0
    peak: int = 0
    after: int = 0
    rest: int = 0
    beside_faults: Counter[str] = field(default_factory=Counter)
    guest_faults: Counter[str] = field(default_factory=Counter)
    cut: Counter[str] = field(default_factory=Counter)
    told: Counter[str] = field(default_factory=Counter)
    counts: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    breaches: list[str] = field(default_factory=list)
    totals: dict[str, int] = field(default_factory=dict)
    death: str = ""
    # Whether its preparation was done.
    is_made: bool = False
    missed: list[str] = field(default_factory=list)

    def idle_ms(self, quantile: float) -> float:
        return percentile(self.idle, quantile) * 1000

    def besieged_ms(self, quantile: float) -> float:
        return percentile(self.besieged, quantile) * 1000

    @property
    def turn_ms(self) -> float:
        return self.turns.max_ns / 1e6

    @property
    def own_turn_ms(self) -> float:
        """The longest turn without what others took of it."""
        return max(0, self.turns.max_ns - self.kept_ns) / 1e6

    @property
    def turn_p999_ms(self) -> float:
        return self.turns.quantile_ns(0.999) / 1e6

    @property
    def own_turn_p999_ms(self) -> float:
        """The same without turns that others can have prolonged."""
        return self.turns.without_longest(self.disturbed).quantile_ns(0.999) / 1e6

    def is_miscounted(self, bounds: Bounds) -> bool:
        """Whether counted and held memory differ by more than they may."""
        if self.counted is None:
            return False
        most = max(self.counted.held, self.counted.most)
        apart = abs(self.counted.held - self.counted.most)
        return most > bounds.counted_from and apart > bounds.counted_part * most

    def is_only_late(self) -> bool:
        """Whether bounds are missed, and only such of time, which a machine that others use may have missed."""
        late = ("p99 >", "turn", "p99.9 of turns")
        return bool(self.missed) and all(one.startswith(late) for one in self.missed) and not self.turns.is_stuck

    def lateness(self) -> tuple[int, float, float]:
        """What runs of one attack are put in order by."""
        return len(self.missed), self.own_turn_ms, self.besieged_ms(0.99)

    def judge(self, setting: Setting) -> None:
        if self.peer:
            return
        bounds = setting.bounds
        judged = self.attack.judged if self.attack else ALL
        idle_ms = max(setting.idle_p99_ms, self.idle_ms(0.99))
        p99_max_ms = max(bounds.p99_factor * idle_ms, bounds.p99_floor_ms)
        if self.attack and self.attack.p99_ms_max and bounds.has_bars:
            p99_max_ms = self.attack.p99_ms_max
        if self.attack and not self.is_made:
            self.missed.append("not made")
        if self.death:
            self.missed.append("it ended")
        if P99 in judged and self.besieged_ms(0.99) > p99_max_ms:
            self.missed.append(f"p99 > {p99_max_ms:.1f} ms")
        if TURN in judged and (self.own_turn_ms > bounds.turn_ms or self.turns.is_stuck):
            self.missed.append("turn")
        most_ms = bounds.turn_p999_ms
        if TURN in judged and most_ms is not None and self.own_turn_p999_ms > most_ms:
            self.missed.append("p99.9 of turns")
        if MEMORY in judged and self.peak > setting.memory_max + self.rest:
            self.missed.append("memory")
        if COUNTED in judged and self.is_miscounted(bounds):
            self.missed.append("counted")
        if CUT in judged and (self.beside_faults or self.guest_faults):
            self.missed.append("others")
        if self.breaches:
            self.missed.append("rule")


class Worker:
    """A process of this script that speaks in lines of JSON."""

    def __init__(self, setting: Setting, role: str, broker: Broker | Peer):
        speech = broker.kind.speech if isinstance(broker, Peer) else "stomp"
        arguments = ["--role", role, "--port", str(broker.port), "--pid", str(broker.process.pid),
                     "--speech", speech, "--seconds", str(setting.form.attack_seconds)]
        if setting.form.is_small:
            arguments.append("--quick")
        with Affinity(setting.load_cores):
            self.process = subprocess.Popen(
                [sys.executable, setting.script, *arguments], stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, text=True,
                # Ctrl-C is for the whole, which ends them.
                start_new_session=True)
        self.lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        threading.Thread(target=self._read, args=(self.process.stdout,), daemon=True).start()

    def _read(self, stream: IO[str]) -> None:
        for line in stream:
            self.lines.put(line)
        self.lines.put(None)

    def say(self) -> None:
        try:
            assert self.process.stdin
            self.process.stdin.write("\n")
            self.process.stdin.flush()
        except OSError:
            pass

    def hear(self, seconds: float) -> Any:
        """The next line, or None where there is none in time, or no more."""
        try:
            line = self.lines.get(timeout=max(0.0, seconds))
        except queue.Empty:
            return None
        return json.loads(line) if line else None

    def end_phase(self) -> tuple[list[float], Counter[str]]:
        """Of those beside: times in order, and faults, since the last time."""
        self.say()
        told = self.hear(10)
        if told is None:
            raise Fault("a well-behaved client does not answer its script")
        return sorted(told["times"]), Counter(told["faults"])

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


class Affinity:
    """Processes that are started within run on these cores."""

    def __init__(self, cores: set[int]):
        self.cores = cores

    def __enter__(self) -> None:
        self.before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, self.cores)

    def __exit__(self, *_: object) -> None:
        os.sched_setaffinity(0, self.before)


class Progress:
    """Says on a terminal what is under way."""

    def __init__(self, name: str):
        self.name = name
        self.started = time.monotonic()

    def say(self, what: str) -> None:
        if sys.stderr.isatty():
            elapsed = time.monotonic() - self.started
            print(f"\r\x1b[K{self.name}: {what}, {elapsed:.0f} s", end="", file=sys.stderr,
                  flush=True)

    def clear(self) -> None:
        if sys.stderr.isatty():
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def run_attack(setting: Setting, attack: Attack | None, peer: Kind | None = None) -> Outcome:
    """Makes one attack on a broker of its own, or on another server; without one, only the idle figures
    are taken."""
    outcome = Outcome(attack, peer)
    progress = Progress(" ".join([attack.name if attack else "idle", *([peer.name] if peer else [])]))
    workers: list[Worker] = []
    broker: Broker | Peer
    with Affinity({setting.broker_core}):
        if peer:
            broker = Peer(peer)
        else:
            broker = Broker(setting.program, attack.config if attack else "", keep_log=200_000)
        broker.__enter__()
    try:
        give_precedence(broker.process.pid)
        # What reads the log is none of the broker's.
        os.sched_setaffinity(broker.reader.native_id or 0, setting.load_cores)
        watch = Watch(broker, setting.broker_core)
        watch.start()
        for role in ("pair", "guest"):
            workers.append(Worker(setting, role, broker))
        course = Course(setting, outcome, progress, broker, watch, *workers)
        course.be_idle()
        if attack:
            workers.append(Worker(setting, attack.name, broker))
            course.besiege(workers[-1])
        for worker in reversed(workers):
            worker.kill()
        if attack:
            course.rest()
        course.end()
    finally:
        for worker in workers:
            worker.kill()
        if broker.process.poll() is None:
            # It may have been stopped in the middle of an attack.
            broker.process.send_signal(signal.SIGCONT)
        broker.__exit__()
        progress.clear()
    outcome.judge(setting)
    return outcome


def give_precedence(pid: int) -> None:
    """Asks the kernel to run a process before what else is on the machine, where this user may."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, pid, -10)
        # Where sessions share the processor evenly, only this counts.
        Path(f"/proc/{pid}/autogroup").write_text("-10")


@dataclass
class Course:
    """The parts of one run, in their order."""

    setting: Setting
    outcome: Outcome
    progress: Progress
    broker: Broker | Peer
    watch: Watch
    pair: Worker
    guest: Worker
    counted_at: float = 0.0

    def be_idle(self) -> None:
        """Measures the pair while there is nobody but the guest."""
        self.progress.say("idle")
        time.sleep(0.7)
        self.pair.end_phase()
        self.guest.end_phase()
        self.watch.export(self.setting.patience)
        started = time.monotonic()
        time.sleep(self.setting.form.idle_seconds)
        self.outcome.idle, faults = self.pair.end_phase()
        guest_times, guest_faults = self.guest.end_phase()
        if faults or guest_faults:
            raise Fault(f"already idle, others are cut: {dict(faults + guest_faults)}")
        ended = time.monotonic()
        self.outcome.rest = self.watch.memory("VmRSS")
        turns = self.watch.export(self.setting.patience)
        if self.outcome.attack is None:
            self.outcome.besieged, self.outcome.guest = self.outcome.idle, guest_times
            self.note_turns(turns, started, ended)

    def besiege(self, attacker: Worker) -> None:
        """From the attackers' coming until the broker has seen the last of them go."""
        outcome = self.outcome
        started = ended = time.monotonic()
        is_prepared = False
        limit = started + PREPARATION_SECONDS
        while True:
            self.progress.say("attack" if is_prepared else "preparation")
            told = attacker.hear(0.25)
            if told is None:
                if attacker.process.poll() is not None:
                    break
                if self.is_over(limit, "the attack" if is_prepared else "its preparation"):
                    attacker.kill()
                    break
                if is_prepared and time.monotonic() > self.counted_at + COUNT_SECONDS \
                        and not outcome.turns.is_stuck:
                    outcome.turns += self.watch.export(self.setting.patience)
                    self.note_counted()
                continue
            if told.get("phase") == "leave":
                outcome.turns += self.watch.export(self.setting.patience)
                self.note_counted()
            if told.get("phase") == "attack":
                outcome.preparation = self.watch.export(self.setting.patience)
                self.note_counted()
                self.pair.end_phase()
                self.guest.end_phase()
                started, is_prepared = time.monotonic(), True
                outcome.is_made = True
                limit = started + 15 + 3 * self.setting.form.attack_seconds
            if "counts" in told:
                self.note_told(told)
                break
            attacker.say()
        attacker.process.wait()
        # The kernel tells the broker of the last ones.
        time.sleep(0.5)
        self.progress.say("everybody has left")
        turns = self.watch.export(self.setting.patience)
        ended = time.monotonic()
        outcome.besieged, faults = self.pair.end_phase()
        outcome.guest, guest_faults = self.guest.end_phase()
        outcome.beside_faults = Counter({f"pair {one}": faults[one] for one in faults})
        outcome.guest_faults = Counter({f"guest {one}": guest_faults[one] for one in guest_faults})
        self.note_turns(turns, started, ended)

    def is_over(self, limit: float, what: str) -> bool:
        """Whether an attack has to be broken off, and says why."""
        notes = self.outcome.notes
        if self.broker.process.poll() is not None:
            # Where it is to end, the attack says when that is all.
            attack = self.outcome.attack
            return not (attack and attack.is_last) or time.monotonic() > limit
        if self.watch.memory("VmRSS") > self.setting.ceiling:
            notes.append(f"broken off at {self.setting.ceiling >> 20} MiB")
            return True
        if time.monotonic() > limit:
            notes.append(f"broken off: {what} does not end by itself")
            return True
        return False

    def note_told(self, told: Any) -> None:
        self.outcome.counts = told["counts"]
        self.outcome.told = Counter(told["errors"])
        self.outcome.notes += told["notes"]
        self.outcome.breaches += told["breaches"]

    def note_counted(self) -> None:
        """Notes what the broker counts. What was freed may stay with the process, so that the most that was counted
        so far is held against the most that it held; the parts are those of the moment at which most was counted."""
        counted = self.watch.counted(self.outcome.rest)
        before = self.outcome.counted
        if counted and before and before.total > counted.total:
            counted.total, counted.parts = before.total, before.parts
        self.outcome.counted = counted or before
        self.counted_at = time.monotonic()

    def note_turns(self, turns: Turns, started: float, ended: float) -> None:
        self.outcome.turns += turns
        self.outcome.kept_ns = self.watch.waited(started, ended, self.outcome.turns.max_ns)
        self.outcome.disturbed = self.watch.disturbed(started, ended)
        self.outcome.share = self.watch.share(started, ended)

    def rest(self) -> None:
        """Nobody is there any more: what is kept?"""
        self.outcome.peak = self.watch.memory("VmHWM") or self.seen_peak()
        self.progress.say("rest")
        if self.broker.process.poll() is None and not self.outcome.turns.is_stuck:
            time.sleep(self.setting.form.rest_seconds)
        self.outcome.after = self.watch.memory("VmRSS")

    def seen_peak(self) -> int:
        return max((one.resident for one in self.watch.samples), default=0)

    def end(self) -> None:
        """Ends the broker, if it lives, and reads what its log says."""
        self.watch.is_done = True
        code = self.broker.process.poll()
        if code == 0 and self.outcome.attack and self.outcome.attack.is_last:
            self.broker.reader.join(5)
        elif code is not None:
            self.broker.reader.join(5)
            name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            log = list(self.broker.log)
            panics = [at for at, line in enumerate(log) if "panicked at" in line]
            self.outcome.death = " ".join([name, *log[panics[0]:panics[0] + 2]] if panics else [name])
        elif not self.outcome.turns.is_stuck:
            self.broker.stop(self.setting.patience)
            if isinstance(self.broker, Broker):
                self.outcome.totals = self.broker.totals()
        if isinstance(self.broker, Peer):
            self.outcome.cut = self.broker.endings()
            return
        log = list(self.broker.log)
        beside, self.outcome.cut = endings(log)
        if self.outcome.attack and beside:
            # The log knows why; who was cut may have seen no more than a broken connection.
            self.outcome.beside_faults = beside
            self.outcome.guest_faults = Counter()
