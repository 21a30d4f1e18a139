"""What a client is made with: checked once, named when wrong, and never changed after."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Optional, Union

from ._arguments import check_count, check_seconds, check_text, wrong_type
from ._dialect import ClassicDialect, Dialect, Keys, StandardDialect
from ._reconnect import Reconnect
from ._transport import Trust
from ._url import BrokerUrl, Proxy

if TYPE_CHECKING:
    import os

MIB = 1024 * 1024


@dataclass(frozen=True)
class Options:
    """The arguments of `AsyncClient`, which documents them, in the form that its parts need."""

    url: BrokerUrl
    login: str
    keys: Keys
    dialect: Dialect
    trust: Trust
    heart_beat: float
    connect_timeout: float
    answer_timeout: float
    reconnect: Optional[Reconnect]
    outgoing_bytes_max: int
    incoming_bytes_max: int
    frame_bytes_max: int
    proxy: Optional[Proxy]

    @classmethod
    def of(
        cls,
        url: str,
        login: str,
        application_key: str,
        profile_key: str,
        dialect: str,
        ca: Optional[Union[str, os.PathLike[str]]],
        server_hostname: Optional[str],
        ssl_context: Optional[ssl.SSLContext],
        heart_beat: float,
        connect_timeout: float,
        answer_timeout: float,
        reconnect: Optional[Reconnect],
        outgoing_bytes_max: int,
        incoming_bytes_max: int,
        frame_bytes_max: int,
        proxy: Optional[str],
    ) -> Options:
        """Takes what a program gave.

        Raises:
            ValueError: an argument makes no sense; keys are not repeated.
            TypeError: an argument has the wrong type.
        """
        check_text("url", url)
        parsed = BrokerUrl.parse(url)
        if dialect not in ("classic", "standard"):
            raise ValueError('dialect must be "classic" or "standard"')
        check_seconds("heart_beat", heart_beat, endless=False)
        check_seconds("connect_timeout", connect_timeout)
        check_seconds("answer_timeout", answer_timeout)
        check_count("outgoing_bytes_max", outgoing_bytes_max, 0)
        check_count("incoming_bytes_max", incoming_bytes_max, 0)
        check_count("frame_bytes_max", frame_bytes_max, 1)
        if reconnect is not None and not isinstance(reconnect, Reconnect):
            raise wrong_type("reconnect", "Reconnect or None", reconnect)
        by_way: Optional[Proxy] = None
        if proxy is not None:
            check_text("proxy", proxy)
            if not parsed.is_websocket:
                raise ValueError("only ws:// and wss:// can go by way of a proxy")
            by_way = Proxy.parse(proxy)
        options = cls(
            url=parsed,
            login=login,
            keys=Keys(application_key, profile_key),
            dialect=(
                StandardDialect()
                if dialect == "standard"
                else ClassicDialect(enveloped=not parsed.is_websocket)
            ),
            trust=Trust(ca, server_hostname, ssl_context),
            heart_beat=heart_beat,
            connect_timeout=connect_timeout,
            answer_timeout=answer_timeout,
            reconnect=reconnect,
            outgoing_bytes_max=outgoing_bytes_max,
            incoming_bytes_max=incoming_bytes_max,
            frame_bytes_max=frame_bytes_max,
            proxy=by_way,
        )
        # Faults in login and keys are found before anything is opened.
        options.greeting(resume=False)
        return options

    def greeting(self, resume: bool) -> bytes:
        """The CONNECT frame; with `resume` it asks for the subscriptions that the broker kept."""
        return self.dialect.connect(
            self.login, self.keys, self.url.host, round(self.heart_beat * 1000), resume=resume
        )
