"""Subscribers who read, in processes of their own: thousands are too many for one."""

from __future__ import annotations

import json
import mmap
import os
import subprocess
import sys
from collections import Counter

from broker import Fault

from .speech import Speech
from .wire import Sink, log_in_crowd, reset

WORD = 8


class Readers:
    """So many subscribers of a topic, in some processes."""

    def __init__(self, port: int, speech: Speech, topic: str, count: int, processes: int):
        self.errors: Counter[str] = Counter()
        self.ends = 0
        descriptor = os.memfd_create("siege-readers")
        os.ftruncate(descriptor, processes * WORD)
        self.counts = memoryview(mmap.mmap(descriptor, processes * WORD)).cast("Q")
        self.processes = [
            subprocess.Popen(
                [sys.executable, sys.argv[0], "--role", "readers", "--port", str(port),
                 "--speech", speech.name, "--readers", json.dumps({
                     "topic": topic, "count": count * (at + 1) // processes - count * at // processes,
                     "at": at, "of": processes, "descriptor": descriptor})],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, pass_fds=[descriptor])
            for at in range(processes)]
        os.close(descriptor)
        for process in self.processes:
            assert process.stdout
            said = process.stdout.readline()
            if said != "ready\n":
                self.stop()
                raise Fault(f"readers could not log in: {said.strip() or 'ended'}")

    @property
    def data(self) -> int:
        """Bytes that all of them have read."""
        return sum(self.counts)

    def stop(self) -> None:
        """They leave, all at once."""
        for process in self.processes:
            assert process.stdin
            process.stdin.close()
        for process in self.processes:
            assert process.stdout
            for line in process.stdout:
                if line.startswith("{"):
                    told = json.loads(line)
                    self.errors += Counter(told["errors"])
                    self.ends += told["ends"]
            process.wait()
        self.processes = []


def work(port: int, speech: Speech, task: str) -> int:
    """One of these processes. It ends with its standard input."""
    wanted = json.loads(task)
    room = mmap.mmap(wanted["descriptor"], wanted["of"] * WORD)
    at = wanted["at"]
    sink = Sink(memoryview(room).cast("Q")[at:at + 1])
    connects = (speech.connect(f"reading-{at}-{number:05}") for number in range(wanted["count"]))
    try:
        streams = log_in_crowd(
            port, connects, patience=90, first_source=1 + at, is_welcome=speech.is_welcome)
    except Exception as fault:  # noqa: BLE001: whatever it is, the attack says it
        print(f"{type(fault).__name__}: {fault}", flush=True)
        return 1
    subscribe = speech.subscribe(1, wanted["topic"])
    for stream in streams:
        stream.sendall(subscribe)
    # The last one's answer comes when all have subscribed.
    streams[-1].sendall(speech.ask)
    streams[-1].recv(4096)
    sink.add(*streams)
    print("ready", flush=True)
    sys.stdin.readline()
    sink.stop()
    for stream in streams:
        reset(stream)
    print(json.dumps({"errors": sink.errors, "ends": sink.ends}), flush=True)
    return 0
