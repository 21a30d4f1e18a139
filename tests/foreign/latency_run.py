#!/usr/bin/env python3
"""Runs the broker, has it export its latencies on SIGUSR1 and when it ends, and holds the files
against HdrHistogram's own Python package with latency_files.py."""

import argparse
import signal
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent / "scripts"))

from broker import (  # noqa: E402
    Broker, Fault, Frame, build, connect_frame, frame, run_script, wait_until)
from clients import StreamClient  # noqa: E402

DELIVERIES = 500


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--broker", type=Path, metavar="PROGRAM", help="default: build it")
    arguments = parser.parse_args()
    program = arguments.broker.resolve() if arguments.broker else build()
    with Broker(program) as broker:
        ana = StreamClient(broker)
        ana.send(connect_frame("ana"))
        expect(ana, "CONNECTED")
        deliver(ana)
        broker.process.send_signal(signal.SIGUSR1)
        exports = broker.latency_directory
        if not wait_until(lambda: list(exports.glob("*-1.hlog")), 20):
            raise Fault("nothing is exported on SIGUSR1")
        deliver(ana)
        ana.close()
        code, _ = broker.stop(20)
        if code != 0:
            raise Fault(f"exit code {code} after SIGTERM")
        check = [sys.executable, HERE / "latency_files.py", exports, str(2 * DELIVERIES)]
        return subprocess.run(check).returncode


def deliver(ana):
    for _ in range(DELIVERIES):
        ana.send(frame("SEND", {"destination": "/agent/ana"}, b"hola"))
        expect(ana, "MESSAGE")


def expect(client, command):
    received = Frame(client.receive())
    if received.command != command:
        raise Fault(f"{command} was expected: {received}")


if __name__ == "__main__":
    run_script("tests/foreign/latency_run.py", main)
