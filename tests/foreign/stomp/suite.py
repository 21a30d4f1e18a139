#!/usr/bin/env python3
"""The programs that tests/foreign/stomp/run starts, and what each must have shown; started by it."""

import argparse
import concurrent.futures
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent.parent
sys.path.insert(0, str(ROOT / "scripts"))

from broker import Broker, Fault, build, run_script, wait_until  # noqa: E402
from examples import PAGE, read_examples  # noqa: E402

# What every client does, but for what its library cannot.
CHECKS = ["connect", "subscribe_and_send", "receipt", "ack", "nack", "transaction", "heart_beat",
          "disconnect", "wrong_key"]
# STOMP 1.1 brought NACK and heart-beats.
SINCE_1_1 = {"nack", "heart_beat"}

# A super agent may consume queues and is found under /agent/.
KEYS = "my_app_secret_key.my_super_agent_secret_key"

# Far more than anything takes on a loaded machine.
PROGRAM_SECONDS_MAX = 120

# A program spends most of its time idle, to see heart-beats.
PROGRAMS_AT_ONCE = 6


class Program:
    """A library in a version of STOMP over a transport."""

    def __init__(self, library, command, version, transport, lacks=()):
        self.library = library
        self.command = command
        self.version = version
        self.transport = transport
        older = SINCE_1_1 if version == "1.0" else set()
        self.checks = [name for name in CHECKS if name not in lacks and name not in older]

    @property
    def name(self):
        return f"{self.library} {self.version} {self.transport}"

    def run(self, broker, work):
        """Gives lines for the report, and failures among them counted."""
        login = self.name.replace(" ", "-")
        environment = {
            **os.environ, "BROKER_PORT": str(broker.port), "BROKER_CA": str(broker.authority),
            "BROKER_LOGIN": login, "BROKER_KEYS": KEYS,
            "BROKER_NODE_MODULES": str(work / "node" / "node_modules")}
        program, errors = run_bounded(
            [*self.command(work), self.version, self.transport], environment, HERE)
        told = dict(re.findall(r"^(?:ok|FAILED) (\w+)(.*)$", program, re.M))
        passed = set(re.findall(r"^ok (\w+)", program, re.M))
        release = re.search(r"^version (.+)$", program, re.M)
        name = f"{self.library} {release[1] if release else ''} {self.version} {self.transport}"
        for check in self.checks:
            if check in passed and (fault := self.fault_in_log(broker, login, check)):
                passed.remove(check)
                told[check] = f": {fault}"
            if check in passed:
                yield True, f"ok {name}: {check}{told[check]}"
            else:
                why = told.get(check) or f": it was not made: {program[-300:]} {errors[-600:]}"
                yield False, f"FAILED {name}: {check}{' '.join(why.splitlines())}"

    @staticmethod
    def fault_in_log(broker, login, check):
        """The broker must have seen the orderly end that the client believes in."""
        if check != "disconnect":
            return None
        pattern = re.compile(rf'login="{re.escape(login)}-disconnect" (?:profile=\w+ )?reason=(\w+)')
        found = wait_until(lambda: any(pattern.search(line) for line in list(broker.log)), 5)
        reasons = {match[1] for line in list(broker.log) if (match := pattern.search(line))}
        return None if found and reasons == {"logout"} else f"the broker saw {reasons or 'no end'}"


