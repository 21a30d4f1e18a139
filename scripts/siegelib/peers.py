"""Other servers, with what a package of theirs has as default."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections import Counter, deque
from dataclasses import dataclass
from pathlib import Path

from broker import Fault, wait_until

PATHS = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class Kind:
    """A server: its name in tables and in the package archive, and what it speaks."""

    name: str
    speech: str

    def find(self) -> str:
        """Its program. Some systems have servers where ordinary users do not look."""
        path = shutil.which(self.name) or shutil.which(self.name, path=PATHS)
        if not path:
            raise Fault(f"{self.name} is missing (apt-get install {self.name})")
        return path


KINDS = {one.name: one for one in (
    Kind("nats-server", "nats"), Kind("mosquitto", "mqtt"), Kind("redis-server", "redis"))}

# Those that can be attacked as the broker is.
BESIEGED = [KINDS["nats-server"], KINDS["mosquitto"]]

# Why a line of its log says that somebody was cut or lost messages; what else ends connections is
# the clients' doing.
ENDINGS = {
    "nats-server": re.compile(r"(Slow Consumer) Detected|(maximum \w+ exceeded)", re.I),
    "mosquitto": re.compile(
        r"(Outgoing messages are being dropped)|(exceeded timeout)|(oversize packet)"
        r"|(malformed packet)|(protocol error)|(Out of memory)", re.I),
}


class Peer:
    """A server during a `with` block, with what of `Broker` an attack needs."""

    def __init__(self, kind: Kind, keep_log: int = 200_000):
        self.kind = kind
        self.program = kind.find()
        self.log: deque[str] = deque(maxlen=keep_log)
        self.process: subprocess.Popen[str]

    def __enter__(self) -> Peer:
        self.directory = Path(tempfile.mkdtemp(prefix="com-broker-peer-"))
        self.port = free_port()
        self.process = subprocess.Popen(
            [self.program, *self.arguments()], cwd=self.directory, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace",
            start_new_session=True)
        self.reader = threading.Thread(target=self._read_log, daemon=True)
        self.reader.start()
        if not wait_until(lambda: self.process.poll() is not None or listens(self.port), 20) \
                or self.process.poll() is not None:
            self.__exit__()
            raise Fault(f"{self.kind.name} does not start:\n" + "\n".join(self.log))
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)

    def arguments(self) -> list[str]:
        if self.kind.name == "nats-server":
            return ["-a", "127.0.0.1", "-p", str(self.port)]
        if self.kind.name == "redis-server":
            # Its protected mode allows only 127.0.0.1; many connections need more addresses.
            return ["--port", str(self.port), "--save", "", "--appendonly", "no", "--maxclients",
                    "15000", "--protected-mode", "no"]
        path = self.directory / "mosquitto.conf"
        path.write_text(
            f"listener {self.port} 127.0.0.1\nallow_anonymous true\nuser root\n"
            "set_tcp_nodelay true\n")
        return ["-c", str(path)]

    def _read_log(self) -> None:
        assert self.process.stderr
        for line in self.process.stderr:
            self.log.append(line.rstrip("\n"))

    def stop(self, deadline: float) -> None:
        self.process.terminate()
        try:
            self.process.wait(deadline)
        except subprocess.TimeoutExpired:
            # What it was asked for is over.
            self.process.kill()
            self.process.wait()
        self.reader.join(5)

    def endings(self) -> Counter[str]:
        """Who was cut, by its log."""
        found = (ENDINGS[self.kind.name].search(line) for line in list(self.log))
        return Counter(
            next(one for one in match.groups() if one).lower() for match in found if match)


def free_port() -> int:
    with socket.socket() as stream:
        stream.bind(("127.0.0.1", 0))
        return stream.getsockname()[1]


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        time.sleep(0.02)
        return False
    return True
