"""Subscribing, unsubscribing, and restoring what is subscribed on the next connection."""

from __future__ import annotations

import dataclasses
import logging
from typing import Optional

from ._arguments import check_count, check_destination, check_flag, check_timeout
from ._dialect import ClassicDialect, Dialect
from ._ledger import Ledger, lasting
from ._lifecycle import Lifecycle
from ._link import Encode, Link, Request
from ._model import PRESENCE_ID_PREFIX, Subscription
from ._requests import Requests
from .errors import ConnectionLost, Refused, Unsupported

logger = logging.getLogger("com_broker")


class Subscriptions:
    """The subscriptions of one client, and their way to the broker."""

    def __init__(self, lifecycle: Lifecycle, requests: Requests, dialect: Dialect) -> None:
        self._lifecycle = lifecycle
        self._requests = requests
        self._dialect = dialect
        self._is_classic = dialect.name == "classic"
        self._ledger = Ledger(has_ids=not self._is_classic)

    @property
    def all(self) -> tuple[Subscription, ...]:
        """What is subscribed, and restored when the client comes back."""
        return tuple(held.subscription for held in self._ledger.held)

    def new(self, destination: str, regex: bool, ack: str, prefetch: Optional[int]) -> Subscription:
        """A subscription to a topic, a queue or a client, checked and not asked for yet."""
        check_destination(destination)
        check_flag("regex", regex)
        if ack not in ("auto", "client", "client-individual"):
            raise ValueError('ack must be "auto", "client" or "client-individual"')
        if prefetch is not None:
            check_count("prefetch", prefetch, 1)
        if self._is_classic and (
            ack != "auto" or prefetch is not None or destination.startswith("/queue/")
        ):
            raise Unsupported('queues are for dialect="standard", which can acknowledge')
        return Subscription(
            id=str(next(self._requests.numbers)),
            destination=destination,
            regex=regex,
            ack=ack,
            prefetch=prefetch,
        )

    def new_presence(self, pattern: str, snapshot: bool) -> Subscription:
        """A subscription to who comes and goes, not asked for yet."""
        return Subscription(
            id=f"{PRESENCE_ID_PREFIX}{next(self._requests.numbers)}",
            destination=pattern,
            snapshot=snapshot,
        )

    async def subscribe(self, subscription: Subscription, timeout: Optional[float]) -> Subscription:
        """Asks the broker for a subscription, and holds it from then on."""
        check_timeout(timeout)
        self._lifecycle.check_usable()
        request = self._requests.new(self._subscribing(subscription))
        try:
            receipt = await self._requests.ask(request, timeout)
        except Refused:
            raise
        except BaseException:
            if request.is_issued:
                # The caller gets no subscription, and yet the broker may have made one.
                self._disown(subscription)
            raise
        made = dataclasses.replace(subscription, clients=receipt.clients)
        self._ledger.add(made)
        return made

    async def unsubscribe(self, subscription: Subscription, timeout: Optional[float]) -> None:
        """Ends a subscription; while away, it is ended as soon as the client is back."""
        check_timeout(timeout)
        held = self._ledger.remove(subscription.id)
        if held is None:
            raise ValueError(f"there is no subscription {subscription.id} to end")
        link = self._lifecycle.link
        if link is None or self._ledger.is_shared(held.wire):
            return
        request = self._requests.new(self._unsubscribing(held.wire))
        try:
            await self._requests.ask(request, timeout, link)
        except ConnectionLost:
            return
        except BaseException:
            if not request.is_issued and not link.ended.done():
                # The broker never heard of it, so that the subscription still stands.
                self._ledger.take_back(held)
            raise
        self._ledger.forget(held.wire.id)

    async def restore(self, link: Link) -> None:
        """Subscribes again to everything, before anything else is sent.

        The broker may have kept our session, and in it what was unsubscribed meanwhile.
        """
        ended = {wire.id for wire in self._ledger.orphans}
        requests = []
        if isinstance(self._dialect, ClassicDialect):
            requests.append(self._requests.issue(link, self._dialect.unsubscribe_all))
        else:
            for wire in self._ledger.orphans:
                requests += self._end_orphan(link, wire)
        restored = {}
        for held in self._ledger.held:
            held.wire = lasting(held.subscription, link.session)
            request = self._requests.issue(link, self._subscribing(held.wire))
            restored[held.wire.id] = request
            requests.append(request)
        await self._requests.wait_for_all(link, requests)
        for name, request in restored.items():
            if not request.future.cancelled() and isinstance(request.future.exception(), Refused):
                logger.warning(
                    "%r: subscription %s was not restored: %s",
                    self._lifecycle,
                    name,
                    request.future.exception(),
                )
        # The program may end further ones while we wait.
        while not link.ended.done():
            late = [wire for wire in self._ledger.orphans if wire.id not in ended]
            if not late:
                break
            requests = []
            for wire in late:
                ended.add(wire.id)
                if wire.id in restored:
                    requests.append(self._requests.issue(link, self._unsubscribing(wire)))
                elif not self._is_classic:
                    requests += self._end_orphan(link, wire)
            await self._requests.wait_for_all(link, requests)
        if not link.ended.done():
            for name in ended:
                self._ledger.forget(name)

    def _end_orphan(self, link: Link, wire: Subscription) -> list[Request]:
        """Ends what the broker may have kept."""
        # Only what exists can be ended: it is made first, whether the broker still has it or not.
        made = lasting(wire, link.session)
        return [
            self._requests.issue(link, self._subscribing(made)),
            self._requests.issue(link, self._unsubscribing(made)),
        ]

    def _disown(self, wire: Subscription) -> None:
        """Ends a subscription of which it is not known whether it was made."""
        link = self._lifecycle.link
        if link is None or link.ended.done():
            self._ledger.disown(wire)
        elif not self._ledger.is_shared(wire):
            # Behind the SUBSCRIBE, so that there is something to end.
            self._requests.issue(link, self._unsubscribing(wire))

    def _subscribing(self, wire: Subscription) -> Encode:
        return lambda request: self._dialect.subscribe(request, wire)

    def _unsubscribing(self, wire: Subscription) -> Encode:
        return lambda request: self._dialect.unsubscribe(request, wire)
