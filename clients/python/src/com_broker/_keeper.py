"""Keeps a client connected: connects, serves one connection after the other, closes.

What is asked on a connection, and what is subscribed, is for other modules.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Optional

from ._conversation import Conversation
from ._dialect import Connected, Denied
from ._inbox import Arrivals
from ._lifecycle import Lifecycle
from ._link import Ending, Link
from ._model import Session
from ._options import Options
from ._reconnect import Schedule
from ._requests import Requests
from ._subscriptions import Subscriptions
from ._transport import open_transport
from ._waiting import end, finite, in_words
from .errors import BrokerError, ConnectFailed, LoginRefused, ProtocolFault

logger = logging.getLogger("com_broker")

GOODBYE_SECONDS_MAX = 5.0
"""How long the broker may take to confirm that we leave."""


class Keeper:
    """The one that connects, and that alone changes the state of the client."""

    def __init__(
        self,
        options: Options,
        lifecycle: Lifecycle,
        requests: Requests,
        subscriptions: Subscriptions,
        arrivals: Arrivals,
    ) -> None:
        self._options = options
        self._lifecycle = lifecycle
        self._requests = requests
        self._subscriptions = subscriptions
        self._arrivals = arrivals
        self._schedule = Schedule(options.reconnect) if options.reconnect else None
        self._opening: Optional[asyncio.Task[Link]] = None
        self._supervisor: Optional[asyncio.Task[None]] = None
        self._closing: Optional[asyncio.Future[None]] = None
        # How far connecting came, for the error if it takes too long.
        self._progress = ""

    async def connect(self) -> Session:
        """Connects and logs in, once."""
        lifecycle = self._lifecycle
        if lifecycle.is_closed:
            raise lifecycle.closed()
        if lifecycle.state != "new":
            raise RuntimeError("connect is called once; the client comes back by itself")
        lifecycle.state = "connecting"
        try:
            link = await self._open()
        except BaseException:
            if lifecycle.state == "connecting":
                lifecycle.state = "new"
            raise
        # In one turn of the loop, so that nobody finds a connection that nobody serves.
        lifecycle.live = lifecycle.link = link
        lifecycle.set_state("connected")
        self._supervisor = asyncio.ensure_future(self._supervise(link))
        self._supervisor.add_done_callback(self._note_unsupervised)
        return link.session

    async def close(self) -> None:
        """Logs out and closes the connection; of several calls each waits for the end."""
        if self._closing is None:
            self._closing = asyncio.get_running_loop().create_future()
            try:
                await self._end_all()
            finally:
                self._closing.set_result(None)
        elif not self._closing.done():
            # Another task closes it already.
            await asyncio.wait({self._closing})

    async def _end_all(self) -> None:
        try:
            if not self._lifecycle.is_closed:
                self._lifecycle.set_state("closed")
                if self._opening is not None:
                    self._opening.cancel()
                try:
                    if self._lifecycle.live is not None:
                        await self._say_goodbye(self._lifecycle.live)
                finally:
                    self._finish(None)
        finally:
            try:
                if self._supervisor is not None:
                    await end(self._supervisor)
            finally:
                if self._lifecycle.live is not None:
                    # The supervisor was cancelled before it first ran.
                    await self._lifecycle.live.close()

    async def _say_goodbye(self, link: Link) -> None:
        # The answer comes behind messages that nobody may take: closed inboxes never block reading.
        self._arrivals.close(None)
        request = self._requests.new(self._options.dialect.disconnect)
        link.issue(request)
        # If the connection ends, so does the request.
        seconds = min(self._options.answer_timeout, GOODBYE_SECONDS_MAX)
        await asyncio.wait({request.future}, timeout=seconds)
        request.future.cancel()

    async def _supervise(self, link: Link) -> None:
        """Serves one connection after the other, until the client is closed."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                began = loop.time()
                ending = await self._serve(link)
                if self._lifecycle.is_closed:
                    return
                self._lifecycle.set_state("away")
                following = await self._come_back(ending, loop.time() - began)
                if following is None:
                    return
                link = following
        except Exception as error:
            # After an unexpected exception every caller must still get an answer.
            logger.exception("%r: closed by a fault of the client", self._lifecycle)
            self._lifecycle.set_state("closed")
            fault = BrokerError("the client has a fault; the log says more")
            fault.__cause__ = error
            self._finish(fault)

    def _note_unsupervised(self, _: asyncio.Task[None]) -> None:
        if not self._lifecycle.is_closed:
            # A program that cancels all tasks cancels this one, too, maybe before it began.
            self._lifecycle.set_state("closed")
            self._finish(BrokerError("the client's task was cancelled"))
            if self._lifecycle.live is not None:
                self._lifecycle.live.transport.abort()

    async def _serve(self, link: Link) -> Ending:
        self._lifecycle.live = link
        running = asyncio.ensure_future(link.run())
        try:
            if self._lifecycle.link is None:
                await self._subscriptions.restore(link)
            if self._lifecycle.state == "away" and not link.ended.done():
                self._requests.release(link)
                self._lifecycle.link = link
                self._lifecycle.set_state("connected")
            await asyncio.wait({running})
            return running.result()
        finally:
            try:
                await end(running)
            finally:
                await link.close()
                self._lifecycle.live = self._lifecycle.link = None

    async def _come_back(self, ending: Ending, lasted: float) -> Optional[Link]:
        error, retry = ending.error, ending.retry
        if self._schedule is not None:
            self._schedule.note_session(lasted)
        while not self._lifecycle.is_closed:
            wait = self._schedule.next_wait(retry) if self._schedule else None
            if wait is None:
                logger.warning("%r: closed for good: %s", self._lifecycle, error)
                self._lifecycle.set_state("closed")
                self._finish(error)
                return None
            logger.info("%r: %s; trying again in %.1f s", self._lifecycle, error, wait)
            await asyncio.sleep(wait)
            try:
                return await self._open()
            except LoginRefused as refused:
                error, retry = refused, refused.retry
            except BrokerError as failed:
                error, retry = failed, None
        return None

    async def _open(self) -> Link:
        """Connects and logs in.

        Between the login and whoever gets the link the loop has no turn, so that nobody can close
        the client without finding it.
        """
        number = self._lifecycle.connections + 1
        opening = self._opening = asyncio.ensure_future(self._log_in(number))
        try:
            await asyncio.wait({opening}, timeout=finite(self._options.connect_timeout))
            if self._lifecycle.is_closed:
                raise self._lifecycle.closed()
            if not opening.done():
                address, seconds = self._options.url.address, self._options.connect_timeout
                raise ConnectFailed(
                    f"no login at {address} within {in_words(seconds)}: {self._progress}"
                )
            link = opening.result()
        except BaseException:
            # The login may have succeeded in this very turn.
            await end(opening)
            if not opening.cancelled() and opening.exception() is None:
                await opening.result().close()
            raise
        finally:
            self._opening = None
        self._lifecycle.connections = number
        self._lifecycle.session = link.session
        return link

    async def _log_in(self, number: int) -> Link:
        kind = (
            "TLS"
            if self._options.url.is_tls
            else "WebSocket"
            if self._options.url.is_websocket
            else ""
        )
        self._progress = "is the address right" + (
            f", and does the port speak {kind}?" if kind else "?"
        )
        transport = await open_transport(
            self._options.url,
            self._options.dialect.name,
            self._options.trust,
            proxy=self._options.proxy,
            frame_bytes_max=self._options.frame_bytes_max,
            queued_bytes_max=self._options.outgoing_bytes_max,
        )
        self._progress = (
            "the connection is there, but nobody answers: is it the broker, and does the port want "
            "TLS?"
        )
        try:
            conversation = Conversation(
                self._options.dialect, self._options.frame_bytes_max, number
            )
            transport.write(self._options.greeting(resume=number > 1))
            while True:
                data = await transport.read()
                if not data:
                    why = f" ({transport.end_reason})" if transport.end_reason else ""
                    raise ConnectFailed(
                        f"{self._options.url.address} closed the connection before the login was "
                        f"answered{why}: does this port want TLS, or not speak this dialect?"
                    )
                events = conversation.feed(data)
                if events:
                    break
            first, *others = events
            if isinstance(first, Denied):
                error = first.error
                raise LoginRefused(error.description, error.code, error.retry or "later")
            if not isinstance(first, Connected):
                raise ProtocolFault("the broker did not answer the login")
            return Link(
                transport,
                conversation,
                self._options.dialect,
                self._arrivals,
                first,
                others,
                beat=self._options.heart_beat,
                numbers=self._requests.numbers,
                on_end=self._lifecycle.note_end,
            )
        except BaseException:
            transport.abort()
            await transport.close()
            raise

    def _finish(self, error: Optional[BrokerError]) -> None:
        """Ends everything that waits; the client is closed, and `error` says why."""
        self._lifecycle.note_final_error(error)
        self._requests.close()
        self._arrivals.close(error)
