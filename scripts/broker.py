"""A broker for scripts and tests, started on free ports and stopped in any case.

Needs only Python's standard library. It encodes and parses frames of the classic dialect itself, so
that scripts need no client library and checks of the broker share no code with it.
"""

import collections
import os
import pathlib
import re
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent

# The development keys.
APPLICATION_KEY = "my_app_secret_key"
PROFILE_KEYS = {
    "agent": "my_agent_secret_key",
    "super agent": "my_super_agent_secret_key",
    "service": "my_service_secret_key",
    "admin": "my_admin_secret_key",
}


class Fault(Exception):
    """A failure, as a sentence for people."""


def build(profile="debug"):
    """Builds the broker with a profile of Cargo.toml, and returns its path."""
    command = ["cargo", "build", "--quiet", "--bin", "com-broker"]
    if profile != "debug":
        command += ["--profile", profile]
    if not shutil.which("cargo"):
        raise Fault("cargo is missing: install Rust (https://rustup.rs), or give --broker PROGRAM")
    if subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL).returncode != 0:
        raise Fault("the broker does not build")
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target")
    return (ROOT / target / profile / "com-broker").resolve()


class Broker:
    """A broker that runs during a `with` block. `config` is TOML without listeners."""

    def __init__(self, program, config="", log_level="info", listeners=1, keep_log=10_000):
        self.program = program
        self.config = "".join('[[listener]]\naddress = "127.0.0.1:0"\n' for _ in range(listeners))
        self.config += config
        self.log_level = log_level
        self.listeners = listeners
        self.ports = []
        self.log = collections.deque(maxlen=keep_log)
        self.process = None

    def __enter__(self):
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="com-broker-"))
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _start(self):
        path = self.directory / "broker.toml"
        path.write_text(self.config)
        self.directory.joinpath("latency").mkdir()
        environment = {
            name: value for name, value in os.environ.items()
            if not name.startswith("COM_BROKER_KEY_")
        }
        self.process = subprocess.Popen(
            [self.program, "serve", "--config", path, "--log-level", self.log_level,
             "--latency-directory", self.directory / "latency"],
            cwd=self.directory, env=environment, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace",
            # Ctrl-C is for the script, which then stops the broker.
            start_new_session=True)
        self.reader = threading.Thread(target=self._read_log, daemon=True)
        self.reader.start()
        if not wait_until(lambda: self.process.poll() is not None
                          or len(self.ports) == self.listeners, 20):
            raise Fault("the broker does not say that it listens")
        if self.process.poll() is not None:
            self.reader.join(5)
            raise Fault("the broker did not start:\n" + "\n".join(self.log))

    def _read_log(self):
        for line in self.process.stderr:
            self.log.append(line.rstrip("\n"))
            found = re.search(r"listening address=\S+:(\d+)$", line.rstrip())
            if found:
                self.ports.append(int(found[1]))

    @property
    def port(self):
        return self.ports[0]

    @property
    def authority(self):
        """The certificate that clients have to trust."""
        return self.directory / "certs" / "ca.pem"

    @property
    def latency_directory(self):
        return self.directory / "latency"

    def memory(self):
        """Its memory in bytes, by the kernel's names."""
        text = pathlib.Path(f"/proc/{self.process.pid}/smaps_rollup").read_text()
        return {name: int(kib) * 1024 for name, kib in re.findall(r"(\w+): +(\d+) kB", text)}

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def stop(self, deadline):
        """Sends SIGTERM; returns the exit code and the seconds until the end."""
        started = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(deadline)
        except subprocess.TimeoutExpired:
            raise Fault(f"the broker still runs {deadline} s after SIGTERM") from None
        self.reader.join(5)
        return code, time.monotonic() - started

    def totals(self):
        """The counters in the log's last line with totals."""
        for line in reversed(list(self.log)):
            if " totals " in line:
                return {name: int(count) for name, count in re.findall(r"(\w+)=(\d+)", line)}
        raise Fault("the log has no line with totals")