def run_bounded(command, environment, directory):
    process = subprocess.Popen(
        command, env=environment, cwd=directory, stdin=subprocess.DEVNULL, text=True,
        errors="replace", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        return process.communicate(timeout=PROGRAM_SECONDS_MAX)
    except subprocess.TimeoutExpired:
        process.kill()
        output, errors = process.communicate()
        return output, f"{errors}\nstill running after {PROGRAM_SECONDS_MAX} s"


def programs():
    """All of them."""
    def python(work):
        return [work / "venv" / "bin" / "python", HERE / "stomp_py.py"]

    def script(interpreter, name):
        return lambda work: [interpreter, HERE / name]

    for version, transport in [("1.0", "tcp"), ("1.1", "tcp"), ("1.2", "tcp"), ("1.0", "tls"),
                               ("1.1", "tls"), ("1.2", "tls"), ("1.2", "ws"), ("1.2", "wss")]:
        yield Program("stomp.py", python, version, transport)
    for transport in ("ws", "wss"):
        yield Program("chromium", script("node", "stompjs_chromium.mjs"), "1.2", transport)
        for version in ("1.0", "1.1", "1.2"):
            yield Program("stompjs", script("node", "stompjs_node.mjs"), version, transport)
            yield Program("webstomp", script("node", "webstomp_node.mjs"), version, transport)
    for version in ("1.0", "1.1", "1.2"):
        for transport in ("tcp", "tls"):
            yield Program("stompit", script("node", "stompit_node.mjs"), version, transport)
            yield Program("ruby", script("ruby", "ruby_stomp.rb"), version, transport)
            yield Program("perl", script("perl", "net_stomp.pl"), version, transport,
                          lacks={"heart_beat"})
        # The extension has no heart-beats, and Debian builds it without TLS.
        yield Program("php", script("php", "php_stomp.php"), version, "tcp", lacks={"heart_beat"})


class Report:
    def __init__(self, only):
        self.only = re.compile(only)
        self.passed = self.failed = self.skipped = 0

    def tell(self, passed, line):
        self.passed += passed
        self.failed += not passed
        print(line, flush=True)

    def skip(self, name, reason):
        self.skipped += 1
        print(f"skipped {name}: {reason}", flush=True)


def check_table(report, work):
    """The table in docs/stomp-clients.md names the versions that are installed."""
    text = PAGE.read_text()
    lock = json.loads((HERE / "package-lock.json").read_text())["packages"]
    wanted = [tuple(line.split("==")) for line in
              (HERE / "requirements.txt").read_text().splitlines() if line.startswith("stomp")]
    wanted += [(name, lock[f"node_modules/{name}"]["version"])
               for name in ("@stomp/stompjs", "webstomp-client", "stompit")]
    for name, release in wanted:
        held = re.search(rf"^\| {re.escape(name)} .*\b{re.escape(release)}\b", text, re.M)
        report.tell(bool(held), f"ok the table has {name} {release}" if held else
                    f"FAILED the table has {name} {release}: {PAGE.name} names another version")


def main():
    parser = argparse.ArgumentParser(prog="tests/foreign/stomp/run", description=__doc__)
    parser.add_argument("--broker", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--only", default="")
    parser.add_argument("--skip", action="append", default=[])
    arguments = parser.parse_args()
    report = Report(arguments.only)
    skipped = dict(one.split("=", 1) for one in arguments.skip)
    jobs = []
    for job in [*programs(), *read_examples()]:
        if report.only.search(job.name):
            if job.library in skipped:
                report.skip(job.name, skipped[job.library])
            else:
                jobs.append(job)
    if not jobs and not report.skipped:
        raise Fault(f"nothing is named {arguments.only}")
    started = time.monotonic()
    if not arguments.only:
        check_table(report, arguments.work)
    program = arguments.broker.resolve() if arguments.broker else build()
    with Broker(program) as broker:
        with concurrent.futures.ThreadPoolExecutor(PROGRAMS_AT_ONCE) as pool:
            running = [pool.submit(lambda job: list(job.run(broker, arguments.work)), job)
                       for job in jobs]
            for future in concurrent.futures.as_completed(running):
                for passed, line in future.result():
                    report.tell(passed, line)
        broken = [line for line in broker.log if re.search(r" (ERROR|WARN) |panicked", line)]
        code, _ = broker.stop(10)
        well = code == 0 and not broken
        report.tell(well, "ok the broker has nothing to complain of" if well else
                    f"FAILED the broker has nothing to complain of: exit code {code} {broken}")
    print(f"\n{report.passed} passed, {report.failed} failed, {report.skipped} skipped "
          f"in {time.monotonic() - started:.0f} s", flush=True)
    in_ci = os.environ.get("CI") == "true"
    return 1 if report.failed or (in_ci and report.skipped) else 0


if __name__ == "__main__":
    run_script("tests/foreign/stomp/run", main)
