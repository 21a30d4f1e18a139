"""The exceptions of the package; each says what is wrong and, where known, what to do about it.

All of them are a `BrokerError`. Those about the connection are also a `ConnectionError`, and a
timeout is also a `TimeoutError`, so that programs which catch the built-in ones work as well. No
text shows a key.
"""

from __future__ import annotations

from typing import Optional

__all__ = [
    "AnswerTimeout",
    "BrokerError",
    "BufferFull",
    "Closed",
    "ConnectFailed",
    "ConnectionLost",
    "LoginRefused",
    "NotConnected",
    "ProtocolFault",
    "Refused",
    "TakenOver",
    "Unconfirmed",
    "Unsupported",
]


class BrokerError(Exception):
    """Anything that this package raises, but for wrong arguments, which are a `ValueError`."""


class NotConnected(BrokerError, ConnectionError):
    """`connect` was not called, so that there is nothing to wait for."""


class Closed(NotConnected):
    """The client was closed, by the program or for good by the broker; `__cause__` says why."""


class ConnectFailed(BrokerError, ConnectionError):
    """No connection could be made; the text names the host, port, TLS or WebSocket at fault."""


class ConnectionLost(BrokerError, ConnectionError):
    """The connection ended."""


class Unconfirmed(ConnectionLost):
    """Something was sent, and the connection ended before the broker answered.

    It may be done or not. It is never sent a second time by itself.
    """


class ProtocolFault(BrokerError):
    """The other side sent malformed frames: most likely it is not the broker."""


class Unsupported(BrokerError):
    """The dialect, or what is installed, cannot do this; the text says what can."""


class BufferFull(BrokerError):
    """The connection is away, and what waits for it would exceed `outgoing_bytes_max`."""


class AnswerTimeout(BrokerError, TimeoutError):
    """The answer did not come in time. Whether the broker did what was asked is not known."""


class Refused(BrokerError):
    """The broker said no, in an ERROR or in an ACK that is not `OK`.

    Attributes:
        description: a sentence for people.
        code: a stable word for programs, such as `NO_SUCH_DESTINATION`; None from a broker that
            gives none.
        retry: None where the connection stays. Where the broker closes it: `"never"` (the same
            would be refused again), `"later"` (refused for now) or `"now"` (taken away through no
            fault of ours).
    """

    def __init__(
        self, description: str, code: Optional[str] = None, retry: Optional[str] = None
    ) -> None:
        super().__init__(description, code, retry)
        self.description = description
        self.code = code
        self.retry = retry

    @property
    def closes(self) -> bool:
        """Whether the broker closes the connection over it."""
        return self.retry is not None

    def __str__(self) -> str:
        return f"{self.description} ({self.code})" if self.code else self.description


class LoginRefused(Refused):
    """The broker does not let us in: a wrong key, or a login id that is in use."""


class TakenOver(Refused):
    """A newer connection logged in with our login id, and has the session now.

    The client does not connect again by itself: two programs would fight for ever.
    """