class Frame:
    """A frame from the broker."""

    def __init__(self, data):
        if not data.endswith(b"\0"):
            raise Fault(f"a frame that does not end in NUL: {data!r}")
        head, blank, body = data[:-1].partition(b"\n\n")
        if not blank:
            raise Fault(f"a frame without a blank line: {data!r}")
        self.data = data
        self.command, *lines = head.decode().split("\n")
        self.names = [line.split(":", 1)[0] for line in lines]
        self.headers = {}
        for line in lines:
            name, _, value = line.partition(":")
            self.headers.setdefault(name, value)
        self.body = body

    def __getitem__(self, name):
        return self.headers.get(name)

    def __repr__(self):
        return repr(self.data)


def frame(command, headers=(), body=b""):
    """A frame for the broker, without its envelope."""
    lines = "".join(f"{name}:{value}\n" for name, value in dict(headers).items())
    return f"{command}\n{lines}\n".encode() + body + b"\0"


def connect_frame(login, profile="agent", key=APPLICATION_KEY):
    return frame("CONNECT", {
        "accept-version": "1.2", "login": login, "passcode": PROFILE_KEYS[profile],
        "secret-key": key})


def envelope(data):
    """A frame in the envelope for TCP and TLS."""
    return b"\0" + struct.pack("<I", len(data)) + data


def take_envelope(buffer):
    """Takes a whole frame out of a bytearray; None if there is none."""
    if len(buffer) < 5:
        return None
    flag, length = struct.unpack_from("<BI", buffer)
    if flag != 0:
        raise Fault(f"an envelope with the flag {flag}")
    if len(buffer) < 5 + length:
        return None
    data = bytes(buffer[5:5 + length])
    del buffer[:5 + length]
    return data


UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Protocol: stomp\r\n\r\n")


def masked(data, opcode=1):
    """A WebSocket message of a client, masked with the key zero."""
    if len(data) < 126:
        length = bytes([0x80 | len(data)])
    elif len(data) < 65536:
        length = b"\xfe" + struct.pack(">H", len(data))
    else:
        length = b"\xff" + struct.pack(">Q", len(data))
    return bytes([0x80 | opcode]) + length + bytes(4) + data


def take_upgrade(buffer):
    """Takes the answer to UPGRADE out of a bytearray; returns whether it was whole."""
    end = buffer.find(b"\r\n\r\n")
    if end < 0:
        return False
    if not buffer.startswith(b"HTTP/1.1 101 "):
        raise Fault(f"the upgrade was answered with {bytes(buffer)!r}")
    del buffer[:end + 4]
    return True


def take_message(buffer):
    """Takes a whole WebSocket message out of a bytearray, and drops control frames; None if there is
    none. The broker does not fragment."""
    while len(buffer) >= 2:
        at, length = 2, buffer[1]
        if length >= 126:
            size = 2 if length == 126 else 8
            at += size
            if len(buffer) < at:
                return None
            length = int.from_bytes(buffer[2:at], "big")
        if len(buffer) < at + length:
            return None
        opcode = buffer[0]
        data = bytes(buffer[at:at + length])
        del buffer[:at + length]
        if opcode in (0x81, 0x82):
            return data
    return None


def wait_until(condition, seconds):
    """Waits for a condition; returns whether it became true."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def stop_on_signals():
    """Makes SIGTERM end the script like Ctrl-C, so that `with` blocks are left in order."""
    def interrupt(*_):
        raise KeyboardInterrupt
    signal.signal(signal.SIGTERM, interrupt)


def run_script(name, main):
    """Runs a script's `main`, which returns an exit code. Faults and Ctrl-C end it with a sentence."""
    stop_on_signals()
    try:
        code = main()
    except Fault as fault:
        print(f"{name}: {fault}", file=sys.stderr)
        code = 1
    except KeyboardInterrupt:
        print(f"{name}: interrupted", file=sys.stderr)
        code = 130
    sys.exit(code)
