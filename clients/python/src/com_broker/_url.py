"""Where a broker is and how it is spoken to: `tcp://127.0.0.1:6662`, `wss://broker.example/stomp`."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

DEFAULT_PORTS = {"tcp": 6662, "tls": 6662, "ws": 80, "wss": 443}


@dataclass(frozen=True)
class BrokerUrl:
    """A broker's URL, taken apart."""

    scheme: str
    """`tcp`, `tls`, `ws` or `wss`."""
    host: str
    """A name or an address; IPv6 without its brackets."""
    port: int
    """6662 if absent, 80 for `ws`, 443 for `wss`."""
    path: str
    """What a WebSocket is asked for; begins with `/`."""

    @classmethod
    def parse(cls, url: str) -> BrokerUrl:
        """Reads `scheme://host[:port][/path]`.

        Raises:
            ValueError: names the part that is wrong. It never repeats what might be a password.
        """
        scheme, separator, rest = url.partition("://")
        scheme = {"ssl": "tls"}.get(scheme.lower(), scheme.lower())
        if not separator or scheme not in DEFAULT_PORTS:
            raise ValueError(
                "the URL must begin with tcp://, tls://, ws:// or wss://, such as "
                "tcp://127.0.0.1:6662"
            )
        authority, slash, path = rest.partition("/")
        path = slash + path or "/"
        if "@" in authority:
            raise ValueError("the URL must not hold a user or a password")
        if (path != "/" and scheme in ("tcp", "tls")) or re.search(r"[\x00-\x20\x7f#]", path):
            raise ValueError("the path in the URL makes no sense: only ws:// and wss:// have one")
        parts = re.fullmatch(r"(\[[^\[\]]*\]|[^\[\]:]*)(?::(.*))?", authority)
        host = parts[1].strip("[]") if parts else ""
        if not parts or not host or re.search(r"[\x00-\x20\x7f]", host):
            raise ValueError("the URL names no host, such as in tcp://127.0.0.1:6662")
        port = DEFAULT_PORTS[scheme]
        if parts[2] is not None:
            if not re.fullmatch(r"[0-9]{1,5}", parts[2]) or not 0 < int(parts[2]) < 65536:
                raise ValueError("the port in the URL must be a number from 1 to 65535")
            port = int(parts[2])
        return cls(scheme, host, port, path)

    @property
    def address(self) -> str:
        """Host and port as one writes them."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_tls(self) -> bool:
        """Whether the connection is encrypted."""
        return self.scheme in ("tls", "wss")

    @property
    def is_websocket(self) -> bool:
        """Whether frames travel as WebSocket messages."""
        return self.scheme in ("ws", "wss")

    def __str__(self) -> str:
        return f"{self.scheme}://{self.address}{'' if self.path == '/' else self.path}"


@dataclass(frozen=True)
class Proxy:
    """A proxy, by way of which a WebSocket is opened; its URL may hold a password."""

    url: str = field(repr=False)
    address: str
    """Host and port, for messages."""

    @classmethod
    def parse(cls, url: str) -> Proxy:
        """Reads `scheme://[user:password@]host:port`.

        Raises:
            ValueError: it is no such URL. It is not repeated.
        """
        found = re.fullmatch(
            r"(?:https?|socks4a?|socks5h?)://(?:[^/@\x00-\x20\x7f]*@)?"
            r"((?:\[[0-9A-Fa-f:.]+\]|[^/@:\[\]?#\x00-\x20\x7f]+):[0-9]{1,5})/?",
            url,
        )
        if not found:
            raise ValueError(
                "the proxy must be a URL with a port, such as http://proxy.example:3128 or "
                "socks5://127.0.0.1:1080"
            )
        return cls(url, found[1])
