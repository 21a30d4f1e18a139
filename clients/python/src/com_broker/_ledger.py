"""Which subscriptions a client wants, and which more the broker may have. No I/O, no time."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from typing import Optional

from ._dialect import is_address
from ._model import Session, Subscription


@dataclass
class Held:
    """A subscription, and how it was asked for on the connection that there is."""

    subscription: Subscription
    wire: Subscription


class Ledger:
    """The subscriptions of one client; they outlive its connections.

    A subscription that the program ended is an *orphan* until the broker has confirmed its end. It
    must be ended anew on the next connection, since the broker may have kept it with our session.
    """

    def __init__(self, *, has_ids: bool) -> None:
        # Whether the dialect tells two subscriptions to one destination apart.
        self._has_ids = has_ids
        self._held: dict[str, Held] = {}
        self._orphans: dict[str, Subscription] = {}

    @property
    def held(self) -> list[Held]:
        """What is wanted, in the order of subscribing; safe to ask from another thread."""
        return list(self._held.values())

    @property
    def orphans(self) -> list[Subscription]:
        """What the broker may have and nobody wants."""
        return list(self._orphans.values())

    def add(self, subscription: Subscription) -> None:
        """Notes a subscription that the broker confirmed."""
        self._held[subscription.id] = Held(subscription, subscription)

    def remove(self, name: str) -> Optional[Held]:
        """Takes out a subscription; what the broker has of it is then an orphan, unless shared."""
        held = self._held.pop(name, None)
        if held is not None:
            self.disown(held.wire)
        return held

    def take_back(self, held: Held) -> None:
        """Undoes `remove`, where the broker never heard of it."""
        self._orphans.pop(held.wire.id, None)
        self._held[held.subscription.id] = held

    def disown(self, wire: Subscription) -> None:
        """Notes what the broker may have and nobody wants."""
        if not self.is_shared(wire):
            self._orphans[wire.id] = wire

    def forget(self, name: str) -> None:
        """Notes that the broker has it no more."""
        self._orphans.pop(name, None)

    def is_shared(self, wire: Subscription) -> bool:
        """Whether the broker cannot tell a subscription from one that stays."""
        return not self._has_ids and any(
            (one.wire.destination, one.wire.is_presence) == (wire.destination, wire.is_presence)
            for one in self._held.values()
        )


def lasting(subscription: Subscription, session: Session) -> Subscription:
    """The form in which a subscription is restored.

    A client that was watched by address may come back after us; a regular expression waits for it.
    """
    destination = subscription.destination
    if (
        subscription.regex
        or subscription.is_presence
        or not is_address(destination)
        or destination == session.destination
    ):
        return subscription
    # The syntax is Rust's, which has no escapes for letters, blanks and "<" ">" "/".
    pattern = re.sub(r"[\\.+*?()|\[\]{}^$#&~-]", lambda found: "\\" + found[0], destination)
    return dataclasses.replace(subscription, destination=pattern, regex=True)
