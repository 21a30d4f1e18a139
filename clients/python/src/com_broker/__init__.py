"""Client of the Communication Broker: messages between named clients, topics and queues.

Three clients, for three kinds of programs:

- `Client`: blocking, for threads; any number of them may share one.
- `AsyncClient`: the same for asyncio.
- `broker_client`: the original's own interface, for programs that were written for it.

All of them speak over TCP, TLS, WebSocket and secure WebSocket but `broker_client`, which knows TCP
and TLS. WebSocket needs the package `websockets`, 15.0 or later.

The package logs under the name `com_broker`: what it survives at level INFO, what it gives up at
WARNING. Keys and bodies are never logged.
"""

import logging

from . import errors
from ._async_client import AsyncClient
from ._client import Client
from ._drop_in import broker_client
from ._model import ListedClient, Message, PresenceEvent, Receipt, Session, Subscription
from ._reconnect import Reconnect
from ._version import __version__
from .errors import (
    AnswerTimeout,
    BrokerError,
    BufferFull,
    Closed,
    ConnectFailed,
    ConnectionLost,
    LoginRefused,
    NotConnected,
    ProtocolFault,
    Refused,
    TakenOver,
    Unconfirmed,
    Unsupported,
)

__all__ = [
    "AnswerTimeout",
    "AsyncClient",
    "BrokerError",
    "BufferFull",
    "Client",
    "Closed",
    "ConnectFailed",
    "ConnectionLost",
    "ListedClient",
    "LoginRefused",
    "Message",
    "NotConnected",
    "PresenceEvent",
    "ProtocolFault",
    "Receipt",
    "Reconnect",
    "Refused",
    "Session",
    "Subscription",
    "TakenOver",
    "Unconfirmed",
    "Unsupported",
    "__version__",
    "broker_client",
    "errors",
]

logging.getLogger("com_broker").addHandler(logging.NullHandler())
