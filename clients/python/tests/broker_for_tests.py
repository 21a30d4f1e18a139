"""What tests talk to: the real broker, which can be restarted, and a proxy that falls silent."""

from __future__ import annotations

import pathlib
import selectors
import shutil
import socket
import sys
import threading
import time
from types import TracebackType
from typing import Any, Callable, Optional

ROOT = pathlib.Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "scripts"))

import broker as scripts_broker  # type: ignore[import-not-found]  # noqa: E402

APPLICATION_KEY: str = scripts_broker.APPLICATION_KEY
PROFILE_KEYS: dict[str, str] = scripts_broker.PROFILE_KEYS

PATIENCE = 20.0
"""Seconds that anything may take on a loaded machine."""


class Broker(scripts_broker.Broker):  # type: ignore[misc]
    """The broker, on a port that it keeps when it is started again."""

    config: str
    ports: list[int]

    def __enter__(self) -> Broker:
        super().__enter__()
        self.config = self.config.replace("127.0.0.1:0", f"127.0.0.1:{self.port}")
        return self

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        self._close_log()

    def kill(self) -> None:
        """Ends it as a power cut would."""
        self.process.kill()
        self.process.wait()

    def start_again(self) -> None:
        """Starts it anew, after `kill` or `stop`."""
        self._close_log()
        shutil.rmtree(self.directory / "latency")
        self.ports = []
        self._start()

    def restart(self) -> None:
        """Kills it and starts it anew."""
        self.kill()
        self.start_again()

    def _close_log(self) -> None:
        self.reader.join(PATIENCE)
        self.process.stderr.close()

    def url(self, scheme: str = "tcp", port: Optional[int] = None) -> str:
        """Where it is; its certificate is made for `localhost`, among others."""
        return f"{scheme}://localhost:{port or self.port}"

    def options(
        self, scheme: str = "tcp", *, login: str = "ana", profile: str = "agent", **others: Any
    ) -> dict[str, Any]:
        """What a client needs to log in here."""
        return {
            "url": self.url(scheme),
            "login": login,
            "application_key": APPLICATION_KEY,
            "profile_key": PROFILE_KEYS[profile],
            **({"ca": self.authority} if scheme in ("tls", "wss") else {}),
            **others,
        }


def build() -> pathlib.Path:
    """Builds the broker, and says where it is."""
    return pathlib.Path(scripts_broker.build())


class Proxy:
    """Passes on what goes to and fro, until it is told to drop it: then nobody notices anything."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._selector = selectors.DefaultSelector()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._lock = threading.Lock()
        self._pairs: dict[socket.socket, socket.socket] = {}
        self._silent: set[socket.socket] = set()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="proxy")
        self.accepted = 0

    def __enter__(self) -> Proxy:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        self._stopped = True
        self._thread.join(PATIENCE)
        for end in self._pairs:
            end.close()
        self._listener.close()
        self._selector.close()

    def drop_packets(self) -> None:
        """From now on the connections that there are carry nothing, and stay open."""
        with self._lock:
            self._silent.update(self._pairs)

    def cut(self) -> None:
        """Ends the connections that there are."""
        with self._lock:
            for end in self._pairs:
                end.shutdown(socket.SHUT_RDWR)

    def _run(self) -> None:
        while not self._stopped:
            for key, _ in self._selector.select(0.02):
                with self._lock:
                    if key.fileobj is self._listener:
                        self._accept()
                    else:
                        self._pass_on(key.fileobj)  # type: ignore[arg-type]

    def _accept(self) -> None:
        near, _ = self._listener.accept()
        self.accepted += 1
        try:
            far = socket.create_connection(("127.0.0.1", self._target), PATIENCE)
        except OSError:
            near.close()
            return
        self._pairs[near], self._pairs[far] = far, near
        for end in (near, far):
            self._selector.register(end, selectors.EVENT_READ)

    def _pass_on(self, end: socket.socket) -> None:
        if end not in self._pairs:
            return
        try:
            data = end.recv(65536)
            if end in self._silent and data:
                return
            if data:
                self._pairs[end].sendall(data)
                return
        except OSError:
            pass
        if end in self._silent:
            # The end of one side is a packet as well.
            self._selector.unregister(end)
            return
        other = self._pairs.pop(end)
        self._pairs.pop(other, None)
        for one in (end, other):
            self._selector.unregister(one)
            one.close()


def wait_until(condition: Callable[[], object], what: str, seconds: float = PATIENCE) -> None:
    """Waits for a condition, or fails with what did not happen."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.005)
